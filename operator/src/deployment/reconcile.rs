//! One look at one LLMDeployment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use perennial_crds::LLMDeployment;
use perennial_crds::conditions::Reason;
use perennial_crds::serving::LoadingProgress;
use thiserror::Error;

use super::build::{self, Environment};
use super::capture;
use super::diagnose::{self, Finding};
use super::learned;
use super::observe::{Children, Indexes, children};
use super::plan::{Observed, Phase, Plan, Wanted, plan};
use super::resolve::{Resolution, resolution};
use super::revision::{self, FAILED_ANNOTATION, Failure, Frozen, FrozenModel};
use super::status::{View, failed, status};
use super::validate::{self, Validated, validate};
use crate::apply::{self, Resources, Writer};
use crate::autoscaling::board::{Board, Verdict};
use crate::autoscaling::pods;
use crate::backoff::jittered;
use crate::cycle::lineage;
use crate::disposition::Disposition;
use crate::drift::pane_reader::PaneReader;
use crate::drift::words::Words;
use crate::index::Owner;
use crate::loading::{LoadingReader, is_running};
use crate::outage::Outages;
use crate::remember::Remembered;

/// A look at every object this often, in case a watch missed something.
const SLOW: Duration = Duration::from_secs(600);
/// While a pod is starting its progress is read this often.
const WHILE_STARTING: Duration = Duration::from_secs(2);
/// After a failure to set up capture it is tried again so soon.
const CAPTURE_AGAIN: Duration = Duration::from_secs(10);
/// Old revisions that are kept for going back.
const HISTORY: usize = 5;

/// Among ready pods, a ReplicaSet removes those with the lowest value first; the default is 0.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// The value of a pod that shall go first.
const FIRST: &str = "-1";

/// Why a reconciliation failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The object is wrong.
    #[error(transparent)]
    Invalid(#[from] validate::Error),
    /// A stored revision is not ours.
    #[error(transparent)]
    Revision(#[from] revision::Unreadable),
    /// A write failed.
    #[error(transparent)]
    Apply(#[from] apply::Error),
}

impl Error {
    /// Stable word for conditions, events and metrics.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Invalid(_) | Self::Revision(_) => Reason::InvalidSpec,
            Self::Apply(error) => error.reason(),
        }
    }

    /// What trying again can do.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Invalid(_) | Self::Revision(_) => Disposition::Permanent,
            Self::Apply(error) => error.disposition(),
        }
    }
}

/// What a reconciliation works with.
pub struct Shell {
    /// Writes.
    pub writer: Writer,
    /// Reads.
    pub indexes: Indexes,
    /// Asks pods for their progress.
    pub loading: LoadingReader,
    /// Asks pods for the panes of their traffic.
    pub panes: PaneReader,
    /// Settings that are rendered.
    pub environment: Environment,
    /// The autoscaler's last words.
    pub board: Board,
    /// Whether the API server was away.
    pub outages: Outages,
    /// The drift policies' last words.
    pub words: Words,
    /// Statuses written but perhaps not yet seen.
    pub remembered: Remembered,
}

/// What was decided for one object.
struct Decision {
    resolution: Resolution,
    /// The target is a learned model, not the one of the spec.
    learned: bool,
    target: Option<Target>,
    observed: Observed,
    plan: Plan,
}

/// The revision that the spec asks for.
struct Target {
    name: String,
    frozen: Frozen,
}

/// Looks at one object and does what is to be done.
///
/// # Errors
/// [`Error`], after it was put into the status.
pub async fn reconcile(object: &LLMDeployment, shell: &Shell) -> Result<Action, Error> {
    let outcome = steps(object, shell).await;
    if let Err(error) = &outcome
        && error.disposition() != Disposition::Silent
    {
        report(object, shell, error).await;
    }
    outcome
}

