//! The limit distribution of the Kolmogorov-Smirnov statistic.

use std::f64::consts::PI;

use super::bisection::last_where;

/// `P(K > x)` for `K = sup |B(t)|` over a Brownian bridge: where `sqrt(n) D` tends to.
///
/// The alternating series for large `x`, and its theta transform for small (Kolmogorov 1933; Feller 1948).
#[must_use]
pub fn kolmogorov_sf(x: f64) -> f64 {
    if x.is_nan() {
        return f64::NAN;
    }
    if x <= 0.0 {
        return 1.0;
    }
    if x < 0.8 {
        return 1.0 - lower_tail(x);
    }
    let base = -2.0 * x * x;
    let sum: f64 = (1..=8)
        .rev()
        .map(|k| {
            let term = libm::exp(base * f64::from(k * k));
            if k % 2 == 1 { term } else { -term }
        })
        .sum();
    (2.0 * sum).min(1.0)
}

/// The value that `K` exceeds with this probability, which lies in `[0, 1]`. Zero for 1, infinite for 0.
#[must_use]
pub fn kolmogorov_isf(probability: f64) -> f64 {
    if !(0.0..=1.0).contains(&probability) {
        return f64::NAN;
    }
    if probability == 0.0 {
        return f64::INFINITY;
    }
    if probability == 1.0 {
        return 0.0;
    }
    // Beyond 20 the tail is smaller than any float.
    last_where(0.0, 20.0, |x| {
        // One minus a small lower tail would lose its digits.
        if x < 0.8 {
            lower_tail(x) <= 1.0 - probability
        } else {
            kolmogorov_sf(x) >= probability
        }
    })
}

/// `P(K <= x)` for `0 < x < 0.8`.
fn lower_tail(x: f64) -> f64 {
    let base = -PI * PI / (8.0 * x * x);
    let sum: f64 = (0..6)
        .rev()
        .map(|k| libm::exp(base * f64::from((2 * k + 1) * (2 * k + 1))))
        .sum();
    (2.0 * PI).sqrt() / x * sum
}
