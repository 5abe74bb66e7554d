//! The baseline of a number: groups, means by hour, spread, and the shape that keeps its e-values valid.

use serde::{Deserialize, Serialize};

use crate::baseline::learn::{Sample, blocks};
use crate::baseline::{design_effect, groups, season};
use crate::evidence::bernoulli::Bounds;
use crate::evidence::directional::SHIFTS;
use crate::features::ONE;
use crate::pane::histogram::Histogram;
use crate::signal::Scale;
use crate::tally::Tally;

/// What is expected of a number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Numeric {
    /// Counts by group and hour.
    pub table: Table,
    /// Mean of transformed values by cell.
    pub means: Vec<f64>,
    /// Values that a cell's mean is worth; those that are missing are none.
    pub sizes: Vec<f64>,
    /// The outermost groups, in which a mixture with something else or a wider spread shows first.
    pub tails: Vec<u16>,
    /// Standard deviation within cells; 0 for a constant, which has no direction.
    pub sigma: f64,
    /// Logarithm of the moment-generating function of one standardised value, at each of [`SHIFTS`].
    pub kappa: [f64; 8],
    /// Design effect of sums.
    pub phi: f64,
}

/// Proportions by cell, and how much they are worth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Group of each bin or category.
    pub groups: Vec<u16>,
    /// By cell: expected counts by group, in all as many as the proportions are worth.
    pub cells: Vec<Vec<f64>>,
    /// Design effect of counts.
    pub phi: f64,
}

impl Table {
    /// Number of groups.
    #[must_use]
    pub fn width(&self) -> usize {
        self.cells.first().map_or(0, Vec::len)
    }

    /// Expected counts by group for requests of these hours, in all as many as the mixture is worth.
    #[must_use]
    pub fn reference(&self, tally: &Tally) -> Vec<f64> {
        let mut proportions = vec![0.0; self.width()];
        let mut variance = 0.0;
        for (cell, share) in tally.shares() {
            let counts = &self.cells[usize::from(cell) % self.cells.len()];
            let size = counts.iter().sum::<f64>().max(f64::MIN_POSITIVE);
            for (proportion, count) in proportions.iter_mut().zip(counts) {
                *proportion += share * count / size;
            }
            variance += share * share / size;
        }
        let size = if variance > 0.0 { 1.0 / variance } else { 0.0 };
        proportions.iter_mut().for_each(|proportion| *proportion *= size);
        proportions
    }

    /// From the tallies of all panes, which are in these groups already.
    pub(crate) fn learn(groups: Vec<u16>, width: usize, samples: &[Sample], cells: usize) -> Self {
        let mut own = vec![vec![0.0; width]; cells];
        for sample in samples {
            for (sum, count) in own[usize::from(sample.cell)].iter_mut().zip(&sample.tally.groups) {
                *sum += *count as f64;
            }
        }
        let sizes: Vec<f64> = own.iter().map(|counts| counts.iter().sum()).collect();
        let total: f64 = sizes.iter().sum();
        let pooled: Vec<f64> = (0..width)
            .map(|group| own.iter().map(|counts| counts[group]).sum::<f64>() / total.max(1.0))
            .collect();
        let shares = season::shares(&sizes, excess(&own, &sizes, &pooled));
        let cells: Vec<Vec<f64>> = own
            .iter()
            .zip(&sizes)
            .zip(&shares)
            .map(|((counts, size), share)| {
                let mix = |(count, pooled): (&f64, &f64)| {
                    let own = if *size > 0.0 { count / size } else { 0.0 };
                    share.size * (share.own * own + (1.0 - share.own) * pooled)
                };
                counts.iter().zip(&pooled).map(mix).collect()
            })
            .collect();
        let mut table = Self {
            groups,
            cells,
            phi: 1.0,
        };
        let used = sizes.iter().filter(|size| **size > 0.0).count() as f64;
        let common = lumps(&pooled, samples);
        table.phi = design_effect::largest(|scale| table.rows(&common, &blocks(samples, scale)), used);
        table
    }

    /// Standardised counts of each block, rare groups lumped together.
    fn rows(&self, lumps: &[usize], blocks: &[Tally]) -> Vec<Vec<f64>> {
        let width = lumps.iter().max().map_or(0, |last| last + 1);
        let row = |tally: &Tally| {
            let reference = self.reference(tally);
            let size: f64 = reference.iter().sum();
            let counts = tally.group_counts(self.width());
            let total: f64 = counts.iter().sum();
            let (mut seen, mut expected) = (vec![0.0; width], vec![0.0; width]);
            for ((lump, count), reference) in lumps.iter().zip(&counts).zip(&reference) {
                seen[*lump] += count;
                expected[*lump] += total * reference / size;
            }
            seen.iter()
                .zip(&expected)
                .map(|(seen, expected)| {
                    if *expected > 0.0 {
                        (seen - expected) / libm::sqrt(*expected)
                    } else {
                        0.0
                    }
                })
                .collect()
        };
        blocks.iter().map(row).collect()
    }
}

