//! How large a change is, with bounds. Evidence says "not the baseline"; only this says "matters".
//!
//! What is measured begins where the evidence says that the change did. A beginning that was chosen for its evidence makes an
//! effect look somewhat large at first, which is why a policy confirms it over some time.

use serde::{Deserialize, Serialize};

use crate::baseline::embedding::Embedding;
use crate::baseline::numeric::{Numeric, Table};
use crate::baseline::rate::Rate;
use crate::baseline::{Model, SignalBaseline};
use crate::math::noncentral_lower_bound;
use crate::policy::MinEffect;
use crate::tally::Tally;

/// One-sided confidence of the bounds, and the normal quantile that belongs to it.
const CONFIDENCE: f64 = 0.995;
const QUANTILE: f64 = 2.576;

/// What an effect is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Measure {
    /// Shift of the mean, in standard deviations; up is positive.
    Shift,
    /// Population stability index, without the part that chance alone gives it.
    Psi,
    /// Rise of a rate as a part of it: 0.5 is half as much again.
    Increase,
    /// Maximum mean discrepancy, without the part that chance alone gives it.
    Mmd,
}

/// An effect and its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// What it is measured in.
    pub measure: Measure,
    /// Best guess.
    pub estimate: f64,
    /// It is at least this; of a shift, its size.
    pub lower: f64,
    /// It is at most this; of a shift, its size.
    pub upper: f64,
}

impl Effect {
    /// From what size on it matters, in its own unit.
    #[must_use]
    pub fn least(&self, min: &MinEffect) -> Option<f64> {
        match self.measure {
            Measure::Shift => min.shift_milli_sigma.map(|milli| f64::from(milli) / 1_000.0),
            Measure::Psi => min.psi_milli.map(|milli| f64::from(milli) / 1_000.0),
            Measure::Increase => min.increase_percent.map(|percent| f64::from(percent) / 100.0),
            Measure::Mmd => min.mmd_milli.map(|milli| f64::from(milli) / 1_000.0),
        }
    }
}

/// Whether one of the effects certainly matters.
#[must_use]
pub fn matters(effects: &[Effect], min: &MinEffect) -> bool {
    effects
        .iter()
        .any(|effect| effect.least(min).is_some_and(|least| effect.lower >= least))
}

/// Whether one of the effects matters by its best guess.
#[must_use]
pub fn seems_to_matter(effects: &[Effect], min: &MinEffect) -> bool {
    effects.iter().any(|effect| {
        let size = match effect.measure {
            // Either way is a shift; a rate that falls is none of the failures that rates count.
            Measure::Shift => effect.estimate.abs(),
            Measure::Psi | Measure::Increase | Measure::Mmd => effect.estimate,
        };
        effect.least(min).is_some_and(|least| size >= least)
    })
}

/// Whether one of the effects may still matter.
#[must_use]
pub fn may_matter(effects: &[Effect], min: &MinEffect) -> bool {
    effects
        .iter()
        .any(|effect| effect.least(min).is_some_and(|least| effect.upper >= least))
}

/// Effects of what was seen against what was expected; none of nothing.
#[must_use]
pub fn effects(baseline: &SignalBaseline, tally: &Tally) -> Vec<Effect> {
    if tally.count == 0 {
        return Vec::new();
    }
    match &baseline.model {
        Model::Numeric(model) => {
            let psi = psi(&model.table, tally);
            shift(model, tally).into_iter().chain([psi]).collect()
        }
        Model::Rate(model) => vec![increase(model, tally)],
        Model::Categories(table) => vec![psi(table, tally)],
        Model::Embedding(model) => vec![mmd(model, tally)],
    }
}

fn shift(model: &Numeric, tally: &Tally) -> Option<Effect> {
    if model.sigma <= 0.0 {
        return None;
    }
    let count = tally.count as f64;
    let size = model.size(tally);
    let estimate = model.standardised(tally) / count;
    let error = QUANTILE * libm::sqrt(model.phi / count + 1.0 / size.max(1.0));
    Some(Effect {
        measure: Measure::Shift,
        estimate,
        lower: (estimate.abs() - error).max(0.0),
        upper: estimate.abs() + error,
    })
}

/// The index times `n m / (n + m)` is a noncentral chi-squared variable (Yurdakul and Naranjo, 2020).
fn psi(table: &Table, tally: &Tally) -> Effect {
    let counts = tally.group_counts(table.width());
    let reference = table.reference(tally);
    let groups = counts.len() as f64;
    let (seen, expected) = (counts.iter().sum::<f64>(), reference.iter().sum::<f64>());
    let (seen_all, expected_all) = (seen + 0.5 * groups, expected + 0.5 * groups);
    let raw: f64 = counts
        .iter()
        .zip(&reference)
        .map(|(seen, expected)| ((seen + 0.5) / seen_all, (expected + 0.5) / expected_all))
        .map(|(seen, expected)| (seen - expected) * libm::log(seen / expected))
        .sum();
    let scale = seen * expected / (seen + expected).max(f64::MIN_POSITIVE) / table.phi;
    let freedom = (groups - 1.0).max(1.0);
    Effect {
        measure: Measure::Psi,
        estimate: (raw - freedom / scale).max(0.0),
        lower: noncentral_lower_bound(raw * scale, freedom, CONFIDENCE) / scale,
        upper: noncentral_lower_bound(raw * scale, freedom, 1.0 - CONFIDENCE) / scale,
    }
}

/// By the logarithm of the ratio, whose error is close to normal (Katz et al., 1978).
fn increase(model: &Rate, tally: &Tally) -> Effect {
    let (rate, _, size) = model.reference(tally);
    let (events, trials) = (tally.groups.first().copied().unwrap_or(0) as f64, tally.count as f64);
    let (now, before) = ((events + 0.5) / (trials + 1.0), (rate * size + 0.5) / (size + 1.0));
    let log = libm::log(now / before);
    let variance = model.phi * (1.0 - now) / (now * (trials + 1.0)) + (1.0 - before) / (before * (size + 1.0));
    let error = QUANTILE * libm::sqrt(variance);
    Effect {
        measure: Measure::Increase,
        estimate: libm::expm1(log),
        lower: libm::expm1(log - error),
        upper: libm::expm1(log + error),
    }
}

fn mmd(model: &Embedding, tally: &Tally) -> Effect {
    let (squared, size) = model.distance(tally);
    let count = tally.count as f64;
    let scale = count * size / (count + size).max(f64::MIN_POSITIVE);
    let estimate = squared - model.trace / scale;
    // No direction varies by more than the square root of the trace of the squared covariance.
    let largest = libm::sqrt(model.trace_of_square);
    let variance = 2.0 * model.trace_of_square / (scale * scale) + 4.0 * estimate.max(0.0) * largest / scale;
    let error = QUANTILE * libm::sqrt(variance);
    // Estimated as a square, told as a distance: that grows in proportion to the part of the traffic that is new.
    let distance = |squared: f64| libm::sqrt(squared.max(0.0));
    Effect {
        measure: Measure::Mmd,
        estimate: distance(estimate),
        lower: distance(estimate - error),
        upper: distance(estimate + error),
    }
}
