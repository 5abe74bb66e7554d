//! The operator's figures, under controller-runtime's names where it has one, so that existing dashboards work.
//!
//! Labels come from fixed sets; the name of an object is never one.

use std::time::Duration;

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::autoscaling::scrape::Asked;
use crate::cycle::ledger::Outcome;
use crate::outage::Outages;

/// Name of the one controller in labels.
pub const CONTROLLER: &str = "llmdeployment";

/// All metrics of one operator.
pub struct Metrics {
    /// Outages of the API server, as its answers show them.
    pub outages: Outages,
    registry: Registry,
    reconciles: IntCounterVec,
    errors: IntCounterVec,
    terminal_errors: IntCounterVec,
    timeouts: IntCounterVec,
    seconds: HistogramVec,
    active: IntGaugeVec,
    max_concurrent: IntGaugeVec,
    leader: GaugeVec,
    requests: IntCounterVec,
    stalled: IntGaugeVec,
    scrapes: IntCounterVec,
    scrape_seconds: Histogram,
    oldest_load: Gauge,
    scalings: IntCounterVec,
    policies: IntGaugeVec,
    pane_reads: IntCounterVec,
    panes_lost: IntCounter,
    probe_runs: IntCounterVec,
    cycles: IntCounterVec,
    gpu_seconds: IntCounter,
}

