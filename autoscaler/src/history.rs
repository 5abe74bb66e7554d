//! What is remembered of one object between two decisions.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::decide::Decision;
use crate::pod::PodHistory;
use crate::sample::Sample;
use crate::surprise::Surprise;
use crate::totals::Totals;
use crate::trend::Trend;
use crate::window::Largest;

/// A pod that has not answered for so many seconds is not known any more: three scrapes and a little.
pub const FRESH: f64 = 7.0;
/// Half-life in seconds of what is known of how long a request is computed.
const SERVICE_HALF_LIFE: f64 = 300.0;
/// Requests that must have ended before their mean is believed.
const SERVICE_FEWEST: f64 = 5.0;
/// Cold starts of which the median is taken.
const COLD_STARTS: usize = 9;
/// Limits of growth and shrinking look back so many seconds.
pub const MINUTE: f64 = 60.0;

/// A change of the number of replicas.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// When.
    pub at: f64,
    /// Replicas before.
    pub from: u32,
    /// Replicas after.
    pub to: u32,
}

/// What is remembered of one object between two decisions.
#[derive(Clone, Debug, Default)]
pub struct History {
    pods: BTreeMap<Arc<str>, PodHistory>,
    service: Service,
    trend: Trend,
    surprise: Surprise,
    cold_starts: VecDeque<(u64, f64)>,
    down: Largest,
    /// Negated, so that the largest is the smallest.
    up: Largest,
    changes: VecDeque<Change>,
    /// Since when no ready pod has answered.
    blind_since: Option<f64>,
}

/// How long a request is computed: a mean that forgets.
#[derive(Clone, Copy, Debug, Default)]
struct Service {
    seconds: f64,
    requests: f64,
    at: f64,
}

impl Service {
    fn add(&mut self, now: f64, seconds: f64, requests: f64) {
        let faded = (-(now - self.at).max(0.0) / SERVICE_HALF_LIFE).exp2();
        self.seconds = self.seconds * faded + seconds;
        self.requests = self.requests * faded + requests;
        self.at = now;
    }

    fn mean(&self) -> Option<f64> {
        (self.requests >= SERVICE_FEWEST).then(|| self.seconds / self.requests)
    }
}

