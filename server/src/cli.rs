//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use perennial_crds::capture::POD_DIRECTORY;
use perennial_crds::serving::{SCRATCH_DIRECTORY, TERMINATION_PATH};
use perennial_engine::Limits;
use perennial_engine::simulated::SimulatedSettings;
use perennial_loader::Digest;

use crate::capture::BUFFER_BYTES;

/// Perennial's inference server: one model behind OpenAI's API.
#[derive(Debug, Parser)]
#[command(name = "perennial-server", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How log lines look.
    #[arg(long, env = "PERENNIAL_LOG_FORMAT", default_value = "json", global = true)]
    pub log_format: LogFormat,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fetch a model and serve it until SIGTERM.
    ///
    /// Both ports are open at once; /readyz on the metrics port answers 200 when the model has produced a token.
    /// RUST_LOG sets what is logged (default: info).
    Serve(Box<ServeArguments>),
    /// Find out what exactly a source holds now, and print it as JSON.
    Resolve(ResolveArguments),
    /// Say what memory a model needs, without loading it.
    ///
    /// Exits with 1 if the model does not fit or cannot be served.
    Plan(PlanArguments),
}

/// Which model.
#[derive(Args, Clone, Debug)]
pub struct SourceArguments {
    /// Where the model is: hf://ORG/NAME@REVISION, oci://HOST/REPOSITORY:TAG, oci://HOST/REPOSITORY@sha256:HEX,
    /// https://HOST/FILE or file:///PATH (a file or a directory).
    #[arg(long, env = "PERENNIAL_SOURCE", value_name = "URI")]
    pub source: Option<String>,
    /// The only content that is acceptable.
    #[arg(long, env = "PERENNIAL_DIGEST", value_name = "sha256:HEX")]
    pub digest: Option<String>,
    /// Where downloads are kept; what an earlier start left there is used again.
    #[arg(long, env = "PERENNIAL_SCRATCH_DIRECTORY", value_name = "DIRECTORY", default_value = SCRATCH_DIRECTORY)]
    pub scratch_directory: PathBuf,
    /// Where the reason of a failure is left as JSON; ignored if it cannot be written.
    #[arg(long, env = "PERENNIAL_TERMINATION_PATH", value_name = "FILE", default_value = TERMINATION_PATH)]
    pub termination_path: PathBuf,
}

