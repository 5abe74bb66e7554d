//! What training is told.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use perennial_crds::retrain::{DATA_DIRECTORY, MANIFEST_FILE, OUTPUT_DIRECTORY, RETRAIN_CONTRACT};
use perennial_crds::serving::{SCRATCH_DIRECTORY, TERMINATION_PATH};
use serde::Serialize;

use super::model::Projection;

/// Learn from the frozen data: an adapter beside the base model, and both merged, if that is better than the base.
///
/// What is told is the contract `retrain/v1`; everything else has a default that suits a small model on processors.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The version of the contract that the caller speaks.
    #[arg(long, env = "RETRAIN_CONTRACT", value_name = "VERSION", default_value = RETRAIN_CONTRACT)]
    pub contract: String,
    /// The cycle.
    #[arg(long, env = "RETRAIN_CYCLE_ID", value_name = "ID")]
    pub cycle_id: String,
    /// Why the cycle runs; for the record.
    #[arg(long, env = "RETRAIN_CAUSE", value_name = "CAUSE", default_value = "")]
    pub cause: String,
    /// The model to begin with: hf://ORG/NAME@COMMIT, oci://HOST/REPOSITORY@sha256:HEX, https://HOST/FILE or file:///PATH.
    #[arg(long, env = "RETRAIN_BASE_MODEL_URI", value_name = "URI")]
    pub base_model_uri: String,
    /// Its digest.
    #[arg(long, env = "RETRAIN_BASE_MODEL_DIGEST", value_name = "sha256:HEX")]
    pub base_model_digest: String,
    /// The model that serves now; for the record.
    #[arg(long, env = "RETRAIN_CHAMPION_URI", value_name = "URI", default_value = "")]
    pub champion_uri: String,
    /// What may be trained on.
    #[arg(long, env = "RETRAIN_DATA_MANIFEST", value_name = "FILE", default_value_os_t = default_manifest())]
    pub data_manifest: PathBuf,
    /// Where checkpoints and the result go.
    #[arg(long, env = "RETRAIN_OUTPUT_DIR", value_name = "DIRECTORY", default_value = OUTPUT_DIRECTORY)]
    pub output_dir: PathBuf,
    /// What serving pods call that directory, or the repository to which the model is pushed: oci://HOST/REPOSITORY.
    #[arg(long, env = "RETRAIN_OUTPUT_URI", value_name = "URI")]
    pub output_uri: String,
    /// Seconds from the start until the result must be there; the best so far is taken then.
    #[arg(long, env = "RETRAIN_DEADLINE_SECONDS", value_name = "SECONDS")]
    pub deadline_seconds: Option<u64>,
    /// Decides the order of the data and where the adapter begins.
    #[arg(long, env = "RETRAIN_SEED", value_name = "NUMBER", default_value_t = 0)]
    pub seed: u64,
    /// Where the last words are left; ignored if it cannot be written.
    #[arg(long, env = "RETRAIN_TERMINATION_PATH", value_name = "FILE", default_value = TERMINATION_PATH)]
    pub termination_path: PathBuf,
    /// Port on which it is told how far training is; nobody is told when absent.
    #[arg(long, env = "RETRAIN_PROGRESS_PORT", value_name = "PORT")]
    pub progress_port: Option<u16>,
    /// Where downloads are kept.
    #[arg(long, env = "PERENNIAL_SCRATCH_DIRECTORY", value_name = "DIRECTORY", default_value = SCRATCH_DIRECTORY)]
    pub scratch_directory: PathBuf,
    /// Memory limit, like 4Gi; the container's when absent.
    #[arg(long, env = "PERENNIAL_MEMORY", value_name = "AMOUNT", value_parser = perennial_engine::memory::parse)]
    pub memory: Option<u64>,
    /// Threads that compute; as many as the container may use when absent.
    #[arg(long, env = "PERENNIAL_TRAIN_THREADS", value_name = "THREADS", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Steps between checkpoints.
    #[arg(long, env = "PERENNIAL_TRAIN_CHECKPOINT_STEPS", value_name = "STEPS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub checkpoint_steps: u64,
    /// Tokens that are computed at a time; fewer where memory is short, and at least one sequence.
    #[arg(long, env = "PERENNIAL_TRAIN_BATCH_TOKENS", value_name = "TOKENS", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_tokens: u32,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc here would become the help of the command")]
    pub learning: Learning,
}

