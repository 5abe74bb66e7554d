//! `evaluate`: the model that serves and a candidate, judged on the same items.
//!
//! Scores are paired item by item. One on which the model that serves cannot be judged does not count; one on which only the
//! candidate cannot, counts 0 for it. Nothing is decided here, and no text of an item leaves this process.

mod arguments;
mod score;
mod suites;
mod tally;
mod time;
mod work;

use std::process::ExitCode;

use perennial_crds::retrain::{GATE_CONTRACT, GateResult, Outcome};

pub use arguments::Arguments;
pub use tally::Line;
pub use work::execute;

use crate::contract::{fail, leave, message, retry};
use crate::train::on_threads;

/// Judges and leaves the last words.
#[must_use]
pub fn run(arguments: Arguments) -> ExitCode {
    let path = arguments.termination_path.clone();
    let outcome = on_threads(arguments.threads, |cancel| execute(&arguments, cancel));
    match outcome {
        Ok(Ok(result)) => {
            tracing::info!(outcome = ?result.outcome, message = result.message, "done");
            leave(&path, &result);
            ExitCode::SUCCESS
        }
        Ok(Err(error)) if error.is_retryable() => {
            tracing::error!(%error, "another try may go better");
            leave(
                &path,
                &GateResult {
                    schema: GATE_CONTRACT.to_owned(),
                    outcome: Outcome::Retryable,
                    champion_digest: arguments.champion_digest.clone(),
                    candidate_digest: arguments.candidate_digest.clone(),
                    scores_digest: None,
                    suites: Vec::new(),
                    message: message(&error.to_string()),
                },
            );
            retry()
        }
        Ok(Err(error)) => fail(&path, &error),
        Err(error) => fail(&path, &error),
    }
}
