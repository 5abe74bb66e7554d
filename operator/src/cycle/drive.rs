//! One look at the cycles of one policy: read, decide, store, do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::batch::v1::JobTemplateSpec;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Resource, ResourceExt};
use perennial_crds::capture_spec::Place;
use perennial_crds::retraining::JobTemplateRef;
use perennial_crds::{DriftPolicy, LLMDeployment};
use perennial_drift::decision::Phase;

use super::jobs::registry::{restore, restore_name};
use super::jobs::{self, Site, gpus};
use super::ledger::{Kind, Ledger, Stage};
use super::progress::Told;
use super::report::{self, Report};
use super::step::{Action, Drift, Observed, Policy, Standing, Step, job_name, step};
use super::words::Cycles;
use super::{jobs_seen, record, target};
use crate::apply::{self, Writer};
use crate::deployment::build::Environment;
use crate::deployment::observe::Indexes;
use crate::deployment::validate::{Validated, validate};
use crate::drift::memory::Memory;
use crate::drift::record::reports_selector;
use crate::drift::status::Trouble;
use crate::index::Owner;
use crate::loading::LoadingReader;
use crate::metrics::Metrics;
use crate::probes::memory::Said;

/// Seconds from one look for Jobs without a cycle to the next.
const STRAYS: i64 = 60;

/// What a look works with.
pub struct Tools<'a> {
    /// Reads and writes.
    pub writer: &'a Writer,
    /// Asks Jobs how far they are.
    pub loading: &'a LoadingReader,
    /// The caches.
    pub indexes: &'a Indexes,
    /// Settings of the operator.
    pub environment: &'a Environment,
    /// Counts.
    pub metrics: &'a Metrics,
}

/// What is heard of the target's traffic.
#[derive(Clone, Copy)]
pub struct Heard<'a> {
    /// What is remembered of it.
    pub memory: Option<&'a Memory>,
    /// Every replica tells its panes.
    pub all: bool,
    /// What fixed prompts say of the service.
    pub probes: Said,
}

/// The cycles of one policy between two looks. Nothing is in it that is not stored or cannot be asked for again.
#[derive(Default)]
pub struct Drive {
    ledger: Option<Ledger>,
    standing: Option<Standing>,
    strays_at: i64,
    told: Told,
    reported: BTreeSet<String>,
}

impl Drive {
    /// Where cycles stand, once they were looked at.
    #[must_use]
    pub fn cycles(&self) -> Option<Cycles<'_>> {
        Some(Cycles {
            ledger: self.ledger.as_ref()?,
            standing: self.standing.as_ref()?,
        })
    }

    /// Whether a cycle is under way, or the registry is being asked.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let restores = |ledger: &Ledger| {
            let restore = ledger.restore.as_ref();
            restore.is_some_and(|restore| restore.asking || restore.found.is_some())
        };
        self.ledger
            .as_ref()
            .is_some_and(|ledger| ledger.cycle.is_some() || restores(ledger))
    }

    /// Looks, stores what was decided, and does it.
    ///
    /// # Errors
    /// [`Trouble::Store`]; then all is read again before the next look.
    pub async fn look(
        &mut self,
        owner: &Owner,
        policy: &DriftPolicy,
        object: &LLMDeployment,
        heard: Heard<'_>,
        tools: &Tools<'_>,
        now: i64,
    ) -> Result<(), Trouble> {
        let outcome = self.turn(owner, policy, object, heard, tools, now).await;
        if outcome.is_err() {
            self.ledger = None;
        }
        outcome
    }

    async fn turn(
        &mut self,
        owner: &Owner,
        policy: &DriftPolicy,
        object: &LLMDeployment,
        heard: Heard<'_>,
        tools: &Tools<'_>,
        now: i64,
    ) -> Result<(), Trouble> {
        let stored = match self.ledger.take() {
            Some(ledger) => ledger,
            None => load(owner, policy, tools).await?,
        };
        // A policy that only watches has no ledger, and costs no request.
        if policy.spec.retraining.is_none() && stored == Ledger::default() {
            self.ledger = Some(stored);
            self.standing = None;
            return Ok(());
        }
        // An object that cannot be worked on is reported by its own controller; its cycles wait.
        let Ok(valid) = validate(object) else {
            self.ledger = Some(stored);
            return Ok(());
        };
        let templates = Templates::read(owner, policy, tools).await?;
        let mut observed = observe(owner, policy, heard, now, &templates);
        let deployment = Owner {
            namespace: owner.namespace.clone(),
            name: object.name_any(),
        };
        observed.target = target::target(tools.indexes, &deployment, object, &valid, policy);
        if now >= self.strays_at {
            observed.strays = strays(owner, policy, &stored, tools).await?;
            self.strays_at = now + STRAYS;
        }
        observed.reported = std::mem::take(&mut self.reported);
        observed.restore = restore_of(owner, policy, &stored, tools).await?;
        let (jobs, trains_at) = jobs_of(owner, policy, &stored, tools).await?;
        observed.jobs = jobs;
        let (name, uid) = (policy.name_any(), policy.uid().unwrap_or_default());
        let identity = Policy { name: &name, uid: &uid };
        let Step {
            ledger,
            actions,
            standing,
        } = step(&stored, &observed, &policy.spec, &identity);
        if ledger != stored {
            let map = record::map(policy, &ledger);
            tools.writer.keep(owner, &map).await.map_err(trouble)?;
            note(owner, tools, &stored, &ledger);
            if ledger.cycle.as_ref().map(|cycle| &cycle.id) != stored.cycle.as_ref().map(|cycle| &cycle.id) {
                // Jobs of the one that ended may still run.
                self.strays_at = now;
            }
        }
        let problem = carry_out(owner, policy, &valid, object, &ledger, &actions, &templates, tools).await?;
        self.reported = ledger.reports.iter().map(|report| report.id.clone()).collect();
        let mut standing = problem.unwrap_or(standing);
        let trains = ledger
            .cycle
            .as_ref()
            .is_some_and(|cycle| cycle.stage == Stage::Retraining);
        if let (true, Standing::Running { message, waits: None }) = (trains, &mut standing) {
            let progress = match trains_at {
                Some(address) => tools.loading.training(address).await,
                None => None,
            };
            if let Some(told) = self.told.tell(progress.as_ref()) {
                message.push_str(&format!(": {told}"));
            }
        } else {
            self.told = Told::default();
        }
        self.standing = Some(standing);
        self.ledger = Some(ledger);
        Ok(())
    }
}

