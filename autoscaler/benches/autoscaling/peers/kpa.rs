//! Knative's pod autoscaler (KPA).
//!
//! Sources: knative/serving, `pkg/autoscaler/scaling/autoscaler.go` (commit 00a4a55), `pkg/autoscaler/metrics`
//! (`collector.go`, `stats_scraper.go`) and `pkg/autoscaler/aggregation/bucketing.go`; the defaults are those of
//! `config/core/configmaps/autoscaler.yaml`.

use std::collections::VecDeque;

use super::{Checks, Rhythm, held};
use crate::scaler::{Scaler, View};

const TICK: f64 = 2.0;
const STABLE_WINDOW: f64 = 60.0;
const PANIC_WINDOW: f64 = 6.0;
/// `container-concurrency-target-percentage`: how full a pod shall be.
const UTILISATION: f64 = 0.7;

/// Concurrency (requests computed and waiting) over a stable and a panic window.
///
/// The concurrency of a second is the mean of the pods that could be asked, times the ready ones, as Knative does it
/// with its sample of the pods. This is generous: with fewer answers than its sample needs (all pods up to three)
/// Knative drops the second, which then counts as zero in the windows.
#[derive(Debug)]
pub struct Kpa {
    min: u32,
    max: u32,
    spec: Spec,
    rhythm: Rhythm,
    stable: Buckets,
    panic: Buckets,
    decider: Option<Decider>,
}

impl Kpa {
    /// Between `min` and `max` replicas; `target` is the concurrency that a pod can hold, of which 70 % are aimed at.
    #[must_use]
    pub fn new(min: u32, max: u32, target: f64) -> Self {
        Self {
            min,
            max,
            spec: Spec {
                target: target * UTILISATION,
                up: 1000.0,
                down: 2.0,
                panic_threshold: 2.0,
                stable_window: STABLE_WINDOW,
            },
            rhythm: Rhythm::new(TICK),
            stable: Buckets::new(STABLE_WINDOW),
            panic: Buckets::new(PANIC_WINDOW),
            decider: None,
        }
    }
}

impl Scaler for Kpa {
    fn tick(&mut self, now: f64, view: &View<'_>) -> u32 {
        let ready = view.pods.iter().filter(|pod| pod.ready).count() as u32;
        let decider = self.decider.get_or_insert_with(|| Decider::started(now, ready));
        if let Some(concurrency) = concurrency(view, ready) {
            self.stable.record(now, concurrency);
            self.panic.record(now, concurrency);
        }
        if !self.rhythm.due(now) || self.stable.is_empty(now) {
            return view.wanted;
        }
        let averages = (self.stable.average(now), self.panic.average(now));
        decider
            .desired(now, ready, averages, &self.spec)
            .max(self.min)
            .min(self.max)
    }
}

fn concurrency(view: &View<'_>, ready: u32) -> Option<f64> {
    let asked: Vec<_> = view
        .pods
        .iter()
        .filter_map(|pod| pod.sample.as_ref())
        .map(held)
        .collect();
    let mean = f64::from(asked.iter().sum::<u32>()) / asked.len() as f64;
    (!asked.is_empty()).then(|| mean * f64::from(ready))
}

/// Settings of a revision.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Concurrency per pod that is aimed at.
    target: f64,
    /// Largest factor between the ready pods and those asked for.
    up: f64,
    /// The same on the way down, as a divisor.
    down: f64,
    /// Panic begins where the panic window asks for this many times the ready pods.
    panic_threshold: f64,
    /// Seconds that panic outlasts its cause.
    stable_window: f64,
}

/// The state of panic.
#[derive(Debug)]
pub struct Decider {
    since: Option<f64>,
    most: u32,
}

impl Decider {
    /// With more than one pod it starts in panic, so that it does not scale down before it knows enough.
    fn started(now: f64, ready: u32) -> Self {
        Self {
            since: (ready > 1).then_some(now),
            most: ready,
        }
    }

