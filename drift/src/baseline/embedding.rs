//! The baseline of what prompts are about: mean features by hour, and how much panes' means vary.

use serde::{Deserialize, Serialize};

use crate::baseline::design_effect;
use crate::baseline::learn::{Sample, blocks};
use crate::baseline::means::{Means, dot, excess, mean_of, own_means};
use crate::evidence::fourier::{self, Null};
use crate::features::FOURIER;
use crate::tally::Tally;

/// Panes of which the square of the covariance is computed; more cost time and change nothing that one would see.
const MOST: usize = 512;

/// The 99.5 % quantile of the normal distribution.
const QUANTILE: f64 = 2.576;

/// What is expected of the features' mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Embedding {
    /// Of all panes.
    pub whole: Means,
    /// Of every other pane, and of the rest. A direction that was learned against the first half knows nothing of the
    /// second half's error, and so cannot be led by it.
    pub halves: [Means; 2],
    /// Trace of the covariance of one request's features, as panes show it: clustered traffic has a larger one.
    pub trace: f64,
    /// Trace of its square.
    pub trace_of_square: f64,
    /// Upper triangle of the covariance of one request's features, by rows, two standard errors larger than panes show it.
    pub covariance: Vec<f32>,
    /// How much more panes vary than independent requests would.
    pub phi: f64,
    /// How far a mean is from its reference when nothing has changed.
    pub null: Null,
}

impl Embedding {
    pub(crate) fn learn(samples: &[Sample], cells: usize) -> Self {
        let (own, counts, all) = own_means(samples.iter(), cells);
        let used = counts.iter().filter(|count| **count > 0.0).count() as f64;
        let residuals: Vec<Vec<f64>> = blocks(samples, 1)
            .iter()
            .map(|unit| {
                let weight = libm::sqrt(unit.count as f64);
                let expected = Means::mixture(&own, unit);
                let pairs = mean_of(unit).into_iter().zip(expected);
                pairs.map(|(mean, expected)| weight * (mean - expected)).collect()
            })
            .collect();
        let degrees = (residuals.len() as f64 - used).max(1.0);
        let trace = residuals.iter().map(|row| dot(row, row)).sum::<f64>() / degrees;
        let excess = excess(&own, &counts, &all, trace);
        let half = |rest| {
            Means::learn(
                samples.iter().filter(move |sample| sample.unit % 2 == rest),
                cells,
                excess,
            )
        };
        let scale = (1.0 + 2.0 * libm::sqrt(2.0 / degrees)) / degrees;
        let covariance = covariance(&residuals, scale);
        // Features have length one, so that this is what their variance is request by request.
        let independent = (1.0 - dot(&all, &all)).max(f64::MIN_POSITIVE);
        Self {
            whole: Means::learn(samples.iter(), cells, excess),
            halves: [half(0), half(1)],
            trace,
            trace_of_square: trace_of_square(&residuals, used, trace),
            phi: (trace / independent).max(1.0),
            null: null(&residuals, &covariance, scale),
            covariance: triangle(&covariance),
        }
    }

    /// Variance of one request's features along a direction of length one.
    #[must_use]
    pub(crate) fn variance(&self, direction: &[f64]) -> f64 {
        let mut rest = self.covariance.as_slice();
        let mut sum = 0.0;
        for (row, along) in direction.iter().enumerate() {
            let Some((values, others)) = rest.split_at_checked(direction.len() - row) else {
                break;
            };
            rest = others;
            let mut products = values
                .iter()
                .zip(&direction[row..])
                .map(|(value, other)| f64::from(*value) * other);
            let own = products.next().unwrap_or(0.0);
            // What is beside the diagonal stands for both sides of it.
            sum += along * (own + 2.0 * products.sum::<f64>());
        }
        sum
    }

    /// Squared distance of the mean from the expected one, and the requests that the expected one is worth.
    #[must_use]
    pub fn distance(&self, tally: &Tally) -> (f64, f64) {
        let (expected, size) = self.whole.reference(tally);
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
}

/// Sum of the residuals' products, times this.
fn covariance(residuals: &[Vec<f64>], scale: f64) -> Vec<f64> {
    let mut covariance = vec![0.0; FOURIER * FOURIER];
    for residual in residuals {
        for (row, value) in covariance.chunks_exact_mut(FOURIER).zip(residual) {
            let factor = scale * value;
            row.iter_mut()
                .zip(residual)
                .for_each(|(sum, other)| *sum += factor * other);
        }
    }
    covariance
}

fn triangle(matrix: &[f64]) -> Vec<f32> {
    matrix
        .chunks_exact(FOURIER)
        .enumerate()
        .flat_map(|(row, values)| values[row..].iter().map(|value| *value as f32))
        .collect()
}

fn null(residuals: &[Vec<f64>], covariance: &[f64], scale: f64) -> Null {
    let largest = scale * design_effect::top(residuals);
    let trace: f64 = (0..FOURIER).map(|index| covariance[index * FOURIER + index]).sum();
    let squared: f64 = covariance.iter().map(|value| value * value).sum();
    Null {
        largest,
        kappa: if largest > 0.0 {
            fourier::kappa(covariance, FOURIER, largest)
        } else {
            [0.0; 5]
        },
        error: trace + QUANTILE * libm::sqrt(2.0 * squared),
    }
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
