//! What a status says of the autoscaler. Pure.

use perennial_autoscaler::{Limit, Sight};
use perennial_crds::autoscaling::{AutoscalingSpec, MissingMetrics};
use perennial_crds::conditions::Reason;
use perennial_crds::status::{AutoscalingStatus, LLMDeploymentStatus};

use super::status::View;
use crate::conditions::{Statement, statement};

/// Numbers and the last decisions; what is known stays while the autoscaler has not spoken yet.
pub(super) fn status(old: &LLMDeploymentStatus, view: &View<'_>) -> Option<AutoscalingStatus> {
    view.valid.autoscaling.as_ref()?;
    let Some(verdict) = view.verdict else {
        return old.autoscaling.clone();
    };
    Some(AutoscalingStatus {
        desired_replicas: verdict.desired,
        cold_start_seconds: verdict.cold_start,
        last_decisions: verdict.decisions.clone(),
    })
}

/// Whether the autoscaler knows the load.
pub(super) fn active(view: &View<'_>) -> Statement {
    if view.valid.suspended {
        return statement(false, Reason::Suspended, "suspended: there is nothing to scale");
    }
    let sight = view.verdict.map_or(Sight::NoneReady, |verdict| verdict.sight);
    match sight {
        Sight::Full => statement(true, Reason::ValidMetricFound, "every ready replica tells its load"),
        Sight::Partial { seen, of } => statement(
            true,
            Reason::MetricsIncomplete,
            format!(
                "{seen} of {of} ready replicas tell their load; the others count as full, and none goes on their account. \
                 Look at the port 9090 of the others and at NetworkPolicies"
            ),
        ),
        Sight::Blind { of } => {
            let what = match view.valid.autoscaling.as_ref().map(|spec| spec.missing_metrics) {
                Some(MissingMetrics::ScaleToMax) => "scaling to maxReplicas",
                _ => "the number of replicas is held",
            };
            statement(
                false,
                Reason::MetricsUnavailable,
                format!(
                    "none of {of} ready replicas tells its load: {what}. Does a NetworkPolicy keep the operator from \
                     port 9090 of the pods, or is their server older than this operator (no /load)?"
                ),
            )
        }
        Sight::NoneReady => statement(
            false,
            Reason::NoReplicaReady,
            "no replica is ready, so none can be asked for its load",
        ),
    }
}

/// Whether there are fewer replicas than the load needs.
pub(super) fn limited(view: &View<'_>) -> Statement {
    let wanted = view.valid.replicas;
    let limit = view.verdict.and_then(|verdict| verdict.limit);
    match (limit, view.valid.autoscaling.as_ref()) {
        (Some(Limit::Maximum), Some(AutoscalingSpec { max_replicas, .. })) => statement(
            true,
            Reason::TooManyReplicas,
            format!("the load needs more than {max_replicas} replicas: raise spec.autoscaling.maxReplicas"),
        ),
        (Some(Limit::UpRate), _) => statement(
            true,
            Reason::ScaleUpLimit,
            "the load needs more replicas at once than spec.autoscaling.behavior.scaleUp.maxPercentPerMinute allows",
        ),
        (Some(Limit::Room), _) => {
            let finding = view.finding.filter(|finding| finding.is_capacity());
            let reason = finding.map_or(Reason::Unschedulable, |finding| finding.reason);
            let why = finding.map_or_else(String::new, |finding| format!(": {}", finding.message));
            statement(
                true,
                reason,
                format!("the load needs more than {wanted} replicas, but one waits for room already{why}"),
            )
        }
        (None, _) | (Some(Limit::Maximum), None) => statement(
            false,
            Reason::DesiredWithinRange,
            "as many replicas are wanted as the load needs",
        ),
    }
}
