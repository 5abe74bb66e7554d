//! The load of all ready pods together.

use crate::pod::PodHistory;
use crate::sample::{BUCKETS, quantile};

/// The load of all ready pods that could be asked, added up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Ready pods whose load is known.
    pub seen: u32,
    /// Ready pods that could not be asked lately.
    pub unseen: u32,
    /// Requests that wait.
    pub waiting: f64,
    /// Requests that wait in queues that stand.
    pub standing: f64,
    /// Requests that are computed.
    pub running: f64,
    /// The same, as the mean of half a minute.
    pub running_mean: f64,
    /// Whether rates are known: of at least one pod there are two samples.
    pub rated: bool,
    /// Requests that arrive per second.
    pub arriving: f64,
    /// Tokens generated per second.
    pub generating: f64,
    /// Requests that a replica computes at the same time, at most.
    pub slots: f64,
    /// Tokens of the key-value cache in use.
    pub cache_used: f64,
    /// Tokens of a replica's key-value cache.
    pub cache_total: f64,
    /// Prompt tokens in the queues.
    pub queued_tokens: f64,
    /// 95th percentile of the time to the first token in seconds, if there were enough requests to tell.
    pub first_token_p95: Option<f64>,
}

/// Requests without which a 95th percentile is an accident.
const FEWEST_REQUESTS: u64 = 20;

impl Totals {
    /// Adds up the pods whose last sample is at most `age` seconds old.
    pub fn of<'a>(pods: impl Iterator<Item = &'a PodHistory>, now: f64, age: f64) -> Self {
        let mut totals = Self::default();
        let mut first_token = [0_u64; BUCKETS];
        let mut spans = 0.0;
        for pod in pods {
            let Some(sample) = pod.fresh(now, age) else {
                totals.unseen += 1;
                continue;
            };
            totals.seen += 1;
            totals.waiting += f64::from(sample.waiting);
            totals.standing += f64::from(pod.standing());
            totals.running += f64::from(sample.running);
            totals.slots += f64::from(pod.saturated_at().unwrap_or(sample.slots).max(1));
            totals.cache_used += sample.cache_used as f64;
            totals.cache_total += sample.cache_total as f64;
            totals.queued_tokens += sample.queued_tokens as f64;
            let Some(span) = pod.span() else {
                totals.running_mean += f64::from(sample.running);
                continue;
            };
            spans += 1.0;
            totals.running_mean += span.running;
            totals.arriving += span.arrived as f64 / span.seconds;
            totals.generating += span.generated as f64 / span.seconds;
            for (sum, count) in first_token.iter_mut().zip(&span.first_token) {
                *sum += count;
            }
        }
        if totals.seen > 0 {
            totals.slots /= f64::from(totals.seen);
            totals.cache_total /= f64::from(totals.seen);
        }
        // A pod that has answered once has no rate yet: it is taken to do as the others do.
        totals.rated = spans > 0.0;
        if totals.rated {
            totals.arriving *= f64::from(totals.seen) / spans;
            totals.generating *= f64::from(totals.seen) / spans;
        }
        if first_token.iter().sum::<u64>() >= FEWEST_REQUESTS {
            totals.first_token_p95 = quantile(&first_token, 0.95);
        }
        totals
    }
}
