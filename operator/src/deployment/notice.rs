//! Events: told once when something changed, in the past tense. Pure: from the old and the new status.

use perennial_crds::conditions::{ConditionType, Reason};
use perennial_crds::status::LLMDeploymentStatus;

/// An event to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether somebody should look.
    pub warning: bool,
    /// Stable word.
    pub reason: String,
    /// Verb of what was done.
    pub action: &'static str,
    /// Sentence.
    pub note: String,
}

/// What is worth telling of the change between two statuses.
#[must_use]
pub fn notices(old: &LLMDeploymentStatus, new: &LLMDeploymentStatus) -> Vec<Notice> {
    let mut notices = Vec::new();
    let normal = |reason: &str, action, note| Notice {
        warning: false,
        reason: reason.to_owned(),
        action,
        note,
    };
    if new.update_revision != old.update_revision
        && let Some(update) = &new.update_revision
        && new.update_revision != new.stable_revision
    {
        notices.push(normal(
            "RolloutStarted",
            "Rollout",
            format!("Began to roll out the revision {update}"),
        ));
    }
    if new.stable_revision != old.stable_revision
        && let (Some(stable), Some(before)) = (&new.stable_revision, &old.stable_revision)
    {
        let (reason, verb) = if holds(find(old, ConditionType::Ready)) {
            ("RolloutCompleted", "Moved traffic")
        } else {
            ("RevisionReplaced", "Turned")
        };
        notices.push(normal(reason, "Rollout", format!("{verb} from {before} to {stable}")));
    }
    let (was_ready, is_ready) = (find(old, ConditionType::Ready), find(new, ConditionType::Ready));
    if holds(was_ready) != holds(is_ready)
        && let Some(ready) = is_ready
    {
        let expected = [Reason::Suspended.as_str(), Reason::ScaledToZero.as_str()].contains(&ready.reason.as_str());
        if holds(is_ready) {
            notices.push(normal(
                "BecameReady",
                "Serve",
                format!("Became ready: {}", ready.message),
            ));
        } else if holds(was_ready) {
            let note = format!("Stopped answering: {}", ready.message);
            notices.push(Notice {
                warning: !expected,
                reason: ready.reason.clone(),
                action: "Serve",
                note,
            });
        }
    }
    for kind in [ConditionType::Stalled, ConditionType::Reconciling] {
        let (before, after) = (find(old, kind), find(new, kind));
        let Some(after) = after else { continue };
        let told = before.is_some_and(|before| before.reason == after.reason);
        if !told && (kind == ConditionType::Stalled || is_trouble(&after.reason)) {
            notices.push(Notice {
                warning: true,
                reason: after.reason.clone(),
                action: "Rollout",
                note: after.message.clone(),
            });
        }
    }
    notices.extend(scalings(old, new));
    for notice in &mut notices {
        // The API takes 1,024 bytes.
        notice.note.truncate(notice.note.floor_char_boundary(1024));
    }
    notices
}

/// One event for each decision of the autoscaler that the old status did not know.
fn scalings(old: &LLMDeploymentStatus, new: &LLMDeploymentStatus) -> Vec<Notice> {
    let decisions = |status: &LLMDeploymentStatus| {
        let scaling = status.autoscaling.as_ref();
        scaling
            .map(|scaling| scaling.last_decisions.clone())
            .unwrap_or_default()
    };
    let known = decisions(old);
    let fresh = decisions(new)
        .into_iter()
        .rev()
        .filter(|decision| !known.contains(decision));
    fresh
        .map(|decision| Notice {
            warning: false,
            reason: if decision.to > decision.from {
                "ScaledUp"
            } else {
                "ScaledDown"
            }
            .to_owned(),
            action: "Scale",
            note: format!("Scaled from {} to {}: {}", decision.from, decision.to, decision.reason),
        })
        .collect()
}

/// Reasons that are no stage of a normal rollout.
fn is_trouble(reason: &str) -> bool {
    use Reason::{
        ApiFailed, Downloading, DrainingOldRevision, LoadingWeights, Resolving, Scaling, StartingPods,
        SwitchingTraffic, Verifying, WarmingUp,
    };
    ![
        ApiFailed,
        DrainingOldRevision,
        Downloading,
        LoadingWeights,
        Resolving,
        Scaling,
        StartingPods,
        SwitchingTraffic,
        Verifying,
        WarmingUp,
    ]
    .iter()
    .any(|stage| stage.as_str() == reason)
}

type Found<'a> = Option<&'a k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>;

fn find(status: &LLMDeploymentStatus, kind: ConditionType) -> Found<'_> {
    let kind = kind.to_string();
    status.conditions.iter().find(|condition| condition.type_ == kind)
}

fn holds(condition: Found<'_>) -> bool {
    condition.is_some_and(|condition| condition.status == "True")
}
