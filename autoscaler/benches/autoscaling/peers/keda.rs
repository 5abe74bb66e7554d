//! KEDA on waiting requests.
//!
//! Sources: kedacore/keda, `pkg/scalers/prometheus_scaler.go` (main); kubernetes/kubernetes,
//! `pkg/controller/podautoscaler/replica_calculator.go`, the external metric per pod (1.33 and later). Above one
//! replica KEDA decides nothing itself: it serves the sum as an external metric with `AverageValue` to an HPA, which
//! asks at each sync (`useCachedMetrics` is off by default). The examples are therefore those of Kubernetes.

use super::Checks;
use super::hpa::{Controller, milli, near};
use crate::scaler::{Scaler, View};

/// Waiting requests of all pods, shared out among the pods.
///
/// A pod that could not be asked is not part of the sum, as in Prometheus. If no pod could be asked, the metric fails
/// and the HPA holds. This is generous: by KEDA's default (`ignoreNullValues`) an empty result would count as zero.
#[derive(Debug)]
pub struct Keda {
    target: i64,
    controller: Controller,
}

impl Keda {
    /// Between `min` (1 or more) and `max` replicas; `target` is the number of waiting requests per replica.
    #[must_use]
    pub fn new(min: u32, max: u32, target: f64) -> Self {
        Self {
            target: milli(target),
            controller: Controller::new(min, max),
        }
    }
}

impl Scaler for Keda {
    fn tick(&mut self, now: f64, view: &View<'_>) -> u32 {
        let target = self.target;
        self.controller.tick(now, view, |view| {
            let waiting: Vec<_> = view
                .pods
                .iter()
                .filter_map(|pod| pod.sample)
                .map(|sample| sample.waiting)
                .collect();
            let sum = waiting.iter().map(|&waiting| i64::from(waiting) * 1000).sum();
            (!waiting.is_empty()).then(|| replicas(view.pods.len(), sum, target))
        })
    }
}

/// Replicas for a sum over all pods and a target per pod, both in thousandths. `existing` counts the pods that exist,
/// ready or not: the status of the scale, not its spec.
#[must_use]
pub fn replicas(existing: usize, sum: i64, target: i64) -> u32 {
    let ratio = sum as f64 / (target as f64 * existing as f64);
    if near(ratio) {
        existing as u32
    } else {
        (sum as f64 / target as f64).ceil() as u32
    }
}

/// Examples of Kubernetes' `replica_calculator_test.go`; those for one object share the formula.
pub fn check(checks: &mut Checks) {
    for (test, existing, sum, target, expected) in [
        ("TestReplicaCalcScaleUpPerPodCMExternal", 3, 8600, 2150, 4),
        ("TestReplicaCalcScaleDownPerPodCMExternal", 5, 8600, 2867, 3),
        ("TestReplicaCalcTolerancePerPodCMExternal", 3, 8600, 2900, 3),
        ("TestReplicaCalcScaleUpCMPerPodObject", 3, 20000, 5000, 4),
        ("TestReplicaCalcScaleDownPerPodCMObject", 5, 6000, 2000, 3),
        ("TestReplicaCalcTolerancePerPodCMObject", 4, 20166, 5000, 4),
    ] {
        checks.same(test, replicas(existing, sum, target), expected);
    }
}
