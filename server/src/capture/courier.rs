//! Brings records to the collector: in order, again and again until they are taken, and without haste.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::recorder::{Capture, CaptureError};
use super::rules::Destination;

/// How patiently records are brought.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Longest wait of a record for others that go with it.
    pub gather: Duration,
    /// Longest time until an answer.
    pub answer: Duration,
    /// Wait after the first failure; it doubles from failure to failure.
    pub first_wait: Duration,
    /// Longest wait after a failure.
    pub longest_wait: Duration,
    /// Longest time to bring what is left when the process ends.
    pub last: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            gather: Duration::from_secs(1),
            answer: Duration::from_secs(10),
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
            last: Duration::from_secs(5),
        }
    }
}

impl Pace {
    /// How long to wait after so many failures in a row. `jitter` is from 0 to 1.
    fn wait(&self, failures: u32, jitter: f64) -> Duration {
        let doubled = self.first_wait.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled
            .min(self.longest_wait)
            .mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }
}

/// Why a batch was not taken, as far as is known. Says nothing of what is in it.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Connection(reqwest::Error),
    #[error("it answered {0}")]
    Status(StatusCode),
}

/// Brings records to the collector.
pub struct Courier {
    http: reqwest::Client,
    pace: Pace,
}

impl Courier {
    /// One that follows no redirect and no proxy: what it brings is for nobody else.
    ///
    /// # Errors
    /// If the library cannot be set up.
    pub fn new(pace: Pace) -> Result<Self, CaptureError> {
        perennial_loader::install_crypto_provider();
        let http = reqwest::Client::builder()
            .timeout(pace.answer)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            // The collector is in the cluster and has no certificate; so none are read.
            .tls_certs_only([])
            .build()?;
        Ok(Self { http, pace })
    }

    /// Brings records until `stop`; then what is left, not for long.
    pub async fn run(&self, capture: &Capture, stop: &CancellationToken) {
        let mut tick = tokio::time::interval(self.pace.gather);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let bring = async {
            loop {
                tokio::select! {
                    _ = tick.tick() => {}
                    () = capture.enough() => {}
                }
                self.bring_all(capture).await;
            }
        };
        tokio::select! {
            () = bring => {}
            () = stop.cancelled() => {}
        }
        let last = async {
            capture.settle().await;
            self.bring_all(capture).await;
        };
        if tokio::time::timeout(self.pace.last, last).await.is_err() {
            tracing::warn!("the collector did not take all records before the end; those that were left are lost");
        }
    }

    /// Brings records until there are none, or none may be brought.
    async fn bring_all(&self, capture: &Capture) {
        let mut rules = capture.follow_rules();
        let mut failures = 0;
        loop {
            let destination = rules.borrow_and_update().destination.clone();
            let batch = capture.with_spool(|spool, _| spool.batch());
            let (Some(destination), Some(batch)) = (destination, batch) else {
                return;
            };
            let refusal = tokio::select! {
                biased;
                // Perhaps it belongs elsewhere now, or nowhere.
                _ = rules.changed() => {
                    capture.with_spool(|spool, _| spool.not_taken());
                    continue;
                }
                answer = self.bring(destination, batch) => answer.err(),
            };
            let Some(refusal) = refusal else {
                capture.with_spool(|spool, counters| counters.sent.inc_by(spool.taken()));
                if failures > 0 {
                    tracing::info!(failures, "the collector takes records again");
                }
                failures = 0;
                continue;
            };
            capture.with_spool(|spool, counters| {
                spool.not_taken();
                counters.send_errors.inc();
            });
            failures += 1;
            if failures == 1 {
                tracing::warn!(%refusal, "the collector does not take records; they wait in memory");
            }
            tokio::select! {
                () = tokio::time::sleep(self.pace.wait(failures, jitter())) => {}
                _ = rules.changed() => {}
            }
        }
    }

    async fn bring(&self, destination: Destination, batch: Arc<str>) -> Result<(), Refusal> {
        let request = self
            .http
            .post(destination.url)
            .header(AUTHORIZATION, destination.authorization)
            .header(CONTENT_TYPE, "application/json")
            .body(batch.as_bytes().to_vec());
        let answer = request.send().await;
        let status = answer
            .map_err(|error| Refusal::Connection(error.without_url()))?
            .status();
        if status.is_success() {
            Ok(())
        } else {
            Err(Refusal::Status(status))
        }
    }
}

/// Anything from 0 to 1, so that replicas do not all come back in the same moment.
fn jitter() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_half_a_minute_and_are_not_alike() {
        let pace = Pace::default();
        let seconds = |failures, jitter| pace.wait(failures, jitter).as_secs_f64();
        let waits: Vec<f64> = (1..=8).map(|failures| seconds(failures, 1.0)).collect();
        assert_eq!(waits, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
        assert_eq!((seconds(1, 0.0), seconds(u32::MAX, 0.0)), (0.25, 15.0));
        assert!((0.0..=1.0).contains(&jitter()) && jitter() != jitter());
    }
}
