//! What the check of a trained model is told.

use std::path::PathBuf;

use clap::Args;
use perennial_crds::retrain::CANDIDATE_DIRECTORY;
use perennial_crds::serving::{SCRATCH_DIRECTORY, TERMINATION_PATH};

/// Check that a trained model is what the Job that trained it claims: its bytes, what it was trained from, and that nothing in it
/// can run.
///
/// Exits with 0 if it is, with 1 if it is not, and with 75 if it could not be read.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The model: file:///gate/candidate/PATH or oci://HOST/REPOSITORY@sha256:HEX.
    #[arg(long, env = "VERIFY_URI", value_name = "URI")]
    pub uri: String,
    /// The digest that it must have.
    #[arg(long, env = "VERIFY_DIGEST", value_name = "sha256:HEX")]
    pub digest: String,
    /// Digest of the model that it must have been trained from.
    #[arg(long, env = "VERIFY_BASE_DIGEST", value_name = "sha256:HEX")]
    pub base_digest: String,
    /// Digest of the model that it claims to be trained from.
    #[arg(long, env = "VERIFY_CLAIMED_BASE_DIGEST", value_name = "sha256:HEX")]
    pub claimed_base_digest: String,
    /// Most bytes that it may have.
    #[arg(long, env = "VERIFY_MAX_BYTES", value_name = "BYTES")]
    pub max_bytes: u64,
    /// Where a model on a volume lies.
    #[arg(long, env = "VERIFY_CANDIDATE_DIRECTORY", value_name = "DIRECTORY", default_value = CANDIDATE_DIRECTORY)]
    pub candidate_directory: PathBuf,
    /// Where downloads are kept.
    #[arg(long, env = "VERIFY_DIRECTORY", value_name = "DIRECTORY", default_value = SCRATCH_DIRECTORY)]
    pub directory: PathBuf,
    /// Where the last words are left; ignored if it cannot be written.
    #[arg(long, env = "VERIFY_TERMINATION_PATH", value_name = "FILE", default_value = TERMINATION_PATH)]
    pub termination_path: PathBuf,
}
