//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Has the traffic of a model changed, since when, in what, by how much, and how sure are we?
///
/// Tune a DriftPolicy on recorded requests before it is turned on. Nothing leaves this machine, and no prompt is
/// written to any output.
#[derive(Debug, Parser)]
#[command(name = "drift", version, propagate_version = true, after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  drift replay last-month.jsonl                          what the default policy would have said
  drift replay last-month.jsonl --policy policy.yaml     what yours would have said
  drift report last-month.jsonl --html drift.html        the same as a page, to look at and to pass on
  drift compare may.jsonl june.jsonl                     PSI, KS and other known figures, once
  drift policy > policy.yaml                             the default policy with comments, to begin with

Exit status:
  0  done
  2  wrong usage, or input that cannot be used
  3  --fail-on-drift was given, and the input ends Drifted";

const REPLAY_HELP: &str = "\
Each FILE is one of these; .gz is read as it is, and `-` is standard input:
  perennial  one JSON object per line: id, time (RFC 3339, or seconds since 1970), requester, prompt, promptTokens,
             promptCharacters, promptTokenIds, embedding, promptPerplexity, output, outputTokens, finishReason (stop,
             length, tool_calls or content_filter), jsonRequested, toolArguments (strings), outputLogprob,
             outputEntropy, negativeFeedback, timeToFirstToken, interTokenLatency, failed. All but time are optional.
  openai     one JSON object per line: {\"id\", \"created\" or \"timestamp\" or \"time\", \"request\": {\"messages\",
             \"prompt\", \"response_format\", \"user\"}, \"response\": {\"choices\", \"usage\"}}, or all of that at the top
             level. The prompt is the text of the last user message, the answer the first choice.
  azure      CSV with the columns TIMESTAMP, ContextTokens and GeneratedTokens, as in Azure's LLM inference traces

Lines that cannot be used are counted and named by number. Requests may be in any order.

Examples:
  drift replay requests.jsonl --policy policy.yaml --html drift.html
  zcat 2026-11-*.jsonl.gz | drift replay - --json | jq .verdict
  drift replay AzureLLMInferenceTrace_conv.csv --panes-of 100
  drift replay june.jsonl --baseline-out june.baseline --state-out june.state
  drift replay july.jsonl --baseline june.baseline --state june.state --fail-on-drift

Everything about the formats and the figures: docs/reference/drift.md";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run recorded requests through a policy and print what it would have said
    #[command(after_help = REPLAY_HELP)]
    Replay(Replay),
    /// The same, as one page that works offline: each signal against its baseline, and the evidence over time
    #[command(after_help = REPLAY_HELP)]
    Report(Report),
    /// Compare two files once, by the figures that other tools decide by, beside ours with their bounds
    Compare(Compare),
    /// Print the default policy with comments, or say whether a policy is well-formed
    Policy(PolicyArguments),
}

/// Which form lines have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Seen from the first line
    Auto,
    /// Our own JSON lines
    Perennial,
    /// OpenAI-style requests with their responses, as JSON lines
    Openai,
    /// The CSV of Azure's LLM inference traces
    Azure,
}

#[derive(Clone, Debug, Args)]
pub struct Input {
    /// Form of the input
    #[arg(long, value_enum, default_value = "auto")]
    pub format: Format,
    /// YAML in the form of a DriftPolicy's spec, or a whole DriftPolicy; the default policy without it
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Make a pane of every N requests, in the order of the input, whatever their times: for input without times.
    /// Hours then mean nothing: season is None, and baseline.learned.minSamples alone says what the baseline is
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub panes_of: Option<u32>,
    /// Only requests from this time on (RFC 3339, YYYY-MM-DD, or seconds since 1970)
    #[arg(long, value_name = "TIME", value_parser = crate::input::time::parse_argument)]
    pub from: Option<f64>,
    /// Only requests before this time
    #[arg(long, value_name = "TIME", value_parser = crate::input::time::parse_argument)]
    pub until: Option<f64>,
    /// Use the vectors in `embedding` instead of the prompts' n-grams: their dimension, and about the median distance of
    /// two prompts after they are scaled to length 1
    #[arg(long, value_name = "DIMENSION,BANDWIDTH", value_parser = parse_embeddings)]
    pub embeddings: Option<(usize, f64)>,
    /// No bar of progress
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Clone, Debug, Args)]
pub struct Replay {
    /// Files to read, all as one stream; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub input: Input,
    #[command(flatten)]
    pub stored: Stored,
    /// Print one JSON object, with the timeline, instead of text
    #[arg(long)]
    pub json: bool,
    /// Write the page of `drift report`, too
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Exit with 3 when the input ends Drifted
    #[arg(long)]
    pub fail_on_drift: bool,
}

#[derive(Clone, Debug, Args)]
pub struct Report {
    /// Files to read, all as one stream; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Where the page goes
    #[arg(long, value_name = "FILE")]
    pub html: PathBuf,
    #[command(flatten)]
    pub input: Input,
    #[command(flatten)]
    pub stored: Stored,
    /// Exit with 3 when the input ends Drifted
    #[arg(long)]
    pub fail_on_drift: bool,
}

/// What is taken from an earlier run, and kept for a later one.
#[derive(Clone, Debug, Default, Args)]
pub struct Stored {
    /// Watch against a baseline that --baseline-out wrote, instead of learning one from the input
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// Keep the baseline
    #[arg(long, value_name = "FILE")]
    pub baseline_out: Option<PathBuf>,
    /// Go on from a state that --state-out wrote; needs --baseline and the same policy
    #[arg(long, value_name = "FILE", requires = "baseline")]
    pub state: Option<PathBuf>,
    /// Keep the state that the input ends in
    #[arg(long, value_name = "FILE")]
    pub state_out: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  drift compare may.jsonl june.jsonl
  drift compare may.jsonl june.jsonl --json | jq '.signals[] | select(.psi > 0.1)'

With many requests every p-value becomes small, and none keeps its promise when it is looked at again and again: only
the effect with its bounds says whether a difference matters. `drift replay` watches over time.")]
pub struct Compare {
    /// What is compared with
    #[arg(value_name = "BASELINE_FILE")]
    pub baseline_file: PathBuf,
    /// What is compared
    #[arg(value_name = "CURRENT_FILE")]
    pub current_file: PathBuf,
    #[command(flatten)]
    pub input: Input,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct PolicyArguments {
    /// The policy to look at; without it the default policy is printed
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

fn parse_embeddings(text: &str) -> Result<(usize, f64), String> {
    let error = || "give a dimension and a bandwidth, as in 384,0.9".to_owned();
    let (dimension, bandwidth) = text.split_once(',').ok_or_else(error)?;
    let dimension: usize = dimension.trim().parse().map_err(|_| error())?;
    let bandwidth: f64 = bandwidth.trim().parse().map_err(|_| error())?;
    if (1..=65_536).contains(&dimension) && bandwidth > 0.0 && bandwidth.is_finite() {
        Ok((dimension, bandwidth))
    } else {
        Err(error())
    }
}