/// The Job templates of the user.
struct Templates {
    retrain: Option<Result<JobTemplateSpec, String>>,
    gate: Option<Result<JobTemplateSpec, String>>,
}

impl Templates {
    async fn read(owner: &Owner, policy: &DriftPolicy, tools: &Tools<'_>) -> Result<Self, Trouble> {
        let retrain = policy
            .spec
            .retraining
            .as_ref()
            .and_then(|retraining| retraining.job_template_ref.as_ref());
        Ok(Self {
            retrain: template(owner, retrain, tools).await?,
            gate: template(owner, policy.spec.gate.job_template_ref.as_ref(), tools).await?,
        })
    }

    /// GPUs that a training Job asks for, or what is wrong with a template.
    fn gpus(&self) -> Result<i64, String> {
        if let Some(Err(why)) = &self.gate {
            return Err(why.clone());
        }
        match &self.retrain {
            Some(Err(why)) => Err(why.clone()),
            Some(Ok(template)) => Ok(gpus(Some(template))),
            None => Ok(0),
        }
    }

    fn of(&self, kind: Kind) -> Option<&Result<JobTemplateSpec, String>> {
        match kind {
            Kind::Prepare | Kind::Publish => None,
            Kind::Retrain => self.retrain.as_ref(),
            Kind::Gate => self.gate.as_ref(),
        }
    }
}

async fn template(
    owner: &Owner,
    reference: Option<&JobTemplateRef>,
    tools: &Tools<'_>,
) -> Result<Option<Result<JobTemplateSpec, String>>, Trouble> {
    let Some(JobTemplateRef { name, .. }) = reference else {
        return Ok(None);
    };
    let found = tools.writer.cron_job(owner, name).await.map_err(trouble)?;
    let template = found.and_then(|found| found.spec);
    Ok(Some(match template {
        None => Err(format!(
            "there is no CronJob {name} in this namespace: create it with suspend: true"
        )),
        Some(spec) if spec.suspend != Some(true) => Err(format!(
            "the CronJob {name} would run by its schedule: set its spec.suspend to true"
        )),
        Some(spec) => Ok(spec.job_template),
    }))
}

fn observe(owner: &Owner, policy: &DriftPolicy, heard: Heard<'_>, now: i64, templates: &Templates) -> Observed {
    let report = heard.memory.and_then(Memory::report);
    let drift = heard
        .memory
        .and_then(|memory| memory.cause(heard.probes.probes()))
        .zip(report.as_ref())
        .map(|(cause, report)| {
            let moved = report.signals.iter().filter(|signal| signal.moved);
            Drift {
                cause,
                since: moved
                    .clone()
                    .map(|signal| signal.since)
                    .min()
                    .unwrap_or(report.phase_since),
                report: report_of(owner, cause, moved),
            }
        });
    Observed {
        now,
        generation: policy.metadata.generation.unwrap_or(0),
        calm: heard.all && report.is_some_and(|report| report.phase == Phase::Watching),
        drift,
        awaits_probes: heard.probes == Said::Awaited,
        regressed: heard.probes == Said::Changed,
        gpus: templates.gpus(),
        reported: BTreeSet::new(),
        jobs: BTreeMap::new(),
        restore: None,
        strays: Vec::new(),
        target: super::step::Target::default(),
    }
}

