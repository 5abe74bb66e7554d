//! Recursions of sequential tests: one number carried from observation to observation.

use super::{ClassicalError, positive, within};

/// Where a wealth stops growing, so that it stays a number.
const MOST_WEALTH: f64 = 1e300;

/// The next CUSUM, `max(0, sum + observation - allowance)` (Page 1954). It alarms once it reaches a threshold; the
/// allowance is half the shift that is to be found soonest.
pub fn cusum(sum: f64, observation: f64, allowance: f64) -> Result<f64, ClassicalError> {
    within("the CUSUM so far", sum, |sum| sum >= 0.0, "finite and not negative")?;
    within("the observation", observation, |_| true, "finite")?;
    within(
        "the allowance",
        allowance,
        |allowance| allowance >= 0.0,
        "finite and not negative",
    )?;
    Ok((sum + (observation - allowance)).clamp(0.0, MOST_WEALTH))
}

/// The next Shiryaev-Roberts e-detector, `(wealth + 1) e`: alarming at `c` it makes at most one false alarm in `c`
/// observations on average (Shin, Ramdas and Rinaldo 2024). It begins at 0 and does not grow beyond 1e300.
pub fn e_shiryaev_roberts(wealth: f64, e_value: f64) -> Result<f64, ClassicalError> {
    check_wealth(wealth, e_value)?;
    Ok(((wealth + 1.0) * e_value.min(MOST_WEALTH)).min(MOST_WEALTH))
}

/// The next CUSUM e-detector, `max(wealth, 1) e`: never above that of Shiryaev and Roberts, with the same guarantee. It
/// begins at 0 and does not grow beyond 1e300.
pub fn e_cusum(wealth: f64, e_value: f64) -> Result<f64, ClassicalError> {
    check_wealth(wealth, e_value)?;
    Ok((wealth.max(1.0) * e_value.min(MOST_WEALTH)).min(MOST_WEALTH))
}

fn check_wealth(wealth: f64, e_value: f64) -> Result<(), ClassicalError> {
    within(
        "the wealth so far",
        wealth,
        |wealth| wealth >= 0.0,
        "finite and not negative",
    )?;
    // An infinite e-value, which a p-value of 0 gives, is evidence all the same.
    if e_value >= 0.0 {
        return Ok(());
    }
    Err(ClassicalError::OutOfRange {
        name: "the e-value",
        value: e_value,
        expected: "not negative",
    })
}

/// A test of a mean of zero that may be looked at after every observation (Robbins 1970; Johari et al. 2022).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MixtureTest {
    variance: f64,
    mixing_variance: f64,
}

impl MixtureTest {
    /// For observations of this variance, weighing means by a normal density of this variance around zero.
    pub fn new(variance: f64, mixing_variance: f64) -> Result<Self, ClassicalError> {
        positive("the variance", variance)?;
        positive("the mixing variance", mixing_variance)?;
        Ok(Self {
            variance,
            mixing_variance,
        })
    }

    /// The logarithm of the e-value of `count` observations with this sum,
    /// `sqrt(s2 / (s2 + n t2)) exp(t2 S^2 / (2 s2 (s2 + n t2)))`: the mixture sequential probability ratio test.
    pub fn ln_e_value(&self, sum: f64, count: u64) -> Result<f64, ClassicalError> {
        within("the sum", sum, |_| true, "finite")?;
        let Self {
            variance,
            mixing_variance,
        } = *self;
        let spread = super::finite(variance + count as f64 * mixing_variance)?;
        super::finite(0.5 * libm::log(variance / spread) + mixing_variance / spread * sum * (sum / (2.0 * variance)))
    }

    /// Half the width of the confidence sequence of the mean after `count` observations, which holds at all times at once
    /// with probability `1 - alpha`: the means of which the e-value stays below `1 / alpha`.
    pub fn radius(&self, count: u64, alpha: f64) -> Result<f64, ClassicalError> {
        within("alpha", alpha, |alpha| alpha > 0.0 && alpha < 1.0, "between 0 and 1")?;
        within(
            "the number of observations",
            count as f64,
            |count| count > 0.0,
            "at least 1",
        )?;
        let Self {
            variance,
            mixing_variance,
        } = *self;
        let count = count as f64;
        let spread = super::finite(variance + count * mixing_variance)?;
        let nats = 0.5 * libm::log(spread / variance) - libm::log(alpha);
        super::finite((2.0 * (variance / count) * (spread / (count * mixing_variance)) * nats).sqrt())
    }
}
