//! Distances between two histograms over the same cells.
//!
//! `p` are the shares of the reference and `q` those of the current counts. Both are slices of one count for each cell.

use super::{ClassicalError, Side, within};
use crate::math::chi_squared_isf;

/// What is done about cells that are empty on one side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Smoothing {
    /// Nothing: a cell that a logarithm is infinite for is an error.
    None,
    /// This is added to every cell of both sides; 0.5 is Jeffreys' prior.
    Add(f64),
    /// The share of an empty cell is taken to be this, and the others are left as they are: Evidently uses 0.0001.
    Floor(f64),
}

/// Population stability index, `sum (q - p) ln(q / p)`: both Kullback-Leibler divergences together (Kullback and Leibler
/// 1951; Yurdakul and Naranjo 2020). What it is by chance depends on the counts: see [`psi_null_mean`].
pub fn psi(reference: &[f64], current: &[f64], smoothing: Smoothing) -> Result<f64, ClassicalError> {
    let (p, q) = smoothed(reference, current, smoothing)?;
    let mut sum = 0.0;
    for (index, (&p, &q)) in p.iter().zip(&q).enumerate() {
        if p != q {
            sum += (q - p) * ln_ratio(q, p, index)?;
        }
    }
    Ok(sum)
}

/// Mean of the PSI of `cells` cells where nothing changed: `(cells - 1) (1/reference + 1/current)`, the arguments being
/// numbers of requests.
pub fn psi_null_mean(cells: usize, reference: f64, current: f64) -> Result<f64, ClassicalError> {
    Ok(degrees_of_freedom(cells)? * inverse_of_effective(reference, current)?)
}

/// The PSI that is exceeded with this probability where nothing changed: the quantile of chi-squared with `cells - 1`
/// degrees of freedom, times `1/reference + 1/current` (Yurdakul and Naranjo 2020).
pub fn psi_critical_value(cells: usize, reference: f64, current: f64, probability: f64) -> Result<f64, ClassicalError> {
    within(
        "the probability",
        probability,
        |value| value > 0.0 && value < 1.0,
        "between 0 and 1",
    )?;
    Ok(chi_squared_isf(probability, degrees_of_freedom(cells)?) * inverse_of_effective(reference, current)?)
}

/// Kullback-Leibler divergence of the current from the reference shares, `sum q ln(q / p)`, in nats.
pub fn kl_of_current(reference: &[f64], current: &[f64], smoothing: Smoothing) -> Result<f64, ClassicalError> {
    let (p, q) = smoothed(reference, current, smoothing)?;
    kullback_leibler(&q, &p, ln_ratio)
}

/// Kullback-Leibler divergence of the reference from the current shares, `sum p ln(p / q)`, in nats.
pub fn kl_of_reference(reference: &[f64], current: &[f64], smoothing: Smoothing) -> Result<f64, ClassicalError> {
    let (p, q) = smoothed(reference, current, smoothing)?;
    kullback_leibler(&p, &q, |p, q, index| Ok(-ln_ratio(q, p, index)?))
}

/// Jensen-Shannon distance, the root of `(KL(p, m) + KL(q, m)) / 2` with `m = (p + q) / 2`, in nats; at most
/// `sqrt(ln 2)` (Lin 1991; Endres and Schindelin 2003). To base 2 it is this divided by `sqrt(ln 2)`.
pub fn jensen_shannon_distance(reference: &[f64], current: &[f64]) -> Result<f64, ClassicalError> {
    let (p, q) = shares(reference, current)?;
    let half = |share: f64, mean: f64| {
        if share == 0.0 {
            0.0
        } else {
            share * libm::log(share / mean)
        }
    };
    let sum: f64 = p
        .iter()
        .zip(&q)
        .map(|(&p, &q)| {
            let mean = (p + q) / 2.0;
            half(p, mean) + half(q, mean)
        })
        .sum();
    Ok((sum / 2.0).max(0.0).sqrt())
}

/// Hellinger distance, `sqrt(sum (sqrt p - sqrt q)^2 / 2)`, from 0 to 1.
pub fn hellinger(reference: &[f64], current: &[f64]) -> Result<f64, ClassicalError> {
    let (p, q) = shares(reference, current)?;
    let sum: f64 = p
        .iter()
        .zip(&q)
        .map(|(p, q)| (p.sqrt() - q.sqrt()) * (p.sqrt() - q.sqrt()))
        .sum();
    Ok((sum / 2.0).sqrt().min(1.0))
}