    /// Pods for the averages of the stable and the panic window.
    fn desired(&mut self, now: f64, ready: u32, (stable, panic): (f64, f64), spec: &Spec) -> u32 {
        let ready = f64::from(ready.max(1));
        let highest = (spec.up * ready).ceil();
        let lowest = (ready / spec.down).floor();
        let pods = |average: f64| (average / spec.target).ceil();
        let within = |pods: f64| pods.max(lowest).min(highest) as u32;

        if pods(panic) / ready >= spec.panic_threshold {
            self.since = Some(now);
        } else if self.since.is_some_and(|since| since + spec.stable_window < now) {
            *self = Self { since: None, most: 0 };
        }
        let desired = within(pods(stable));
        if self.since.is_none() {
            return desired;
        }
        self.most = self.most.max(desired).max(within(pods(panic)));
        self.most
    }
}

/// The mean over the seconds of a window: only those since the first value and up to the last one, where a second
/// without a value counts as zero.
#[derive(Debug)]
struct Buckets {
    window: i64,
    first: i64,
    values: VecDeque<(i64, f64)>,
}

impl Buckets {
    fn new(window: f64) -> Self {
        Self {
            window: window.ceil() as i64,
            first: 0,
            values: VecDeque::new(),
        }
    }

    /// Seconds since the last value.
    fn age(&self, now: f64) -> Option<i64> {
        self.values.back().map(|(last, _)| now.floor() as i64 - last)
    }

    fn is_empty(&self, now: f64) -> bool {
        self.age(now).is_none_or(|age| age > self.window)
    }

    /// Takes the next value; time does not go back.
    fn record(&mut self, now: f64, value: f64) {
        let second = now.floor() as i64;
        if self.is_empty(now) {
            self.values.clear();
            self.first = second;
        }
        match self.values.back_mut() {
            Some((last, sum)) if *last == second => *sum += value,
            _ => self.values.push_back((second, value)),
        }
        self.values.retain(|(time, _)| *time > second - self.window);
    }

    fn average(&self, now: f64) -> f64 {
        let (Some(age), Some((last, _))) = (self.age(now), self.values.back()) else {
            return 0.0;
        };
        let age = age.max(0);
        if age >= self.window {
            return 0.0;
        }
        let oldest = last + age - self.window;
        let sum: f64 = self
            .values
            .iter()
            .filter(|(time, _)| *time > oldest)
            .map(|(_, value)| value)
            .sum();
        let seconds = (last - self.first + 1).min(self.window - age);
        // Cut to six digits, so that rounding in the sum does not cost a pod.
        (sum / seconds as f64 * 1e6).floor() / 1e6
    }
}

/// Examples of `scaling/autoscaler_test.go` and `aggregation/bucketing_test.go`.
pub fn check(checks: &mut Checks) {
    check_single(checks);
    check_settings(checks);
    check_sequences(checks);
    check_panic(checks);
    check_buckets(checks);
}

/// What the tests of Knative use.
fn spec(target: f64) -> Spec {
    Spec {
        target,
        up: 10.0,
        down: 10.0,
        panic_threshold: 2.0,
        stable_window: 60.0,
    }
}

fn check_single(checks: &mut Checks) {
    for (test, target, ready, averages, expected) in [
        ("Scale NoDataAtZeroNoAutoscale", 10.0, 1, (0.0, 0.0), 0),
        ("Scale NoDataAtZeroNoAutoscaleWithExplicitEPs", 10.0, 1, (0.0, 0.0), 0),
        ("Scale StableModeUnlimitedTBC", 181.0, 1, (21.0, 26.0), 1),
        ("Scale 0TBC", 10.0, 1, (50.0, 49.0), 5),
        ("Scale StableModeNoChange", 10.0, 1, (50.0, 50.0), 5),
        ("Scale StableModeNoChangeAlreadyScaled", 10.0, 5, (50.0, 50.0), 5),
        ("Scale PanicModeDoublePodCount", 10.0, 1, (50.0, 100.0), 10),
        ("Metrics", 10.0, 1, (50.0, 50.0), 5),
        ("MetricsWithRPS", 10.0, 1, (100.0, 99.0), 10),
        ("UseOnePodAsMinimumIfEndpointsNotFound", 10.0, 0, (1000.0, 888.0), 10),
    ] {
        let got = Decider::started(0.0, 1).desired(0.0, ready, averages, &spec(target));
        checks.same(&format!("TestAutoscaler{test}"), got, expected);
    }
}

