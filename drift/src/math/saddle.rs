//! Poisson and binomial probabilities in saddle-point form (Loader, "Fast and accurate computation of binomial
//! probabilities", 2000). Differences of large log-gammas would lose digits where counts are large; deviances do not.

use std::f64::consts::{PI, TAU};

use super::ln_gamma;

/// ln(sqrt(2 pi)).
const LN_SQRT_TAU: f64 = 0.918_938_533_204_672_8;

/// `ln(n!) - ln(sqrt(2 pi n) (n/e)^n)`, for `n > 0`, which need not be whole.
fn stirling_error(n: f64) -> f64 {
    if n < 10.0 {
        return ln_gamma(n + 1.0) - (n + 0.5) * libm::log(n) + n - LN_SQRT_TAU;
    }
    const COEFFICIENTS: [f64; 7] = [
        1.0 / 12.0,
        -1.0 / 360.0,
        1.0 / 1260.0,
        -1.0 / 1680.0,
        1.0 / 1188.0,
        -691.0 / 360_360.0,
        1.0 / 156.0,
    ];
    let inverse_square = 1.0 / (n * n);
    COEFFICIENTS
        .iter()
        .rev()
        .fold(0.0, |sum, coefficient| sum * inverse_square + coefficient)
        / n
}

/// `x ln(x/mean) + mean - x`, for positive arguments: how far `x` is from `mean` in nats.
fn deviance(x: f64, mean: f64) -> f64 {
    let difference = x - mean;
    // Above this the two sides do not cancel.
    if difference.abs() >= 0.3 * (x + mean) {
        return x * libm::log(x / mean) + mean - x;
    }
    let ratio = difference / (x + mean);
    let square = ratio * ratio;
    let mut sum = difference * ratio;
    let mut power = 2.0 * x * ratio;
    let mut order = 3.0;
    loop {
        power *= square;
        let next = sum + power / order;
        if next == sum {
            return sum;
        }
        sum = next;
        order += 2.0;
    }
}

/// `ln(mean^k e^-mean / Gamma(k + 1))` for `k > 0`, `mean > 0`.
pub(super) fn ln_poisson_probability(k: f64, mean: f64) -> f64 {
    -stirling_error(k) - deviance(k, mean) - 0.5 * libm::log(TAU * k)
}

/// `mean^k e^-mean / Gamma(k + 1)`: the probability of `k >= 0` events where `mean >= 0` are expected; `k` may be
/// fractional.
#[must_use]
pub fn poisson_probability(k: f64, mean: f64) -> f64 {
    if !(k >= 0.0 && mean >= 0.0) {
        return f64::NAN;
    }
    if k == 0.0 {
        return libm::exp(-mean);
    }
    if mean == 0.0 || mean.is_infinite() {
        return 0.0;
    }
    libm::exp(-stirling_error(k) - deviance(k, mean)) / (TAU * k).sqrt()
}

/// `Gamma(a+b+1) / (Gamma(a+1) Gamma(b+1)) x^a y^b` with `x + y = 1`: the probability of `a >= 0` successes and `b >= 0`
/// failures where a success has probability `x` and a failure `y`. Both are given because one of them may be too close to
/// 1 for the other to be recovered from it.
#[must_use]
pub fn binomial_probability(a: f64, b: f64, x: f64, y: f64) -> f64 {
    if !(a >= 0.0 && b >= 0.0 && x >= 0.0 && y >= 0.0) {
        return f64::NAN;
    }
    if a == 0.0 {
        return if b == 0.0 { 1.0 } else { power_of_complement(b, x, y) };
    }
    if b == 0.0 {
        return power_of_complement(a, y, x);
    }
    if x == 0.0 || y == 0.0 {
        return 0.0;
    }
    let n = a + b;
    let exponent = stirling_error(n) - stirling_error(a) - stirling_error(b) - deviance(a, n * x) - deviance(b, n * y);
    libm::exp(exponent) * (n / (2.0 * PI * a * b)).sqrt()
}

/// `base^exponent`, where `base = 1 - complement`.
fn power_of_complement(exponent: f64, complement: f64, base: f64) -> f64 {
    if complement < 0.5 {
        libm::exp(exponent * libm::log1p(-complement))
    } else {
        libm::pow(base, exponent)
    }
}
