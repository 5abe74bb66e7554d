//! The loop: steps, measurements, checkpoints, and when to end.

use std::time::Instant;

use super::arguments::Learning;
use super::checkpoint::{Checkpoint, Measurement, Point, State};
use super::error::TrainError;
use super::examples::{Example, together};
use super::model::{Adapter, Batch, Decoder, Kept, Layout, Workspace};
use super::optimizer::{clip, rate};
use super::random::Random;
use super::reporter::Reporter;

/// Seconds that are kept for writing the result.
const LEAST_RESERVE_SECONDS: f64 = 10.0;
/// Share of the time that is kept for the same.
const RESERVE_SHARE: f64 = 0.05;

/// What training computes with.
pub struct Session<'a> {
    /// The frozen model.
    pub decoder: &'a Decoder,
    /// The adapter.
    pub layout: &'a Layout,
    /// Rows to learn from.
    pub train: &'a [Example],
    /// Rows to measure with.
    pub validation: &'a [Example],
    /// What decides what is learned.
    pub learning: &'a Learning,
    /// Decides the order of rows.
    pub seed: u64,
    /// Tokens that are computed at a time.
    pub batch_tokens: usize,
    /// What is kept for going backward.
    pub kept: Kept,
    /// Seconds from the start of the pod until the result must be there.
    pub deadline_seconds: Option<u64>,
    /// When this process began.
    pub started: Instant,
    /// Steps between checkpoints.
    pub checkpoint_steps: u64,
    /// Where checkpoints go.
    pub checkpoint: &'a Checkpoint,
    /// Asked with the number of finished steps whether the process is to stop.
    pub interrupted: &'a dyn Fn(u64) -> bool,
}

/// Why there are no more steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All were done.
    AllSteps,
    /// Nothing better was found for too long.
    Patience,
    /// The time is up.
    Deadline,
    /// The loss was no number any more.
    Diverged,
}

/// What became of a measurement.
enum Measured {
    /// It is recorded.
    Recorded,
    /// The process is to stop.
    Stopped,
    /// The loss is no number.
    Diverged,
}

/// How long things take, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Pace {
    step: f64,
    measurement: f64,
}

impl Session<'_> {
    /// Steps in all.
    #[must_use]
    pub fn total_steps(&self) -> u64 {
        self.steps_of_epoch() * u64::from(self.learning.epochs)
    }

    fn steps_of_epoch(&self) -> u64 {
        (self.train.len() as u64).div_ceil(u64::from(self.learning.step_rows))
    }

    /// Goes on from `state` until there is an end.
    ///
    /// # Errors
    /// [`TrainError::Interrupted`] with a checkpoint left, or what the disk says.
    pub fn run(
        &self,
        state: &mut State,
        workspace: &mut Workspace,
        reporter: &mut Reporter,
    ) -> Result<Ended, TrainError> {
        let total = self.total_steps();
        let every = self.learning.evaluate_steps.unwrap_or(self.steps_of_epoch());
        let before = state.record.seconds;
        let mut pace = Pace::default();
        let mut gradient = vec![0.0; self.layout.length()];
        reporter.begin(state.record.step, total, state.record.tokens);
        loop {
            state.record.seconds = before + self.started.elapsed().as_secs_f64();
            let step = state.record.step;
            let ended = self.ended(state, total, pace);
            let due = step == 0 || step.is_multiple_of(every) || ended.is_some();
            if due && state.record.measurements.last().is_none_or(|last| last.step < step) {
                let begun = Instant::now();
                match self.measure(state, workspace, reporter) {
                    Measured::Recorded => {}
                    Measured::Stopped => return self.interrupt(state),
                    Measured::Diverged => return Ok(diverged(step)),
                }
                pace.measurement = begun.elapsed().as_secs_f64();
                continue;
            }
            if let Some(ended) = ended {
                tracing::info!(?ended, step, "no more steps");
                return Ok(ended);
            }
            if (self.interrupted)(step) {
                return self.interrupt(state);
            }
            let begun = Instant::now();
            let Some(point) = self.step(state, workspace, &mut gradient) else {
                return self.interrupt(state);
            };
            if !point.is_finite() {
                return Ok(diverged(step));
            }
            pace.step = begun.elapsed().as_secs_f64();
            reporter.step(point.step, point.loss, point.rate, state.record.tokens);
            if point.step.is_multiple_of(self.checkpoint_steps) {
                state.record.seconds = before + self.started.elapsed().as_secs_f64();
                self.checkpoint.save(state)?;
            }
        }
    }

    fn interrupt(&self, state: &State) -> Result<Ended, TrainError> {
        self.checkpoint.save(state)?;
        tracing::info!(step = state.record.step, "told to stop; a checkpoint was left");
        Err(TrainError::Interrupted)
    }

    fn ended(&self, state: &State, total: u64, pace: Pace) -> Option<Ended> {
        let record = &state.record;
        if record.step >= total {
            return Some(Ended::AllSteps);
        }
        if record.since_best() >= self.learning.patience as usize {
            return Some(Ended::Patience);
        }
        // That of a pod; what earlier pods took was theirs.
        let (spent, deadline) = (self.started.elapsed().as_secs_f64(), self.deadline_seconds? as f64);
        time_is_up(spent, deadline, pace).then_some(Ended::Deadline)
    }

    /// One step; `None` if the process is to stop in the middle of it, which leaves no trace.
    fn step(&self, state: &mut State, workspace: &mut Workspace, gradient: &mut [f32]) -> Option<Point> {
        let step = state.record.step;
        let rows = self.rows(step);
        let lengths: Vec<usize> = rows.iter().map(|example| example.computed()).collect();
        let total: f64 = rows.iter().map(|example| weight(example)).sum();
        gradient.fill(0.0);
        let adapter = Adapter {
            layout: self.layout,
            values: &state.values,
        };
        let mut loss = 0.0;
        for group in together(&lengths, self.batch_tokens) {
            if (self.interrupted)(step) {
                return None;
            }
            let batch = batch(rows[group].iter().copied(), (1.0 / total) as f32);
            let losses = self.decoder.gradients(adapter, &batch, self.kept, workspace, gradient);
            loss += weighted(&batch, &losses);
        }
        let length = clip(gradient, self.learning.max_gradient);
        let rate = rate(
            self.learning.learning_rate,
            self.learning.warmup,
            step,
            self.total_steps(),
        );
        let point = Point {
            step: step + 1,
            loss: loss as f32,
            rate: rate as f32,
            gradient: length as f32,
        };
        // Only numbers are recorded: JSON has no others, and what was left could not be read again.
        if point.is_finite() {
            let decay = self.learning.weight_decay;
            state.moments.step(&mut state.values, gradient, rate, decay, point.step);
            state.record.step = point.step;
            state.record.tokens += lengths.iter().sum::<usize>() as u64;
            state.record.curve.push(point);
        }
        Some(point)
    }

    /// The rows of a step: each time the data is seen, it is in another order.
    fn rows(&self, step: u64) -> Vec<&Example> {
        let (epoch, at) = (step / self.steps_of_epoch(), step % self.steps_of_epoch());
        let order = Random::new(self.seed, epoch.wrapping_add(1 << 32)).order(self.train.len());
        let rows = self.learning.step_rows as usize;
        let order = order.into_iter().skip(at as usize * rows).take(rows);
        order.map(|index| &self.train[index]).collect()
    }

    /// Measures, and remembers the adapter if it is the best so far.
    fn measure(&self, state: &mut State, workspace: &mut Workspace, reporter: &mut Reporter) -> Measured {
        let adapter = Adapter {
            layout: self.layout,
            values: &state.values,
        };
        let step = state.record.step;
        let stop = || (self.interrupted)(step);
        let Some(loss) = mean_loss(
            self.decoder,
            Some(adapter),
            self.validation,
            self.batch_tokens,
            workspace,
            &stop,
        ) else {
            return Measured::Stopped;
        };
        if !loss.is_finite() {
            return Measured::Diverged;
        }
        state.record.measurements.push(Measurement { step, loss });
        let best = state.record.best().map_or(loss, |best| best.loss);
        if state.record.since_best() == 0 {
            state.best.copy_from_slice(&state.values);
        }
        reporter.measured(step, loss, best);
        Measured::Recorded
    }
}

