//! Metrics under vLLM's suffixes, units and buckets, so that rules written for it work here.

use std::time::Duration;

use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use perennial_crds::serving::FIRST_TOKEN_SECONDS;
use perennial_engine::{EngineInfo, LoadSnapshot};

use crate::capture::CaptureCounters;
use crate::load::LoadCounters;

const BETWEEN_TOKENS_SECONDS: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
const REQUEST_SECONDS: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
];
const TOKENS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0, 20_000.0, 50_000.0,
    100_000.0,
];

/// How an answer ended, as vLLM names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// End token or stop string.
    Stop,
    /// As many tokens as were asked for.
    Length,
    /// The client went away, or was too slow.
    Abort,
    /// The engine failed.
    Error,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Stop, Self::Length, Self::Abort, Self::Error];

    fn label(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Abort => "abort",
            Self::Error => "error",
        }
    }
}

/// What became of the requests that were to be counted in panes.
#[derive(Clone, Debug)]
pub struct ObservationCounters {
    /// Counted in a pane.
    pub observed: IntCounter,
    /// Not counted, because too many were waiting.
    pub dropped: IntCounter,
}

/// One server's metrics.
pub struct Metrics {
    /// What `/load` tells.
    pub load: LoadCounters,
    /// What became of requests that were to be observed.
    pub observation: ObservationCounters,
    /// What became of records for retraining.
    pub capture: CaptureCounters,
    registry: Registry,
    vllm_alias: bool,
    waiting: Gauge,
    running: Gauge,
    cache_usage: Gauge,
    cache_config: IntGaugeVec,
    preemptions: IntCounter,
    rejected: IntCounter,
    first_token: Histogram,
    between_tokens: Histogram,
    request: Histogram,
    queue: Histogram,
    prompt_tokens: Histogram,
    generation_tokens: Histogram,
    prompt_tokens_total: IntCounter,
    generation_tokens_total: IntCounter,
    success: IntCounterVec,
}

/// Registers metrics with the label that vLLM gives them.
pub(crate) struct Builder<'a> {
    registry: Registry,
    model: &'a str,
}

impl Builder<'_> {
    fn options(&self, name: &str, help: &str) -> Opts {
        Opts::new(format!("llm_{name}"), help).const_label("model_name", self.model)
    }

    fn add<T: prometheus::core::Collector + Clone + 'static>(&self, metric: T) -> Result<T, prometheus::Error> {
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        self.add(Gauge::with_opts(self.options(name, help))?)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.add(IntCounter::with_opts(self.options(name, help))?)
    }

    /// Of something that no other server has, under our own name.
    fn own_options(&self, name: &str, help: &str) -> Opts {
        Opts::new(format!("perennial_{name}"), help).const_label("model_name", self.model)
    }

    pub(crate) fn own_counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.add(IntCounter::with_opts(self.own_options(name, help))?)
    }

    /// A counter for each value of a label.
    pub(crate) fn own_counters(&self, name: &str, help: &str, label: &str) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(self.own_options(name, help), &[label])?)
    }

    pub(crate) fn own_gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::with_opts(self.own_options(name, help))?)
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
        let options = HistogramOpts::from(self.options(name, help)).buckets(buckets.to_vec());
        self.add(Histogram::with_opts(options)?)
    }

    fn info(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        self.add(IntGaugeVec::new(self.options(name, help), labels)?)
    }
}

