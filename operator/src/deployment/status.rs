//! The status of an LLMDeployment, from what was seen and decided. Pure: same inputs, same bytes.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use perennial_crds::conditions::{ConditionType, Reason};
use perennial_crds::serving::{LoadingProgress, LoadingStage};
use perennial_crds::status::{ColdStartStatus, LLMDeploymentStatus, ModelStatus};
use perennial_crds::{NAME_LABEL, REVISION_LABEL};

use super::capture::Capturing;
use super::diagnose::Finding;
use super::plan::{Observed, Phase, Plan};
use super::resolve::Resolution;
use super::revision::FrozenModel;
use super::scaling;
use super::validate::Validated;
use crate::autoscaling::board::Verdict;
use crate::conditions::{Conditions, Statement, statement};
use crate::drift::words::Word;

/// Everything that a status is made from.
pub struct View<'a> {
    /// The object.
    pub valid: &'a Validated,
    /// The cluster.
    pub observed: &'a Observed,
    /// What was decided.
    pub plan: &'a Plan,
    /// Revision that the spec asks for.
    pub target: Option<&'a str>,
    /// What is known of the source.
    pub resolution: &'a Resolution,
    /// What keeps replicas from getting ready.
    pub finding: Option<&'a Finding>,
    /// How far the newest starting replica is, and its name.
    pub progress: Option<&'a (String, LoadingProgress)>,
    /// Replicas that exist.
    pub replicas: i32,
    /// The model of the revision that serves, or else of the target.
    pub model: Option<&'a FrozenModel>,
    /// What the policy says that watches its traffic.
    pub drift: Word,
    /// The autoscaler's last word.
    pub verdict: Option<&'a Verdict>,
    /// Where that model comes from.
    pub origin: Option<String>,
    /// Whether prompts and answers are kept; absent unless they are to be.
    pub capturing: Option<&'a Capturing>,
}

/// The status after a complete look at the object.
#[must_use]
pub fn status(old: &LLMDeploymentStatus, view: &View<'_>, now: Timestamp) -> LLMDeploymentStatus {
    let ready = serving_replicas(view);
    let ready_statement = readiness(view, ready);
    let stalled = stalled(view);
    let reconciling = if stalled.is_some() {
        None
    } else {
        reconciling(view, ready)
    };
    let summary = reconciling
        .as_ref()
        .or(stalled.as_ref())
        .map_or(ready_statement.reason, |s| s.reason);
    let mut conditions = Conditions {
        old: &old.conditions,
        new: Vec::new(),
        generation: view.valid.generation,
        now,
    };
    conditions.set(ConditionType::Available, &availability(view, ready));
    conditions.set(ConditionType::CapacityAvailable, &capacity(view));
    let capturing = view
        .capturing
        .map(|said| statement(said.works, said.reason, said.message.clone()));
    conditions.set_if(ConditionType::Capturing, capturing.as_ref());
    conditions.set(ConditionType::ModelResolved, &resolved(view));
    conditions.set(ConditionType::Progressing, &progressing(view, ready, stalled.as_ref()));
    conditions.set(ConditionType::Ready, &ready_statement);
    conditions.set_if(ConditionType::Reconciling, reconciling.as_ref());
    if view.valid.autoscaling.is_some()
        && view.verdict.is_none()
        && !view.valid.suspended
        && conditions.has(ConditionType::ScalingActive)
    {
        // A new leader has not looked yet: what the last one said stands.
        conditions.keep(ConditionType::ScalingActive);
        conditions.keep(ConditionType::ScalingLimited);
    } else if view.valid.autoscaling.is_some() {
        conditions.set(ConditionType::ScalingActive, &scaling::active(view));
        conditions.set(ConditionType::ScalingLimited, &scaling::limited(view));
    }
    conditions.set_if(ConditionType::Stalled, stalled.as_ref());
    LLMDeploymentStatus {
        observed_generation: view.valid.generation,
        url: view.plan.stable.as_ref().map(|_| url(view.valid)),
        replicas: view.replicas,
        ready_replicas: ready,
        selector: Some(format!("{NAME_LABEL}={},{REVISION_LABEL}", view.valid.owner.name)),
        ready: Some(format!("{ready}/{}", view.valid.replicas)),
        summary: Some(summary.to_string()),
        stable_revision: view.plan.stable.clone(),
        update_revision: view.target.map(str::to_owned),
        model: view.model.map(|model| ModelStatus {
            origin: view.origin.clone(),
            ..model_status(view.valid, model)
        }),
        cold_start: view.progress.map(|(_, progress)| cold_start(progress)),
        autoscaling: scaling::status(old, view),
        drift: match &view.drift {
            Word::NotYet => old.drift.clone(),
            Word::Unwatched => None,
            Word::Said(said) => Some(said.status.clone()),
        },
        conditions: conditions.new,
    }
}

