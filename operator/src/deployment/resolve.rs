//! Which bytes a source means: asked once by a Job, kept in the revisions, never asked again until the source changes.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use perennial_crds::conditions::Reason;
use perennial_crds::serving::ResolvedModel;

use super::build::{RESOLVE_LABEL, resolve_job_name};
use super::diagnose::{self, Finding};
use super::revision::{self, FrozenModel, Revision};
use super::validate::Validated;

/// How long a failed Job stays before the source is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(300);

/// What is known of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Pinned to exact bytes.
    Known(FrozenModel),
    /// A Job has to be made.
    Ask,
    /// A Job is at it; what is in its way, if anything.
    Asking(Option<Finding>),
    /// The Job failed.
    Failed {
        /// Why.
        finding: Finding,
        /// When to ask again: now, or after this time.
        again_in: Option<Duration>,
    },
}

impl Resolution {
    /// The model, once it is known.
    #[must_use]
    pub fn model(&self) -> Option<&FrozenModel> {
        match self {
            Self::Known(model) => Some(model),
            _ => None,
        }
    }
}

/// Answers from what the object says, from earlier answers, and from the Job.
#[must_use]
pub fn resolution(
    valid: &Validated,
    revisions: &[Revision],
    jobs: &[&Job],
    pods: &[&Pod],
    now: Timestamp,
) -> Resolution {
    if let Some(model) = revision::pinned_model(valid) {
        return Resolution::Known(model);
    }
    let source_hash = revision::source_hash(&valid.source);
    let earlier = revisions
        .iter()
        .filter(|known| known.answers(&source_hash))
        .max_by_key(|known| known.number);
    if let Some(earlier) = earlier {
        // The same bytes under the name of today.
        return Resolution::Known(FrozenModel {
            name: valid.model_name.clone(),
            ..earlier.frozen.model.clone()
        });
    }
    let name = resolve_job_name(valid);
    let Some(job) = jobs.iter().find(|job| job.name_any() == name) else {
        return Resolution::Ask;
    };
    let pods: Vec<&Pod> = pods
        .iter()
        .copied()
        .filter(|pod| pod.labels().get(RESOLVE_LABEL) == Some(&source_hash))
        .collect();
    if let Some(answer) = answer(&pods) {
        return Resolution::Known(revision::resolved_model(valid, &answer));
    }
    let finding = diagnose::pods(pods.iter().copied(), None);
    match ended(job) {
        None => Resolution::Asking(finding),
        Some((at, said)) => {
            let finding = finding.unwrap_or_else(|| Finding {
                reason: Reason::SourceUnreachable,
                message: format!("the Job {name} ended without an answer: {said}"),
                permanent: false,
            });
            let waited = Duration::try_from(now.duration_since(at)).unwrap_or_default();
            Resolution::Failed {
                finding,
                again_in: ASK_AGAIN.checked_sub(waited).filter(|left| !left.is_zero()),
            }
        }
    }
}

fn answer(pods: &[&Pod]) -> Option<ResolvedModel> {
    pods.iter().find_map(|pod| {
        let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
        let ended = statuses
            .iter()
            .find_map(|container| container.state.as_ref()?.terminated.as_ref())?;
        (ended.exit_code == 0).then_some(())?;
        serde_json::from_str(ended.message.as_deref()?).ok()
    })
}

/// When and how a Job ended, successful or not: a Job that succeeded without a readable answer has failed too.
fn ended(job: &Job) -> Option<(Timestamp, String)> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let end = conditions
        .iter()
        .find(|c| matches!(c.type_.as_str(), "Failed" | "Complete") && c.status == "True")?;
    let at = end
        .last_transition_time
        .as_ref()
        .map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    Some((at, end.message.clone().unwrap_or_else(|| end.type_.clone())))
}
