//! Two rates, or one: events in trials.

use super::{ClassicalError, Test, within};
use crate::math::{beta_cdf, binomial_probability, normal_quantile, normal_sf};

/// Events in trials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How often it happened.
    pub events: u64,
    /// How often it could have happened.
    pub trials: u64,
}

impl Rate {
    fn check(self) -> Result<(f64, f64), ClassicalError> {
        let Self { events, trials } = self;
        if trials == 0 || events > trials {
            return Err(ClassicalError::NotARate { events, trials });
        }
        Ok((events as f64, trials as f64))
    }
}

/// The z test of two rates with a pooled variance; positive if the current rate is higher. The p-value is two-sided.
///
/// Zero, with a p-value of 1, where both are without events or both without anything else.
pub fn pooled_z(reference: Rate, current: Rate) -> Result<Test, ClassicalError> {
    let ((a, m), (b, n)) = (reference.check()?, current.check()?);
    let pooled = (a + b) / (m + n);
    let deviation = (pooled * (1.0 - pooled) * (1.0 / m + 1.0 / n)).sqrt();
    let statistic = if deviation == 0.0 {
        0.0
    } else {
        (b / n - a / m) / deviation
    };
    Ok(Test {
        statistic,
        p_value: (2.0 * normal_sf(statistic.abs())).min(1.0),
    })
}

/// Fisher's exact test, two-sided: the sum of the probabilities of all tables with these margins that are no more likely
/// than the one found (Fisher 1935; the rule of R and scipy). Time grows with the number of events.
pub fn fisher_exact(reference: Rate, current: Rate) -> Result<f64, ClassicalError> {
    let ((a, m), (b, n)) = (reference.check()?, current.check()?);
    let events = a + b;
    let share = events / (m + n);
    // Hypergeometric, as a quotient of binomial probabilities, which stays exact for large margins.
    let pooled = binomial_probability(events, m + n - events, share, 1.0 - share);
    let probability = |current: f64| {
        let reference = events - current;
        binomial_probability(current, n - current, share, 1.0 - share)
            * binomial_probability(reference, m - reference, share, 1.0 - share)
            / pooled
    };
    // Tables that are as likely as the one found differ from it by rounding.
    let bound = probability(b) * (1.0 + 1e-9);
    let (first, last) = ((events - m).max(0.0), events.min(n));
    let (mut sum, mut table) = (0.0, first);
    while table <= last {
        let probability = probability(table);
        if probability <= bound {
            sum += probability;
        }
        table += 1.0;
    }
    Ok(sum.min(1.0))
}

/// Wilson's score interval of a rate at this confidence (Wilson 1927), `(low, high)`.
pub fn wilson_interval(rate: Rate, confidence: f64) -> Result<(f64, f64), ClassicalError> {
    within(
        "the confidence",
        confidence,
        |value| value > 0.0 && value < 1.0,
        "between 0 and 1",
    )?;
    let (events, trials) = rate.check()?;
    let z = -normal_quantile((1.0 - confidence) / 2.0);
    let share = events / trials;
    let scale = 1.0 + z * z / trials;
    let centre = (share + z * z / (2.0 * trials)) / scale;
    let half = z / scale * (share * (1.0 - share) / trials + z * z / (4.0 * trials * trials)).sqrt();
    // Without the two exact cases rounding would leave a bound just beside 0 or 1.
    let low = if rate.events == 0 {
        0.0
    } else {
        (centre - half).max(0.0)
    };
    let high = if rate.events == rate.trials {
        1.0
    } else {
        (centre + half).min(1.0)
    };
    Ok((low, high))
}

/// McNemar's exact test, two-sided, from the numbers of pairs in which only the first and only the second succeeded: a
/// binomial test of 1/2 (McNemar 1947). 1 where there are no such pairs.
#[must_use]
pub fn mcnemar_exact(only_first: u64, only_second: u64) -> f64 {
    let (fewer, more) = (only_first.min(only_second), only_first.max(only_second));
    if fewer == more {
        return 1.0;
    }
    // P(Binomial(n, 1/2) <= k) = I_{1/2}(n - k, k + 1).
    (2.0 * beta_cdf(0.5, more as f64, fewer as f64 + 1.0)).min(1.0)
}