/// The status when the object could not be worked on at all: what is known stays, the reason is added.
#[must_use]
pub fn failed(
    old: &LLMDeploymentStatus,
    generation: i64,
    reason: Reason,
    message: &str,
    permanent: bool,
    now: Timestamp,
) -> LLMDeploymentStatus {
    let said = statement(true, reason, message);
    let mut conditions = Conditions {
        old: &old.conditions,
        new: Vec::new(),
        generation,
        now,
    };
    let serves = old
        .conditions
        .iter()
        .any(|c| c.type_ == ConditionType::Ready.to_string() && c.status == "True");
    for kept in &old.conditions {
        if ["Reconciling", "Stalled", "Progressing"].contains(&kept.type_.as_str())
            || (kept.type_ == "Ready" && !serves)
        {
            continue;
        }
        conditions.new.push(Condition {
            observed_generation: Some(generation),
            ..kept.clone()
        });
    }
    if !serves {
        conditions.set(ConditionType::Ready, &statement(false, reason, message));
    }
    conditions.set(ConditionType::Progressing, &statement(false, reason, message));
    let word = if permanent {
        ConditionType::Stalled
    } else {
        ConditionType::Reconciling
    };
    conditions.set(word, &said);
    conditions.new.sort_by(|one, other| one.type_.cmp(&other.type_));
    LLMDeploymentStatus {
        observed_generation: generation,
        summary: Some(reason.to_string()),
        conditions: conditions.new,
        ..old.clone()
    }
}

fn url(valid: &Validated) -> String {
    format!("http://{}.{}.svc/v1", valid.owner.name, valid.owner.namespace)
}

fn model_status(valid: &Validated, model: &FrozenModel) -> ModelStatus {
    ModelStatus {
        name: valid.model_name.clone(),
        resolved_revision: Some(model.resolved_revision().to_owned()),
        digest: model.digest.clone(),
        size_bytes: model.size_bytes.and_then(|size| i64::try_from(size).ok()),
        origin: None,
    }
}

fn cold_start(progress: &LoadingProgress) -> ColdStartStatus {
    ColdStartStatus {
        stage: progress.stage,
        downloaded_percent: percent(progress),
        remaining_seconds: progress
            .remaining_seconds
            .and_then(|seconds| i64::try_from(seconds).ok()),
    }
}

fn percent(progress: &LoadingProgress) -> Option<i32> {
    let total = progress.total_bytes.filter(|total| *total > 0)?;
    i32::try_from((progress.downloaded_bytes.min(total).saturating_mul(100)) / total).ok()
}

/// Replicas of the revision to which the Service leads that the Service really leads to.
fn serving_replicas(view: &View<'_>) -> i32 {
    let stable = view
        .observed
        .stable
        .as_deref()
        .and_then(|stable| view.observed.revisions.get(stable));
    let ready = stable
        .and_then(|known| known.running.as_ref())
        .map_or(0, |running| running.ready);
    ready.min(i32::try_from(view.observed.ready_endpoints).unwrap_or(i32::MAX))
}

fn readiness(view: &View<'_>, ready: i32) -> Statement {
    let valid = view.valid;
    if valid.suspended {
        return statement(
            false,
            Reason::Suspended,
            "suspended: set spec.suspend to false to resume",
        );
    }
    if valid.replicas == 0 {
        return statement(false, Reason::ScaledToZero, "spec.replicas is 0: no replica is wanted");
    }
    if ready > 0 {
        let url = url(valid);
        return statement(
            true,
            Reason::Routable,
            format!("{ready} of {} replicas answer at {url}", valid.replicas),
        );
    }
    let (reason, message) = under_way(view);
    statement(false, reason, message)
}

fn availability(view: &View<'_>, ready: i32) -> Statement {
    let wanted = view.valid.replicas;
    let message = format!("{ready} of {wanted} wanted replicas answer");
    match (wanted, ready >= wanted) {
        (0, _) if view.valid.suspended => statement(false, Reason::Suspended, message),
        (0, _) => statement(false, Reason::ScaledToZero, message),
        (_, true) => statement(true, Reason::AllReplicasReady, message),
        (_, false) => statement(false, under_way(view).0, message),
    }
}

fn capacity(view: &View<'_>) -> Statement {
    match view.finding.filter(|finding| finding.is_capacity()) {
        Some(finding) => statement(false, finding.reason, finding.message.clone()),
        None => statement(true, Reason::Scheduled, "no replica waits for room"),
    }
}

fn resolved(view: &View<'_>) -> Statement {
    match view.resolution {
        Resolution::Known(model) => statement(true, Reason::Resolved, format!("the source is pinned to {}", model.uri)),
        Resolution::Ask | Resolution::Asking(None) => {
            statement(false, Reason::Resolving, "a Job asks the source which bytes it has")
        }
        Resolution::Asking(Some(finding)) | Resolution::Failed { finding, .. } => {
            statement(false, finding.reason, finding.message.clone())
        }
    }
}

