//! The noncentral chi-squared distribution: tests with a margin, and lower bounds of an effect.

use super::bisection::last_where;
use super::gamma::gamma_q;
use super::saddle::poisson_probability;

/// Terms after which both factors are computed anew.
const AFRESH: u32 = 64;
/// Below this a probability may have lost digits to underflow.
const TINY: f64 = 1e-290;

/// `P(X > x)` for a noncentral chi-squared variable with `degrees_of_freedom > 0` and `noncentrality >= 0`.
///
/// The mixture `sum_j Poisson(j; noncentrality / 2) Q(degrees_of_freedom / 2 + j, x / 2)` (Johnson, Kotz and
/// Balakrishnan, 29.2), whose terms are all positive.
#[must_use]
pub fn noncentral_chi_squared_sf(x: f64, degrees_of_freedom: f64, noncentrality: f64) -> f64 {
    let (half_x, shape, mean) = (x.max(0.0) / 2.0, degrees_of_freedom / 2.0, noncentrality / 2.0);
    if x.is_nan() || !(shape > 0.0 && mean >= 0.0 && mean.is_finite()) {
        return f64::NAN;
    }
    if half_x == 0.0 {
        return 1.0;
    }
    // Ten standard deviations below the mean the weights are under 1e-21 of the largest, and both factors rise from here.
    let mode = mean.floor();
    let mut j = (mode - 10.0 * mode.sqrt() - 10.0).floor().max(0.0);
    let mut tail = gamma_q(shape + j, half_x);
    let (mut sum, mut last) = (0.0, 0.0);
    let (mut weight, mut step, mut terms) = (0.0, 0.0, 0u32);
    loop {
        // Each follows from the one before; afresh now and then, so that rounding does not add up, and where it underflowed.
        weight = if terms.is_multiple_of(AFRESH) {
            poisson_probability(j, mean)
        } else {
            weight * (mean / j)
        };
        step = if terms.is_multiple_of(AFRESH) || step < TINY {
            poisson_probability(shape + j, half_x)
        } else {
            step * (half_x / (shape + j))
        };
        let term = weight * tail;
        sum += term;
        if j > mode && (weight == 0.0 || (term < last && term < sum * 1e-18)) {
            return sum.min(1.0);
        }
        last = term;
        // Q(a + 1, x) = Q(a, x) + x^a e^-x / Gamma(a + 1).
        tail += step;
        j += 1.0;
        terms += 1;
    }
}

/// The largest noncentrality for which a value of at least `x` is no more likely than `1 - confidence`; zero where there
/// is none.
///
/// Divided by the effective number of samples it is a lower confidence bound of the chi-squared distance, which is zero
/// for a change that is significant only because there is much data. `x` is finite, `degrees_of_freedom > 0`, and
/// `confidence` lies in `[1e-9, 1)`.
#[must_use]
pub fn noncentral_lower_bound(x: f64, degrees_of_freedom: f64, confidence: f64) -> f64 {
    if !(x.is_finite() && degrees_of_freedom > 0.0 && (1e-9..1.0).contains(&confidence)) {
        return f64::NAN;
    }
    let unlikely = |noncentrality| noncentral_chi_squared_sf(x, degrees_of_freedom, noncentrality) <= 1.0 - confidence;
    if !unlikely(0.0) {
        return 0.0;
    }
    let mut high = x.max(1.0);
    while unlikely(high) {
        high *= 2.0;
    }
    last_where(0.0, high, unlikely)
}
