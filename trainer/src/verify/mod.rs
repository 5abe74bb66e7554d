//! `verify`: is a trained model what the Job that trained it claims?
//!
//! It runs before the gate in a container of ours, because the Job that trains may be anybody's: its bytes have the digest, it
//! comes from the right base, nothing in it can run code, and it lies where it may lie. Nothing of it is believed, not even its
//! lengths.

mod address;
mod arguments;
mod error;
mod gguf;
mod safetensors;
mod tree;
mod work;

use std::process::ExitCode;

use perennial_crds::retrain::{Outcome, VERIFY_CONTRACT, VerifyResult};
use tokio_util::sync::CancellationToken;

pub use address::{Address, address};
pub use arguments::Arguments;
pub use error::VerifyError;
pub use tree::{Found, is_safe};
pub use work::{covered, execute, inspect, resolve};

use crate::contract::{leave, message, retry};

/// Checks a model and leaves the last words.
pub async fn run(arguments: Arguments, stop: &CancellationToken) -> ExitCode {
    let path = arguments.termination_path.clone();
    let outcome = execute(&arguments, stop).await;
    match outcome {
        Ok(result) => {
            tracing::info!(
                digest = result.digest,
                bytes = result.size_bytes,
                "the model is what it claims to be"
            );
            leave(&path, &result);
            ExitCode::SUCCESS
        }
        Err(VerifyError::Untrusted(problem)) => {
            tracing::error!(problem, "the model is not what it claims to be");
            leave(&path, &result(Outcome::Untrusted, &problem));
            ExitCode::FAILURE
        }
        Err(error) => {
            tracing::error!(%error, "another try may go better");
            leave(&path, &result(Outcome::Retryable, &error.to_string()));
            retry()
        }
    }
}

fn result(outcome: Outcome, said: &str) -> VerifyResult {
    VerifyResult {
        schema: VERIFY_CONTRACT.to_owned(),
        outcome,
        digest: None,
        size_bytes: 0,
        message: message(said),
    }
}
