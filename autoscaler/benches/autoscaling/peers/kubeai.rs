//! KubeAI's autoscaler.
//!
//! Sources: substratusai/kubeai (now kubeai-project/kubeai), `internal/modelautoscaler/autoscaler.go`,
//! `internal/movingaverage/simple.go` (commit 0f3b290), `internal/modelclient/scale.go` (commit 1dbb673) and
//! `internal/config/system.go` (commit 09cf9ba).

use super::{Checks, Rhythm, held};
use crate::scaler::{Scaler, View};

const INTERVAL: f64 = 10.0;
const TIME_WINDOW: f64 = 600.0;
const SCALE_DOWN_DELAY: f64 = 30.0;

/// The mean of the active requests over ten minutes, looked at every ten seconds.
///
/// - The mean is over the whole window from the start: on a fresh install the history is filled with zeros. (After a
///   restart KubeAI fills it with the mean that it saved; the simulation starts fresh.)
/// - KubeAI counts requests in its own proxies, so it loses none when a pod cannot be asked: such a pod counts with
///   what it held when last asked.
#[derive(Debug)]
pub struct KubeAi {
    min: u32,
    max: u32,
    target: f64,
    rhythm: Rhythm,
    average: Average,
    votes: Votes,
    known: Vec<(u32, u32)>,
}

impl KubeAi {
    /// Between `min` and `max` replicas; `target` is `targetRequests`: active requests per replica.
    #[must_use]
    pub fn new(min: u32, max: u32, target: f64) -> Self {
        Self {
            min,
            max,
            target,
            rhythm: Rhythm::new(INTERVAL),
            average: Average::new(intervals(TIME_WINDOW, INTERVAL)),
            votes: Votes::default(),
            known: Vec::new(),
        }
    }

    fn remember(&mut self, view: &View<'_>) {
        let last = |id| self.known.iter().find(|(known, _)| *known == id).map(|(_, held)| *held);
        let now = |pod: &crate::scaler::Seen| match &pod.sample {
            Some(sample) => Some((pod.id, held(sample))),
            None => last(pod.id).map(|held| (pod.id, held)),
        };
        self.known = view.pods.iter().filter_map(now).collect();
    }
}

impl Scaler for KubeAi {
    fn tick(&mut self, now: f64, view: &View<'_>) -> u32 {
        self.remember(view);
        // Without a count for the model KubeAI skips it.
        if !self.rhythm.due(now) || self.known.is_empty() {
            return view.wanted;
        }
        self.average
            .next(self.known.iter().map(|(_, held)| f64::from(*held)).sum());
        let proposed = ((self.average.mean() / self.target).ceil() as u32)
            .max(self.min)
            .min(self.max);
        self.votes
            .scale(view.wanted, proposed, intervals(SCALE_DOWN_DELAY, INTERVAL))
    }
}

/// A simple moving average over a fixed number of values, zero at first.
#[derive(Debug)]
pub struct Average {
    history: Vec<f64>,
    index: usize,
}

impl Average {
    fn new(count: usize) -> Self {
        Self {
            history: vec![0.0; count],
            index: 0,
        }
    }

    fn next(&mut self, value: f64) {
        self.history[self.index] = value;
        self.index = (self.index + 1) % self.history.len();
    }

    fn mean(&self) -> f64 {
        self.history.iter().sum::<f64>() / self.history.len() as f64
    }
}

/// Consecutive proposals of fewer replicas.
#[derive(Debug, Default)]
pub struct Votes {
    down: usize,
}

impl Votes {
    /// Up at once; down only once `required` such proposals came before. A step down leaves the count as it is, so that
    /// a further one may follow at the next look.
    fn scale(&mut self, existing: u32, proposed: u32, required: usize) -> u32 {
        if proposed >= existing {
            self.down = 0;
        } else if self.down < required {
            self.down += 1;
            return existing;
        }
        proposed
    }
}

fn intervals(span: f64, interval: f64) -> usize {
    (span / interval).ceil() as usize
}

/// Examples of `movingaverage/simple_test.go`, `config/system_test.go` and, of the integration tests, those that scale.
pub fn check(checks: &mut Checks) {
    let averages: [(&str, usize, &[f64], f64); 5] = [
        ("TestSimple 1-2-3", 3, &[1.0, 2.0, 3.0], 2.0),
        ("TestSimple 3-2-1", 3, &[3.0, 2.0, 1.0], 2.0),
        ("TestSimple 3-2-1-1-1-1", 3, &[3.0, 2.0, 1.0, 1.0, 1.0, 1.0], 1.0),
        ("TestSimple 2-3", 2, &[2.0, 3.0], 2.5),
        ("TestSimple 2-2-2", 3, &[2.0, 2.0, 2.0], 2.0),
    ];
    for (test, count, values, expected) in averages {
        let mut average = Average::new(count);
        values.iter().for_each(|&value| average.next(value));
        checks.same(test, average.mean(), expected);
    }
    for (test, interval, window, delay, votes, count) in [
        ("TestAutoscalingConfig default", 10.0, 180.0, 180.0, 18, 18),
        ("TestAutoscalingConfig even", 1.0, 10.0, 10.0, 10, 10),
        ("TestAutoscalingConfig with-remainder", 2.0, 5.0, 3.0, 2, 3),
    ] {
        checks.same(
            test,
            (intervals(delay, interval), intervals(window, interval)),
            (votes, count),
        );
    }
    check_scaling(checks);
}

/// A target of one request, looks every quarter of a second, a window of one second and a delay of two; what is
/// expected must come within 15 seconds.
fn check_scaling(checks: &mut Checks) {
    let (mut average, mut votes) = (Average::new(intervals(1.0, 0.25)), Votes::default());
    let mut after_a_while = |existing: u32, load: u32| {
        (0..60).fold(existing, |existing, _| {
            average.next(f64::from(load));
            votes.scale(existing, average.mean().ceil() as u32, intervals(2.0, 0.25))
        })
    };
    checks.same("TestAutoscalingHA, 1 + 2 + 3 requests", after_a_while(0, 1 + 2 + 3), 6);
    checks.same("TestAutoscalingHA, none", after_a_while(6, 0), 0);
    checks.same("TestAutoscalerState", after_a_while(0, 2), 2);
}
