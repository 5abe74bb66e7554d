//! What is seen before it is decided: templates, traffic, the ledger, Jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::batch::v1::JobTemplateSpec;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Resource, ResourceExt};
use perennial_crds::DriftPolicy;
use perennial_crds::retraining::JobTemplateRef;
use perennial_drift::cause::Cause;
use perennial_drift::decision::Phase;
use perennial_drift::explain::SignalReport;

use super::{Heard, Tools, trouble};
use crate::cycle::jobs::{self, gpu_seconds};
use crate::cycle::ledger::{Kind, Ledger};
use crate::cycle::step::{Drift, Observed, Policy, Seen, State, Target, job_name, restore_name};
use crate::cycle::{jobs_seen, record};
use crate::drift::memory::Memory;
use crate::drift::status::Trouble;
use crate::index::Owner;
use crate::probes::memory::Said;

/// The Job templates of the user.
pub(super) struct Templates {
    retrain: Option<Result<JobTemplateSpec, String>>,
    gate: Option<Result<JobTemplateSpec, String>>,
}

impl Templates {
    pub(super) async fn read(owner: &Owner, policy: &DriftPolicy, tools: &Tools<'_>) -> Result<Self, Trouble> {
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

    /// GPU seconds that the Jobs of a cycle may take, at one try each, or what is wrong with a template.
    fn gpu_seconds(&self, deadline: i64) -> Result<i64, String> {
        let mut sum: i64 = 0;
        for template in [&self.retrain, &self.gate].into_iter().flatten() {
            let template = template.as_ref().map_err(Clone::clone)?;
            sum = sum.saturating_add(gpu_seconds(template, deadline));
        }
        Ok(sum)
    }

    pub(super) fn of(&self, kind: Kind) -> Option<&Result<JobTemplateSpec, String>> {
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

pub(super) fn observe(
    owner: &Owner,
    policy: &DriftPolicy,
    heard: Heard<'_>,
    now: i64,
    templates: &Templates,
) -> Observed {
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
    let retraining = policy.spec.retraining.as_ref();
    Observed {
        calm: heard.all && report.is_some_and(|report| report.phase == Phase::Watching),
        drift,
        awaits_probes: heard.probes == Said::Awaited,
        regressed: heard.probes == Said::Changed,
        gpu_seconds: templates.gpu_seconds(retraining.map_or(0, |retraining| retraining.active_deadline_seconds)),
        ..blind(now, policy)
    }
}

/// Nothing is seen.
pub(super) fn blind(now: i64, policy: &DriftPolicy) -> Observed {
    Observed {
        now,
        generation: policy.metadata.generation.unwrap_or(0),
        calm: false,
        drift: None,
        awaits_probes: false,
        regressed: false,
        gpu_seconds: Ok(0),
        reported: BTreeSet::new(),
        jobs: BTreeMap::new(),
        restore: None,
        strays: Vec::new(),
        target: Target::default(),
        places: BTreeSet::new(),
    }
}

/// `report.json` of the Jobs: signals and figures, no text of a prompt.
fn report_of<'a>(owner: &Owner, cause: Cause, moved: impl Iterator<Item = &'a SignalReport>) -> String {
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

pub(super) async fn load(owner: &Owner, policy: &DriftPolicy, tools: &Tools<'_>) -> Result<Ledger, Trouble> {
    let mut like = ConfigMap::default();
    like.metadata.name = Some(record::name(&owner.name));
    like.metadata.owner_references = policy.controller_owner_ref(&()).map(|owner| vec![owner]);
    match tools.writer.config_map(owner, &like).await.map_err(trouble)? {
        None => Ok(Ledger::default()),
        Some(map) => record::read(&map).map_err(Trouble::Store),
    }
}

/// The Jobs of the cycle that is under way, and where the one that trains can be asked.
pub(super) async fn jobs_of(
    owner: &Owner,
    policy: &DriftPolicy,
    ledger: &Ledger,
    tools: &Tools<'_>,
    now: i64,
) -> Result<(BTreeMap<Kind, Seen>, Option<IpAddr>), Trouble> {
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
        found.insert(kind, jobs_seen::seen(&job, &pods, now));
        if kind == Kind::Retrain {
            trains_at = jobs_seen::address(&pods);
        }
    }
    Ok((found, trains_at))
}

/// The Job that asks the registry, while it is asked.
pub(super) async fn restore_of(
    owner: &Owner,
    policy: &DriftPolicy,
    identity: &Policy<'_>,
    ledger: &Ledger,
    tools: &Tools<'_>,
) -> Result<Option<State>, Trouble> {
    let Some(restore) = ledger.restore.as_ref().filter(|restore| restore.asking) else {
        return Ok(None);
    };
    let name = restore_name(identity, restore.attempts);
    let Some(job) = tools.writer.job(owner, policy, &name).await.map_err(trouble)? else {
        return Ok(None);
    };
    let pods = tools.writer.pods_of_job(owner, &name).await.map_err(trouble)?;
    Ok(Some(jobs_seen::state(&job, &pods)))
}

pub(super) async fn strays(
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