/// `report.json` of the Jobs: signals and figures, no text of a prompt.
fn report_of<'a>(
    owner: &Owner,
    cause: perennial_drift::cause::Cause,
    moved: impl Iterator<Item = &'a perennial_drift::explain::SignalReport>,
) -> String {
    let signals: Vec<serde_json::Value> = moved
        .map(|signal| {
            serde_json::json!({
                "name": signal.name,
                "class": format!("{:?}", signal.class),
                "since": signal.since,
                "shareOfEvidencePercent": signal.share_of_evidence_percent,
                "matters": signal.matters,
                "sentence": signal.sentence,
            })
        })
        .collect();
    serde_json::json!({"policy": owner.name, "cause": format!("{cause:?}"), "signals": signals}).to_string()
}

async fn load(owner: &Owner, policy: &DriftPolicy, tools: &Tools<'_>) -> Result<Ledger, Trouble> {
    let mut like = ConfigMap::default();
    like.metadata.name = Some(record::name(&owner.name));
    like.metadata.owner_references = policy.controller_owner_ref(&()).map(|owner| vec![owner]);
    match tools.writer.config_map(owner, &like).await.map_err(trouble)? {
        None => Ok(Ledger::default()),
        Some(map) => record::read(&map).map_err(Trouble::Store),
    }
}

/// The Jobs of the cycle that is under way, and where the one that trains can be asked.
async fn jobs_of(
    owner: &Owner,
    policy: &DriftPolicy,
    ledger: &Ledger,
    tools: &Tools<'_>,
) -> Result<(BTreeMap<Kind, super::step::Seen>, Option<IpAddr>), Trouble> {
    let (mut found, mut trains_at) = (BTreeMap::new(), None);
    let Some(cycle) = &ledger.cycle else {
        return Ok((found, None));
    };
    // The Jobs before the one at work have ended and were read.
    let kind = cycle.stage.job().unwrap_or(Kind::Publish);
    // One stage may end and the next begin at one look.
    let kinds = Kind::ALL.into_iter().filter(|other| *other >= kind);
    for kind in kinds {
        let name = job_name(&owner.name, kind, &cycle.id);
        let job = tools.writer.job(owner, policy, &name).await.map_err(trouble)?;
        let Some(job) = job else { break };
        let pods = tools.writer.pods_of_job(owner, &name).await.map_err(trouble)?;
        found.insert(kind, jobs_seen::seen(&job, &pods));
        if kind == Kind::Retrain {
            trains_at = jobs_seen::address(&pods);
        }
    }
    Ok((found, trains_at))
}

/// The Job that asks the registry, while it is asked.
async fn restore_of(
    owner: &Owner,
    policy: &DriftPolicy,
    ledger: &Ledger,
    tools: &Tools<'_>,
) -> Result<Option<super::step::State>, Trouble> {
    let Some(restore) = ledger.restore.as_ref().filter(|restore| restore.asking) else {
        return Ok(None);
    };
    let name = restore_name(&owner.name, restore.attempts);
    let Some(job) = tools.writer.job(owner, policy, &name).await.map_err(trouble)? else {
        return Ok(None);
    };
    let pods = tools.writer.pods_of_job(owner, &name).await.map_err(trouble)?;
    Ok(Some(jobs_seen::seen(&job, &pods).state))
}

async fn strays(
    owner: &Owner,
    policy: &DriftPolicy,
    ledger: &Ledger,
    tools: &Tools<'_>,
) -> Result<Vec<String>, Trouble> {
    let jobs = tools.writer.jobs_of_policy(owner, policy).await.map_err(trouble)?;
    let current = ledger.cycle.as_ref().map(|cycle| cycle.id.as_str());
    let stray = jobs.iter().filter(|job| {
        job.metadata.deletion_timestamp.is_none()
            && !jobs_seen::has_ended(job)
            // Others are no Jobs of cycles.
            && job.labels().get(jobs::CYCLE_LABEL).is_some_and(|cycle| Some(cycle.as_str()) != current)
    });
    Ok(stray.map(ResourceExt::name_any).collect())
}