impl Metrics {
    /// Metrics for the model served as `model`; with `vllm_alias` those that vLLM has are also exported as `vllm:NAME`.
    ///
    /// # Errors
    /// Two metrics of one name, which is a bug.
    pub fn new(model: &str, vllm_alias: bool) -> Result<Self, prometheus::Error> {
        let build = Builder {
            registry: Registry::new(),
            model,
        };
        let adapters = build.info(
            "lora_requests_info",
            "Adapters of running and waiting requests.",
            &["max_lora", "waiting_lora_adapters", "running_lora_adapters"],
        )?;
        adapters.with_label_values(&["0", "", ""]).set(0);
        let success = build.add(IntCounterVec::new(
            build.options("request_success_total", "Requests answered, by how the answer ended."),
            &["finished_reason"],
        )?)?;
        for outcome in Outcome::ALL {
            success.with_label_values(&[outcome.label()]).reset();
        }
        Ok(Self {
            load: LoadCounters::new(),
            observation: ObservationCounters {
                observed: build.own_counter("observed_requests_total", "Requests counted in drift panes.")?,
                dropped: build.own_counter(
                    "observation_dropped_total",
                    "Requests not counted in drift panes because too many were waiting.",
                )?,
            },
            capture: CaptureCounters::new(&build)?,
            vllm_alias,
            waiting: build.gauge("num_requests_waiting", "Requests in the queue.")?,
            running: build.gauge("num_requests_running", "Requests that take part in steps.")?,
            cache_usage: build.gauge("kv_cache_usage_perc", "Part of the key-value cache in use; 1 is all.")?,
            cache_config: build.info(
                "cache_config_info",
                "The key-value cache.",
                &["block_size", "num_gpu_blocks", "enable_prefix_caching"],
            )?,
            preemptions: build.counter("num_preemptions_total", "Requests that lost their cache to others.")?,
            rejected: build.counter(
                "requests_rejected_total",
                "Requests refused because the queue was full.",
            )?,
            first_token: build.histogram(
                "time_to_first_token_seconds",
                "From the arrival of a request to its first token.",
                &FIRST_TOKEN_SECONDS,
            )?,
            between_tokens: build.histogram(
                "inter_token_latency_seconds",
                "Between two tokens of an answer.",
                BETWEEN_TOKENS_SECONDS,
            )?,
            request: build.histogram(
                "e2e_request_latency_seconds",
                "From the arrival of a request to its last token.",
                REQUEST_SECONDS,
            )?,
            queue: build.histogram("request_queue_time_seconds", "Time in the queue.", REQUEST_SECONDS)?,
            prompt_tokens: build.histogram("request_prompt_tokens", "Tokens of a prompt.", TOKENS)?,
            generation_tokens: build.histogram("request_generation_tokens", "Tokens of an answer.", TOKENS)?,
            prompt_tokens_total: build.counter("prompt_tokens_total", "Tokens of all prompts.")?,
            generation_tokens_total: build.counter("generation_tokens_total", "Tokens of all answers.")?,
            success,
            registry: build.registry,
        })
    }

    /// Says what the engine is, and how many requests it computes at the same time.
    pub fn set_engine(&self, info: &EngineInfo, max_running: u32) {
        self.load.set_engine(max_running, info.block_size);
        let (size, blocks) = (info.block_size.to_string(), info.blocks.to_string());
        self.cache_config
            .with_label_values(&[size.as_str(), blocks.as_str(), "False"])
            .set(1);
    }

    /// A request left the queue.
    pub fn left_queue(&self, after: Duration) {
        self.queue.observe(after.as_secs_f64());
    }

    /// A request's first token.
    pub fn first_token(&self, after: Duration) {
        self.first_token.observe(after.as_secs_f64());
        self.load.first_token(after);
    }

    /// A request's next token.
    pub fn next_token(&self, after: Duration) {
        self.between_tokens.observe(after.as_secs_f64());
    }

    /// A request was refused.
    pub fn rejected(&self) {
        self.rejected.inc();
        self.load.arrived();
    }

    /// A request was accepted.
    pub fn accepted(&self, prompt_tokens: usize) {
        self.prompt_tokens_total.inc_by(prompt_tokens as u64);
        self.load.arrived();
    }

    /// A token of any answer was produced.
    pub fn generated(&self) {
        self.generation_tokens_total.inc();
        self.load.generated();
    }

    /// A request ended, so long after its arrival; of that it was computed for a part, unless it never left the queue.
    pub fn finished(
        &self,
        outcome: Outcome,
        prompt_tokens: usize,
        generated_tokens: usize,
        after: Duration,
        computed: Option<Duration>,
    ) {
        // One that gave up in the queue says nothing of how long computing takes.
        if let Some(computed) = computed {
            self.load.finished(computed);
        }
        self.success.with_label_values(&[outcome.label()]).inc();
        self.prompt_tokens.observe(prompt_tokens as f64);
        self.generation_tokens.observe(generated_tokens as f64);
        self.request.observe(after.as_secs_f64());
    }

