//! When to try again, and when to stop. The decision is pure; [`Tries`] waits for it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::LoadError;
use crate::http::Failure;

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

/// Waits between attempts, until it is time to give up or the process is stopped.
#[derive(Clone, Debug)]
pub(crate) struct Tries {
    pub(crate) policy: RetryPolicy,
    pub(crate) cancel: CancellationToken,
}

impl Tries {
    /// Waits after a failed attempt, or says that it is time to give up.
    pub(crate) async fn pause(
        &self,
        patience: &mut Patience,
        subject: &str,
        problem: String,
        asked: Option<Duration>,
    ) -> Result<(), LoadError> {
        let Some(wait) = patience.failed(&self.policy, asked, rand::random()) else {
            return Err(LoadError::Unreachable {
                subject: subject.to_owned(),
                problem: format!(
                    "{problem} (given up after {} attempts without progress)",
                    patience.failures()
                ),
            });
        };
        tracing::warn!(subject, problem, attempt = patience.failures(), wait = ?wait, "it broke off, trying again");
        tokio::select! {
            () = self.cancel.cancelled() => Err(LoadError::Cancelled),
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }

    /// Asks until there is an answer.
    pub(crate) async fn ask<T>(
        &self,
        subject: &str,
        attempt: impl AsyncFn() -> Result<T, Failure>,
    ) -> Result<T, LoadError> {
        let mut patience = Patience::default();
        loop {
            let result = tokio::select! {
                () = self.cancel.cancelled() => return Err(LoadError::Cancelled),
                result = attempt() => result,
            };
            match result {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Again { problem, after }) => self.pause(&mut patience, subject, problem, after).await?,
                Err(Failure::Changed) => {
                    self.pause(&mut patience, subject, "its content changed meanwhile".to_owned(), None)
                        .await?;
                }
            }
        }
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