async fn steps(object: &LLMDeployment, shell: &Shell) -> Result<Action, Error> {
    let mut valid = validate(object)?;
    let verdict = scale(&mut valid, object, shell);
    let children = children(&shell.indexes, &valid.owner)?;
    let pods = children.serving_pods();
    let progress = shell.loading.newest(&pods).await;
    let now = Timestamp::now();
    let decision = decide(&valid, &children, shell, now);
    let finding = finding(&valid, &children, &decision);
    let verdict = verdict.as_deref();
    if let Some(verdict) = verdict {
        mark_first_to_go(&valid, &children, &decision, verdict, &shell.writer).await?;
    }
    carry_out(&valid, &children, &decision, finding.as_ref(), shell, now).await?;
    let failed = set_up_capture(&valid, &children, shell).await?;
    let stable = decision.plan.stable.as_deref();
    let capturing = capture::capturing(&valid, &children, stable, failed.as_deref());
    let replicas = i32::try_from(pods.len()).unwrap_or(i32::MAX);
    let model = shown_model(&children, &decision);
    let view = View {
        valid: &valid,
        observed: &decision.observed,
        plan: &decision.plan,
        target: decision.target.as_ref().map(|target| target.name.as_str()),
        resolution: &decision.resolution,
        finding: finding.as_ref(),
        progress: progress.as_ref(),
        replicas,
        model,
        drift: shell.words.on(&valid.owner),
        verdict,
        origin: model.map(|model| learned::origin(&children, decision.resolution.model(), model)),
        capturing: capturing.as_ref(),
    };
    let old = shell.remembered.status(object);
    write_status(object, shell, &valid.owner, status(&old, &view, now)).await?;
    let next = next_look(&valid, &decision, &pods, progress.as_ref());
    Ok(Action::requeue(match failed {
        Some(_) => next.min(CAPTURE_AGAIN),
        None => next,
    }))
}

/// Carries out what capture asks for. Why it failed, if it did: that must not keep the model from being served.
async fn set_up_capture(valid: &Validated, children: &Children, shell: &Shell) -> Result<Option<String>, Error> {
    let orders = capture::orders(valid, children, &shell.environment);
    match shell.writer.capture(&valid.owner, &orders, &children.current).await {
        Ok(()) => Ok(None),
        Err(error) if error.disposition() == Disposition::Silent => Err(error.into()),
        Err(error) => {
            let owner = &valid.owner;
            tracing::warn!(namespace = owner.namespace, name = owner.name, %error, "Capture cannot be set up; trying again.");
            Ok(Some(error.to_string()))
        }
    }
}

/// Lets the autoscaler's last word on this object, if it has one, say how many replicas are wanted.
fn scale(valid: &mut Validated, object: &LLMDeployment, shell: &Shell) -> Option<Arc<Verdict>> {
    let spec = valid.autoscaling.as_ref()?;
    if valid.suspended {
        return None;
    }
    let verdict = shell.board.verdict(&valid.owner, &valid.uid);
    valid.replicas = match &verdict {
        Some(verdict) => verdict.desired,
        // Right after a start of the operator: whatever runs goes on.
        None => {
            let replicas = pods::initial(
                &shell.indexes,
                &valid.owner,
                object,
                spec.min_replicas,
                spec.max_replicas,
            );
            i32::try_from(replicas).unwrap_or(i32::MAX)
        }
    };
    verdict
}

/// Before replicas are taken away, the pods with the least work are marked to go first, and old marks are removed.
async fn mark_first_to_go(
    valid: &Validated,
    children: &Children,
    decision: &Decision,
    verdict: &Verdict,
    writer: &Writer,
) -> Result<(), Error> {
    for (name, replicas) in &decision.plan.deployments {
        let Some(has) = children
            .deployment(name)
            .and_then(|deployment| deployment.spec.as_ref()?.replicas)
        else {
            continue;
        };
        let pods: Vec<&Pod> = children.pods_of(name).filter(|pod| diagnose::is_ready(pod)).collect();
        let exist = children
            .pods_of(name)
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .count();
        // Pods that are not ready go before any that are.
        let surplus = exist
            .saturating_sub(usize::try_from(*replicas).unwrap_or(0))
            .saturating_sub(exist - pods.len());
        if *replicas >= has || surplus == 0 {
            continue;
        }
        let work = pods.iter().map(|pod| pod.metadata.name.as_deref().unwrap_or_default());
        let work = work.map(|name| (name, verdict.work.get(name).copied())).collect();
        let first = pods::first_to_go(work, surplus);
        for pod in &pods {
            let marked = pod.annotations().get(DELETION_COST).is_some_and(|cost| cost == FIRST);
            let goes = first.contains(&pod.name_any().as_str());
            if goes != marked {
                writer
                    .annotate_pod(&valid.owner, &pod.name_any(), DELETION_COST, goes.then_some(FIRST))
                    .await?;
            }
        }
    }
    Ok(())
}

