//! `train`: from a frozen base model and frozen rows to a better model, or to the insight that there is none.
//!
//! An adapter of thin matrices learns beside the frozen weights; what lowered the loss on rows that it did not learn from is
//! merged into a model that serves like any other. The same base, rows, seed and settings give the same adapter, also when the
//! pod was killed on the way. No text of a row leaves this process.

mod arguments;
mod base;
mod checkpoint;
mod curve;
mod data;
mod deliver;
mod error;
mod examples;
mod fetch;
mod files;
mod full;
mod gguf;
mod merge;
pub mod model;
mod names;
mod optimizer;
mod peft;
mod plan;
mod process;
mod random;
mod reporter;
mod session;
mod store;
mod tensors;
mod told;
mod work;

use std::process::ExitCode;

use perennial_crds::retrain::{Outcome, RETRAIN_CONTRACT, RetrainResult};

pub use arguments::{Arguments, Learning, MergedType};
pub use base::Base;
pub use error::TrainError;
pub use examples::{Encoder, Example, Unusable};
pub use work::execute;

pub(crate) use examples::together;
pub(crate) use fetch::fetch;
pub(crate) use process::on_threads;
pub(crate) use session::reserve_seconds;

use crate::contract::{fail, leave, message, retry};

/// Trains and leaves the last words.
#[must_use]
pub fn run(arguments: Arguments) -> ExitCode {
    let path = arguments.termination_path.clone();
    if let Some(port) = arguments.progress_port
        && let Err(error) = told::serve(port, &arguments.output_dir)
    {
        tracing::warn!(%error, port, "nobody is told how far training is");
    }
    let outcome = on_threads(arguments.threads, |cancel| {
        execute(&arguments, cancel, &|_| cancel.is_cancelled())
    });
    match outcome {
        Ok(Ok(result)) => {
            tracing::info!(outcome = ?result.outcome, message = result.message, "decided");
            leave(&path, &result);
            ExitCode::SUCCESS
        }
        Ok(Err(error)) if error.is_retryable() => {
            tracing::error!(%error, "another try may go better");
            leave(
                &path,
                &RetrainResult {
                    schema: RETRAIN_CONTRACT.to_owned(),
                    outcome: Outcome::Retryable,
                    model: None,
                    data: None,
                    metrics: std::collections::BTreeMap::new(),
                    curve: None,
                    result_path: None,
                    message: message(&error.to_string()),
                },
            );
            retry()
        }
        Ok(Err(error)) => fail(&path, &error),
        Err(error) => fail(&path, &error),
    }
}
