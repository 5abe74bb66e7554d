//! Leader election: one operator writes, the others wait.
//!
//! A Lease is taken, renewed and given back by replacing it at the `resourceVersion` that was read, so two operators can
//! never both believe that they wrote last. Another's lease counts from when *we* saw it change: clocks need not agree.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use thiserror::Error;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Durations of the election, as controller-runtime has them.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a lease counts after its last renewal.
    pub lease: Duration,
    /// How long the holder tries to renew before it gives up.
    pub renew_deadline: Duration,
    /// Time between two tries.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// Why the lease is not ours any more.
#[derive(Debug, Error)]
pub enum Lost {
    /// Somebody else holds it.
    #[error("the lease was taken over by {0}")]
    TakenOver(String),
    /// It could not be renewed in time.
    #[error("the lease could not be renewed within {0:?}: {1}")]
    NotRenewed(Duration, String),
}

/// What to do about a lease that was read.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// Nobody holds it, or its holder has been silent for too long.
    Take,
    /// It is ours.
    Renew,
    /// Somebody else's; look again later.
    Wait,
}

/// What was seen of somebody else's lease, and since when it has not changed.
#[derive(Debug, Default)]
struct Seen {
    version: Option<String>,
    since: Option<Instant>,
}

impl Seen {
    fn look(&mut self, lease: &Lease, now: Instant) {
        if self.version != lease.metadata.resource_version {
            self.version.clone_from(&lease.metadata.resource_version);
            self.since = Some(now);
        }
    }
}

fn decide(lease: &Lease, identity: &str, seen: &Seen, timing: &Timing, now: Instant) -> Decision {
    let holder = lease
        .spec
        .as_ref()
        .and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default();
    if holder.is_empty() {
        return Decision::Take;
    }
    if holder == identity {
        return Decision::Renew;
    }
    let silent = seen
        .since
        .map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
    let granted = lease
        .spec
        .as_ref()
        .and_then(|spec| spec.lease_duration_seconds)
        .and_then(|s| u64::try_from(s).ok());
    if silent > granted.map_or(timing.lease, Duration::from_secs) {
        Decision::Take
    } else {
        Decision::Wait
    }
}

/// A candidate for leadership.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    timing: Timing,
}

