//! Has the mean moved? Likelihood ratios for shifts of several sizes, both ways.
//!
//! `exp((theta z - n kappa(theta)) / phi)`, where `z` is the standardised sum of `n` values and `kappa` the logarithm of
//! the moment-generating function of one standardised value. With `theta^2 / 2` for kappa this is the normal form; the
//! baseline's own kappa keeps the e-value valid for skewed and heavy-tailed numbers, too.

use crate::evidence::bounded;

/// Sizes of shifts, in standard deviations.
pub const SHIFTS: [f64; 8] = [-0.8, -0.4, -0.2, -0.1, 0.1, 0.2, 0.4, 0.8];

/// Prior weights of the shifts. Small ones have more: they have the longest way to go.
pub const WEIGHTS: [f64; 8] = [0.08, 0.08, 0.12, 0.17, 0.17, 0.12, 0.08, 0.08];

/// The kappa of a normal distribution.
pub const NORMAL: [f64; 8] = [0.32, 0.08, 0.02, 0.005, 0.005, 0.02, 0.08, 0.32];

/// Logarithm of the e-value for each shift.
#[must_use]
pub fn log_e(standardised_sum: f64, count: f64, kappa: &[f64; 8], phi: f64) -> [f64; 8] {
    let mut logs = [0.0; 8];
    for ((log, shift), kappa) in logs.iter_mut().zip(SHIFTS).zip(kappa) {
        *log = bounded((shift * standardised_sum - count * kappa) / phi);
    }
    logs
}
