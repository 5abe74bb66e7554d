//! How long the API server was away, and for how long nodes may not have heard of it since.
//!
//! Whoever follows the API server tries again with growing pauses: 0.8 s at first, twice as long each time, at most 30 s, and
//! each up to twice as long by chance (client-go's reflector). So after an outage a kube-proxy may learn of a changed Service
//! only as long after its end as the outage was long, or a minute. Until then it sends requests to pods that served before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Shorter ones are over before anybody has a long pause.
const SHORTEST: Duration = Duration::from_secs(5);
/// The longest pause of a reflector, by chance twice as long.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What listing and programming takes after the pause.
const CATCHING_UP: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Seen {
    since: Option<Instant>,
    /// End and length of the last one.
    last: Option<(Instant, Duration)>,
}

/// Outages of the API server, as this process has met them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Outages {
    seen: Arc<Mutex<Seen>>,
}

impl Outages {
    /// A request was not answered.
    pub fn failed(&self, now: Instant) {
        self.seen.lock().since.get_or_insert(now);
    }

    /// A request was answered.
    pub fn answered(&self, now: Instant) {
        let mut seen = self.seen.lock();
        if let Some(since) = seen.since.take() {
            let length = now.saturating_duration_since(since);
            if length >= SHORTEST {
                seen.last = Some((now, length));
            }
        }
    }

    /// For how long from now on nodes may not know what is in the API server.
    #[must_use]
    pub fn nodes_may_lag(&self, now: Instant) -> Duration {
        let Some((end, length)) = self.seen.lock().last else {
            return Duration::ZERO;
        };
        let lag = (2 * length).min(LONGEST_PAUSE) + CATCHING_UP;
        lag.saturating_sub(now.saturating_duration_since(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_the_outage_the_longer_nodes_may_lag_up_to_a_minute() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let after = |length: u64| {
            let outages = Outages::default();
            outages.failed(at(10));
            outages.failed(at(11));
            outages.answered(at(10 + length));
            outages.answered(at(11 + length));
            outages.nodes_may_lag(at(10 + length)).as_secs()
        };
        assert_eq!(
            [after(0), after(4), after(5), after(20), after(600)],
            [0, 0, 15, 45, 65]
        );
        let outages = Outages::default();
        assert_eq!(outages.nodes_may_lag(begin), Duration::ZERO);
        outages.failed(at(0));
        outages.answered(at(60));
        assert_eq!(outages.nodes_may_lag(at(100)), Duration::from_secs(25));
        assert_eq!(outages.nodes_may_lag(at(200)), Duration::ZERO);
    }
}
