//! The horizontal pod autoscaler (`autoscaling/v2`) on a metric of the pods.
//!
//! Sources: kubernetes/kubernetes, `pkg/controller/podautoscaler/replica_calculator.go` (1.33 and later) for the number
//! of replicas and `horizontal.go` in the same place for stabilization and rates; `pkg/apis/autoscaling/v2/defaults.go`
//! for the defaults of the behaviour. Values and targets are whole thousandths, as there.

use super::{Checks, Rhythm, held};
use crate::scaler::{Scaler, Seen, View};

const SYNC: f64 = 15.0;
const TOLERANCE: f64 = 0.1;
const UP_WINDOW: f64 = 0.0;
const DOWN_WINDOW: f64 = 300.0;

/// Requests per pod, computed and waiting, as a `Pods` metric with `AverageValue`, without any delay of the metric.
#[derive(Debug)]
pub struct Hpa {
    target: i64,
    controller: Controller,
}

impl Hpa {
    /// Between `min` (1 or more) and `max` replicas; `target` is the number of requests per replica.
    #[must_use]
    pub fn new(min: u32, max: u32, target: f64) -> Self {
        Self {
            target: milli(target),
            controller: Controller::new(min, max),
        }
    }
}

impl Scaler for Hpa {
    fn tick(&mut self, now: f64, view: &View<'_>) -> u32 {
        let target = self.target;
        self.controller.tick(now, view, |view| {
            let pods: Vec<_> = view.pods.iter().map(PodMetric::of).collect();
            replicas(view.wanted, &pods, target)
        })
    }
}

/// What is known of one pod.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PodMetric {
    /// Its metric, in thousandths.
    Known(i64),
    /// It runs, but there is no metric of it.
    Missing,
    /// It does not run yet (phase `Pending`): on this path the only sense of unready.
    Pending,
}

impl PodMetric {
    /// A pod that loads its model runs already, so it is missing rather than pending. This is also the generous
    /// reading: going up both count as idle, going down a missing pod counts as at target and a pending one not at
    /// all, so that pods on their way are given up more easily.
    fn of(pod: &Seen) -> Self {
        pod.sample
            .as_ref()
            .map_or(Self::Missing, |sample| Self::Known(i64::from(held(sample)) * 1000))
    }
}

/// Thousandths of a quantity.
#[must_use]
pub fn milli(value: f64) -> i64 {
    ((value * 1000.0).round() as i64).max(1)
}

/// Whether a usage is so near the target that nothing is done.
#[must_use]
pub fn near(ratio: f64) -> bool {
    (1.0 - TOLERANCE..=1.0 + TOLERANCE).contains(&ratio)
}

/// Replicas for a metric per pod; `None` if no pod has the metric.
#[must_use]
pub fn replicas(current: u32, pods: &[PodMetric], target: i64) -> Option<u32> {
    let count = |kind| pods.iter().filter(|&&pod| pod == kind).count();
    let (missing, pending) = (count(PodMetric::Missing), count(PodMetric::Pending));
    let known = pods.len() - missing - pending;
    let sum: i64 = pods
        .iter()
        .map(|pod| if let PodMetric::Known(value) = pod { *value } else { 0 })
        .sum();
    if known == 0 {
        return None;
    }
    let before = ratio(sum, known, target);
    let up = before > 1.0;
    if missing == 0 && !(pending > 0 && up) {
        return Some(if near(before) {
            current
        } else {
            (before * known as f64).ceil() as u32
        });
    }

    // Pods without a metric are taken as what makes the change smaller: idle going up, at target going down.
    let (assumed, considered) = if up {
        (0, pods.len())
    } else if before < 1.0 {
        (target * missing as i64, known + missing)
    } else {
        (0, known)
    };
    let after = ratio(sum + assumed, considered, target);
    if near(after) || (before < 1.0 && after > 1.0) || (up && after < 1.0) {
        return Some(current);
    }
    let proposed = (after * considered as f64).ceil() as u32;
    let turned = (after < 1.0 && proposed > current) || (after > 1.0 && proposed < current);
    Some(if turned { current } else { proposed })
}

