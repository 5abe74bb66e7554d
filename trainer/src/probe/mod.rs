//! `probe`: does a model server answer fixed prompts as it ever did?
//!
//! It runs beside the model, in the namespace of its users, and asks as anybody would: one prompt after the other, greedily, each
//! on a connection of its own, so that all replicas are asked and no more than one place in a batch is taken. What leaves it is a
//! fingerprint of each answer; no text of a prompt or answer may get into a log, an error or the last words.

mod arguments;
mod ask;
mod error;
mod prompts;
mod work;

use std::process::ExitCode;

use perennial_crds::retrain::Outcome;
use tokio_util::sync::CancellationToken;

pub use arguments::Arguments;
pub use error::ProbeError;
pub use work::execute;

use crate::contract::{fail, leave, retry};

/// Asks, and leaves the last words.
pub async fn run(arguments: Arguments, stop: &CancellationToken) -> ExitCode {
    let path = &arguments.termination_path;
    match execute(&arguments, stop).await {
        Ok(result) => {
            tracing::info!(outcome = ?result.outcome, message = result.message, "decided");
            leave(path, &result);
            ExitCode::SUCCESS
        }
        Err(error @ (ProbeError::Unanswered(_) | ProbeError::Interrupted | ProbeError::Io { .. })) => {
            tracing::error!(%error, "another try may go better");
            leave(path, &work::result(Outcome::Retryable, &error.to_string()));
            retry()
        }
        // What only another environment or other data helps with.
        Err(error @ (ProbeError::Rejected(_) | ProbeError::Client(_))) => fail(path, &error),
    }
}
