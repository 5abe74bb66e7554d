//! The baseline of a rate: its bounds by hour.

use serde::{Deserialize, Serialize};

use crate::baseline::learn::{Sample, blocks};
use crate::baseline::{design_effect, season};
use crate::evidence::bernoulli::Bounds;
use crate::tally::Tally;

/// What is expected of a rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// By cell.
    pub cells: Vec<RateCell>,
    /// Design effect of sums.
    pub phi: f64,
}

/// A rate in one hour.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateCell {
    /// Estimate.
    pub rate: f64,
    /// Below it with a probability of 1 %.
    pub lower: f64,
    /// Above it with a probability of 1 %.
    pub upper: f64,
    /// Trials that the estimate is worth.
    pub size: f64,
}

impl Rate {
    pub(crate) fn learn(samples: &[Sample], cells: usize) -> Self {
        let (mut trials, mut events) = (vec![0.0; cells], vec![0.0; cells]);
        for sample in samples {
            trials[usize::from(sample.cell)] += sample.tally.count as f64;
            events[usize::from(sample.cell)] += sample.tally.groups[0] as f64;
        }
        let total: f64 = trials.iter().sum();
        let pooled = events.iter().sum::<f64>() / total.max(1.0);
        let used = trials.iter().filter(|count| **count > 0.0).count() as f64;
        let spread = pooled * (1.0 - pooled);
        let between: f64 = trials
            .iter()
            .zip(&events)
            .filter(|(trials, _)| **trials > 0.0)
            .map(|(trials, events)| (events - trials * pooled) * (events - trials * pooled) / trials)
            .sum();
        let excess = if used > 1.0 && spread > 0.0 {
            between / spread / (used - 1.0)
        } else {
            1.0
        };
        let cells = season::shares(&trials, excess)
            .iter()
            .zip(trials.iter().zip(&events))
            .map(|(share, (trials, events))| {
                let own = if *trials > 0.0 { events / trials } else { 0.0 };
                cell(share.own * own + (1.0 - share.own) * pooled, share.size)
            })
            .collect();
        let mut learned = Self { cells, phi: 1.0 };
        let row = |tally: &Tally| {
            let (expected, variance) = learned.expected(tally);
            let deviation = tally.groups.first().copied().unwrap_or(0) as f64 - expected;
            vec![if variance > 0.0 {
                deviation / libm::sqrt(variance)
            } else {
                0.0
            }]
        };
        learned.phi = design_effect::largest(|scale| blocks(samples, scale).iter().map(row).collect(), used);
        learned
    }

    /// Expected events and their variance.
    pub(crate) fn expected(&self, tally: &Tally) -> (f64, f64) {
        tally
            .cells
            .iter()
            .fold((0.0, 0.0), |(events, variance), (cell, count)| {
                let rate = self.cells[usize::from(*cell) % self.cells.len()].rate;
                (
                    events + *count as f64 * rate,
                    variance + *count as f64 * rate * (1.0 - rate),
                )
            })
    }

    /// The rate in these hours: its estimate, its bounds, and the trials that it is worth.
    #[must_use]
    pub fn reference(&self, tally: &Tally) -> (f64, Bounds, f64) {
        let mut rate = 0.0;
        let mut bounds = Bounds { lower: 0.0, upper: 0.0 };
        let mut variance = 0.0;
        for (cell, share) in tally.shares() {
            let cell = self.cells[usize::from(cell) % self.cells.len()];
            rate += share * cell.rate;
            bounds.lower += share * cell.lower;
            bounds.upper += share * cell.upper;
            variance += share * share / cell.size.max(f64::MIN_POSITIVE);
        }
        (rate, bounds, if variance > 0.0 { 1.0 / variance } else { 0.0 })
    }
}

fn cell(rate: f64, size: f64) -> RateCell {
    let Bounds { lower, upper } = Bounds::of(rate * size, size);
    RateCell {
        rate,
        lower,
        upper,
        size,
    }
}
