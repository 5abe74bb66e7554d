//! When to try again, and when to stop. Pure: the waiting is done by whoever asks.

use std::time::Duration;

/// How patiently a source is tried. Attempts that move bytes do not count.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// Attempts in a row without any progress before giving up.
    pub attempts: u32,
    /// Wait after the first failure; it doubles from failure to failure.
    pub first: Duration,
    /// Longest wait, also for a server's `Retry-After`.
    pub longest: Duration,
}

impl Default for RetryPolicy {
    /// Ten attempts within about a minute: 0.5, 1, 2, 4, 8, 10, 10, 10, 10 seconds apart, a quarter more or less.
    fn default() -> Self {
        Self {
            attempts: 10,
            first: Duration::from_millis(500),
            longest: Duration::from_secs(10),
        }
    }
}

/// Failures in a row.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    failures: u32,
}

impl Patience {
    /// Bytes moved: the source works, so start counting again.
    pub(crate) fn progress(&mut self) {
        self.failures = 0;
    }

    /// Attempts that failed in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// How long to wait after one more failure; `None` when it is time to give up. `jitter` is from 0 to 1.
    pub(crate) fn failed(&mut self, policy: &RetryPolicy, asked: Option<Duration>, jitter: f64) -> Option<Duration> {
        self.failures += 1;
        if self.failures >= policy.attempts {
            return None;
        }
        let doubled = policy.first.saturating_mul(1 << (self.failures - 1).min(16));
        let wait = doubled.min(policy.longest).mul_f64(0.75 + 0.5 * jitter.clamp(0.0, 1.0));
        Some(wait.max(asked.unwrap_or_default()).min(policy.longest.mul_f64(1.25)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_about_a_minute_in_all() {
        let (policy, mut patience) = (RetryPolicy::default(), Patience::default());
        let waits: Vec<Duration> = std::iter::from_fn(|| patience.failed(&policy, None, 0.5)).collect();
        assert_eq!(waits.len(), 9);
        assert_eq!(waits[0], Duration::from_millis(500));
        assert_eq!(waits.iter().sum::<Duration>(), Duration::from_millis(55_500));
        assert_eq!(patience.failures(), 10);
    }

    #[test]
    fn progress_starts_the_count_again() {
        let (policy, mut patience) = (
            RetryPolicy {
                attempts: 2,
                ..RetryPolicy::default()
            },
            Patience::default(),
        );
        assert!(patience.failed(&policy, None, 0.0).is_some());
        patience.progress();
        assert!(patience.failed(&policy, None, 0.0).is_some());
        assert!(patience.failed(&policy, None, 0.0).is_none());
    }

    #[test]
    fn a_server_may_ask_for_more_but_not_for_ever() {
        let (policy, mut patience) = (RetryPolicy::default(), Patience::default());
        assert_eq!(
            patience.failed(&policy, Some(Duration::from_secs(3)), 0.5),
            Some(Duration::from_secs(3))
        );
        assert_eq!(
            patience.failed(&policy, Some(Duration::from_secs(600)), 0.5),
            Some(Duration::from_millis(12_500))
        );
    }
}