fn decide(valid: &Validated, children: &Children, shell: &Shell, now: Timestamp) -> Decision {
    let jobs: Vec<_> = children.current.jobs.iter().map(AsRef::as_ref).collect();
    let pods: Vec<_> = children.pods.iter().map(AsRef::as_ref).collect();
    let resolution = resolution(valid, &children.revisions, &jobs, &pods, now);
    let learned = match &resolution {
        Resolution::Known(base) => learned::in_effect(valid, children, base, &shell.words.on(&valid.owner)),
        _ => None,
    };
    let target = match (&resolution, &learned) {
        (_, Some(learned)) => Some(target(&learned.valid, children, &shell.environment, &learned.model)),
        (Resolution::Known(model), None) => Some(target(valid, children, &shell.environment, model)),
        _ => None,
    };
    let observed = children.observed(&valid.owner);
    let wanted = Wanted {
        target: target.as_ref().map(|target| target.name.clone()),
        replicas: valid.replicas,
        paused: valid.paused,
        progress_deadline: Duration::from_secs(u64::try_from(valid.progress_deadline_seconds).unwrap_or(0)),
        nodes_may_lag: shell.outages.nodes_may_lag(Instant::now()),
        retry: valid.retry.clone(),
        now,
    };
    let plan = plan(&observed, &wanted);
    Decision {
        resolution,
        learned: learned.is_some(),
        target,
        observed,
        plan,
    }
}

/// The target as it was frozen; frozen now if this is its first time.
fn target(valid: &Validated, children: &Children, environment: &Environment, model: &FrozenModel) -> Target {
    let name = revision::name(valid, model);
    let stored = children.revisions.iter().find(|stored| stored.name == name);
    let frozen = match stored {
        Some(stored) => stored.frozen.clone(),
        None => {
            let rendered = build::freeze(valid, environment, &name, model);
            revision::recover(rendered, children.deployment(&name).map(AsRef::as_ref))
        }
    };
    Target { name, frozen }
}

/// What keeps the replicas that matter from getting ready: those of the target, else those of the stable revision.
fn finding(valid: &Validated, children: &Children, decision: &Decision) -> Option<Finding> {
    let accelerator = valid
        .accelerator
        .as_ref()
        .map(|accelerator| accelerator.resource_name.as_str());
    let target = decision.target.as_ref().map(|target| target.name.as_str());
    let names = target.into_iter().chain(decision.plan.stable.as_deref());
    names
        .filter(|name| decision.plan.deployments.contains_key(*name) || decision.plan.give_up)
        .find_map(|name| {
            diagnose::pods(children.pods_of(name), accelerator)
                .or_else(|| diagnose::deployment(children.deployment(name)?))
        })
}

