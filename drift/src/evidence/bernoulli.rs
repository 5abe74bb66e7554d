//! Has a rate changed? Likelihood ratios for several multiples of it.

use crate::evidence::bounded;
use crate::math::beta_quantile;

/// Multiples of the baseline's rate.
pub const RATIOS: [f64; 4] = [0.5, 0.7, 1.4, 2.0];

/// Multiples of the part of values that lies in the tails.
pub const TAIL_RATIOS: [f64; 2] = [2.0, 4.0];
/// Their prior weights, beside [`crate::evidence::directional::WEIGHTS`].
pub const TAIL_WEIGHTS: [f64; 2] = [0.05, 0.05];

/// Bounds of a rate that the baseline knows only so well. The ratios below one are held against the lower, the others
/// against the upper one: then they are e-values for every rate between the two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Lower.
    pub lower: f64,
    /// Upper.
    pub upper: f64,
}

/// Probability on either side of the bounds.
const OUTSIDE: f64 = 0.01;

impl Bounds {
    /// From so many events in so many trials of the baseline, with Jeffreys' prior.
    #[must_use]
    pub fn of(events: f64, trials: f64) -> Self {
        let (events, others) = (events + 0.5, (trials - events).max(0.0) + 0.5);
        Self {
            lower: beta_quantile(events, others, OUTSIDE),
            upper: beta_quantile(events, others, 1.0 - OUTSIDE),
        }
    }
}

/// Logarithm of the e-value for each ratio, from `events` in `trials`.
#[must_use]
pub fn log_e<const N: usize>(events: f64, trials: f64, bounds: Bounds, ratios: &[f64; N], phi: f64) -> [f64; N] {
    ratios.map(|ratio| {
        let null = if ratio < 1.0 { bounds.lower } else { bounds.upper };
        // A rate that cannot be multiplied further says nothing more by that ratio.
        let alternative = (ratio * null).min(0.5 + null / 2.0);
        if null <= 0.0 || null >= 1.0 {
            return 0.0;
        }
        let (yes, no) = (
            libm::log(alternative / null),
            libm::log((1.0 - alternative) / (1.0 - null)),
        );
        bounded((events * yes + (trials - events) * no) / phi)
    })
}
