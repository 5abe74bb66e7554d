//! One run from its arguments to its result.

use std::time::Instant;

use perennial_crds::probe::{PROBE_CONTRACT, ProbeResult};
use perennial_crds::retrain::Outcome;
use tokio_util::sync::CancellationToken;

use super::arguments::Arguments;
use super::ask::Asker;
use super::error::ProbeError;
use super::prompts::{read, set_digest};
use crate::contract::message;

/// Asks every prompt once, one after the other.
///
/// # Errors
/// [`ProbeError`] when there is no decision.
pub async fn execute(arguments: &Arguments, stop: &CancellationToken) -> Result<ProbeResult, ProbeError> {
    match ask(arguments, stop).await {
        Err(ProbeError::Rejected(why)) => Ok(result(Outcome::DataRejected, &why)),
        other => other,
    }
}

async fn ask(arguments: &Arguments, stop: &CancellationToken) -> Result<ProbeResult, ProbeError> {
    let prompts = read(&arguments.prompts_directory, arguments.max_tokens)?;
    let asker = Asker::new(arguments)?;
    let begun = Instant::now();
    let mut answers = String::new();
    for prompt in &prompts {
        answers += &asker.fingerprint(prompt, stop).await?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    tracing::info!(prompts = prompts.len(), seconds, "all prompts were answered");
    Ok(ProbeResult {
        set_digest: Some(set_digest(&prompts)),
        answers,
        ..result(Outcome::Succeeded, &format!("{} prompts were answered", prompts.len()))
    })
}

pub(super) fn result(outcome: Outcome, said: &str) -> ProbeResult {
    ProbeResult {
        schema: PROBE_CONTRACT.to_owned(),
        outcome,
        set_digest: None,
        answers: String::new(),
        message: message(said),
    }
}
