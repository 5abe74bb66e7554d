//! Has a mean moved in a direction that earlier panes have shown? For values of which only variance and bound are known.
//!
//! A change of many numbers has one direction; once it is known, looking along it sees far more than looking everywhere.
//! The direction is taken from panes before, so the bet is placed before the outcome is seen. By Bennett's inequality
//! `exp(lambda x - v (e^(lambda b) - 1 - lambda b) / b^2)` is an e-value for every `x` of mean zero, variance at most `v`
//! and at most `b`, however its tails look.

use crate::evidence::bounded;

/// Bets, as parts of one over the bound.
pub const BETS: [f64; 4] = [0.3, 1.0, 2.0, 4.0];
/// Panes after which a direction is half forgotten, about.
pub const HORIZONS: [f64; 3] = [4.0, 8.0, 32.0];

/// Logarithm of the e-value for each bet: `count` values with this mean, of a variable with this variance and bound whose
/// own mean may be as large as `margin`.
#[must_use]
pub fn log_e(mean: f64, count: f64, variance: f64, bound: f64, margin: f64) -> [f64; 4] {
    BETS.map(|bet| {
        let gain = bet / bound * (mean - margin);
        let price = variance / (bound * bound) * (libm::expm1(bet) - bet);
        bounded(count * (gain - price))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One value in a hundred is large: the normal form would be exceeded, this one is not.
    #[test]
    fn a_rare_large_value_is_worth_no_more_than_one_on_average() {
        let (rare, large) = (0.01_f64, 1.0);
        let (mean, variance) = (rare * large, rare * (1.0 - rare) * large * large);
        let bound = large - mean;
        for position in 0..BETS.len() {
            let worth = |value: f64| log_e(value - mean, 1.0, variance, bound, 0.0)[position].exp();
            let average = rare * worth(large) + (1.0 - rare) * worth(0.0);
            assert!(average <= 1.0 + 1e-12 && average > 0.9, "{average}");
        }
    }
}
