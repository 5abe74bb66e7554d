//! How much less the new panes look like the baseline than like something else. In natural logarithms throughout.
//!
//! Each function gives the logarithm of an e-value: under the baseline its expectation is at most one, whatever came
//! before. [`recursion`] adds them up over time (the Shiryaev-Roberts form of Shin, Ramdas and Rinaldo, 2024).

pub mod bennett;
pub mod bernoulli;
pub mod directional;
pub mod dirichlet;
pub mod fourier;
pub mod recursion;

/// No single e-value weighs more than this or less than its inverse, so that sums stay finite.
const LIMIT: f64 = 600.0;

pub(crate) fn bounded(log_e: f64) -> f64 {
    log_e.clamp(-LIMIT, LIMIT)
}

/// `ln(sum(exp(x)))`, without overflow.
pub(crate) fn log_sum(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = values.clone().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    largest + libm::log(values.map(|value| libm::exp(value - largest)).sum::<f64>())
}

/// `ln(mean(exp(x)))` of `count` values.
pub(crate) fn log_mean(values: impl Iterator<Item = f64> + Clone, count: usize) -> f64 {
    log_sum(values) - libm::log(count as f64)
}