/// Arguments of `serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeArguments {
    /// The name that requests give in `model`.
    #[arg(long, env = "PERENNIAL_SERVED_MODEL_NAME", value_name = "NAME")]
    pub served_model_name: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc here would become the help of the command")]
    pub source: SourceArguments,
    /// Longest prompt and answer together; the model's own maximum when absent.
    #[arg(long, env = "PERENNIAL_MAX_CONTEXT_TOKENS", value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_context_tokens: Option<u32>,
    /// Memory limit, like 4Gi; the container's when absent.
    #[arg(long, env = "PERENNIAL_MEMORY", value_name = "AMOUNT", value_parser = perennial_engine::memory::parse)]
    pub memory: Option<u64>,
    /// Most requests that are computed at the same time.
    #[arg(long, env = "PERENNIAL_MAX_RUNNING", value_name = "REQUESTS", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub max_running: u32,
    /// Most requests that wait; more are answered with 429.
    #[arg(long, env = "PERENNIAL_MAX_QUEUED", value_name = "REQUESTS", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub max_queued: u32,
    /// Most prompt tokens that wait; more are answered with 429.
    #[arg(
        long,
        env = "PERENNIAL_MAX_QUEUED_TOKENS",
        value_name = "TOKENS",
        default_value_t = 262_144
    )]
    pub max_queued_tokens: usize,
    /// Most tokens computed in one step: higher is faster for long prompts, lower lets other answers flow meanwhile.
    #[arg(
        long,
        env = "PERENNIAL_MAX_STEP_TOKENS",
        value_name = "TOKENS",
        default_value_t = 256
    )]
    pub max_step_tokens: usize,
    /// Threads that compute; the container's processors when absent.
    #[arg(long, env = "PERENNIAL_THREADS", value_name = "THREADS", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Seconds from SIGTERM in which running answers may finish; then they end with an error.
    #[arg(long, env = "PERENNIAL_DRAIN_SECONDS", value_name = "SECONDS", default_value_t = 30)]
    pub drain_seconds: u64,
    /// Seconds after SIGTERM in which new requests are still answered, on connections that close.
    #[arg(
        long,
        env = "PERENNIAL_LAME_DUCK_SECONDS",
        value_name = "SECONDS",
        default_value_t = 5
    )]
    pub lame_duck_seconds: u64,
    /// Where the OpenAI API listens.
    #[arg(
        long,
        env = "PERENNIAL_API_ADDRESS",
        value_name = "ADDRESS",
        default_value = "0.0.0.0:8080"
    )]
    pub api_address: SocketAddr,
    /// Where /livez, /readyz, /metrics, /loading, /load and /drift/panes listen.
    #[arg(
        long,
        env = "PERENNIAL_METRICS_ADDRESS",
        value_name = "ADDRESS",
        default_value = "0.0.0.0:9090"
    )]
    pub metrics_address: SocketAddr,
    /// Where the pod's annotations are files: `capture` says what is kept of requests, and is followed.
    #[arg(long, env = "PERENNIAL_POD_DIRECTORY", value_name = "DIRECTORY", default_value = POD_DIRECTORY)]
    pub pod_directory: PathBuf,
    /// Most bytes of kept requests that wait for the collector; beyond that the oldest are dropped.
    #[arg(long, env = "PERENNIAL_CAPTURE_BUFFER_BYTES", value_name = "BYTES", default_value_t = BUFFER_BYTES as u64, value_parser = clap::value_parser!(u64).range(2 << 20..=1 << 32))]
    pub capture_buffer_bytes: u64,
    /// What embeds prompts for drift instead of their n-grams: a directory with static embeddings, model.safetensors and
    /// tokenizer.json.
    #[arg(long, env = "PERENNIAL_ENCODER", value_name = "DIRECTORY")]
    pub encoder: Option<PathBuf>,
    /// The only encoder that is acceptable: sha256sum model.safetensors tokenizer.json | sha256sum.
    #[arg(long, env = "PERENNIAL_ENCODER_SHA256", value_name = "HEX", requires = "encoder", value_parser = sha256)]
    pub encoder_sha256: Option<Digest>,
    /// Export every metric under another system's name too.
    #[arg(long, env = "PERENNIAL_METRICS_ALIAS", value_name = "SYSTEM")]
    pub metrics_alias: Option<MetricsAlias>,
    /// What computes.
    #[arg(long, env = "PERENNIAL_ENGINE", default_value = "candle")]
    pub engine: EngineKind,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc here would become the help of the command")]
    pub simulated: SimulatedArguments,
}

/// Settings of the simulated engine.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Simulated engine (no model; for tests of everything around it)")]
pub struct SimulatedArguments {
    /// Prompt tokens per second; 0 is without limit.
    #[arg(long, env = "PERENNIAL_SIMULATED_PREFILL_TOKENS_PER_SECOND", value_name = "RATE", default_value_t = 0.0, value_parser = rate)]
    pub simulated_prefill_tokens_per_second: f64,
    /// Tokens per second of one answer; 0 is without limit.
    #[arg(long, env = "PERENNIAL_SIMULATED_DECODE_TOKENS_PER_SECOND", value_name = "RATE", default_value_t = 0.0, value_parser = rate)]
    pub simulated_decode_tokens_per_second: f64,
    /// Seconds until the server is ready.
    #[arg(long, env = "PERENNIAL_SIMULATED_COLD_START_SECONDS", value_name = "SECONDS", default_value_t = 0.0, value_parser = rate)]
    pub simulated_cold_start_seconds: f64,
    /// Tokens in the key-value cache.
    #[arg(
        long,
        env = "PERENNIAL_SIMULATED_CACHE_TOKENS",
        value_name = "TOKENS",
        default_value_t = 65_536
    )]
    pub simulated_cache_tokens: usize,
    /// Length of a typical answer.
    #[arg(long, env = "PERENNIAL_SIMULATED_ANSWER_TOKENS", value_name = "TOKENS", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub simulated_answer_tokens: u32,
}

