//! How far training is: lines in the log and `progress.json` in the output directory.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::contract::write_bytes;

/// Steps in between are not told.
const INTERVAL: Duration = Duration::from_secs(5);

/// What the process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Stage {
    /// Fetches the model.
    Fetching,
    /// Reads it and the data.
    Loading,
    /// Learns.
    Training,
    /// Merges and writes.
    Writing,
    /// Done.
    Finished,
}

/// `progress.json`: a [`perennial_crds::retrain::TrainingProgress`], and what else a person may want to know.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// What the process is doing.
    pub stage: Stage,
    /// Steps that are done.
    pub step: u64,
    /// Steps in all, if training does not end before.
    pub total_steps: u64,
    /// Mean loss of a token in the last step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f32>,
    /// The last measurement on the validation rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f32>,
    /// Learning rate of the last step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f32>,
    /// Tokens computed in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    /// Seconds until all steps are done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_seconds: Option<u64>,
}

/// Where it is told how far training is.
#[must_use]
pub fn path(directory: &Path) -> PathBuf {
    directory.join("progress.json")
}

/// Tells how far training is.
#[derive(Debug)]
pub struct Reporter {
    path: PathBuf,
    progress: Progress,
    told: Option<Instant>,
    /// Begin of this process's steps, with the steps and tokens before.
    since: Option<(Instant, u64, u64)>,
}

impl Reporter {
    /// For a training whose output goes to `directory`.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self {
            path: path(directory),
            progress: Progress {
                stage: Stage::Fetching,
                step: 0,
                total_steps: 0,
                loss: None,
                validation_loss: None,
                learning_rate: None,
                tokens_per_second: None,
                remaining_seconds: None,
            },
            told: None,
            since: None,
        }
    }

    /// Something else begins.
    pub fn stage(&mut self, stage: Stage) {
        self.progress.stage = stage;
        tracing::info!(?stage, "progress");
        self.write();
    }

    /// Steps begin.
    pub fn begin(&mut self, step: u64, total: u64, tokens: u64) {
        (self.progress.step, self.progress.total_steps) = (step, total);
        self.since = Some((Instant::now(), step, tokens));
        self.stage(Stage::Training);
    }

    /// A step is done; `tokens` counts those of all steps.
    pub fn step(&mut self, step: u64, loss: f32, rate: f32, tokens: u64) {
        let progress = &mut self.progress;
        (progress.step, progress.loss, progress.learning_rate) = (step, Some(loss), Some(rate));
        if let Some((since, first, before)) = self.since {
            let seconds = since.elapsed().as_secs_f64().max(1e-3);
            let left = progress.total_steps.saturating_sub(step) as f64;
            progress.tokens_per_second = Some((tokens.saturating_sub(before) as f64 / seconds).round());
            progress.remaining_seconds = Some((seconds / (step - first).max(1) as f64 * left).ceil() as u64);
        }
        if self.told.is_none_or(|told| told.elapsed() >= INTERVAL) || step == progress.total_steps {
            self.told = Some(Instant::now());
            tracing::info!(
                step,
                total = self.progress.total_steps,
                loss = rounded(loss),
                learning_rate = rounded(rate),
                tokens_per_second = self.progress.tokens_per_second,
                remaining_seconds = self.progress.remaining_seconds,
                "step"
            );
            self.write();
        }
    }

    /// A measurement is done.
    pub fn measured(&mut self, step: u64, loss: f32, best: f32) {
        self.progress.validation_loss = Some(loss);
        tracing::info!(step, validation_loss = rounded(loss), best = rounded(best), "measured");
        self.write();
    }

    /// A full disk is noticed where something is written that matters.
    fn write(&self) {
        let json = serde_json::to_vec(&self.progress).unwrap_or_default();
        if let Err(error) = write_bytes(&self.path, &json) {
            tracing::debug!(%error, "progress.json was not written");
        }
    }
}

/// Six digits are enough for a log.
fn rounded(number: f32) -> f64 {
    (f64::from(number) * 1e6).round() / 1e6
}
