//! Maximum mean discrepancy of samples of points.

use super::{ClassicalError, Side, finite, positive};

/// Result of [`maximum_mean_discrepancy`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaximumMeanDiscrepancy {
    /// Without the pairs of a point with itself; zero on average if nothing changed, and below it half the time.
    pub unbiased: f64,
    /// With them; never negative, and positive on average even if nothing changed.
    pub biased: f64,
}

/// Squared maximum mean discrepancy, `mean k(x, x') + mean k(y, y') - 2 mean k(x, y)`, with the kernel
/// `k(x, y) = exp(-gamma |x - y|^2)` (Gretton et al. 2012). At least two points on each side, all of one dimension; time
/// grows with the square of their number.
pub fn maximum_mean_discrepancy<P: AsRef<[f64]>>(
    reference: &[P],
    current: &[P],
    gamma: f64,
) -> Result<MaximumMeanDiscrepancy, ClassicalError> {
    positive("gamma", gamma)?;
    let dimension = reference.first().map_or(0, |point| point.as_ref().len());
    check(reference, Side::Reference, dimension)?;
    check(current, Side::Current, dimension)?;
    let kernel = |left: &P, right: &P| {
        let squares = left.as_ref().iter().zip(right.as_ref()).map(|(a, b)| (a - b) * (a - b));
        libm::exp(-gamma * squares.sum::<f64>())
    };
    // Each pair once.
    let within = |points: &[P]| {
        let pairs = points
            .iter()
            .enumerate()
            .flat_map(|(index, left)| points[index + 1..].iter().map(move |right| (left, right)));
        2.0 * pairs.map(|(left, right)| kernel(left, right)).sum::<f64>()
    };
    let (of_reference, of_current) = (within(reference), within(current));
    let across = reference
        .iter()
        .map(|left| current.iter().map(|right| kernel(left, right)).sum::<f64>())
        .sum::<f64>();
    let (m, n) = (reference.len() as f64, current.len() as f64);
    let cross = 2.0 * across / (m * n);
    let unbiased = of_reference / (m * (m - 1.0)) + of_current / (n * (n - 1.0)) - cross;
    let biased = (of_reference + m) / (m * m) + (of_current + n) / (n * n) - cross;
    // Rounding may leave a trace below zero where the samples are equal.
    Ok(MaximumMeanDiscrepancy {
        unbiased: finite(unbiased)?,
        biased: finite(biased)?.max(0.0),
    })
}

fn check<P: AsRef<[f64]>>(points: &[P], side: Side, expected: usize) -> Result<(), ClassicalError> {
    if points.len() < 2 {
        return Err(ClassicalError::TooFewSamples {
            side,
            needed: 2,
            found: points.len(),
        });
    }
    for (index, point) in points.iter().enumerate() {
        let point = point.as_ref();
        if point.len() != expected {
            return Err(ClassicalError::DimensionsDiffer {
                side,
                index,
                found: point.len(),
                expected,
            });
        }
        if let Some(&value) = point.iter().find(|value| !value.is_finite()) {
            return Err(ClassicalError::NotFinite { side, index, value });
        }
    }
    Ok(())
}