impl History {
    /// A history that knows what an earlier shell did, so that limits of a minute hold across a restart.
    #[must_use]
    pub fn with_changes(changes: impl IntoIterator<Item = Change>) -> Self {
        Self {
            changes: changes.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Keeps these pods and forgets all others: the ready pods of the revision that serves.
    pub fn keep(&mut self, is_ready: impl Fn(&str) -> bool) {
        self.pods.retain(|pod, _| is_ready(pod));
    }

    /// Another revision serves now: how long it starts and computes is to be seen.
    pub fn new_revision(&mut self) {
        self.cold_starts.clear();
        self.service = Service::default();
    }

    /// A pod became ready; nothing is known of it yet.
    pub fn expect(&mut self, pod: &Arc<str>) {
        if !self.pods.contains_key(pod) {
            self.pods.insert(Arc::clone(pod), PodHistory::default());
        }
    }

    /// A pod said how loaded it is.
    pub fn sampled(&mut self, pod: &str, at: f64, sample: Sample) {
        let Some(history) = self.pods.get_mut(pod) else { return };
        if let Some((_, last)) = history.newest()
            && sample.follows(&last)
        {
            let requests = (sample.finished - last.finished) as f64;
            self.service
                .add(at, sample.computed_seconds - last.computed_seconds, requests);
        }
        history.push(at, sample);
        if let Some(seconds) = sample.cold_start
            && !self.cold_starts.iter().any(|(boot, _)| *boot == sample.boot)
        {
            self.cold_starts.push_back((sample.boot, seconds));
            if self.cold_starts.len() > COLD_STARTS {
                self.cold_starts.pop_front();
            }
        }
    }

    /// After a round of samples: what all pods together do becomes a point of the trend.
    pub fn round(&mut self, now: f64) {
        let totals = self.totals(now);
        if totals.seen == 0 && totals.unseen > 0 {
            self.blind_since.get_or_insert(now);
        } else {
            self.blind_since = None;
        }
        // With pods unseen the sum would show a fall that is none.
        if totals.rated && totals.unseen == 0 {
            let offered = self.offered(&totals);
            self.trend.push(now, offered);
            let (lead, growth) = (self.lead(), self.growth(&totals));
            self.surprise.push(now, offered, lead, offered * growth);
        }
    }

    /// Takes note of a decision that is going to be carried out.
    pub fn decided(&mut self, now: f64, decision: &Decision) {
        let recommended = i64::from(decision.recommended);
        self.down.push(now, recommended);
        self.up.push(now, -recommended);
        if decision.desired != decision.from {
            self.changes.push_back(Change {
                at: now,
                from: decision.from,
                to: decision.desired,
            });
        }
        while self.changes.len() > 1 && self.changes.front().is_some_and(|change| now - change.at > MINUTE) {
            self.changes.pop_front();
        }
    }

    /// The load of all ready pods together.
    #[must_use]
    pub fn totals(&self, now: f64) -> Totals {
        Totals::of(self.pods.values(), now, FRESH)
    }

    /// A pod's requests, running and waiting; `None` if it has not answered lately.
    #[must_use]
    pub fn work(&self, pod: &str, now: f64) -> Option<u64> {
        let sample = self.pods.get(pod)?.fresh(now, FRESH)?;
        Some(u64::from(sample.running) + u64::from(sample.waiting))
    }

    /// Seconds that a request is computed, in the mean of the last minutes.
    #[must_use]
    pub fn service(&self) -> Option<f64> {
        self.service.mean()
    }

    /// Requests that are in computation in the long run if as many arrive as do now (Little's law), however many replicas
    /// there are: a queue that grows while replicas start does not count again and again.
    #[must_use]
    pub fn offered(&self, totals: &Totals) -> f64 {
        match self.service() {
            Some(service) => (totals.arriving * service).max(totals.running_mean),
            None => totals.running + totals.waiting,
        }
    }

    /// By which factor the load will have grown when a replica that is started now is ready.
    #[must_use]
    pub fn growth(&self, totals: &Totals) -> f64 {
        self.trend.growth(self.lead(), self.offered(totals))
    }

    /// Requests at a time that may come on top of the forecast, as they have lately.
    #[must_use]
    pub fn reserve(&self) -> f64 {
        self.surprise.reserve()
    }

    /// Seconds from the decision to a replica that answers: the median of the last cold starts.
    #[must_use]
    pub fn cold_start(&self) -> Option<f64> {
        let mut seconds: Vec<f64> = self.cold_starts.iter().map(|(_, seconds)| *seconds).collect();
        seconds.sort_by(f64::total_cmp);
        seconds.get(seconds.len() / 2).copied()
    }

    /// How far the forecast looks ahead.
    fn lead(&self) -> f64 {
        self.cold_start().unwrap_or(0.0)
    }

    /// The last change towards more replicas.
    #[must_use]
    pub fn last_growth(&self) -> Option<f64> {
        self.changes
            .iter()
            .rev()
            .find(|change| change.to > change.from)
            .map(|change| change.at)
    }

    /// Replicas a minute ago, as far as is known; `now_wanted` if nothing has changed since.
    #[must_use]
    pub fn minute_ago(&self, now: f64, now_wanted: u32) -> u32 {
        self.changes
            .iter()
            .find(|change| now - change.at < MINUTE)
            .map_or(now_wanted, |change| change.from)
    }

    /// Replicas removed in the last minute.
    #[must_use]
    pub fn removed(&self, now: f64) -> u32 {
        self.changes
            .iter()
            .filter(|change| now - change.at < MINUTE)
            .map(|change| change.from.saturating_sub(change.to))
            .sum()
    }

    /// The most replicas that were needed at any time of the window; `None` while that is not known for all of it.
    #[must_use]
    pub fn most_needed(&self, now: f64, window: f64) -> Option<u32> {
        self.down
            .largest(now, window)
            .and_then(|value| u32::try_from(value).ok())
    }

    /// The fewest replicas that were needed at any time of the window; `None` while that is not known for all of it.
    #[must_use]
    pub fn least_needed(&self, now: f64, window: f64) -> Option<u32> {
        self.up
            .largest(now, window)
            .and_then(|value| u32::try_from(-value).ok())
    }

    /// Since when there have been ready pods and none of them has answered.
    #[must_use]
    pub fn blind_since(&self) -> Option<f64> {
        self.blind_since
    }
}
