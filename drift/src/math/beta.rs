//! The incomplete beta function: quantiles of rates, and Student's t.

use super::bisection::last_where;
use super::gamma::away_from_zero;
use super::saddle::binomial_probability;

/// Terms of the fraction before it is left as it is: enough for parameters up to 1e10.
const MOST_TERMS: u32 = 1_000_000;

/// `P(X <= x)` for a beta variable with `a > 0`, `b > 0`: the regularised incomplete beta function `I_x(a, b)`.
#[must_use]
pub fn beta_cdf(x: f64, a: f64, b: f64) -> f64 {
    tails(x, 1.0 - x, a, b).0
}

/// `P(X > x)` for a beta variable with `a > 0`, `b > 0`, without cancellation in its tail.
#[must_use]
pub fn beta_sf(x: f64, a: f64, b: f64) -> f64 {
    tails(x, 1.0 - x, a, b).1
}

/// The value that a beta variable with `a > 0`, `b > 0` does not exceed with this probability.
///
/// With `a = events`, `b = trials - events + 1` and the other way round these are the Clopper-Pearson bounds of a rate.
#[must_use]
pub fn beta_quantile(a: f64, b: f64, probability: f64) -> f64 {
    if !(a > 0.0 && b > 0.0 && (0.0..=1.0).contains(&probability)) {
        return f64::NAN;
    }
    if probability == 1.0 {
        return 1.0;
    }
    last_where(0.0, 1.0, |x| {
        let (lower, upper) = tails(x, 1.0 - x, a, b);
        // The smaller tail is the one with all its digits.
        if probability <= 0.5 {
            lower <= probability
        } else {
            upper >= 1.0 - probability
        }
    })
}

/// `P(|T| > |t|)` for Student's t with `degrees_of_freedom > 0`, which need not be whole.
#[must_use]
pub fn student_t_two_sided(t: f64, degrees_of_freedom: f64) -> f64 {
    if t.is_infinite() && degrees_of_freedom > 0.0 {
        return 0.0;
    }
    // Divided by the larger of the two, so that the square of a large t cannot overflow.
    let ratio = t / degrees_of_freedom.sqrt();
    let (x, y) = if ratio.abs() > 1.0 {
        let inverse = 1.0 / ratio;
        let square = inverse * inverse;
        (square / (1.0 + square), 1.0 / (1.0 + square))
    } else {
        let square = ratio * ratio;
        (1.0 / (1.0 + square), square / (1.0 + square))
    };
    tails(x, y, degrees_of_freedom / 2.0, 0.5).0
}

/// `(I_x(a, b), 1 - I_x(a, b))` with `y = 1 - x`.
fn tails(x: f64, y: f64, a: f64, b: f64) -> (f64, f64) {
    if !(a > 0.0 && b > 0.0 && a.is_finite() && b.is_finite()) || x.is_nan() || y.is_nan() {
        return (f64::NAN, f64::NAN);
    }
    if x <= 0.0 {
        return (0.0, 1.0);
    }
    if y <= 0.0 {
        return (1.0, 0.0);
    }
    if x * (a + b + 2.0) < a + 1.0 {
        let lower = lower_tail(x, y, a, b);
        (lower, 1.0 - lower)
    } else {
        let upper = lower_tail(y, x, b, a);
        (1.0 - upper, upper)
    }
}

fn lower_tail(x: f64, y: f64, a: f64, b: f64) -> f64 {
    let factor = b / (a + b) * binomial_probability(a, b, x, y);
    if factor == 0.0 {
        0.0
    } else {
        (factor * fraction(x, a, b)).min(1.0)
    }
}

/// The continued fraction of Abramowitz and Stegun 26.5.8, by the method of Lentz.
fn fraction(x: f64, a: f64, b: f64) -> f64 {
    let mut c = 1.0;
    let mut d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for index in 1..MOST_TERMS {
        let m = f64::from(index);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / away_from_zero(1.0 + even * d);
        c = away_from_zero(1.0 + even / c);
        fraction *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / away_from_zero(1.0 + odd * d);
        c = away_from_zero(1.0 + odd / c);
        let factor = d * c;
        fraction *= factor;
        if (factor - 1.0).abs() < 3e-16 {
            break;
        }
    }
    fraction
}