/// Total variation, `sum |p - q| / 2`, from 0 to 1: the share of requests that would have to move.
pub fn total_variation(reference: &[f64], current: &[f64]) -> Result<f64, ClassicalError> {
    let (p, q) = shares(reference, current)?;
    Ok((p.iter().zip(&q).map(|(p, q)| (p - q).abs()).sum::<f64>() / 2.0).min(1.0))
}

/// The largest difference of a share, `max |p - q|`: NannyML's and Databricks' L-infinity.
pub fn l_infinity(reference: &[f64], current: &[f64]) -> Result<f64, ClassicalError> {
    let (p, q) = shares(reference, current)?;
    Ok(p.iter().zip(&q).map(|(p, q)| (p - q).abs()).fold(0.0, f64::max))
}

/// The sums of both sides, after a check of every cell.
pub(super) fn totals(reference: &[f64], current: &[f64]) -> Result<(f64, f64), ClassicalError> {
    if reference.len() != current.len() {
        return Err(ClassicalError::CellsDiffer {
            reference: reference.len(),
            current: current.len(),
        });
    }
    Ok((total(reference, Side::Reference)?, total(current, Side::Current)?))
}

fn total(counts: &[f64], side: Side) -> Result<f64, ClassicalError> {
    if let Some(index) = counts.iter().position(|count| !count.is_finite() || *count < 0.0) {
        return Err(ClassicalError::NotACount {
            side,
            index,
            value: counts[index],
        });
    }
    let total: f64 = counts.iter().sum();
    if total == 0.0 {
        return Err(ClassicalError::NoCounts { side });
    }
    super::finite(total)
}

fn shares(reference: &[f64], current: &[f64]) -> Result<(Vec<f64>, Vec<f64>), ClassicalError> {
    let (m, n) = totals(reference, current)?;
    Ok((
        reference.iter().map(|count| count / m).collect(),
        current.iter().map(|count| count / n).collect(),
    ))
}

fn smoothed(reference: &[f64], current: &[f64], smoothing: Smoothing) -> Result<(Vec<f64>, Vec<f64>), ClassicalError> {
    match smoothing {
        Smoothing::None => shares(reference, current),
        Smoothing::Add(amount) => {
            within("what is added to each cell", amount, |value| value > 0.0, "positive")?;
            totals(reference, current)?;
            let raised = |counts: &[f64]| counts.iter().map(|count| count + amount).collect::<Vec<_>>();
            shares(&raised(reference), &raised(current))
        }
        Smoothing::Floor(share) => {
            within(
                "the share of an empty cell",
                share,
                |value| value > 0.0 && value < 1.0,
                "between 0 and 1",
            )?;
            let (mut p, mut q) = shares(reference, current)?;
            p.iter_mut()
                .chain(&mut q)
                .filter(|value| **value == 0.0)
                .for_each(|value| *value = share);
            Ok((p, q))
        }
    }
}

/// `ln(q / p)`, of which neither may be zero.
fn ln_ratio(q: f64, p: f64, index: usize) -> Result<f64, ClassicalError> {
    if p == 0.0 {
        return Err(ClassicalError::EmptyCell {
            side: Side::Reference,
            index,
        });
    }
    if q == 0.0 {
        return Err(ClassicalError::EmptyCell {
            side: Side::Current,
            index,
        });
    }
    // The quotient of a huge and a tiny share would overflow.
    Ok(if (1e-3..1e3).contains(&(q / p)) {
        libm::log(q / p)
    } else {
        libm::log(q) - libm::log(p)
    })
}

fn kullback_leibler(
    of: &[f64],
    from: &[f64],
    ln_ratio: impl Fn(f64, f64, usize) -> Result<f64, ClassicalError>,
) -> Result<f64, ClassicalError> {
    let mut sum = 0.0;
    for (index, (&of, &from)) in of.iter().zip(from).enumerate() {
        if of > 0.0 {
            sum += of * ln_ratio(of, from, index)?;
        }
    }
    Ok(sum)
}

fn degrees_of_freedom(cells: usize) -> Result<f64, ClassicalError> {
    if cells < 2 {
        Err(ClassicalError::TooFewCells { found: cells })
    } else {
        Ok((cells - 1) as f64)
    }
}

fn inverse_of_effective(reference: f64, current: f64) -> Result<f64, ClassicalError> {
    super::positive("the number of requests in the reference", reference)?;
    super::positive("the number of current requests", current)?;
    super::finite(1.0 / reference + 1.0 / current)
}
