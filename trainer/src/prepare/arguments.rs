//! What the Job that prepares is told.

use std::path::PathBuf;

use clap::Args;
use perennial_crds::retrain::{CAPTURE_DIRECTORY, GOLDEN_DIRECTORY, PREPARED_DIRECTORY};
use perennial_crds::serving::TERMINATION_PATH;

/// Freeze what may be trained on, and before that hold out what both models are judged by.
///
/// What is told is the contract `prepare/v1`. Running it again changes nothing about a result that is there.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The cycle and its limits: JSON.
    #[arg(long, env = "PREPARE_SETTINGS", value_name = "JSON")]
    pub settings: String,
    /// Why the cycle runs: JSON, which the Job that trains finds as drift/report.json.
    #[arg(long, env = "PREPARE_REPORT", value_name = "JSON", default_value = "{}")]
    pub report: String,
    /// Where the collector keeps records.
    #[arg(long, env = "PREPARE_CAPTURE_DIR", value_name = "DIRECTORY", default_value = CAPTURE_DIRECTORY)]
    pub capture: PathBuf,
    /// Where the user's suites are: a folder each.
    #[arg(long, env = "PREPARE_GOLDEN_DIR", value_name = "DIRECTORY", default_value = GOLDEN_DIRECTORY)]
    pub golden: PathBuf,
    /// Where data/, suites/ and drift/ go; output/ and gate/ are made for the Jobs that follow.
    #[arg(long, env = "PREPARE_OUTPUT_DIR", value_name = "DIRECTORY", default_value = PREPARED_DIRECTORY)]
    pub output: PathBuf,
    /// Where the last words are left; ignored if it cannot be written.
    #[arg(long = "termination", env = "PREPARE_TERMINATION_PATH", value_name = "FILE", default_value = TERMINATION_PATH)]
    pub termination: PathBuf,
}
