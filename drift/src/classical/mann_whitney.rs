//! The Mann-Whitney U test, also called Wilcoxon's rank sum test.

use super::{ClassicalError, Side, sorted};
use crate::math::normal_sf;

/// The smaller sample up to which the exact p-value is computed: scipy's limit.
pub const LARGEST_EXACT: usize = 8;
/// The larger sample up to which it is: all arrangements can still be counted in 128 bits.
const LARGEST_OTHER: usize = 10_000;

/// Result of [`mann_whitney`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MannWhitney {
    /// Pairs in which the reference value is the larger one, ties counting a half.
    pub statistic: f64,
    /// Exact two-sided p-value; `None` with ties or where the smaller sample has over [`LARGEST_EXACT`] values.
    pub exact_p_value: Option<f64>,
    /// Two-sided p-value of the normal approximation, with the corrections for ties and continuity.
    pub asymptotic_p_value: f64,
}

impl MannWhitney {
    /// The exact p-value where there is one: scipy's figure.
    #[must_use]
    pub fn p_value(&self) -> f64 {
        self.exact_p_value.unwrap_or(self.asymptotic_p_value)
    }
}

/// Whether values of one sample tend to be larger than those of the other (Mann and Whitney 1947).
pub fn mann_whitney(reference: &[f64], current: &[f64]) -> Result<MannWhitney, ClassicalError> {
    let reference = sorted(reference, Side::Reference, 1)?;
    let current = sorted(current, Side::Current, 1)?;
    let (m, n) = (reference.len() as f64, current.len() as f64);
    let (mut below, mut at_most, mut twice) = (0, 0, 0u128);
    for value in &reference {
        below += current[below..].partition_point(|other| other < value);
        at_most += current[at_most..].partition_point(|other| other <= value);
        twice += (below + at_most) as u128;
    }
    let statistic = twice as f64 / 2.0;
    let larger = statistic.max(m * n - statistic);

    let ties = tie_term(&reference, &current);
    let small = reference.len().min(current.len()) <= LARGEST_EXACT;
    let countable = small && reference.len().max(current.len()) <= LARGEST_OTHER && ties == 0.0;
    let exact_p_value = countable.then(|| (2.0 * upper_tail(larger as usize, reference.len(), current.len())).min(1.0));

    let sum = m + n;
    let deviation = (m * n / 12.0 * (sum + 1.0 - ties / (sum * (sum - 1.0))))
        .max(0.0)
        .sqrt();
    let z = (larger - m * n / 2.0 - 0.5) / deviation;
    // If all values are the same, nothing speaks for a change.
    let asymptotic_p_value = if deviation > 0.0 {
        (2.0 * normal_sf(z)).min(1.0)
    } else {
        1.0
    };
    Ok(MannWhitney {
        statistic,
        exact_p_value,
        asymptotic_p_value,
    })
}

/// `sum t^3 - t` over groups of `t` equal values in both samples.
fn tie_term(reference: &[f64], current: &[f64]) -> f64 {
    let mut pooled = [reference, current].concat();
    pooled.sort_by(f64::total_cmp);
    pooled
        .chunk_by(|left, right| left == right)
        .map(|group| group.len() as f64)
        .map(|count| count * (count * count - 1.0))
        .sum()
}

/// `P(U >= u)` over all arrangements without ties: the coefficients of a Gaussian binomial, computed modulo 2^128, which
/// none of them reaches.
fn upper_tail(u: usize, m: usize, n: usize) -> f64 {
    let (fewer, more) = (m.min(n), m.max(n));
    let mut counts = vec![0u128; fewer * more + 1];
    counts[0] = 1;
    for step in 1..=fewer {
        for index in (more + step..counts.len()).rev() {
            counts[index] = counts[index].wrapping_sub(counts[index - more - step]);
        }
        for index in step..counts.len() {
            counts[index] = counts[index].wrapping_add(counts[index - step]);
        }
    }
    let sum = |counts: &[u128]| counts.iter().map(|&count| count as f64).sum::<f64>();
    sum(&counts[u.min(counts.len())..]) / sum(&counts)
}
