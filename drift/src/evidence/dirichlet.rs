//! Has the shape of a histogram changed? A Dirichlet-multinomial e-value.
//!
//! The null is the posterior prediction from the baseline's counts, so that what the baseline does not know of its own
//! proportions is no evidence against them. Alternatives are as far from the baseline as a Dirichlet of concentration
//! rho is, for six rho from very different to almost the same (Kass and Raftery, 1995, for the form).

use crate::evidence::{bounded, log_mean};
use crate::math::ln_gamma;

/// Concentrations of the alternatives.
pub const CONCENTRATIONS: [f64; 6] = [5.0, 20.0, 80.0, 320.0, 1_280.0, 5_120.0];

/// Log-probability of counts in one order, under proportions from a Dirichlet distribution with these parameters.
fn log_probability(counts: &[f64], parameters: impl Iterator<Item = f64>) -> f64 {
    let (mut total, mut concentration, mut sum) = (0.0, 0.0, 0.0);
    for (count, parameter) in counts.iter().zip(parameters) {
        total += count;
        concentration += parameter;
        if *count > 0.0 {
            sum += ln_gamma(count + parameter) - ln_gamma(parameter);
        }
    }
    sum + ln_gamma(concentration) - ln_gamma(concentration + total)
}

/// Logarithm of the e-value of `counts` against a baseline that saw `reference`, both by group; divided by the design
/// effect `phi` (at least 1).
#[must_use]
pub fn log_e(counts: &[f64], reference: &[f64], phi: f64) -> f64 {
    let total: f64 = reference.iter().map(|count| count + 0.5).sum();
    let proportions = |rho: f64| reference.iter().map(move |count| rho * (count + 0.5) / total);
    let null = log_probability(counts, reference.iter().map(|count| count + 0.5));
    let alternatives = CONCENTRATIONS.map(|rho| log_probability(counts, proportions(rho)));
    let alternative = log_mean(alternatives.iter().copied(), alternatives.len());
    bounded((alternative - null) / phi)
}