    /// The text that Prometheus reads.
    #[must_use]
    pub fn render(&self, load: Option<&LoadSnapshot>) -> String {
        if let Some(load) = load {
            self.waiting.set(load.waiting as f64);
            self.running.set(load.running as f64);
            self.cache_usage
                .set(load.used_blocks as f64 / load.total_blocks.max(1) as f64);
            self.preemptions
                .inc_by(load.preemptions.saturating_sub(self.preemptions.get()));
        }
        let mut bytes = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut bytes) {
            tracing::error!(%error, "metrics cannot be written");
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if self.vllm_alias {
            format!("{text}{}", alias(&text))
        } else {
            text
        }
    }
}

/// The same metrics under vLLM's prefix.
fn alias(text: &str) -> String {
    let mut renamed = String::with_capacity(text.len());
    for line in text.lines() {
        let (keyword, rest) = ["# HELP ", "# TYPE "]
            .iter()
            .find_map(|keyword| line.strip_prefix(keyword).map(|rest| (*keyword, rest)))
            .unwrap_or(("", line));
        // Others are there once already.
        if let Some(name) = rest.strip_prefix("llm_") {
            renamed.extend([keyword, "vllm:", name, "\n"]);
        }
    }
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_that_scaling_rules_read_are_there_from_the_start() {
        let metrics = Metrics::new("m", true).expect("metrics");
        let info = EngineInfo {
            max_length: 1,
            vocabulary: 1,
            block_size: 32,
            blocks: 4,
            end_tokens: Vec::new(),
        };
        metrics.set_engine(&info, 16);
        let load = LoadSnapshot {
            waiting: 3,
            running: 2,
            used_blocks: 1,
            total_blocks: 4,
            ..LoadSnapshot::default()
        };
        let text = metrics.render(Some(&load));
        for prefix in ["llm_", "vllm:"] {
            for expected in [
                "num_requests_waiting{model_name=\"m\"} 3",
                "num_requests_running{model_name=\"m\"} 2",
                "kv_cache_usage_perc{model_name=\"m\"} 0.25",
                "cache_config_info{block_size=\"32\",enable_prefix_caching=\"False\",model_name=\"m\",num_gpu_blocks=\"4\"} 1",
                "lora_requests_info{max_lora=\"0\",model_name=\"m\",running_lora_adapters=\"\",waiting_lora_adapters=\"\"} 0",
                "request_success_total{finished_reason=\"stop\",model_name=\"m\"} 0",
                "time_to_first_token_seconds_count{model_name=\"m\"} 0",
            ] {
                assert!(
                    text.contains(&format!("\n{prefix}{expected}")),
                    "{prefix}{expected} is not in\n{text}"
                );
            }
        }
        for metric in [
            "observed_requests_total{",
            "observation_dropped_total{",
            "capture_spool_bytes{",
            "capture_send_errors_total{",
            "capture_terms_refused_total{",
        ] {
            let line = format!("\nperennial_{metric}model_name=\"m\"}} 0\n");
            assert_eq!(text.matches(&line).count(), 1, "{metric} is not in\n{text}");
        }
        for metric in [
            "records_total{model_name=\"m\",outcome=\"sampled\"} 0",
            "records_total{model_name=\"m\",outcome=\"sent\"} 0",
            "records_total{model_name=\"m\",outcome=\"dropped\"} 0",
            "redactions_total{model_name=\"m\",rule=\"email\"} 0",
            "redactions_total{model_name=\"m\",rule=\"phone\"} 0",
            "redactions_total{model_name=\"m\",rule=\"card\"} 0",
            "redactions_total{model_name=\"m\",rule=\"custom\"} 0",
            "level{model_name=\"m\"} 1",
        ] {
            let line = format!("\nperennial_capture_{metric}\n");
            assert_eq!(text.matches(&line).count(), 1, "{metric} is not in\n{text}");
        }
    }
}
