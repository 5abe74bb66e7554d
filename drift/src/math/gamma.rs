//! The gamma function, its incomplete forms, and the two distributions that are made of them.

use super::bisection::last_where;
use super::saddle::{ln_poisson_probability, poisson_probability};

/// Terms of a series or a fraction before it is left as it is: enough for shapes up to 1e10.
const MOST_TERMS: u32 = 4_000_000;
/// Keeps the fraction away from a division by zero.
const TINY: f64 = 1e-300;

/// `ln(Gamma(x))` for `x > 0`.
///
/// The rational approximations of FreeBSD's msun, within 1 or 2 units in the last place; one logarithm a call, where a
/// Stirling series with a shift takes two.
#[must_use]
pub fn ln_gamma(x: f64) -> f64 {
    if x > 0.0 { libm::lgamma(x) } else { f64::NAN }
}

/// Lower regularised incomplete gamma function `P(shape, x)`, for `shape > 0`, `x >= 0`.
///
/// Series below `shape + 1`, continued fraction above (Abramowitz and Stegun 6.5.29, 6.5.31).
#[must_use]
pub fn gamma_p(shape: f64, x: f64) -> f64 {
    if !in_domain(shape, x) {
        return f64::NAN;
    }
    if x < shape + 1.0 {
        lower_series(shape, x)
    } else {
        1.0 - upper(shape, x)
    }
}

/// Upper regularised incomplete gamma function `Q(shape, x) = 1 - P(shape, x)`, for `shape > 0`, `x >= 0`, without
/// cancellation in its tail. Shapes below 1e-4 lose digits where `x < 0.3`.
#[must_use]
pub fn gamma_q(shape: f64, x: f64) -> f64 {
    if !in_domain(shape, x) {
        return f64::NAN;
    }
    if by_fraction(shape, x) {
        upper(shape, x)
    } else {
        1.0 - lower_series(shape, x)
    }
}

/// `ln(Q(shape, x))`, also where `Q` itself is too small for a float.
#[must_use]
pub fn ln_gamma_q(shape: f64, x: f64) -> f64 {
    if !in_domain(shape, x) {
        return f64::NAN;
    }
    if x.is_infinite() {
        return f64::NEG_INFINITY;
    }
    if by_fraction(shape, x) {
        ln_poisson_probability(shape, x) + libm::log(shape * upper_fraction(shape, x))
    } else {
        libm::log1p(-lower_series(shape, x))
    }
}

/// `P(X > x)` for a gamma variable of this shape and scale, both positive.
#[must_use]
pub fn gamma_sf(x: f64, shape: f64, scale: f64) -> f64 {
    if scale > 0.0 {
        gamma_q(shape, x.max(0.0) / scale)
    } else {
        f64::NAN
    }
}

/// `ln(P(X > x))` for a gamma variable of this shape and scale, both positive.
#[must_use]
pub fn ln_gamma_sf(x: f64, shape: f64, scale: f64) -> f64 {
    if scale > 0.0 {
        ln_gamma_q(shape, x.max(0.0) / scale)
    } else {
        f64::NAN
    }
}

/// `P(X > x)` for a chi-squared variable with `degrees_of_freedom > 0`.
#[must_use]
pub fn chi_squared_sf(x: f64, degrees_of_freedom: f64) -> f64 {
    gamma_q(degrees_of_freedom / 2.0, x.max(0.0) / 2.0)
}

/// The value that a chi-squared variable exceeds with this probability. Zero for 1, infinite for 0.
#[must_use]
pub fn chi_squared_isf(probability: f64, degrees_of_freedom: f64) -> f64 {
    if !((0.0..=1.0).contains(&probability) && degrees_of_freedom > 0.0) {
        return f64::NAN;
    }
    if probability == 0.0 {
        return f64::INFINITY;
    }
    last_where(0.0, f64::MAX, |x| chi_squared_sf(x, degrees_of_freedom) >= probability)
}

fn in_domain(shape: f64, x: f64) -> bool {
    shape > 0.0 && shape.is_finite() && x >= 0.0
}

/// Whether the fraction converges quickly enough and the series would leave little of `1 - P`.
fn by_fraction(shape: f64, x: f64) -> bool {
    x >= shape + 1.0 || (shape < 1.0 && x >= 0.3)
}

fn lower_series(shape: f64, x: f64) -> f64 {
    let (mut sum, mut term, mut divisor) = (1.0, 1.0, shape);
    for _ in 0..MOST_TERMS {
        divisor += 1.0;
        term *= x / divisor;
        sum += term;
        if term < sum * 1e-17 {
            break;
        }
    }
    (sum * poisson_probability(shape, x)).min(1.0)
}

fn upper(shape: f64, x: f64) -> f64 {
    let probability = poisson_probability(shape, x);
    if probability == 0.0 {
        0.0
    } else {
        probability * shape * upper_fraction(shape, x)
    }
}

/// `Gamma(shape, x) e^x x^-shape`, by the method of Lentz.
fn upper_fraction(shape: f64, x: f64) -> f64 {
    let mut denominator = x + 1.0 - shape;
    let mut c = 1.0 / TINY;
    let mut d = 1.0 / denominator;
    let mut fraction = d;
    for index in 1..MOST_TERMS {
        let index = f64::from(index);
        let numerator = -index * (index - shape);
        denominator += 2.0;
        d = away_from_zero(numerator * d + denominator);
        c = away_from_zero(denominator + numerator / c);
        d = 1.0 / d;
        let factor = d * c;
        fraction *= factor;
        if (factor - 1.0).abs() < 3e-16 {
            break;
        }
    }
    fraction
}

pub(super) fn away_from_zero(value: f64) -> f64 {
    if value.abs() < TINY { TINY } else { value }
}
