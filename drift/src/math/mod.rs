//! Special functions of the tests and the evidence.
//!
//! Everything goes through `libm` and plain IEEE arithmetic, never through the platform's own logarithm, so that two
//! replicas on different machines get the same bits. Relative errors are near 1e-13, also far out in the tails.
//! A function is defined where its documentation says; elsewhere its answer is NaN, never a loop or a panic.

mod beta;
mod bisection;
mod calibrate;
mod gamma;
mod kolmogorov;
mod noncentral;
mod normal;
mod one_sample_kolmogorov;
mod saddle;

pub use beta::{beta_cdf, beta_quantile, beta_sf, student_t_two_sided};
pub use calibrate::{ln_mixture_calibrator, mixture_calibrator};
pub use gamma::{chi_squared_isf, chi_squared_sf, gamma_p, gamma_q, gamma_sf, ln_gamma, ln_gamma_q, ln_gamma_sf};
pub use kolmogorov::{kolmogorov_isf, kolmogorov_sf};
pub use noncentral::{noncentral_chi_squared_sf, noncentral_lower_bound};
pub use normal::{normal_quantile, normal_sf};
pub use one_sample_kolmogorov::one_sample_kolmogorov_sf;
pub use saddle::{binomial_probability, poisson_probability};
