//! Has what prompts are about changed? The maximum mean discrepancy by random Fourier features.
//!
//! Under the baseline `T = n m / (n + m) |mean - reference|^2` is close to a gamma variable whose first two moments are
//! known from the covariance of the features (Gretton et al., 2009); its p-value becomes an e-value by the mixture
//! calibrator of Vovk and Wang (2021).

use crate::evidence::bounded;
use crate::math::{ln_gamma_sf, ln_mixture_calibrator};

/// Mean and variance of T under the baseline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Null {
    /// Trace of the covariance.
    pub mean: f64,
    /// Twice the trace of its square.
    pub variance: f64,
}

/// Logarithm of the e-value of the statistic T.
#[must_use]
pub fn log_e(statistic: f64, null: Null) -> f64 {
    let scale = null.variance / null.mean;
    let log_p = ln_gamma_sf(statistic, null.mean / scale, scale);
    bounded(ln_mixture_calibrator(log_p))
}