/// Groups with less than two values in a typical block are taken as one: their counts are too uneven for a covariance.
fn lumps(pooled: &[f64], samples: &[Sample]) -> Vec<usize> {
    let typical = samples.iter().map(|sample| sample.tally.count).sum::<u64>() as f64 / samples.len().max(1) as f64;
    let mut next = 1;
    let lumps: Vec<usize> = pooled
        .iter()
        .map(|proportion| {
            if proportion * typical < 2.0 {
                return 0;
            }
            next += 1;
            next - 1
        })
        .collect();
    if lumps.contains(&0) {
        lumps
    } else {
        lumps.iter().map(|lump| lump - 1).collect()
    }
}

/// Pearson's statistic of cells against the pooled proportions, over its degrees of freedom.
fn excess(own: &[Vec<f64>], sizes: &[f64], pooled: &[f64]) -> f64 {
    let used = sizes.iter().filter(|size| **size > 0.0).count() as f64;
    let groups = pooled.iter().filter(|proportion| **proportion > 0.0).count() as f64;
    if used < 2.0 || groups < 2.0 {
        return 1.0;
    }
    let mut statistic = 0.0;
    for (counts, size) in own.iter().zip(sizes) {
        for (count, proportion) in counts.iter().zip(pooled) {
            let expected = size * proportion;
            if expected > 0.0 {
                statistic += (count - expected) * (count - expected) / expected;
            }
        }
    }
    statistic / ((used - 1.0) * (groups - 1.0))
}

impl Numeric {
    /// A pane's histogram in the groups of the baseline.
    pub(crate) fn tally(groups: &[u16], width: usize, histogram: &Histogram, cell: u16) -> Tally {
        let count = histogram.count();
        let mut counts = vec![0; width];
        groups::fold(groups, &histogram.bins, &mut counts);
        if let Some(last) = counts.last_mut() {
            *last += histogram.missing;
        }
        Tally {
            count,
            groups: counts,
            sums: vec![i128::from(histogram.sum)],
            cells: if count > 0 { vec![(cell, count)] } else { Vec::new() },
        }
    }

    pub(crate) fn learn(
        scale: &Scale,
        histograms: &[(u16, &Histogram)],
        samples_of: &dyn Fn(&[u16], usize) -> Vec<Sample>,
        cells: usize,
    ) -> Self {
        let mut pooled = Histogram::default();
        let mut by_cell = vec![Histogram::default(); cells];
        for (cell, histogram) in histograms {
            pooled.merge(histogram);
            by_cell[usize::from(*cell)].merge(histogram);
        }
        let groups = groups::of_bins(&pooled.bins);
        // One more for what is missing.
        let width = groups::count(&groups) + 1;
        let samples = samples_of(&groups, width);
        let table = Table::learn(groups.clone(), width, &samples, cells);
        let mut within = vec![0; width];
        groups::fold(&groups, &pooled.bins, &mut within);
        let present: Vec<f64> = within[..width - 1].iter().map(|count| *count as f64).collect();
        let (means, sizes, sigma) = moments(&by_cell);
        let kappa = kappa(scale, &by_cell, &means, sigma);
        let mut learned = Self {
            table,
            means,
            sizes,
            tails: groups::tails(&present),
            sigma,
            kappa,
            phi: 1.0,
        };
        let used = by_cell.iter().filter(|cell| cell.count() > 0).count() as f64;
        if sigma > 0.0 {
            let row = |tally: &Tally| vec![learned.standardised(tally) / libm::sqrt(tally.count.max(1) as f64)];
            learned.phi = design_effect::largest(|scale| blocks(&samples, scale).iter().map(row).collect(), used);
        }
        learned
    }

    /// Values in the tails, and bounds of their expected part.
    #[must_use]
    pub fn tail(&self, tally: &Tally, reference: &[f64]) -> (f64, Bounds) {
        let within = |counts: &mut dyn Iterator<Item = f64>| -> (f64, f64) {
            counts.enumerate().fold((0.0, 0.0), |(inside, all), (group, count)| {
                let tail = self.tails.iter().any(|tail| usize::from(*tail) == group);
                (if tail { inside + count } else { inside }, all + count)
            })
        };
        // What is missing is in the last group, and in no tail.
        let present = self.table.width() - 1;
        let (seen, _) = within(&mut tally.groups.iter().take(present).map(|count| *count as f64));
        let (expected, all) = within(&mut reference.iter().take(present).copied());
        (seen, Bounds::of(expected, all))
    }