impl Metrics {
    /// A registry of its own with all metrics in it.
    ///
    /// # Errors
    /// If two metrics share a name, which a test would show.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let buckets = vec![
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
        ];
        let seconds = HistogramVec::new(
            HistogramOpts::new(
                "controller_runtime_reconcile_time_seconds",
                "Length of time per reconciliation.",
            )
            .buckets(buckets),
            &["controller"],
        )?;
        registry.register(Box::new(seconds.clone()))?;
        let scrape_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "perennial_autoscaling_round_seconds",
                "Time in which all pods of all scaled objects were asked once.",
            )
            .buckets(vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0]),
        )?;
        registry.register(Box::new(scrape_seconds.clone()))?;
        let oldest_load = Gauge::new(
            "perennial_autoscaling_oldest_load_seconds",
            "For how long no ready pod of an object has told its load; of the object for which it is the longest.",
        )?;
        registry.register(Box::new(oldest_load.clone()))?;
        let panes_lost = IntCounter::new(
            "perennial_drift_panes_lost_total",
            "Panes of replicas that were gone, or too late, when they were to be read.",
        )?;
        registry.register(Box::new(panes_lost.clone()))?;
        let gpu_seconds = IntCounter::new(
            "perennial_drift_gpu_seconds_total",
            "Seconds of GPUs that finished cycles of retraining have held.",
        )?;
        registry.register(Box::new(gpu_seconds.clone()))?;
        let leader = GaugeVec::new(
            Opts::new(
                "leader_election_master_status",
                "1 while this process is the leader of the named lease.",
            ),
            &["name"],
        )?;
        registry.register(Box::new(leader.clone()))?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let metrics = Self {
            reconciles: counter(
                "controller_runtime_reconcile_total",
                "Reconciliations by result (success, requeue_after, error).",
                &["controller", "result"],
            )?,
            errors: counter(
                "controller_runtime_reconcile_errors_total",
                "Reconciliations that ended in an error.",
                &["controller"],
            )?,
            terminal_errors: counter(
                "controller_runtime_terminal_reconcile_errors_total",
                "Reconciliations that ended in an error which only a change of the object can cure, by reason.",
                &["controller", "reason"],
            )?,
            timeouts: counter(
                "controller_runtime_reconcile_timeouts_total",
                "Reconciliations that were given up for their duration.",
                &["controller"],
            )?,
            active: gauge(
                "controller_runtime_active_workers",
                "Reconciliations at this moment.",
                &["controller"],
            )?,
            max_concurrent: gauge(
                "controller_runtime_max_concurrent_reconciles",
                "Most reconciliations at a time.",
                &["controller"],
            )?,
            requests: counter(
                "rest_client_requests_total",
                "Requests to the API server by status code and method.",
                &["code", "method"],
            )?,
            stalled: gauge(
                "perennial_llmdeployments",
                "LLMDeployments by the reason of their Ready condition.",
                &["reason"],
            )?,
            scrapes: counter(
                "perennial_autoscaling_scrapes_total",
                "Pods that were asked for their load, by result (success, timeout, connection, protocol, status, unreadable, version).",
                &["result"],
            )?,
            scalings: counter(
                "perennial_autoscaling_decisions_total",
                "Decisions that changed a number of replicas, by direction (up, down).",
                &["direction"],
            )?,
            policies: gauge(
                "perennial_drift_policies",
                "DriftPolicies by phase (Learning, Watching, Suspected, Drifted, Preparing, Retraining, Evaluating, Proposed, RollingOut, Stalled).",
                &["phase"],
            )?,
            pane_reads: counter(
                "perennial_drift_reads_total",
                "Pods that were asked for the panes of their traffic, by result (success, connection, status, unreadable).",
                &["result"],
            )?,
            panes_lost,
            probe_runs: counter(
                "perennial_drift_probe_runs_total",
                "Runs of fixed prompts that ended, by what they said (learning, same, changed, failed).",
                &["verdict"],
            )?,
            cycles: counter(
                "perennial_drift_cycles_total",
                "Cycles of retraining that ended, by outcome (Promoted, Rejected, RolledBack, Failed, Superseded, Withdrawn).",
                &["outcome"],
            )?,
            gpu_seconds,
            outages: Outages::default(),
            scrape_seconds,
            oldest_load,
            seconds,
            leader,
            registry,
        };
        for result in ["success", "requeue_after", "error"] {
            metrics.reconciles.with_label_values(&[CONTROLLER, result]);
        }
        for direction in ["up", "down"] {
            metrics.scalings.with_label_values(&[direction]);
        }
        // A series that is born at 1 rises by nothing, and alerts on its rise would miss the first one.
        for verdict in ["learning", "same", "changed", "failed"] {
            metrics.probe_runs.with_label_values(&[verdict]);
        }
        for outcome in Outcome::ALL {
            metrics.cycles.with_label_values(&[&format!("{outcome:?}")]);
        }
        metrics.errors.with_label_values(&[CONTROLLER]);
        metrics.timeouts.with_label_values(&[CONTROLLER]);
        Ok(metrics)
    }

    /// Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::warn!(%error, "The metrics could not be written.");
        }
        String::from_utf8(text).unwrap_or_default()
    }

    /// Counts a reconciliation that is under way until the guard is dropped.
    #[must_use]
    pub fn begin(&self) -> Active<'_> {
        self.active.with_label_values(&[CONTROLLER]).inc();
        Active(self)
    }

    /// Counts a finished reconciliation.
    pub fn finished(&self, result: &str, elapsed: Duration) {
        self.reconciles.with_label_values(&[CONTROLLER, result]).inc();
        self.seconds
            .with_label_values(&[CONTROLLER])
            .observe(elapsed.as_secs_f64());
        if result == "error" {
            self.errors.with_label_values(&[CONTROLLER]).inc();
        }
    }

    /// Counts an error that only a change of the object can cure.
    pub fn terminal(&self, reason: &str) {
        self.terminal_errors.with_label_values(&[CONTROLLER, reason]).inc();
    }

    /// Counts a reconciliation that took too long.
    pub fn timed_out(&self) {
        self.timeouts.with_label_values(&[CONTROLLER]).inc();
    }

    /// Sets the limit of reconciliations at a time.
    pub fn set_max_concurrent(&self, limit: u16) {
        self.max_concurrent
            .with_label_values(&[CONTROLLER])
            .set(i64::from(limit));
    }

    /// Says whether this process leads.
    pub fn set_leader(&self, lease: &str, leads: bool) {
        self.leader.with_label_values(&[lease]).set(f64::from(u8::from(leads)));
    }

    /// Counts one request to the API server.
    pub fn request(&self, code: &str, method: &str) {
        self.requests.with_label_values(&[code, method]).inc();
    }

    /// Counts a round of questions for loads.
    pub fn scraped(&self, asked: &[Asked], took: Duration) {
        self.scrape_seconds.observe(took.as_secs_f64());
        for one in asked {
            let result = match &one.answer {
                Some(Ok(_)) => "success",
                Some(Err(error)) => error.label(),
                None => continue,
            };
            self.scrapes.with_label_values(&[result]).inc();
        }
    }

    /// Says how old the oldest news of any scaled object is, in seconds.
    pub fn oldest_load(&self, seconds: f64) {
        self.oldest_load.set(seconds);
    }

    /// Counts a change of the number of replicas.
    pub fn scaled(&self, up: bool) {
        let direction = if up { "up" } else { "down" };
        self.scalings.with_label_values(&[direction]).inc();
    }

    /// Counts a question for panes.
    pub fn read_panes(&self, result: &str) {
        self.pane_reads.with_label_values(&[result]).inc();
    }

    /// Counts lost panes.
    pub fn lost_panes(&self, panes: u64) {
        self.panes_lost.inc_by(panes);
    }

    /// Counts a run of fixed prompts that ended.
    pub fn probe_run(&self, verdict: &str) {
        self.probe_runs.with_label_values(&[verdict]).inc();
    }

    /// Counts a cycle that ended.
    pub fn cycle_ended(&self, outcome: &str, gpu_seconds: i64) {
        self.cycles.with_label_values(&[outcome]).inc();
        self.gpu_seconds.inc_by(u64::try_from(gpu_seconds).unwrap_or(0));
    }

    /// Moves one DriftPolicy from one phase to another in the count of policies.
    pub fn policy_moved(&self, from: Option<&str>, to: Option<&str>) {
        if let Some(from) = from {
            self.policies.with_label_values(&[from]).dec();
        }
        if let Some(to) = to {
            self.policies.with_label_values(&[to]).inc();
        }
    }

    /// Moves one object from one reason of `Ready` to another in the count of objects.
    pub fn moved(&self, from: Option<&str>, to: Option<&str>) {
        if from == to {
            return;
        }
        if let Some(from) = from {
            self.stalled.with_label_values(&[from]).dec();
        }
        if let Some(to) = to {
            self.stalled.with_label_values(&[to]).inc();
        }
    }
}

/// A reconciliation under way.
pub struct Active<'a>(&'a Metrics);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.active.with_label_values(&[CONTROLLER]).dec();
    }
}
