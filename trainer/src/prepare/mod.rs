//! `prepare`: from captured records to frozen data.
//!
//! What both models are judged by is held out before anything is chosen to train on. The model's own answers are never learned,
//! unless somebody found them good, and no requester decides alone what is learned. [`plan()`] decides all that and is pure;
//! around it, segments are [read](read()) and the result is frozen under the hash of its manifest. No text of a record leaves the
//! user's volumes and bucket, and what earlier cycles froze is deleted.

mod arguments;
mod candidate;
mod error;
mod fetch;
mod freeze;
mod golden;
mod hold_out;
mod join;
mod plan;
mod prompt;
mod read;
mod share;
mod tidy;
mod work;

use std::process::ExitCode;

use perennial_crds::retrain::Outcome;

pub use arguments::{Arguments, S3Arguments};
pub use error::PrepareError;
pub use fetch::fetch;
pub use join::{Opinion, Opinions};
pub use plan::{Prepared, Records, Rejected, plan};
pub use read::{Read, read};
pub use work::execute;

use crate::contract::{fail, leave, retry};

/// Prepares and leaves the last words.
#[must_use]
pub fn run(arguments: &Arguments) -> ExitCode {
    let path = &arguments.termination;
    match execute(arguments) {
        Ok(result) => {
            tracing::info!(outcome = ?result.outcome, message = result.message, "decided");
            leave(path, &result);
            ExitCode::SUCCESS
        }
        Err(error @ (PrepareError::Io { .. } | PrepareError::Bucket(_))) => {
            tracing::error!(%error, "another try may go better");
            leave(path, &work::result(Outcome::Retryable, &error.to_string()));
            retry()
        }
        Err(error) => fail(path, &error),
    }
}