async fn carry_out(
    valid: &Validated,
    children: &Children,
    decision: &Decision,
    finding: Option<&Finding>,
    shell: &Shell,
    now: Timestamp,
) -> Result<(), Error> {
    let (owner, plan, writer) = (&valid.owner, &decision.plan, &shell.writer);
    for name in &plan.forgive {
        writer
            .mark(owner, name, &BTreeMap::from([(FAILED_ANNOTATION.to_owned(), None)]))
            .await?;
    }
    if plan.give_up
        && let Some(target) = &decision.target
    {
        // The mark comes before the deletion: after a crash between the two the revision is not tried again.
        let failure = serde_json::to_string(&given_up(valid, finding)).ok();
        writer
            .mark(
                owner,
                &target.name,
                &BTreeMap::from([(FAILED_ANNOTATION.to_owned(), failure)]),
            )
            .await?;
    }
    writer
        .apply(owner, &resources(valid, children, decision, shell), &children.current)
        .await?;
    remember_answer(valid, children, decision, writer).await?;
    if let Some(name) = &plan.mark_served {
        writer.mark(owner, name, &revision::served_mark(now)).await?;
    }
    for name in &plan.remove {
        if let Some(deployment) = children.deployment(name) {
            writer.delete(owner, deployment.as_ref()).await?;
        }
    }
    if let Resolution::Failed { again_in: None, .. } = decision.resolution {
        let name = build::resolve_job_name(valid);
        for job in children.current.jobs.iter().filter(|job| job.name_any() == name) {
            writer.delete(owner, job.as_ref()).await?;
        }
    }
    tidy(valid, children, decision, writer).await
}

/// A source that led to a revision that is there already is remembered with it: the Job that said so will go.
async fn remember_answer(
    valid: &Validated,
    children: &Children,
    decision: &Decision,
    writer: &Writer,
) -> Result<(), Error> {
    let Some(base) = decision.resolution.model().filter(|_| !valid.source.pinned) else {
        return Ok(());
    };
    let source_hash = revision::source_hash(&valid.source);
    let target = decision.target.as_ref().map(|target| &target.name);
    let stored = children.revisions.iter().find(|stored| match decision.learned {
        // Another one serves in its place.
        true => base.digest.is_some() && stored.frozen.model.digest == base.digest,
        false => Some(&stored.name) == target,
    });
    if let Some(stored) = stored.filter(|stored| !stored.answers(&source_hash)) {
        writer
            .mark(&valid.owner, &stored.name, &stored.with_source(&source_hash))
            .await?;
    }
    Ok(())
}

/// Removes revisions beyond the history.
async fn tidy(valid: &Validated, children: &Children, decision: &Decision, writer: &Writer) -> Result<(), Error> {
    let mut in_use: Vec<&str> = decision.plan.deployments.keys().map(String::as_str).collect();
    in_use.extend(decision.plan.stable.as_deref());
    in_use.extend(decision.target.as_ref().map(|target| target.name.as_str()));
    // What the source of the spec was resolved to is known from there, also while a learned model serves.
    let source_hash = revision::source_hash(&valid.source);
    let answers = children.revisions.iter().filter(|stored| stored.answers(&source_hash));
    in_use.extend(
        answers
            .max_by_key(|stored| stored.number)
            .map(|stored| stored.name.as_str()),
    );
    let digests = children
        .revisions
        .iter()
        .filter_map(|stored| stored.frozen.model.digest.as_deref());
    let mut surplus = lineage::surplus(&children.learned, &digests.collect(), HISTORY);
    surplus.extend(revision::surplus(&children.revisions, &in_use, HISTORY));
    for name in surplus {
        if let Some(stored) = children
            .current
            .revisions
            .iter()
            .find(|stored| stored.name_any() == name)
        {
            writer.delete(&valid.owner, stored.as_ref()).await?;
        }
    }
    Ok(())
}

fn given_up(valid: &Validated, finding: Option<&Finding>) -> Failure {
    let seconds = valid.progress_deadline_seconds;
    let why = finding.map_or_else(String::new, |finding| {
        format!(" ({}: {})", finding.reason, finding.message)
    });
    Failure {
        reason: finding
            .map_or(Reason::ProgressDeadlineExceeded, |finding| finding.reason)
            .to_string(),
        message: format!(
            "the new revision was not ready within {seconds} s and was taken down{why}; the old one serves. \
             Correct or revert the spec, or try again with: kubectl annotate --overwrite llm {} {}=$(date +%s)",
            valid.owner.name,
            super::RETRY_ANNOTATION
        ),
        retry: valid.retry.clone(),
    }
}