/// Those with settings or a state of their own.
fn check_settings(checks: &mut Checks) {
    let slow = Spec { up: 1.1, ..spec(1.0) };
    let got = Decider::started(0.0, 1).desired(0.0, 2, (3.0, 3.1), &slow);
    checks.same("TestAutoscalerScale StableModeIncreaseWithSmallScaleUpRate", got, 3);
    let slow = Spec {
        down: 1.1,
        ..spec(10.0)
    };
    let got = Decider::started(0.0, 1).desired(0.0, 100, (1.0, 1.0), &slow);
    checks.same("TestAutoscalerScale StableModeDecreaseWithSmallScaleDownRate", got, 90);
    let panicking = || Decider {
        since: Some(-5.0),
        most: 5,
    };
    let got = panicking().desired(0.0, 5, (50.0, 30.0), &spec(1.0));
    checks.same("TestAutoscalerScale PanicStableLargerThanPanic", got, 50);
    let got = panicking().desired(0.0, 5, (20.0, 30.0), &spec(1.0));
    checks.same("TestAutoscalerScale PanicStableLessThanPanic", got, 30);

    let calm = Spec {
        panic_threshold: 100.0,
        stable_window: 0.0,
        ..spec(10.0)
    };
    let mut decider = Decider::started(0.0, 0);
    let got = [(0.0, 40.0), (0.5, 20.0)].map(|(now, load)| decider.desired(now, 0, (load, load), &calm));
    checks.same("TestAutoscalerScaleDownDelayZero", got, [4, 2]);
    let mut decider = Decider::started(0.0, 1);
    let first = decider.desired(0.0, 1, (100.0, 101.0), &spec(10.0));
    let second = decider.desired(0.0, 10, (100.0, 101.0), &spec(1.0));
    checks.same("TestAutoscalerUpdateTarget", [first, second], [10, 100]);
}

/// Each step: seconds, ready pods, averages of both windows, pods expected.
type Step = (f64, u32, (f64, f64), u32);

fn check_sequences(checks: &mut Checks) {
    let mut play = |test: &str, target: f64, steps: &[Step]| {
        let mut decider = Decider::started(0.0, 1);
        for &(now, ready, averages, expected) in steps {
            let got = decider.desired(now, ready, averages, &spec(target));
            checks.same(&format!("TestAutoscaler{test}"), got, expected);
        }
    };
    let steps = [(0.0, 1, (50.0, 10.0), 5), (0.0, 1, (100.0, 10.0), 10)];
    play("StableModeIncreaseWithConcurrencyDefault", 10.0, &steps);
    let steps = [(0.0, 1, (50.0, 50.0), 5), (0.0, 1, (100.0, 99.0), 10)];
    play("StableModeIncreaseWithRPS", 10.0, &steps);
    let steps = [(0.0, 8, (100.0, 100.0), 10), (0.0, 8, (50.0, 50.0), 5)];
    play("StableModeDecrease", 10.0, &steps);
    let steps = [(0.0, 1, (1.0, 0.0), 1), (0.0, 1, (0.0, 0.0), 0)];
    play("StableModeNoTrafficScaleToZero", 10.0, &steps);
    let steps = [(0.0, 1, (1000.0, 1001.0), 10), (0.0, 10, (1000.0, 1001.0), 100)];
    play("RateLimitScaleUp", 10.0, &steps);
    let steps = [(0.0, 100, (1.0, 1.0), 10), (0.0, 10, (1.0, 1.0), 1)];
    play("RateLimitScaleDown", 10.0, &steps);
    let steps = [
        (0.0, 1, (6.0, 6.0), 6),
        (0.0, 6, (36.0, 36.0), 36),
        (1.0, 36, (216.0, 216.0), 216),
        (1.0, 216, (1296.0, 1296.0), 1296),
        (2.0, 1296, (1296.0, 1296.0), 1296),
    ];
    play("PanicModeExponentialTrackAndStabilize", 1.0, &steps);
    let steps = [
        (0.0, 1, (100.0, 100.0), 10),
        (0.0, 10, (100.0, 1000.0), 100),
        (30.0, 10, (1.0, 1.0), 100),
        (61.0, 10, (1.0, 1.0), 1),
    ];
    play("PanicThenUnPanicScaleDown", 10.0, &steps);
}

