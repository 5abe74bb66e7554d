//! Between the API's words and the autoscaler's. Pure.

use perennial_autoscaler::history::Change;
use perennial_autoscaler::{Missing, Policy, Sample, Target};
use perennial_crds::autoscaling::{AutoscalingSpec, MissingMetrics, ScalingMetric, TargetSpec};
use perennial_crds::serving::Load;
use perennial_crds::status::AutoscalingStatus;

/// The policy that an object asks for.
#[must_use]
pub fn policy(spec: &AutoscalingSpec) -> Policy {
    let (up, down) = (&spec.behavior.scale_up, &spec.behavior.scale_down);
    Policy {
        min: spec.min_replicas,
        max: spec.max_replicas.max(spec.min_replicas),
        targets: spec.targets.iter().filter_map(target).collect(),
        up_window: f64::from(up.stabilization_window_seconds),
        up_percent_per_minute: f64::from(up.max_percent_per_minute),
        down_window: down.stabilization_window_seconds.map(f64::from),
        down_per_minute: down.max_replicas_per_minute,
        missing: match spec.missing_metrics {
            MissingMetrics::Hold => Missing::Hold,
            MissingMetrics::ScaleToMax => Missing::ScaleToMax,
        },
    }
}

/// A target with its value; the API's rules see to it that it has the right one.
fn target(spec: &TargetSpec) -> Option<Target> {
    let average = spec.average_value.map(f64::from);
    match spec.metric {
        ScalingMetric::WaitingRequests => average.map(Target::WaitingRequests),
        ScalingMetric::RunningRequests => average.map(Target::RunningRequests),
        ScalingMetric::TokensPerSecond => average.map(Target::TokensPerSecond),
        ScalingMetric::KVCacheUtilization => spec
            .average_percent
            .map(|percent| Target::KvCacheUtilization(f64::from(percent) / 100.0)),
        ScalingMetric::TimeToFirstToken => spec
            .p95_milliseconds
            .map(|milliseconds| Target::TimeToFirstToken(f64::from(milliseconds) / 1000.0)),
    }
}

/// A pod's load as the autoscaler takes it. `before`: seconds from the pod's creation to the start of its process.
#[must_use]
pub fn sample(load: &Load, before: Option<f64>) -> Sample {
    Sample {
        boot: load.boot_id,
        running: load.running,
        waiting: load.waiting,
        slots: load.max_running,
        queued_tokens: load.queued_tokens,
        cache_used: load.cache_used_tokens,
        cache_total: load.cache_total_tokens,
        arrived: load.requests,
        finished: load.finished,
        generated: load.generated_tokens,
        computed_seconds: load.computed_seconds,
        first_token: load.first_token,
        cold_start: load
            .cold_start_seconds
            .zip(before)
            .map(|(loading, before)| loading + before),
    }
}

/// The changes that a status tells of, oldest first, so that a new leader knows what was done in the last minute.
#[must_use]
pub fn changes(status: &AutoscalingStatus) -> Vec<Change> {
    let count = |replicas: i32| u32::try_from(replicas).unwrap_or(0);
    let changes = status.last_decisions.iter().rev();
    changes
        .map(|decision| Change {
            at: decision.time.0.as_second() as f64,
            from: count(decision.from),
            to: count(decision.to),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_descriptions_of_a_load_agree() {
        use perennial_autoscaler::sample::FIRST_TOKEN_BOUNDS;
        assert_eq!(FIRST_TOKEN_BOUNDS, perennial_crds::serving::FIRST_TOKEN_SECONDS);
    }

    #[test]
    fn an_object_that_only_names_a_maximum_gets_the_documented_policy() {
        let spec: AutoscalingSpec = serde_json::from_value(serde_json::json!({"maxReplicas": 3})).expect("a spec");
        let expected = Policy::new(
            1,
            3,
            vec![Target::WaitingRequests(4.0), Target::KvCacheUtilization(0.8)],
        );
        assert_eq!(policy(&spec), expected);
    }
}
