//! The baseline of what prompts are about: mean features by hour, and how much panes' means vary.

use serde::{Deserialize, Serialize};

use crate::baseline::learn::{Sample, blocks};
use crate::baseline::season;
use crate::evidence::fourier::Null;
use crate::features::{FOURIER, ONE};
use crate::tally::Tally;

/// Panes of which the square of the covariance is computed; more cost time and change nothing that one would see.
const MOST: usize = 512;

/// What is expected of the features' mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Embedding {
    /// Mean by cell.
    pub means: Vec<Vec<f64>>,
    /// Requests that a cell's mean is worth.
    pub sizes: Vec<f64>,
    /// Trace of the covariance of one request's features, as panes show it: clustered traffic has a larger one.
    pub trace: f64,
    /// Trace of its square.
    pub trace_of_square: f64,
}

pub(crate) fn mean_of(tally: &Tally) -> Vec<f64> {
    let count = tally.count.max(1) as f64 * ONE;
    tally.sums.iter().map(|sum| *sum as f64 / count).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Embedding {
    pub(crate) fn learn(samples: &[Sample], cells: usize) -> Self {
        let mut by_cell = vec![Tally::default(); cells];
        let mut pooled = Tally::default();
        for sample in samples {
            by_cell[usize::from(sample.cell)].merge(&sample.tally);
            pooled.merge(&sample.tally);
        }
        pooled.sums.resize(FOURIER, 0);
        let all = mean_of(&pooled);
        let counts: Vec<f64> = by_cell.iter().map(|cell| cell.count as f64).collect();
        let own: Vec<Vec<f64>> = by_cell
            .iter()
            .map(|cell| if cell.count > 0 { mean_of(cell) } else { all.clone() })
            .collect();
        let used = counts.iter().filter(|count| **count > 0.0).count() as f64;
        let units = blocks(samples, 1);
        let residuals: Vec<Vec<f64>> = units
            .iter()
            .map(|unit| {
                let expected = mixture(&own, unit);
                let weight = libm::sqrt(unit.count as f64);
                mean_of(unit)
                    .iter()
                    .zip(&expected)
                    .map(|(mean, expected)| weight * (mean - expected))
                    .collect()
            })
            .collect();
        let degrees = (residuals.len() as f64 - used).max(1.0);
        let trace = residuals.iter().map(|row| dot(row, row)).sum::<f64>() / degrees;
        let between: f64 = own
            .iter()
            .zip(&counts)
            .map(|(mean, count)| {
                let apart: Vec<f64> = mean.iter().zip(&all).map(|(mean, all)| mean - all).collect();
                count * dot(&apart, &apart)
            })
            .sum();
        let excess = if used > 1.0 && trace > 0.0 {
            between / trace / (used - 1.0)
        } else {
            1.0
        };
        let shares = season::shares(&counts, excess);
        Self {
            means: own
                .iter()
                .zip(&shares)
                .map(|(mean, share)| {
                    let mix = |(mean, all): (&f64, &f64)| share.own * mean + (1.0 - share.own) * all;
                    mean.iter().zip(&all).map(mix).collect()
                })
                .collect(),
            sizes: shares.iter().map(|share| share.size).collect(),
            trace,
            trace_of_square: trace_of_square(&residuals, used, trace),
        }
    }

    /// Expected mean for requests of these hours, and the requests that it is worth.
    pub(crate) fn reference(&self, tally: &Tally) -> (Vec<f64>, f64) {
        let variance: f64 = tally
            .shares()
            .map(|(cell, share)| {
                share * share / self.sizes[usize::from(cell) % self.sizes.len()].max(f64::MIN_POSITIVE)
            })
            .sum();
        (
            mixture(&self.means, tally),
            if variance > 0.0 { 1.0 / variance } else { 0.0 },
        )
    }

    /// Squared distance of the mean from the expected one, and the number `n m / (n + m)` to scale it by.
    #[must_use]
    pub fn distance(&self, tally: &Tally) -> (f64, f64) {
        let (expected, size) = self.reference(tally);
        let apart: Vec<f64> = mean_of(tally)
            .iter()
            .zip(&expected)
            .map(|(mean, expected)| mean - expected)
            .collect();
        let count = tally.count as f64;
        (
            dot(&apart, &apart),
            count * size / (count + size).max(f64::MIN_POSITIVE),
        )
    }

    /// Mean and variance of the scaled distance when nothing has changed.
    #[must_use]
    pub fn null(&self) -> Null {
        Null {
            mean: self.trace,
            variance: 2.0 * self.trace_of_square,
        }
    }
}

fn mixture(means: &[Vec<f64>], tally: &Tally) -> Vec<f64> {
    let mut mixed = vec![0.0; FOURIER];
    for (cell, share) in tally.shares() {
        for (sum, mean) in mixed.iter_mut().zip(&means[usize::from(cell) % means.len()]) {
            *sum += share * mean;
        }
    }
    mixed
}

/// Without the bias that a sample's covariance has in its square (as in Ledoit and Wolf, 2002).
fn trace_of_square(residuals: &[Vec<f64>], used: f64, trace: f64) -> f64 {
    let step = residuals.len().div_ceil(MOST).max(1);
    let some: Vec<&Vec<f64>> = residuals.iter().step_by(step).collect();
    let degrees = (some.len() as f64 - used / step as f64).max(3.0);
    let mut sum = 0.0;
    for (position, row) in some.iter().enumerate() {
        sum += dot(row, row) * dot(row, row);
        for other in &some[..position] {
            let product = dot(row, other);
            sum += 2.0 * product * product;
        }
    }
    let raw = sum / (degrees * degrees);
    let unbiased = degrees * degrees / ((degrees - 1.0) * (degrees + 2.0)) * (raw - trace * trace / degrees);
    // A covariance of that trace has at least this in its square.
    unbiased.max(trace * trace / FOURIER as f64)
}
