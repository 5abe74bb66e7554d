//! What judging is told.

use std::path::PathBuf;

use clap::Args;
use perennial_crds::retrain::{GATE_CONTRACT, SCORES_DIRECTORY, SUITES_DIRECTORY};
use perennial_crds::serving::{SCRATCH_DIRECTORY, TERMINATION_PATH};

/// Judge the model that serves and a candidate on the same items.
///
/// What is told is the contract `gate/v1`. Which of them is better is decided by the operator, from the scores.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The version of the contract that the caller speaks.
    #[arg(long, env = "GATE_CONTRACT", value_name = "VERSION", default_value = GATE_CONTRACT)]
    pub contract: String,
    /// The cycle.
    #[arg(long, env = "GATE_CYCLE_ID", value_name = "ID")]
    pub cycle_id: String,
    /// The model that serves: hf://ORG/NAME@COMMIT, oci://HOST/REPOSITORY@sha256:HEX, https://HOST/FILE or file:///PATH.
    #[arg(long, env = "GATE_CHAMPION_URI", value_name = "URI")]
    pub champion_uri: String,
    /// Its digest.
    #[arg(long, env = "GATE_CHAMPION_DIGEST", value_name = "sha256:HEX")]
    pub champion_digest: String,
    /// The candidate, in the same forms.
    #[arg(long, env = "GATE_CANDIDATE_URI", value_name = "URI")]
    pub candidate_uri: String,
    /// Its digest.
    #[arg(long, env = "GATE_CANDIDATE_DIGEST", value_name = "sha256:HEX")]
    pub candidate_digest: String,
    /// Where the suites are: NAME.jsonl.
    #[arg(long, env = "GATE_SUITES_DIR", value_name = "DIRECTORY", default_value = SUITES_DIRECTORY)]
    pub suites_dir: PathBuf,
    /// Their digest.
    #[arg(long, env = "GATE_SUITES_DIGEST", value_name = "sha256:HEX")]
    pub suites_digest: String,
    /// Where the scores go.
    #[arg(long, env = "GATE_OUTPUT_DIR", value_name = "DIRECTORY", default_value = SCORES_DIRECTORY)]
    pub output_dir: PathBuf,
    /// Seconds from the start until the scores must be there.
    #[arg(long, env = "GATE_DEADLINE_SECONDS", value_name = "SECONDS")]
    pub deadline_seconds: Option<u64>,
    /// Where the last words are left; ignored if it cannot be written.
    #[arg(long, env = "GATE_TERMINATION_PATH", value_name = "FILE", default_value = TERMINATION_PATH)]
    pub termination_path: PathBuf,
    /// Where downloads are kept.
    #[arg(long, env = "PERENNIAL_SCRATCH_DIRECTORY", value_name = "DIRECTORY", default_value = SCRATCH_DIRECTORY)]
    pub scratch_directory: PathBuf,
    /// Memory limit, like 4Gi; the container's when absent.
    #[arg(long, env = "PERENNIAL_MEMORY", value_name = "AMOUNT", value_parser = perennial_engine::memory::parse)]
    pub memory: Option<u64>,
    /// Threads that compute; as many as the container may use when absent.
    #[arg(long, env = "PERENNIAL_EVALUATE_THREADS", value_name = "THREADS", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Tokens that are computed at a time; fewer where memory is short, and at least one sequence.
    #[arg(long, env = "PERENNIAL_EVALUATE_BATCH_TOKENS", value_name = "TOKENS", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_tokens: u32,
    /// Longest sequence; a model cannot be judged on items whose prompt and answer are longer.
    #[arg(long, env = "PERENNIAL_EVALUATE_MAX_SEQUENCE_TOKENS", value_name = "TOKENS", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(8..))]
    pub max_sequence_tokens: u32,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn the_command_line_is_consistent_and_its_defaults_are_the_contract() {
        Cli::command().debug_assert();
        let line = "evaluate --cycle-id c --champion-uri file:///a --champion-digest sha256:00 --candidate-uri file:///b \
                    --candidate-digest sha256:01 --suites-digest sha256:02";
        let arguments = Cli::try_parse_from(line.split_whitespace())
            .expect("arguments")
            .arguments;
        assert_eq!(arguments.contract, GATE_CONTRACT);
        assert_eq!(arguments.suites_dir.to_str(), Some("/gate/suites"));
    }
}