/// What decides what is learned: the same here, the same data and the same seed give the same adapter.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[command(next_help_heading = "Learning")]
pub struct Learning {
    /// Rows of the adapter's matrices.
    #[arg(long, env = "PERENNIAL_TRAIN_RANK", value_name = "ROWS", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub rank: u16,
    /// How much the adapter counts: its product is multiplied with this over the rank.
    #[arg(long, env = "PERENNIAL_TRAIN_ALPHA", value_name = "NUMBER", default_value_t = 16.0, value_parser = positive)]
    pub alpha: f64,
    /// Beside which matrices the adapter learns.
    #[arg(
        long,
        env = "PERENNIAL_TRAIN_TARGETS",
        value_name = "PROJECTIONS",
        value_delimiter = ',',
        default_value = "q,k,v,o,gate,up,down"
    )]
    pub targets: Vec<Projection>,
    /// Highest learning rate.
    #[arg(long, env = "PERENNIAL_TRAIN_LEARNING_RATE", value_name = "RATE", default_value_t = 2e-4, value_parser = positive)]
    pub learning_rate: f64,
    /// How often the data is seen.
    #[arg(long, env = "PERENNIAL_TRAIN_EPOCHS", value_name = "TIMES", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub epochs: u32,
    /// Rows that are learned from in one step.
    #[arg(long, env = "PERENNIAL_TRAIN_STEP_ROWS", value_name = "ROWS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub step_rows: u32,
    /// Longest sequence; longer texts are cut, rows whose prompt and answer are longer are left out.
    #[arg(long, env = "PERENNIAL_TRAIN_MAX_SEQUENCE_TOKENS", value_name = "TOKENS", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(8..))]
    pub max_sequence_tokens: u32,
    /// Share of the steps in which the learning rate rises.
    #[arg(long, env = "PERENNIAL_TRAIN_WARMUP", value_name = "SHARE", default_value_t = 0.05, value_parser = share)]
    pub warmup: f64,
    /// Longest gradient.
    #[arg(long, env = "PERENNIAL_TRAIN_MAX_GRADIENT", value_name = "LENGTH", default_value_t = 1.0, value_parser = positive)]
    pub max_gradient: f64,
    /// How fast the adapter forgets.
    #[arg(long, env = "PERENNIAL_TRAIN_WEIGHT_DECAY", value_name = "RATE", default_value_t = 0.01, value_parser = share)]
    pub weight_decay: f64,
    /// Steps between measurements on the validation rows; once for each time the data is seen when absent.
    #[arg(long, env = "PERENNIAL_TRAIN_EVALUATE_STEPS", value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    pub evaluate_steps: Option<u64>,
    /// Measurements without a better one after which training ends.
    #[arg(long, env = "PERENNIAL_TRAIN_PATIENCE", value_name = "TIMES", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub patience: u32,
    /// Type of changed tensors in a GGUF file. Q8_0 gives way to F16 where too much of what was learned would be rounded off.
    #[arg(
        long,
        env = "PERENNIAL_TRAIN_MERGED_TYPE",
        value_name = "TYPE",
        default_value = "q8_0"
    )]
    pub merged_type: MergedType,
}

/// Type of changed tensors in a GGUF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
pub enum MergedType {
    /// 8 bits and a scale for 32 numbers.
    #[value(name = "q8_0")]
    Q8_0,
    /// 16 bits.
    #[value(name = "f16")]
    F16,
}

fn default_manifest() -> PathBuf {
    PathBuf::from(DATA_DIRECTORY).join(MANIFEST_FILE)
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("must be a number above 0".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err("must be a number between 0 and 1".to_owned()),
    }
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

    fn parse(more: &str) -> Result<Arguments, clap::Error> {
        let told =
            "train --cycle-id c1 --base-model-uri file:///m --base-model-digest sha256:00 --output-uri file:///o";
        let line = format!("{told} {more}");
        Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.arguments)
    }

    #[test]
    fn the_command_line_is_consistent_and_its_defaults_are_the_contract() {
        Cli::command().debug_assert();
        let arguments = parse("").expect("arguments");
        assert_eq!(arguments.data_manifest.to_str(), Some("/retrain/data/manifest.json"));
        assert_eq!(arguments.contract, RETRAIN_CONTRACT);
        assert_eq!(arguments.learning.targets, Projection::ALL);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(
            parse("--targets q,v").expect("some").learning.targets,
            [Projection::Query, Projection::Value]
        );
        for wrong in [
            "--targets x",
            "--rank 0",
            "--learning-rate -1",
            "--warmup 2",
            "--alpha NaN",
            "--merged-type q4",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
