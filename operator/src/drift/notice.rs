//! Events of a DriftPolicy: told once when something changed. Pure: from the old and the new status.

use perennial_crds::conditions::{ConditionType, Reason};
use perennial_crds::drift_policy::{DriftPolicyStatus, Phase};

use crate::deployment::notice::Notice;

/// What is worth telling of the change between two statuses.
#[must_use]
pub fn notices(old: &DriftPolicyStatus, new: &DriftPolicyStatus) -> Vec<Notice> {
    let mut notices = Vec::new();
    let said = |kind: ConditionType| message(new, kind);
    let mut tell = |warning, reason: &str, note: String| {
        notices.push(Notice {
            warning,
            reason: reason.to_owned(),
            action: "Watch",
            note,
        });
    };
    let digest = |status: &DriftPolicyStatus| status.baseline.as_ref().and_then(|baseline| baseline.digest.clone());
    if digest(new).is_some() && digest(new) != digest(old) {
        let samples = new.baseline.as_ref().map_or(0, |baseline| baseline.samples);
        tell(
            false,
            "BaselineLearned",
            format!(
                "Learned a baseline from {samples} requests: {}",
                said(ConditionType::BaselineReady)
            ),
        );
    } else if digest(old).is_some() && digest(new).is_none() && new.baseline.is_some() {
        tell(false, "BaselineForgotten", "Began to learn a new baseline".to_owned());
    }
    let since = |status: &DriftPolicyStatus| status.evidence.as_ref().and_then(|evidence| evidence.since.clone());
    let restarted =
        digest(new).is_some() && digest(new) == digest(old) && since(old).is_some() && since(new) != since(old);
    if restarted {
        tell(
            false,
            "EvidenceRestarted",
            "The terms of the policy changed: evidence begins anew against the same baseline".to_owned(),
        );
    }
    if old.phase != new.phase && !(restarted && new.phase == Some(Phase::Watching)) {
        match (old.phase, new.phase) {
            // From a stage of a cycle it only goes back to where the evidence stands.
            (before, Some(Phase::Suspected)) if !before.is_some_and(is_stage) => {
                tell(false, "DriftSuspected", said(ConditionType::Drifted))
            }
            (before, Some(Phase::Drifted)) if !before.is_some_and(is_stage) => {
                tell(true, "DriftConfirmed", said(ConditionType::Drifted))
            }
            // A cycle may begin in the same look.
            (before, Some(now))
                if is_stage(now) && !before.is_some_and(|before| before == Phase::Drifted || is_stage(before)) =>
            {
                tell(true, "DriftConfirmed", said(ConditionType::Drifted))
            }
            (Some(Phase::Suspected), Some(Phase::Watching)) => {
                tell(
                    false,
                    "SuspicionCleared",
                    "The change that was suspected does not matter".to_owned(),
                );
            }
            (Some(Phase::Drifted), Some(Phase::Watching)) => {
                tell(false, "DriftOver", "The traffic is the baseline's again".to_owned());
            }
            (_, Some(Phase::Stalled)) => tell(true, reason(new, ConditionType::Stalled), said(ConditionType::Stalled)),
            _ => {}
        }
    }
    let regressed = |status: &DriftPolicyStatus| {
        reason(status, ConditionType::ServingChanged) == Reason::ServingRegression.as_str()
    };
    match (regressed(old), regressed(new)) {
        (false, true) => tell(true, "ServingRegression", said(ConditionType::ServingChanged)),
        (true, false) => tell(false, "ServingRestored", said(ConditionType::ServingChanged)),
        _ => {}
    }
    if let Some((warning, reason, note)) = cycle(old, new) {
        tell(warning, reason, note);
    }
    let (before, after) = (reason(old, ConditionType::Ready), reason(new, ConditionType::Ready));
    let fine = [Reason::PolicyActive.as_str(), Reason::Learning.as_str(), ""].contains(&after);
    if before != after && !fine && new.phase != Some(Phase::Stalled) {
        tell(true, after, said(ConditionType::Ready));
    }
    for notice in &mut notices {
        // The API takes 1,024 bytes.
        notice.note.truncate(notice.note.floor_char_boundary(1024));
    }
    notices
}

fn is_stage(phase: Phase) -> bool {
    matches!(
        phase,
        Phase::Preparing | Phase::Retraining | Phase::Evaluating | Phase::Proposed | Phase::RollingOut
    )
}

/// What is worth telling of cycles.
fn cycle(old: &DriftPolicyStatus, new: &DriftPolicyStatus) -> Option<(bool, &'static str, String)> {
    if let Some(ended) = new.cycles.first()
        && old.cycles.first().map(|cycle| &cycle.id) != Some(&ended.id)
    {
        let note = format!("Cycle {}: {}", ended.id, ended.message);
        return Some(match ended.outcome.as_str() {
            "Promoted" => (false, "ModelPromoted", note),
            "Failed" | "RolledBack" => (true, "CycleEnded", note),
            _ => (false, "CycleEnded", note),
        });
    }
    let now = new.cycle.as_ref()?;
    if old.cycle.as_ref().map(|cycle| &cycle.id) != Some(&now.id) {
        return Some((
            false,
            "CycleBegun",
            format!("Cycle {} looks for a better model, because of {}", now.id, now.cause),
        ));
    }
    (old.phase != new.phase && new.phase == Some(Phase::Proposed)).then(|| {
        let digest = now.candidate.as_ref().map_or("", |candidate| candidate.digest.as_str());
        (
            false,
            "CandidateProposed",
            format!("Cycle {}: {digest} passed the gate", now.id),
        )
    })
}

fn find(
    status: &DriftPolicyStatus,
    kind: ConditionType,
) -> Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    let kind = kind.to_string();
    status.conditions.iter().find(|condition| condition.type_ == kind)
}

fn reason(status: &DriftPolicyStatus, kind: ConditionType) -> &str {
    find(status, kind).map_or("", |condition| condition.reason.as_str())
}

fn message(status: &DriftPolicyStatus, kind: ConditionType) -> String {
    find(status, kind).map_or_else(String::new, |condition| condition.message.clone())
}
