//! Mean features by hour.

use serde::{Deserialize, Serialize};

use crate::baseline::learn::Sample;
use crate::baseline::season;
use crate::features::{FOURIER, ONE};
use crate::tally::Tally;

/// Means by cell, mixed with the pooled one where hours hardly differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Means {
    /// Mean by cell.
    pub by_cell: Vec<Vec<f64>>,
    /// Requests that a cell's mean is worth.
    pub sizes: Vec<f64>,
}

pub(crate) fn mean_of(tally: &Tally) -> Vec<f64> {
    let count = tally.count.max(1) as f64 * ONE;
    tally.sums.iter().map(|sum| *sum as f64 / count).collect()
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Each cell's own mean, its requests, and the mean of all. A cell without requests has the mean of all.
pub(crate) fn own_means<'a>(
    samples: impl Iterator<Item = &'a Sample>,
    cells: usize,
) -> (Vec<Vec<f64>>, Vec<f64>, Vec<f64>) {
    let mut by_cell = vec![Tally::default(); cells];
    let mut pooled = Tally::default();
    pooled.sums.resize(FOURIER, 0);
    for sample in samples {
        by_cell[usize::from(sample.cell)].merge(&sample.tally);
        pooled.merge(&sample.tally);
    }
    let all = mean_of(&pooled);
    let counts = by_cell.iter().map(|cell| cell.count as f64).collect();
    let own = by_cell
        .iter()
        .map(|cell| if cell.count > 0 { mean_of(cell) } else { all.clone() })
        .collect();
    (own, counts, all)
}

/// How much more cells differ than chance would have them, from the trace of the covariance.
pub(crate) fn excess(own: &[Vec<f64>], counts: &[f64], all: &[f64], trace: f64) -> f64 {
    let used = counts.iter().filter(|count| **count > 0.0).count() as f64;
    if used < 2.0 || trace <= 0.0 {
        return 1.0;
    }
    let between: f64 = own
        .iter()
        .zip(counts)
        .map(|(mean, count)| {
            let apart: Vec<f64> = mean.iter().zip(all).map(|(mean, all)| mean - all).collect();
            count * dot(&apart, &apart)
        })
        .sum();
    between / trace / (used - 1.0)
}

impl Means {
    pub(crate) fn learn<'a>(samples: impl Iterator<Item = &'a Sample>, cells: usize, excess: f64) -> Self {
        let (own, counts, all) = own_means(samples, cells);
        let shares = season::shares(&counts, excess);
        let by_cell = own
            .iter()
            .zip(&shares)
            .map(|(mean, share)| {
                let mix = |(mean, all): (&f64, &f64)| share.own * mean + (1.0 - share.own) * all;
                mean.iter().zip(&all).map(mix).collect()
            })
            .collect();
        Self {
            by_cell,
            sizes: shares.iter().map(|share| share.size).collect(),
        }
    }

    /// Expected mean for requests of these hours, and the requests that it is worth.
    #[must_use]
    pub fn reference(&self, tally: &Tally) -> (Vec<f64>, f64) {
        let variance: f64 = tally
            .shares()
            .map(|(cell, share)| {
                let size = self.sizes[usize::from(cell) % self.sizes.len()];
                share * share / size.max(f64::MIN_POSITIVE)
            })
            .sum();
        let size = if variance > 0.0 { 1.0 / variance } else { 0.0 };
        (Self::mixture(&self.by_cell, tally), size)
    }

    /// The means of the tally's cells, each with its share of the requests.
    pub(crate) fn mixture(by_cell: &[Vec<f64>], tally: &Tally) -> Vec<f64> {
        let mut mixed = vec![0.0; FOURIER];
        for (cell, share) in tally.shares() {
            for (sum, mean) in mixed.iter_mut().zip(&by_cell[usize::from(cell) % by_cell.len()]) {
                *sum += share * mean;
            }
        }
        mixed
    }
}