/// Arguments of `resolve`.
#[derive(Args, Clone, Debug)]
pub struct ResolveArguments {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc here would become the help of the command")]
    pub source: SourceArguments,
}

/// Arguments of `plan`.
#[derive(Args, Clone, Debug)]
pub struct PlanArguments {
    /// A directory with the model, or its GGUF file.
    #[arg(long, value_name = "PATH")]
    pub model: PathBuf,
    /// Memory limit, like 4Gi; the container's when absent.
    #[arg(long, value_name = "AMOUNT", value_parser = perennial_engine::memory::parse)]
    pub memory: Option<u64>,
    /// Longest prompt and answer together; the model's own maximum when absent.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_context_tokens: Option<u32>,
    /// Most requests that are computed at the same time.
    #[arg(long, value_name = "REQUESTS", default_value_t = 16)]
    pub max_running: u32,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EngineKind {
    /// The model, with candle.
    Candle,
    /// No model: chosen speeds and made-up text.
    Simulated,
}

/// Another system's names for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MetricsAlias {
    /// vLLM's.
    Vllm,
}

fn sha256(text: &str) -> Result<Digest, String> {
    Digest::from_hex(text).ok_or_else(|| "must be 64 hexadecimal digits".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err("must be a number of at least 0".to_owned()),
    }
}

impl ServeArguments {
    /// The engine's bounds.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            max_running: self.max_running as usize,
            max_step_tokens: self.max_step_tokens,
            max_queued: self.max_queued as usize,
            max_queued_tokens: self.max_queued_tokens,
        }
    }

    /// The simulated engine's settings.
    #[must_use]
    pub fn simulated_settings(&self) -> SimulatedSettings {
        let default = SimulatedSettings::default();
        SimulatedSettings {
            prefill_tokens_per_second: self.simulated.simulated_prefill_tokens_per_second,
            decode_tokens_per_second: self.simulated.simulated_decode_tokens_per_second,
            max_length: self
                .max_context_tokens
                .map_or(default.max_length, |tokens| tokens as usize),
            cache_tokens: self.simulated.simulated_cache_tokens,
            answer_tokens: self.simulated.simulated_answer_tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_line_that_the_operator_renders_is_understood() {
        let line = "perennial-server serve --served-model-name a --source hf://o/n@main --digest sha256:00 \
                    --max-context-tokens 4096 --drain-seconds 20 --max-running 4";
        let cli = Cli::try_parse_from(line.split_whitespace()).expect("arguments");
        let Command::Serve(arguments) = cli.command else {
            panic!("not serve")
        };
        assert_eq!((arguments.drain_seconds, arguments.limits().max_running), (20, 4));
        assert_eq!(arguments.api_address.port(), perennial_crds::serving::API_PORT);
        assert_eq!(arguments.metrics_address.port(), perennial_crds::serving::METRICS_PORT);
        assert_eq!(arguments.pod_directory, std::path::Path::new(POD_DIRECTORY));
        assert_eq!(arguments.capture_buffer_bytes, 16 << 20);
        assert_eq!((arguments.encoder, arguments.encoder_sha256), (None, None));
    }

    #[test]
    fn a_pin_is_of_an_encoder_and_a_digest() {
        let parse = |flags: &str| {
            let line = format!("perennial-server serve --served-model-name a {flags}");
            Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())
        };
        let digits = "0123456789abcDEF".repeat(4);
        let Command::Serve(arguments) = parse(&format!("--encoder /e --encoder-sha256 {digits}"))
            .expect("arguments")
            .command
        else {
            panic!("not serve")
        };
        assert_eq!(arguments.encoder_sha256, Digest::from_hex(&digits));
        for (flags, part) in [
            (format!("--encoder-sha256 {digits}"), "--encoder <DIRECTORY>"),
            ("--encoder /e --encoder-sha256 abc".to_owned(), "64 hexadecimal digits"),
        ] {
            let error = parse(&flags).expect_err("refused");
            assert!(error.contains(part), "{error}");
        }
    }
}