/// All children as they should be.
fn resources(valid: &Validated, children: &Children, decision: &Decision, shell: &Shell) -> Resources {
    let plan = &decision.plan;
    let frozen = |name: &str| {
        let of_target = decision
            .target
            .as_ref()
            .filter(|target| target.name == name)
            .map(|target| &target.frozen);
        of_target.or_else(|| {
            children
                .revisions
                .iter()
                .find(|known| known.name == name)
                .map(|known| &known.frozen)
        })
    };
    let next = children.revisions.iter().map(|known| known.number).max().unwrap_or(0) + 1;
    let starts = |name: &str| plan.deployments.contains_key(name);
    Resources {
        service_account: build::service_account(valid),
        revision: decision
            .target
            .as_ref()
            .filter(|target| starts(&target.name))
            .map(|target| revision::store(valid, &target.name, next, &target.frozen)),
        service: plan.stable.as_ref().map(|stable| build::service(valid, stable)),
        disruption_budget: build::disruption_budget(valid),
        // A revision whose record was deleted runs on as it is: there is nothing to bring it back to.
        deployments: plan
            .deployments
            .iter()
            .filter_map(|(name, replicas)| Some(build::deployment(valid, name, frozen(name)?, *replicas)))
            .collect(),
        job: matches!(decision.resolution, Resolution::Ask).then(|| build::resolve_job(valid, &shell.environment)),
    }
}

fn shown_model<'a>(children: &'a Children, decision: &'a Decision) -> Option<&'a FrozenModel> {
    let target = decision.target.as_ref();
    let stable = decision.plan.stable.as_deref();
    let of_target = target.map(|target| &target.frozen.model);
    match stable {
        Some(stable) if target.is_none_or(|target| target.name != stable) => children
            .revisions
            .iter()
            .find(|known| known.name == stable)
            .map(|known| &known.frozen.model)
            .or(of_target),
        _ => of_target,
    }
}

fn next_look(
    valid: &Validated,
    decision: &Decision,
    pods: &[&Pod],
    progress: Option<&(String, LoadingProgress)>,
) -> Duration {
    let mut next = jittered(SLOW, &valid.owner, 0);
    if let Some(soon) = decision.plan.look_again {
        next = next.min(soon.max(Duration::from_secs(1)));
    }
    if let Resolution::Failed { again_in, .. } = &decision.resolution {
        next = next.min(again_in.unwrap_or(Duration::from_secs(1)) + Duration::from_secs(1));
    }
    let starting =
        |pod: &&&Pod| !diagnose::is_ready(pod) && is_running(pod) && pod.metadata.deletion_timestamp.is_none();
    let introducing = matches!(decision.plan.phase, Phase::Introducing { .. } | Phase::Settled);
    if progress.is_some() || (introducing && pods.iter().filter(starting).count() > 0) {
        next = next.min(WHILE_STARTING);
    }
    next
}

async fn write_status(
    object: &LLMDeployment,
    shell: &Shell,
    owner: &Owner,
    new: perennial_crds::LLMDeploymentStatus,
) -> Result<(), Error> {
    let old = shell.remembered.status(object);
    if old == new {
        return Ok(());
    }
    let uid = object.uid().unwrap_or_default();
    let version = shell.writer.status(owner, &uid, &new).await?;
    shell.writer.publish(object, super::notice::notices(&old, &new)).await;
    shell.remembered.wrote(object, version, new);
    Ok(())
}

/// Puts an error into the status. If that fails too, the error is logged by whoever called.
async fn report(object: &LLMDeployment, shell: &Shell, error: &Error) {
    let owner = Owner::of(object);
    let old = shell.remembered.status(object);
    let generation = object.metadata.generation.unwrap_or(0);
    let permanent = error.disposition() == Disposition::Permanent;
    let new = failed(
        &old,
        generation,
        error.reason(),
        &error.to_string(),
        permanent,
        Timestamp::now(),
    );
    if let Err(second) = write_status(object, shell, &owner, new).await {
        tracing::warn!(namespace = owner.namespace, name = owner.name, error = %second, "The status could not be written.");
    }
}

/// Shared by all reconciliations.
pub type SharedShell = Arc<Shell>;