/// When panic begins, stays and ends.
fn check_panic(checks: &mut Checks) {
    for (ready, panics) in [(0, None), (1, None), (2, Some(0.0))] {
        let decider = Decider::started(0.0, ready);
        checks.same("TestStartInPanicMode", (decider.since, decider.most), (panics, ready));
    }
    let test = "TestAutoscalerUnpanicAfterSlowIncrease";
    let mut decider = Decider::started(0.0, 1);
    let mut step = |now, ready, averages| (decider.desired(now, ready, averages, &spec(1.0)), decider.since);
    checks.same(test, step(0.0, 10, (11.0, 25.0)), (25, Some(0.0)));
    checks.same(test, step(30.0, 40, (30.0, 41.0)), (41, Some(0.0)));
    checks.same(test, step(62.0, 55, (50.0, 56.0)), (50, None));

    let test = "TestAutoscalerExtendPanicWindow";
    let mut decider = Decider::started(0.0, 1);
    let mut step = |now, ready, averages| (decider.desired(now, ready, averages, &spec(1.0)), decider.since);
    checks.same(test, step(0.0, 10, (11.0, 25.0)), (25, Some(0.0)));
    checks.same(test, step(30.0, 40, (30.0, 80.0)), (80, Some(30.0)));
}

fn check_buckets(checks: &mut Checks) {
    let test = "TestTimedFloat64BucketsWindowAverage";
    let mut buckets = Buckets::new(5.0);
    buckets.record(0.0, 1.0);
    checks.same(test, buckets.average(0.0), 1.0);
    for second in 1..5 {
        buckets.record(f64::from(second), f64::from(second + 1));
    }
    checks.same(test, buckets.average(4.0), 3.0);
    checks.same(test, buckets.average(3.6), 3.0);
    checks.same(test, buckets.average(6.0), (15.0 - 1.0 - 2.0) / 3.0);
    checks.same(test, buckets.average(10.0), 0.0);
    buckets.record(6.0, 91.0);
    checks.same(test, buckets.average(6.0), (15.0 - 1.0 - 2.0 + 91.0) / 5.0);
    buckets.record(60.0, 1984.0);
    checks.same(test, buckets.average(60.0), 1984.0);

    let mut buckets = Buckets::new(5.0);
    for second in 0..5 {
        buckets.record(f64::from(second), f64::from(second + 1));
    }
    checks.same("TestTimedFloat64BucketsHoles", buckets.average(4.0), 3.0);
    buckets.record(8.0, 2.0);
    checks.same(
        "TestTimedFloat64BucketsHoles, sum of 7",
        buckets.average(8.0),
        7.0 / 5.0,
    );

    let mut buckets = Buckets::new(5.0);
    for second in 0..6 {
        buckets.record(f64::from(second), f64::from(second + 1));
    }
    checks.same(
        "TestTimedFloat64BucketsWindowUpdate, first part",
        buckets.average(5.0),
        20.0 / 5.0,
    );
}