impl Candidate {
    /// A candidate for the lease `namespace/name`; `identity` must differ between operators.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str, timing: Timing) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            timing,
        }
    }

    /// Waits until this candidate is the leader. `None` when cancelled.
    pub async fn acquire(&self, cancel: &CancellationToken) -> Option<Lease> {
        let mut seen = Seen::default();
        loop {
            match self.attempt(&mut seen).await {
                Ok(Some(lease)) => return Some(lease),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "The lease could not be read or taken; trying again."),
            }
            tokio::select! {
                () = cancel.cancelled() => return None,
                () = tokio::time::sleep(self.timing.retry) => {}
            }
        }
    }

    async fn attempt(&self, seen: &mut Seen) -> kube::Result<Option<Lease>> {
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let fresh = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(None)),
            };
            return lost_race(self.api.create(&PostParams::default(), &fresh).await);
        };
        let now = Instant::now();
        seen.look(&lease, now);
        match decide(&lease, &self.identity, seen, &self.timing, now) {
            Decision::Wait => Ok(None),
            Decision::Take | Decision::Renew => self.write(&lease, Some(self.spec(lease.spec.as_ref()))).await,
        }
    }

    /// Renews until cancelled (`Ok`) or until the lease is lost.
    ///
    /// # Errors
    /// [`Lost`] says to whom or why. The caller must stop writing at once.
    pub async fn keep(&self, mut lease: Lease, cancel: &CancellationToken) -> Result<Lease, Lost> {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(lease),
                () = tokio::time::sleep(self.timing.retry) => {}
            }
            let failure = match tokio::time::timeout(self.timing.retry * 2, self.renew(&lease)).await {
                Ok(Ok(Some(next))) => {
                    lease = next;
                    renewed = Instant::now();
                    continue;
                }
                Ok(Ok(None)) => "somebody else wrote it".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the API server did not answer".to_owned(),
            };
            if let Ok(Ok(Some(current))) = tokio::time::timeout(self.timing.retry, self.api.get_opt(&self.name)).await {
                let holder = current
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.holder_identity.clone())
                    .unwrap_or_default();
                if holder != self.identity {
                    return Err(Lost::TakenOver(if holder.is_empty() {
                        "nobody yet".to_owned()
                    } else {
                        holder
                    }));
                }
                lease = current;
            }
            if renewed.elapsed() > self.timing.renew_deadline {
                return Err(Lost::NotRenewed(self.timing.renew_deadline, failure));
            }
        }
    }

    async fn renew(&self, lease: &Lease) -> kube::Result<Option<Lease>> {
        self.write(lease, Some(self.spec(lease.spec.as_ref()))).await
    }

    /// Gives the lease back, so that the next leader need not wait for it to run out.
    pub async fn release(&self, lease: &Lease) {
        let given_back = LeaseSpec {
            holder_identity: None,
            lease_duration_seconds: Some(1),
            ..lease.spec.clone().unwrap_or_default()
        };
        if let Err(error) = self.write(lease, Some(given_back)).await {
            tracing::warn!(%error, "The lease could not be given back; it runs out by itself.");
        }
    }

    async fn write(&self, read: &Lease, spec: Option<LeaseSpec>) -> kube::Result<Option<Lease>> {
        let mut next = read.clone();
        next.spec = spec;
        lost_race(self.api.replace(&self.name, &PostParams::default(), &next).await)
    }

    fn spec(&self, old: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let held = old.is_some_and(|spec| spec.holder_identity.as_deref() == Some(&self.identity));
        let transitions = old.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.timing.lease.as_secs()).ok(),
            acquire_time: if held {
                old.and_then(|spec| spec.acquire_time.clone())
            } else {
                Some(now.clone())
            },
            renew_time: Some(now),
            lease_transitions: Some(if held || old.is_none() {
                transitions
            } else {
                transitions + 1
            }),
            ..LeaseSpec::default()
        }
    }
}

/// A conflict means that somebody else was faster: no error, but not ours.
fn lost_race(result: kube::Result<Lease>) -> kube::Result<Option<Lease>> {
    match result {
        Ok(lease) => Ok(Some(lease)),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: Option<&str>, version: &str) -> Lease {
        Lease {
            metadata: ObjectMeta {
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: holder.map(str::to_owned),
                lease_duration_seconds: Some(15),
                ..LeaseSpec::default()
            }),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_holder_is_succeeded_only_after_its_lease_ran_out_on_our_clock() {
        let timing = Timing::default();
        let mut seen = Seen::default();
        let other = lease(Some("other"), "1");
        seen.look(&other, Instant::now());
        assert_eq!(decide(&other, "me", &seen, &timing, Instant::now()), Decision::Wait);
        tokio::time::advance(Duration::from_secs(15)).await;
        assert_eq!(decide(&other, "me", &seen, &timing, Instant::now()), Decision::Wait);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(decide(&other, "me", &seen, &timing, Instant::now()), Decision::Take);
        let renewed = lease(Some("other"), "2");
        seen.look(&renewed, Instant::now());
        assert_eq!(decide(&renewed, "me", &seen, &timing, Instant::now()), Decision::Wait);
    }

    #[tokio::test(start_paused = true)]
    async fn a_free_lease_is_taken_and_our_own_renewed() {
        let (seen, timing) = (Seen::default(), Timing::default());
        assert_eq!(
            decide(&lease(None, "1"), "me", &seen, &timing, Instant::now()),
            Decision::Take
        );
        assert_eq!(
            decide(&lease(Some(""), "1"), "me", &seen, &timing, Instant::now()),
            Decision::Take
        );
        assert_eq!(
            decide(&lease(Some("me"), "1"), "me", &seen, &timing, Instant::now()),
            Decision::Renew
        );
    }
}