    /// Values that the expected mean of these hours is worth.
    #[must_use]
    pub fn size(&self, tally: &Tally) -> f64 {
        let size = |cell: u16| self.sizes[usize::from(cell) % self.sizes.len()].max(f64::MIN_POSITIVE);
        let variance: f64 = tally.shares().map(|(cell, share)| share * share / size(cell)).sum();
        if variance > 0.0 { 1.0 / variance } else { 0.0 }
    }

    /// Sum of the values' distances from their hour's mean, in standard deviations.
    #[must_use]
    pub fn standardised(&self, tally: &Tally) -> f64 {
        let expected: f64 = tally
            .cells
            .iter()
            .map(|(cell, count)| *count as f64 * self.means[usize::from(*cell) % self.means.len()])
            .sum();
        let sum = tally.sums.first().map_or(0.0, |sum| *sum as f64 / ONE);
        (sum - expected) / self.sigma
    }
}

/// Means by cell, shrunk towards the pooled one, the values that they are worth, and the standard deviation within cells.
fn moments(by_cell: &[Histogram]) -> (Vec<f64>, Vec<f64>, f64) {
    let counts: Vec<f64> = by_cell.iter().map(|cell| cell.count() as f64).collect();
    let own: Vec<f64> = by_cell
        .iter()
        .zip(&counts)
        .map(|(cell, count)| if *count > 0.0 { cell.sum() / count } else { 0.0 })
        .collect();
    let total: f64 = counts.iter().sum();
    let used = counts.iter().filter(|count| **count > 0.0).count() as f64;
    let pooled = by_cell.iter().map(Histogram::sum).sum::<f64>() / total.max(1.0);
    let within: f64 = by_cell
        .iter()
        .zip(&own)
        .zip(&counts)
        .map(|((cell, mean), count)| cell.squares as f64 / (ONE * ONE) - count * mean * mean)
        .sum();
    let variance = (within / (total - used).max(1.0)).max(0.0);
    // What is left of rounding is no spread.
    let sigma = if variance > 1e-12 { libm::sqrt(variance) } else { 0.0 };
    let between: f64 = own
        .iter()
        .zip(&counts)
        .map(|(mean, count)| count * (mean - pooled) * (mean - pooled))
        .sum();
    let excess = if used > 1.0 && variance > 0.0 {
        between / variance / (used - 1.0)
    } else {
        1.0
    };
    let shares = season::shares(&counts, excess);
    let mean = |(share, mean): (&season::Share, &f64)| share.own * mean + (1.0 - share.own) * pooled;
    let means = shares.iter().zip(&own).map(mean).collect();
    (means, shares.iter().map(|share| share.size).collect(), sigma)
}

/// The cumulants, from the fine bins, with two standard errors of their estimation on top. The linear part of that
/// estimation has no error, since the sample's own mean is subtracted.
fn kappa(scale: &Scale, by_cell: &[Histogram], means: &[f64], sigma: f64) -> [f64; 8] {
    SHIFTS.map(|shift| {
        if sigma == 0.0 {
            return 0.0;
        }
        let bias = rounding(scale, by_cell);
        let (mut total, mut sum, mut rest, mut squares) = (0.0, 0.0, 0.0, 0.0);
        for (cell, mean) in by_cell.iter().zip(means) {
            for (bin, count) in cell.bins.iter().enumerate().filter(|(_, count)| **count > 0) {
                let (count, value) = (*count as f64, (scale.middle(bin) - bias - mean) / sigma);
                let weight = libm::exp(shift * value);
                total += count;
                sum += count * weight;
                rest += count * (weight - shift * value);
                squares += count * (weight - shift * value) * (weight - shift * value);
            }
        }
        if total == 0.0 {
            return 0.0;
        }
        let variance = (squares / total - (rest / total) * (rest / total)).max(0.0);
        libm::log(sum / total + 2.0 * libm::sqrt(variance / total))
    })
}

/// By how much the middles of bins are above the values in them, on average.
fn rounding(scale: &Scale, by_cell: &[Histogram]) -> f64 {
    let (mut total, mut middles, mut exact) = (0.0, 0.0, 0.0);
    for cell in by_cell {
        exact += cell.sum();
        for (bin, count) in cell.bins.iter().enumerate() {
            total += *count as f64;
            middles += *count as f64 * scale.middle(bin);
        }
    }
    if total > 0.0 { (middles - exact) / total } else { 0.0 }
}
