//! What one pod said during the last half minute.

use crate::sample::{BUCKETS, Sample};

/// Samples that are kept: half a minute at one every two seconds.
const KEPT: usize = 16;
/// Samples in a row with a queue that show a pod to be full.
const SATURATED: usize = 5;

/// Samples in a row with much the same queue that show it to stand.
const STANDING: usize = 8;

/// One pod's last samples, in a ring that never grows.
#[derive(Clone, Debug)]
pub struct PodHistory {
    ring: [(f64, Sample); KEPT],
    newest: usize,
    len: usize,
}

/// What a pod did between its oldest kept sample and its newest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Seconds between the two.
    pub seconds: f64,
    /// Requests that arrived.
    pub arrived: u64,
    /// Tokens generated.
    pub generated: u64,
    /// Mean of the requests that were computed at the same time.
    pub running: f64,
    /// Requests by the time to their first token.
    pub first_token: [u64; BUCKETS],
}

impl Default for PodHistory {
    fn default() -> Self {
        Self {
            ring: [(0.0, Sample::default()); KEPT],
            newest: KEPT - 1,
            len: 0,
        }
    }
}

impl PodHistory {
    /// Takes a sample. After a restart of the pod's process what it said before is forgotten.
    pub fn push(&mut self, at: f64, sample: Sample) {
        if let Some((before, last)) = self.newest()
            && (!sample.follows(&last) || at < before)
        {
            self.len = 0;
        }
        self.newest = (self.newest + 1) % KEPT;
        self.ring[self.newest] = (at, sample);
        self.len = (self.len + 1).min(KEPT);
    }

    /// The last sample and its time.
    #[must_use]
    pub fn newest(&self) -> Option<(f64, Sample)> {
        (self.len > 0).then(|| self.ring[self.newest])
    }

    /// The last sample, unless it is older than `age` seconds.
    #[must_use]
    pub fn fresh(&self, now: f64, age: f64) -> Option<&Sample> {
        (self.len > 0 && now - self.ring[self.newest].0 <= age).then(|| &self.ring[self.newest].1)
    }

    /// Samples from the newest to the oldest.
    fn kept(&self) -> impl Iterator<Item = &Sample> {
        (0..self.len).map(|back| &self.ring[(self.newest + KEPT - back) % KEPT].1)
    }

    /// Requests that were computed at most while others waited all the time: so many fit, whatever the pod's own limit.
    #[must_use]
    pub fn saturated_at(&self) -> Option<u32> {
        let queued = |sample: &&Sample| sample.waiting > 0;
        (self.len >= SATURATED && self.kept().take(SATURATED).all(|sample| queued(&sample)))
            .then(|| self.kept().take(SATURATED).map(|sample| sample.running).max())
            .flatten()
            .filter(|running| *running > 0)
    }

    /// Requests that have waited all the time, in a queue that neither grew nor was worked off: their askers wait for answers
    /// before they ask again, so that they show in no rate of arrivals.
    #[must_use]
    pub fn standing(&self) -> u32 {
        let waiting = || self.kept().map(|sample| sample.waiting);
        let (least, most) = (waiting().min().unwrap_or(0), waiting().max().unwrap_or(0));
        let stands = self.len >= STANDING && most <= least + least / 4 + 2;
        if stands { least } else { 0 }
    }

    /// What happened between the oldest kept sample and the newest.
    #[must_use]
    pub fn span(&self) -> Option<Span> {
        if self.len < 2 {
            return None;
        }
        let (from, first) = &self.ring[(self.newest + KEPT + 1 - self.len) % KEPT];
        let (to, last) = &self.ring[self.newest];
        let mut first_token = [0; BUCKETS];
        for (index, count) in first_token.iter_mut().enumerate() {
            *count = u64::from(last.first_token[index] - first.first_token[index]);
        }
        Some(Span {
            seconds: (to - from).max(f64::MIN_POSITIVE),
            arrived: last.arrived - first.arrived,
            generated: last.generated - first.generated,
            running: self.kept().map(|sample| f64::from(sample.running)).sum::<f64>() / self.len as f64,
            first_token,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(boot: u64, arrived: u64) -> Sample {
        Sample {
            boot,
            arrived,
            ..Sample::default()
        }
    }

    #[test]
    fn rates_span_half_a_minute() {
        let mut pod = PodHistory::default();
        for tick in 0..100_u32 {
            pod.push(f64::from(tick) * 2.0, at(1, u64::from(tick) * 6));
        }
        let span = pod.span().expect("two samples");
        assert_eq!((span.seconds, span.arrived), (30.0, 90));
    }

    #[test]
    fn a_queue_stands_when_it_neither_grows_nor_is_worked_off() {
        let queue = |waiting: fn(u32) -> u32| {
            let mut pod = PodHistory::default();
            for tick in 0..10 {
                let sample = Sample {
                    waiting: waiting(tick),
                    ..Sample::default()
                };
                pod.push(f64::from(tick) * 2.0, sample);
            }
            pod.standing()
        };
        assert_eq!(queue(|tick| 8 + tick % 3), 8);
        assert_eq!(queue(|tick| tick * 2), 0);
        assert_eq!(queue(|tick| 40 - tick * 2), 0);
    }

    #[test]
    fn a_restarted_process_begins_anew() {
        let mut pod = PodHistory::default();
        pod.push(0.0, at(1, 100));
        pod.push(2.0, at(2, 3));
        assert_eq!(pod.span(), None);
        // Also if something between us gave it the same name.
        pod.push(4.0, at(2, 5));
        pod.push(6.0, at(2, 1));
        assert_eq!(pod.span(), None);
        assert!(pod.fresh(7.0, 6.0).is_some());
        assert!(pod.fresh(13.0, 6.0).is_none());
    }
}
