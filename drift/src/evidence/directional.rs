//! Has the mean moved? Likelihood ratios for shifts of several sizes, both ways.
//!
//! `exp((theta z - n kappa(theta)) / phi)`, where `z` is the standardised sum of `n` values and `kappa` the logarithm of
//! the moment-generating function of one standardised value. With `theta^2 / 2` for kappa this is the normal form; the
//! baseline's own kappa keeps the e-value valid for skewed and heavy-tailed numbers, too.

use crate::evidence::bounded;

/// Sizes of shifts, in standard deviations.
pub const SHIFTS: [f64; 8] = [-0.8, -0.4, -0.2, -0.1, 0.1, 0.2, 0.4, 0.8];

/// Prior weights of the shifts. Small ones have more: they have the longest way to go.
pub const WEIGHTS: [f64; 8] = [0.02, 0.05, 0.10, 0.28, 0.28, 0.10, 0.05, 0.02];

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

/// Standard errors that a baseline's mean may be off without letting evidence grow for ever.
const ERRORS: f64 = 3.0;

/// The cumulants, not smaller than where a mean that is off by three of its standard errors stands still. Baselines of
/// more than 3,600 independent values are not concerned.
#[must_use]
pub fn with_margin(kappa: &[f64; 8], size: f64, phi: f64) -> [f64; 8] {
    let off = ERRORS * libm::sqrt(phi / size.max(1.0));
    let mut margin = *kappa;
    for (kappa, shift) in margin.iter_mut().zip(SHIFTS) {
        *kappa = kappa.max(shift.abs() * off);
    }
    margin
}

/// What evidence of a run of `run` values pays for `count` more, because the baseline's mean, of `size` values, has an
/// error of its own that the run adds up.
///
/// Averaging over that error would take `theta^2 n^2 / (2 m phi)` from a run of `n`; half of it is taken, since the
/// recursion has as much slack (measured: see the bench of null traffic). Without it, a baseline of 2,000 values alarmed
/// falsely six times in 200,000 panes; with both this and [`with_margin`] never.
#[must_use]
pub fn price_of_reference(shift: f64, run: u64, count: u64, size: f64, phi: f64) -> f64 {
    let (before, after) = (run as f64, run.saturating_add(count) as f64);
    shift * shift * (after * after - before * before) / (4.0 * size.max(1.0) * phi)
}
