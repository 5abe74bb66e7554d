//! Tests of whether two histograms over the same cells are draws from one distribution.

use super::ClassicalError;
use super::Side;
use super::counts::totals;
use crate::math::{chi_squared_sf, noncentral_chi_squared_sf};

/// A statistic that is chi-squared where nothing changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChiSquared {
    /// The statistic.
    pub statistic: f64,
    /// One fewer than there are cells with counts.
    pub degrees_of_freedom: usize,
    /// How likely a statistic at least as large is if nothing changed.
    pub p_value: f64,
}

/// Pearson's two-sample test, `n_eff sum (q - p)^2 / pooled` with `n_eff = nm / (n + m)`, on slices of one count for each
/// cell: the test of homogeneity of a 2 x k table without a correction of continuity.
pub fn chi_squared_two_sample(reference: &[f64], current: &[f64]) -> Result<ChiSquared, ClassicalError> {
    let (statistic, degrees_of_freedom, _) = two_sample(reference, current)?;
    Ok(chi_squared(statistic, degrees_of_freedom))
}

/// The two-sample test with a margin: the p-value is of the hypothesis that `sum (q - p)^2 / pooled` is at most `margin`,
/// by the noncentral chi-squared distribution with noncentrality `n_eff margin` (Potgieter et al., arXiv 2307.11878).
pub fn chi_squared_with_margin(reference: &[f64], current: &[f64], margin: f64) -> Result<ChiSquared, ClassicalError> {
    // A distance of this form is at most 4.
    super::within(
        "the margin",
        margin,
        |value| (0.0..=4.0).contains(&value),
        "between 0 and 4",
    )?;
    let (statistic, degrees_of_freedom, effective) = two_sample(reference, current)?;
    let p_value = noncentral_chi_squared_sf(statistic, degrees_of_freedom as f64, effective * margin);
    Ok(ChiSquared {
        statistic,
        degrees_of_freedom,
        p_value,
    })
}

/// Pearson's one-sample test, `sum (O - E)^2 / E` with the reference's shares taken for exact: what Evidently calls the
/// chi-square test. It finds too much where the reference is not much larger than the current counts.
pub fn chi_squared_one_sample(reference: &[f64], current: &[f64]) -> Result<ChiSquared, ClassicalError> {
    let (m, n) = totals(reference, current)?;
    let (mut statistic, mut cells) = (0.0, 0);
    for (index, (&reference, &observed)) in reference.iter().zip(current).enumerate() {
        let expected = reference / m * n;
        if expected > 0.0 {
            statistic += (observed - expected) * ((observed - expected) / expected);
            cells += 1;
        } else if observed > 0.0 {
            return Err(ClassicalError::EmptyCell {
                side: Side::Reference,
                index,
            });
        }
    }
    Ok(chi_squared(super::finite(statistic)?, freedom(cells)?))
}

/// The likelihood-ratio test, `2 sum O ln(O / E)` over both samples, with `E` from the pooled shares (Wilks 1938).
pub fn g_test(reference: &[f64], current: &[f64]) -> Result<ChiSquared, ClassicalError> {
    let (m, n) = totals(reference, current)?;
    let sum = super::finite(m + n)?;
    let term = |observed: f64, expected: f64| {
        if observed == 0.0 {
            0.0
        } else {
            observed * libm::log(observed / expected)
        }
    };
    let (mut statistic, mut cells) = (0.0, 0);
    for (&reference, &current) in reference.iter().zip(current) {
        let pooled = (reference + current) / sum;
        if pooled > 0.0 {
            statistic += term(reference, pooled * m) + term(current, pooled * n);
            cells += 1;
        }
    }
    // Rounding may leave a trace below zero where the shares are equal.
    Ok(chi_squared(super::finite(2.0 * statistic)?.max(0.0), freedom(cells)?))
}

/// Statistic, degrees of freedom and effective number.
fn two_sample(reference: &[f64], current: &[f64]) -> Result<(f64, usize, f64), ClassicalError> {
    let (m, n) = totals(reference, current)?;
    let sum = super::finite(m + n)?;
    let effective = n * (m / sum);
    let (mut distance, mut cells) = (0.0, 0);
    for (&reference, &current) in reference.iter().zip(current) {
        let pooled = (reference + current) / sum;
        if pooled > 0.0 {
            let difference = current / n - reference / m;
            distance += difference * (difference / pooled);
            cells += 1;
        }
    }
    Ok((super::finite(effective * distance)?, freedom(cells)?, effective))
}

fn freedom(cells: usize) -> Result<usize, ClassicalError> {
    if cells < 2 {
        Err(ClassicalError::TooFewCells { found: cells })
    } else {
        Ok(cells - 1)
    }
}

fn chi_squared(statistic: f64, degrees_of_freedom: usize) -> ChiSquared {
    ChiSquared {
        statistic,
        degrees_of_freedom,
        p_value: chi_squared_sf(statistic, degrees_of_freedom as f64),
    }
}
