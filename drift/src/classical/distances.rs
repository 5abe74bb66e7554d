//! Distances between two samples of numbers, by the area between their distribution functions.

use super::{ClassicalError, Side, check, finite, sorted};

/// First Wasserstein distance, `integral |F - G|`, in the unit of the values (Vallender 1974): the earth mover's distance.
pub fn wasserstein(reference: &[f64], current: &[f64]) -> Result<f64, ClassicalError> {
    integral(reference, current, f64::abs)
}

/// Wasserstein distance over the reference's standard deviation (divided by n): Evidently's normed distance, without its
/// floor of 0.001 under the deviation.
pub fn wasserstein_normed(reference: &[f64], current: &[f64]) -> Result<f64, ClassicalError> {
    check(reference, Side::Reference, 1)?;
    let count = reference.len() as f64;
    let mean = reference.iter().sum::<f64>() / count;
    let variance = reference
        .iter()
        .map(|value| (value - mean) * (value - mean))
        .sum::<f64>()
        / count;
    let distance = wasserstein(reference, current)?;
    if finite(variance)? == 0.0 {
        return Err(ClassicalError::NoSpread);
    }
    finite(distance / variance.sqrt())
}

/// Energy distance, `sqrt(2 E|X-Y| - E|X-X'| - E|Y-Y'|)`, which for numbers is `sqrt(2 integral (F - G)^2)` (Szekely and
/// Rizzo 2013): the root form of scipy. Standardise the values first if signals are to be compared.
pub fn energy(reference: &[f64], current: &[f64]) -> Result<f64, ClassicalError> {
    Ok((2.0 * integral(reference, current, |difference| difference * difference)?).sqrt())
}

/// The integral of a function of the difference of both distribution functions.
fn integral(reference: &[f64], current: &[f64], of: impl Fn(f64) -> f64) -> Result<f64, ClassicalError> {
    let reference = sorted(reference, Side::Reference, 1)?;
    let current = sorted(current, Side::Current, 1)?;
    let (m, n) = (reference.len() as f64, current.len() as f64);
    let (mut i, mut j, mut sum) = (0, 0, 0.0);
    let mut last = reference[0].min(current[0]);
    while let Some(next) = least(reference.get(i), current.get(j)) {
        if next > last {
            sum += of(i as f64 / m - j as f64 / n) * (next - last);
            last = next;
        }
        if reference.get(i).is_some_and(|value| *value <= next) {
            i += 1;
        } else {
            j += 1;
        }
    }
    finite(sum)
}

fn least(left: Option<&f64>, right: Option<&f64>) -> Option<f64> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(*right)),
        (one, None) | (None, one) => one.copied(),
    }
}
