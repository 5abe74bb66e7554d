//! The normal distribution.

use std::f64::consts::FRAC_1_SQRT_2;

use super::bisection::last_where;

/// `P(Z > z)` for a standard normal variable.
#[must_use]
pub fn normal_sf(z: f64) -> f64 {
    0.5 * libm::erfc(z * FRAC_1_SQRT_2)
}

/// The value that a standard normal variable does not exceed with this probability, which lies in `[0, 1]`.
#[must_use]
pub fn normal_quantile(probability: f64) -> f64 {
    if !(0.0..=1.0).contains(&probability) {
        return f64::NAN;
    }
    let tail = probability.min(1.0 - probability);
    let distance = match tail {
        0.0 => f64::INFINITY,
        0.5 => 0.0,
        // Beyond 39 the tail is smaller than any float.
        _ => last_where(0.0, 39.0, |z| normal_sf(z) >= tail),
    };
    if probability < 0.5 { -distance } else { distance }
}