/// The mean is cut to whole thousandths before it is compared with the target.
fn ratio(sum: i64, pods: usize, target: i64) -> f64 {
    (sum / pods as i64) as f64 / target as f64
}

/// What an HPA does with the number of replicas that its metric proposes.
#[derive(Debug)]
pub struct Controller {
    min: i64,
    max: i64,
    rhythm: Rhythm,
    recommendations: Vec<(f64, i64)>,
    changes: Vec<(f64, i64)>,
}

impl Controller {
    /// With the default behaviour, between `min` (1 or more) and `max` replicas.
    #[must_use]
    pub fn new(min: u32, max: u32) -> Self {
        Self {
            min: i64::from(min),
            max: i64::from(max),
            rhythm: Rhythm::new(SYNC),
            recommendations: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// One second; `propose` is asked at a sync only, and with `None` everything stays.
    pub fn tick(&mut self, now: f64, view: &View<'_>, propose: impl FnOnce(&View<'_>) -> Option<u32>) -> u32 {
        if !self.rhythm.due(now) {
            return view.wanted;
        }
        let current = i64::from(view.wanted);
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
        let desired = if current > self.max || current < self.min {
            current.max(self.min).min(self.max)
        } else {
            match propose(view) {
                Some(proposed) => self.normalized(now, current, i64::from(proposed)),
                None => return view.wanted,
            }
        };
        self.changes.retain(|&(time, _)| time > now - SYNC);
        if desired != current {
            self.changes.push((now, desired - current));
        }
        desired as u32
    }

    fn normalized(&mut self, now: f64, current: i64, proposed: i64) -> i64 {
        let desired = stabilized(now, current, proposed, &self.recommendations, (UP_WINDOW, DOWN_WINDOW));
        self.recommendations.retain(|&(time, _)| time > now - DOWN_WINDOW);
        self.recommendations.push((now, proposed));
        limited(now, (current, desired), (self.min, self.max), &self.changes, DEFAULT)
    }
}

/// Not above the highest recommendation of the window for going down, nor below the lowest of that for going up.
fn stabilized(now: f64, current: i64, proposed: i64, recent: &[(f64, i64)], (up, down): (f64, f64)) -> i64 {
    let within = |window| {
        recent
            .iter()
            .filter(move |(time, _)| *time > now - window)
            .map(|(_, replicas)| *replicas)
    };
    let lowest = within(up).fold(proposed, i64::min);
    let highest = within(down).fold(proposed, i64::max);
    current.max(lowest).min(highest)
}

/// How much may change within a period of seconds.
#[derive(Clone, Copy, Debug)]
enum Policy {
    Pods(i64, u32),
    Percent(i64, u32),
}

/// Policies for going up and down; of several the one that allows most counts.
type Rules<'a> = (&'a [Policy], &'a [Policy]);

const UP: &[Policy] = &[Policy::Pods(4, 15), Policy::Percent(100, 15)];
const DOWN: &[Policy] = &[Policy::Percent(100, 15)];
const DEFAULT: Rules<'static> = (UP, DOWN);

/// Limits the step from `current` to `desired` by the rules, given the changes so far, and by the bounds.
fn limited(
    now: f64,
    (current, desired): (i64, i64),
    (min, max): (i64, i64),
    changes: &[(f64, i64)],
    (up, down): Rules<'_>,
) -> i64 {
    let start = |period: u32| {
        let within = |time: f64| time > now - f64::from(period);
        current
            - changes
                .iter()
                .filter(|(time, _)| within(*time))
                .map(|(_, by)| by)
                .sum::<i64>()
    };
    if desired > current {
        let highest = up.iter().map(|policy| match *policy {
            Policy::Pods(pods, period) => start(period) + pods,
            Policy::Percent(percent, period) => (start(period) as f64 * (1.0 + percent as f64 / 100.0)).ceil() as i64,
        });
        desired.min(highest.fold(current, i64::max).min(max))
    } else if desired < current {
        let lowest = down.iter().map(|policy| match *policy {
            Policy::Pods(pods, period) => start(period) - pods,
            Policy::Percent(percent, period) => (start(period) as f64 * (1.0 - percent as f64 / 100.0)) as i64,
        });
        desired.max(lowest.fold(current, i64::min).max(min))
    } else {
        desired
    }
}

/// Examples of Kubernetes' `replica_calculator_test.go` and `horizontal_test.go`.
pub fn check(checks: &mut Checks) {
    check_replicas(checks);
    check_stabilization(checks);
    check_default_rates(checks);
    check_up_rates(checks);
    check_down_rates(checks);
}

/// Pods written as their metrics in thousandths, `pending` or `missing`.
fn pods(text: &str) -> Vec<PodMetric> {
    let pod = |word: &str| match word {
        "pending" => PodMetric::Pending,
        "missing" => PodMetric::Missing,
        number => number.parse().map_or(PodMetric::Missing, PodMetric::Known),
    };
    text.split_whitespace().map(pod).collect()
}

/// The names with CM are of custom metrics. The others are of a resource with equal requests, where the formula is the
/// same; those that turn on a missing pod being fully used on the way down, not just at target, are left out.
fn check_replicas(checks: &mut Checks) {
    for (test, current, text, target, expected) in [
        ("ScaleUpCM", 3, "20000 10000 30000", 15000, Some(4)),
        (
            "ScaleUpCMUnreadyHotCpuNoLessScale",
            3,
            "50000 10000 30000",
            15000,
            Some(6),
        ),
        (
            "ScaleUpCMUnreadyHotCpuScaleWouldScaleDown",
            3,
            "50000 15000 30000",
            15000,
            Some(7),
        ),
        ("ScaleUpCMExternal", 1, "8600", 4400, Some(2)),
        ("ScaleUpCMExternalNoLabels", 1, "8600", 4400, Some(2)),
        ("ScaleDownCM", 5, "12000 12000 12000 12000 12000", 20000, Some(3)),
        ("ToleranceCM", 3, "20000 21000 21000", 20000, Some(3)),
        ("ScaleUp", 3, "300 500 700", 300, Some(5)),
        ("ScaleUpUnreadyLessScale", 3, "pending 500 700", 300, Some(4)),
        ("ScaleUpHotCpuLessScale", 3, "pending 500 700", 300, Some(4)),
        ("ScaleUpUnreadyNoScale", 3, "400 pending pending", 300, Some(3)),
        ("ScaleHotCpuNoScale", 3, "400 pending pending", 300, Some(3)),
        ("ScaleUpIgnoresFailedPods", 2, "500 700", 300, Some(4)),
        ("ScaleUpIgnoresDeletionPods", 2, "500 700", 300, Some(4)),
        ("ScaleDown", 5, "100 300 500 250 250", 500, Some(3)),
        (
            "ScaleDownIncludeUnreadyPods",
            5,
            "100 300 500 pending pending",
            500,
            Some(2),
        ),
        (
            "ScaleDownExcludeUnscheduledPods",
            5,
            "100 pending pending pending pending",
            500,
            Some(1),
        ),
        ("MissingMetrics", 4, "400 95 missing missing", 1000, Some(3)),
        ("EmptyMetrics", 4, "missing missing missing missing", 1000, None),
        ("MissingMetricsNoChangeEq", 2, "1000 missing", 1000, Some(2)),
        ("MissingMetricsNoChangeGt", 2, "1900 missing", 1000, Some(2)),
        ("MissingMetricsNoChangeLt", 2, "600 missing", 1000, Some(2)),
        ("MissingMetricsUnreadyScaleUp", 3, "pending 2000 missing", 500, Some(4)),
    ] {
        let got = replicas(current, &pods(text), target);
        checks.same(&format!("TestReplicaCalc{test}"), got, expected);
    }
}

/// Each: minutes ago and recommendation; current and proposed replicas; windows for going up and down; expected.
fn check_stabilization(checks: &mut Checks) {
    type Recent<'a> = &'a [(f64, i64)];
    const OLD: Recent<'_> = &[(10.0, 10), (9.0, 9)];
    const NEW: Recent<'_> = &[(2.0, 4), (1.0, 5)];
    const LOW: Recent<'_> = &[(2.0, 1), (1.0, 2)];
    const FOUR: Recent<'_> = &[(10.0, 10), (1.0, 4), (2.0, 5), (9.0, 9)];
    const LONG: Recent<'_> = &[(100.0, 10), (1.0, 6), (2.0, 5), (3.0, 9)];
    for (test, recent, current, proposed, windows, expected) in [
        ("empty", &[] as Recent<'_>, 100, 5, (0.0, 0.0), 5),
        ("simple scale down", NEW, 100, 3, (0.0, 180.0), 5),
        ("simple scale up", NEW, 1, 7, (300.0, 0.0), 4),
        ("no scale down", LOW, 100, 3, (300.0, 0.0), 3),
        ("no scale up", NEW, 1, 3, (0.0, 300.0), 3),
        ("no scale down, reuse", OLD, 100, 3, (0.0, 0.0), 3),
        ("no scale up, reuse", OLD, 1, 100, (0.0, 0.0), 100),
        ("scale down, reuse", FOUR, 100, 3, (0.0, 180.0), 5),
        ("scale up, reuse", LONG, 1, 100, (300.0, 0.0), 5),
        ("goes down", &[(100.0, 2), (3.0, 3)], 2, 1, (300.0, 300.0), 2),
        ("goes up", &[(100.0, 2), (3.0, 1)], 2, 3, (300.0, 300.0), 2),
    ] {
        let test = format!("TestNormalizeDesiredReplicasWithBehavior {test}");
        let recent: Vec<_> = recent
            .iter()
            .map(|&(minutes, replicas)| (-60.0 * minutes, replicas))
            .collect();
        checks.same(&test, stabilized(0.0, current, proposed, &recent, windows), expected);
    }
}

/// Changes spread over the last two minutes, each in the middle of its part of them.
fn spread(changes: &[i64]) -> Vec<(f64, i64)> {
    let part = 120.0 / changes.len() as f64;
    let at = |index: usize| -120.0 + part * (index as f64 + 0.5);
    changes.iter().enumerate().map(|(index, &by)| (at(index), by)).collect()
}

/// Each: current and desired replicas, bounds, expected.
fn check_default_rates(checks: &mut Checks) {
    for (test, current, desired, bounds, expected) in [
        ("within range", 5, 7, (3, 8), 7),
        ("desired < minReplicas", 3, 1, (2, 8), 2),
        ("within range when minReplicas is 0", 1, 0, (0, 10), 0),
        ("maxReplicas < scaleUpLimit", 20, 1000, (1, 10), 10),
        ("more than the maximum", 100, 1000, (100, 150), 150),
        ("scaleUp with default behavior", 10, 50, (1, 1000), 20),
    ] {
        let test = format!("TestScalingWithRules {test}");
        checks.same(&test, limited(0.0, (current, desired), bounds, &[], DEFAULT), expected);
    }
    let got = limited(0.0, (10, 5), (1, 1000), &spread(&[-1, -5, -9]), DEFAULT);
    checks.same(
        "TestScalingWithRules scaleDown with default policy and previous events",
        got,
        5,
    );
}

const NONE: &[i64] = &[];
const MANY_PODS: &[Policy] = &[Policy::Pods(1000, 60)];
const ALL_COUNT: &[Policy] = &[Policy::Pods(1000, 120), Policy::Percent(100, 60)];
const OLD_ONES: &[Policy] = &[Policy::Pods(1000, 30), Policy::Percent(100, 60)];

/// Each: changes so far; current, desired and most replicas; policies; expected.
fn check_up_rates(checks: &mut Checks) {
    use Policy::{Percent, Pods};
    const RECENT: &[i64] = &[1, 5, 9];
    const FOUR: &[i64] = &[8, 12, 9, 11];
    const BIG_PODS: &[Policy] = &[Pods(100, 60), Percent(100, 60)];
    const BIG_PERCENT: &[Policy] = &[Pods(2, 60), Percent(100, 60)];
    for (test, changes, current, desired, max, policies, expected) in [
        (
            "limit with user policies",
            NONE,
            3,
            1000,
            2000,
            &[Percent(1, 60)] as &[_],
            4,
        ),
        ("pods larger than percent", NONE, 10, 500, 1000, BIG_PODS, 110),
        ("percent larger than pods", NONE, 10, 500, 1000, BIG_PERCENT, 20),
        ("large pod policy", NONE, 10, 50, 1000, &[Pods(100, 60)], 50),
        ("large percent policy", NONE, 10, 50, 1000, &[Pods(10000, 60)], 50),
        ("pod limitation", NONE, 10, 50, 1000, &[Pods(30, 60)], 40),
        ("percent limitation", NONE, 10, 50, 1000, &[Percent(200, 60)], 30),
        ("large pods, events", RECENT, 100, 500, 200, &[Pods(300, 60)], 200),
        (
            "large percent, events",
            RECENT,
            100,
            500,
            200,
            &[Percent(10000, 60)],
            200,
        ),
        ("many recent events", RECENT, 100, 500, 1000, &[Pods(5, 120)], 100),
        ("pods, events", RECENT, 100, 500, 1000, &[Pods(150, 120)], 235),
        ("percent, events", RECENT, 100, 500, 1000, &[Percent(200, 120)], 255),
        ("up and down events", &[4, -2], 6, 24, 1000, &[Percent(300, 300)], 16),
        ("outdated, one", FOUR, 100, 200, 1000, MANY_PODS, 200),
        ("not outdated, two", FOUR, 100, 200, 1000, ALL_COUNT, 200),
        ("outdated, two", FOUR, 100, 200, 1000, OLD_ONES, 200),
    ] {
        let test = format!("TestScalingWithRules scaleUp {test}");
        let got = limited(0.0, (current, desired), (1, max), &spread(changes), (policies, DOWN));
        checks.same(&test, got, expected);
    }
}

/// Each: changes so far; current, desired and fewest replicas; policies; expected.
fn check_down_rates(checks: &mut Checks) {
    use Policy::{Percent, Pods};
    const RECENT: &[i64] = &[-1, -5, -9];
    const FOUR: &[i64] = &[-8, -12, -9, -11];
    const TENS: &[i64] = &[-10, -10, -10];
    const BIG_PODS: &[Policy] = &[Pods(20, 60), Percent(1, 60)];
    const BIGGER_PODS: &[Policy] = &[Pods(2, 60), Percent(1, 60)];
    for (test, changes, current, desired, min, policies, expected) in [
        ("percent larger than pods", NONE, 100, 2, 1, BIG_PODS, 80),
        ("pods larger than percent", NONE, 100, 2, 1, BIGGER_PODS, 98),
        ("MinReplicas=nil, large pods", NONE, 10, 0, 1, &[Pods(100, 60)], 1),
        ("MinReplicas, large pods", NONE, 10, 0, 1, &[Pods(100, 60)], 1),
        ("MinReplicas, large percent", NONE, 10, 2, 5, &[Percent(100, 60)], 5),
        ("pod limitation", NONE, 10, 2, 1, &[Pods(5, 60)], 5),
        ("percent limitation", NONE, 10, 5, 1, &[Percent(50, 60)], 5),
        ("MinReplicas=nil, events", RECENT, 100, 0, 1, &[Pods(115, 120)], 1),
        ("MinReplicas, pods, events", RECENT, 100, 0, 5, &[Pods(130, 120)], 5),
        (
            "MinReplicas, percent, events",
            RECENT,
            100,
            2,
            5,
            &[Percent(100, 120)],
            5,
        ),
        ("pods, events", RECENT, 100, 2, 1, &[Pods(5, 120)], 100),
        ("percent, events", &[-2, -4, -6], 100, 0, 1, &[Percent(50, 120)], 56),
        ("up and down events", &[2, -4], 10, 1, 1, &[Percent(50, 180)], 6),
        ("events preventing more", TENS, 100, 0, 1, &[Percent(10, 120)], 100),
        ("events still allowing more", TENS, 10, 5, 1, &[Percent(1000, 120)], 5),
        ("outdated, one", FOUR, 100, 5, 1, MANY_PODS, 5),
        ("not outdated, two", FOUR, 100, 5, 1, ALL_COUNT, 5),
        ("outdated, two", FOUR, 100, 5, 1, OLD_ONES, 5),
    ] {
        let test = format!("TestScalingWithRules scaleDown {test}");
        let got = limited(0.0, (current, desired), (min, 1000), &spread(changes), (UP, policies));
        checks.same(&test, got, expected);
    }
}