fn diverged(step: u64) -> Ended {
    tracing::warn!(step, "the loss is no number any more; a lower learning rate may help");
    Ended::Diverged
}

/// The mean loss of a learned token; `None` if it is to stop.
pub fn mean_loss(
    decoder: &Decoder,
    adapter: Option<Adapter>,
    examples: &[Example],
    batch_tokens: usize,
    workspace: &mut Workspace,
    stop: &dyn Fn() -> bool,
) -> Option<f32> {
    let lengths: Vec<usize> = examples.iter().map(Example::computed).collect();
    let total: f64 = examples.iter().map(weight).sum();
    let mut loss = 0.0;
    for group in together(&lengths, batch_tokens) {
        if stop() {
            return None;
        }
        let batch = batch(examples[group].iter(), 1.0);
        let losses = decoder.losses(adapter, &batch, workspace);
        loss += weighted(&batch, &losses);
    }
    Some((loss / total) as f32)
}

/// What an example counts: its weight for each of its learned tokens.
fn weight(example: &Example) -> f64 {
    f64::from(example.weight) * example.learned() as f64
}

fn batch<'a>(examples: impl Iterator<Item = &'a Example>, factor: f32) -> Batch {
    let mut batch = Batch::default();
    examples.for_each(|example| example.add_to(&mut batch, factor));
    batch
}

fn weighted(batch: &Batch, losses: &[f32]) -> f64 {
    let pairs = batch.targets().iter().zip(losses);
    pairs
        .map(|(target, loss)| f64::from(target.weight) * f64::from(*loss))
        .sum()
}

/// Seconds of a deadline that are kept for writing the result.
pub fn reserve_seconds(deadline: f64) -> f64 {
    LEAST_RESERVE_SECONDS.max(deadline * RESERVE_SHARE)
}

/// Whether one more step would leave too little time to measure, merge, measure again, and write.
fn time_is_up(spent: f64, deadline: f64, pace: Pace) -> bool {
    spent + pace.step * 1.5 + pace.measurement * 3.0 + reserve_seconds(deadline) >= deadline
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_up_when_the_result_could_no_longer_be_written() {
        let pace = Pace {
            step: 10.0,
            measurement: 20.0,
        };
        assert!(!time_is_up(800.0, 1000.0, pace));
        assert!(time_is_up(880.0, 1000.0, pace));
        assert!(time_is_up(0.0, 10.0, Pace::default()));
        assert!(!time_is_up(0.0, 60.0, Pace::default()));
    }
}
