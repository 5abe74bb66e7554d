//! Moments that merge, and the test of two means.

use super::{ClassicalError, Side, check, finite};
use crate::math::student_t_two_sided;

/// Number, mean and sum of squared deviations of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    /// How many values.
    pub count: u64,
    /// Their mean; zero if there are none.
    pub mean: f64,
    /// Sum of their squared deviations from it.
    pub squared_deviations: f64,
}

impl Moments {
    /// Of a sample, which may be empty, in one pass (Welford 1962).
    pub fn of(values: &[f64], side: Side) -> Result<Self, ClassicalError> {
        check(values, side, 0)?;
        let mut moments = Self::default();
        for value in values {
            moments.count += 1;
            let difference = value - moments.mean;
            moments.mean += difference / moments.count as f64;
            moments.squared_deviations += difference * (value - moments.mean);
        }
        finite(moments.mean)?;
        finite(moments.squared_deviations)?;
        Ok(moments)
    }

    /// Of both samples together (Chan, Golub and LeVeque 1979). Exact but for rounding, which depends on the order.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        if self.count == 0 {
            return other;
        }
        if other.count == 0 {
            return self;
        }
        let count = self.count + other.count;
        let (own, others, all) = (self.count as f64, other.count as f64, count as f64);
        let difference = other.mean - self.mean;
        Self {
            count,
            mean: self.mean + difference * (others / all),
            squared_deviations: self.squared_deviations
                + other.squared_deviations
                + difference * difference * (own * (others / all)),
        }
    }

    /// Variance, divided by `count - 1`; `None` below two values.
    #[must_use]
    pub fn variance(&self) -> Option<f64> {
        (self.count > 1).then(|| self.squared_deviations / (self.count - 1) as f64)
    }
}

/// Result of [`welch_t`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Welch {
    /// Positive if the reference has the larger mean.
    pub statistic: f64,
    /// Satterthwaite's, not whole.
    pub degrees_of_freedom: f64,
    /// Two-sided.
    pub p_value: f64,
}

/// Welch's t test of two means without equal variances (Welch 1947), from the moments of both samples, each of at least
/// two values.
pub fn welch_t(reference: &Moments, current: &Moments) -> Result<Welch, ClassicalError> {
    let squared_error = |moments: &Moments, side| {
        let found = moments.count as usize;
        let variance = moments
            .variance()
            .ok_or(ClassicalError::TooFewSamples { side, needed: 2, found })?;
        Ok((variance / moments.count as f64, (moments.count - 1) as f64))
    };
    let (a, freedom_a) = squared_error(reference, Side::Reference)?;
    let (b, freedom_b) = squared_error(current, Side::Current)?;
    let both = finite(a + b)?;
    if both <= 0.0 {
        return Err(ClassicalError::NoSpread);
    }
    let statistic = finite((reference.mean - current.mean) / both.sqrt())?;
    // Shares first, whose squares neither overflow nor vanish.
    let (share_a, share_b) = (a / both, b / both);
    let degrees_of_freedom = 1.0 / (share_a * share_a / freedom_a + share_b * share_b / freedom_b);
    Ok(Welch {
        statistic,
        degrees_of_freedom,
        p_value: student_t_two_sided(statistic, degrees_of_freedom),
    })
}