fn progressing(view: &View<'_>, ready: i32, stalled: Option<&Statement>) -> Statement {
    if let Some(stalled) = stalled {
        return statement(false, stalled.reason, stalled.message.clone());
    }
    match &view.plan.phase {
        Phase::Settled if ready >= view.valid.replicas => statement(
            true,
            Reason::RevisionServes,
            "the revision that the spec asks for serves",
        ),
        Phase::Held => statement(
            false,
            Reason::Paused,
            "a new revision waits: set spec.rollout.paused to false",
        ),
        _ => {
            let (reason, message) = under_way(view);
            statement(true, reason, message)
        }
    }
}

/// Work that goes on by itself. Absent when there is none (kstatus).
fn reconciling(view: &View<'_>, ready: i32) -> Option<Statement> {
    match &view.plan.phase {
        Phase::Settled if ready >= view.valid.replicas => None,
        Phase::Held | Phase::GivenUp(_) => None,
        Phase::Unresolved if view.valid.suspended => None,
        _ => {
            let (reason, message) = under_way(view);
            Some(statement(true, reason, message))
        }
    }
}

/// What only somebody's action can change. Absent when there is nothing of the kind (kstatus).
fn stalled(view: &View<'_>) -> Option<Statement> {
    if let Phase::GivenUp(failure) = &view.plan.phase {
        return Some(statement(
            true,
            Reason::ProgressDeadlineExceeded,
            failure.message.clone(),
        ));
    }
    if let Resolution::Failed { finding, .. } | Resolution::Asking(Some(finding)) = view.resolution
        && finding.permanent
    {
        return Some(statement(true, finding.reason, finding.message.clone()));
    }
    let starting = matches!(view.plan.phase, Phase::Introducing { .. });
    if let Some(finding) = view.finding.filter(|finding| starting && finding.permanent) {
        return Some(statement(true, finding.reason, finding.message.clone()));
    }
    // A revision that is being given up is told of by the next look, when that is marked.
    if matches!(view.plan.phase, Phase::Introducing { late: true }) && !view.plan.give_up {
        let (reason, message) = under_way(view);
        let seconds = view.valid.progress_deadline_seconds;
        return Some(statement(
            true,
            Reason::ProgressDeadlineExceeded,
            format!("not ready within {seconds} s; it goes on trying: {reason}: {message}"),
        ));
    }
    None
}

/// The one thing that is going on, or that is in the way.
fn under_way(view: &View<'_>) -> (Reason, String) {
    match (&view.plan.phase, view.resolution) {
        (Phase::Unresolved, Resolution::Failed { finding, .. } | Resolution::Asking(Some(finding))) => {
            return (finding.reason, finding.message.clone());
        }
        (Phase::Unresolved, _) => return (Reason::Resolving, "a Job asks the source which bytes it has".to_owned()),
        (Phase::Switching, _) => {
            return (
                Reason::SwitchingTraffic,
                "the new revision is ready; the Service is moved to it".to_owned(),
            );
        }
        (Phase::Draining, _) => {
            return (
                Reason::DrainingOldRevision,
                "the new revision serves; the old one finishes its requests".to_owned(),
            );
        }
        _ => {}
    }
    if let Some(finding) = view.finding {
        return (finding.reason, finding.message.clone());
    }
    if let Some((pod, progress)) = view.progress {
        return stage(pod, progress);
    }
    let wanted = view.valid.replicas;
    // While a revision is introduced, what starts is its first replicas, not more of what serves.
    let same = view.target == view.plan.stable.as_deref();
    if same && matches!(view.plan.phase, Phase::Settled | Phase::Introducing { .. }) && serving_replicas(view) > 0 {
        return (
            Reason::Scaling,
            format!("replicas are being added or removed: {wanted} are wanted"),
        );
    }
    (Reason::StartingPods, format!("{wanted} replicas are being started"))
}

fn stage(pod: &str, progress: &LoadingProgress) -> (Reason, String) {
    match progress.stage {
        LoadingStage::Resolving | LoadingStage::Unknown => (
            Reason::StartingPods,
            format!("{pod} has started and asks for its model"),
        ),
        LoadingStage::Downloading => {
            let done = percent(progress).map_or(String::new(), |percent| format!(": {percent} %"));
            (Reason::Downloading, format!("{pod} downloads the model{done}"))
        }
        LoadingStage::Verifying => (Reason::Verifying, format!("{pod} compares the digest of the model")),
        LoadingStage::LoadingWeights => (Reason::LoadingWeights, format!("{pod} reads the weights")),
        LoadingStage::WarmingUp | LoadingStage::Ready => (Reason::WarmingUp, format!("{pod} computes its first token")),
    }
}