/// Does what was decided; something that a person has to mend is for the status.
#[expect(
    clippy::too_many_arguments,
    reason = "called from one place, and each argument has a type of its own"
)]
async fn carry_out(
    owner: &Owner,
    policy: &DriftPolicy,
    valid: &Validated,
    object: &LLMDeployment,
    ledger: &Ledger,
    actions: &[Action],
    templates: &Templates,
    tools: &Tools<'_>,
) -> Result<Option<Standing>, Trouble> {
    let mut problem = None;
    for action in actions {
        match action {
            Action::Create(kind) => {
                let (Some(cycle), Some(retraining)) = (&ledger.cycle, &policy.spec.retraining) else {
                    continue;
                };
                let site = Site {
                    policy,
                    retraining,
                    target: valid,
                    records: records(object),
                    environment: tools.environment,
                    cycle,
                };
                let template = templates
                    .of(*kind)
                    .map(|template| template.as_ref().map_err(Clone::clone));
                let job = template
                    .transpose()
                    .and_then(|template| jobs::job(*kind, &site, template));
                match job {
                    Ok(job) => match tools.writer.create_job(owner, &job).await {
                        Ok(()) => {}
                        Err(error) if error.is_refused() => problem = Some(invalid(cycle.stage, &error.to_string())),
                        Err(error) => return Err(trouble(error)),
                    },
                    Err(why) => problem = Some(invalid(cycle.stage, &why)),
                }
            }
            Action::Restore(attempt) => {
                let output = policy.spec.retraining.as_ref().and_then(|spec| spec.output.as_ref());
                if let (Some(output), Some(tag)) = (output, &policy.spec.promotion.publish_tag) {
                    let job = restore(policy, &output.oci, tag, tools.environment, *attempt);
                    tools.writer.create_job(owner, &job).await.map_err(trouble)?;
                }
            }
            Action::Delete(name) => tools.writer.delete_job(owner, policy, name).await.map_err(trouble)?,
            Action::Learn(lineage) => tools.writer.learn(valid, lineage).await.map_err(trouble)?,
            Action::Withdraw(digest) => tools.writer.unlearn(valid, digest).await.map_err(trouble)?,
            Action::Report(report) => tell(owner, policy, report, ledger, tools).await?,
        }
    }
    Ok(problem)
}

/// Writes the report of a cycle, and removes those that are older than the status tells. One that is refused is not worth
/// standing still for.
async fn tell(
    owner: &Owner,
    policy: &DriftPolicy,
    report: &Report,
    ledger: &Ledger,
    tools: &Tools<'_>,
) -> Result<(), Trouble> {
    let map = report::map(policy, report);
    match tools.writer.keep(owner, &map).await {
        Ok(()) => {}
        Err(error) if error.is_refused() => {
            let (namespace, name) = (&owner.namespace, &owner.name);
            tracing::warn!(namespace, name, %error, "The report of a cycle was refused.");
        }
        Err(error) => return Err(trouble(error)),
    }
    let newest = ledger.finished.iter().rev().take(policy.spec.history.cycles as usize);
    let kept: Vec<String> = newest.map(|cycle| report::name(&owner.name, &cycle.id)).collect();
    let selector = reports_selector(&owner.name);
    for old in tools
        .writer
        .config_maps(owner, &map, &selector)
        .await
        .map_err(trouble)?
    {
        let name = old.name_any();
        if !kept.contains(&name) {
            tools.writer.drop_map(owner, &name).await.map_err(trouble)?;
        }
    }
    Ok(())
}

fn records(object: &LLMDeployment) -> Option<Place<'_>> {
    object.spec.capture.as_ref()?.storage.as_ref()?.place()
}

fn invalid(stage: Stage, why: &str) -> Standing {
    Standing::Running {
        message: format!("the Job of the stage {stage:?} cannot be made"),
        waits: Some((perennial_crds::conditions::Reason::JobTemplateInvalid, why.to_owned())),
    }
}

/// Logs and counts what was decided.
fn note(owner: &Owner, tools: &Tools<'_>, before: &Ledger, now: &Ledger) {
    for finished in now
        .finished
        .iter()
        .filter(|one| !before.finished.iter().any(|old| old.id == one.id))
    {
        tracing::info!(
            namespace = owner.namespace,
            name = owner.name,
            cycle = finished.id,
            outcome = ?finished.outcome,
            reason = finished.reason,
            "A cycle ended."
        );
        tools
            .metrics
            .cycle_ended(&format!("{:?}", finished.outcome), finished.gpu_seconds);
    }
    if let Some(cycle) = now
        .cycle
        .as_ref()
        .filter(|cycle| Some(cycle.stage) != before.cycle.as_ref().map(|old| old.stage))
    {
        tracing::info!(
            namespace = owner.namespace,
            name = owner.name,
            cycle = cycle.id,
            stage = ?cycle.stage,
            "A cycle went on."
        );
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn trouble(error: apply::Error) -> Trouble {
    Trouble::Store(error.to_string())
}
