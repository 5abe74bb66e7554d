//! One look at the probes of one policy: read, decide, store, do.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Resource;
use perennial_crds::{DriftPolicy, LLMDeployment};
use perennial_drift::cause::Probes;
use perennial_drift::policy::Policy;

use super::memory::{Memory, Said};
use super::step::{Action, Observed, step};
use super::words::View;
use super::{job, record};
use crate::apply::{self, Writer};
use crate::cycle::jobs_seen;
use crate::deployment::build::Environment;
use crate::deployment::validate::validate;
use crate::drift::status::Trouble;
use crate::drift::target::Target;
use crate::index::Owner;
use crate::metrics::Metrics;

/// What a look works with.
pub struct Tools<'a> {
    /// Reads and writes.
    pub writer: &'a Writer,
    /// Settings of the operator.
    pub environment: &'a Environment,
    /// Counts.
    pub metrics: &'a Metrics,
}

/// The probes of one policy between two looks. Nothing is in it that is not stored.
#[derive(Default)]
pub struct Prober {
    memory: Option<Memory>,
    said: Option<Said>,
}

impl Prober {
    /// What the status is to say; nothing for a policy without probes.
    #[must_use]
    pub fn view(&self) -> Option<View<'_>> {
        Some(View {
            memory: self.memory.as_ref()?,
            said: self.said?,
        })
    }

    /// What the probes say of the revision that serves.
    #[must_use]
    pub fn said(&self) -> Said {
        self.said.unwrap_or(Said::Nothing)
    }

    /// Whether a run is under way or waited for.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        let asks = self.memory.as_ref().is_some_and(|memory| memory.asking.is_some());
        asks || self.said == Some(Said::Awaited)
    }

    /// Looks, stores what was decided, and does it. `drifted`: when a drift was confirmed, while it is.
    ///
    /// # Errors
    /// [`Trouble::Store`]; then all is read again before the next look.
    #[expect(
        clippy::too_many_arguments,
        reason = "called from one place, and each argument has a type of its own"
    )]
    pub async fn look(
        &mut self,
        owner: &Owner,
        policy: &DriftPolicy,
        (object, target): (&LLMDeployment, &Target),
        terms: &Policy,
        drifted: Option<i64>,
        tools: &Tools<'_>,
        now: i64,
    ) -> Result<(), Trouble> {
        let Some(spec) = &policy.spec.probe else {
            *self = Self::default();
            return Ok(());
        };
        let stored = self.stored(owner, policy, tools).await?;
        // An object that cannot be worked on is reported by its own controller; its probes wait.
        let Ok(valid) = validate(object) else {
            self.memory = Some(stored);
            return Ok(());
        };
        let observed = Observed {
            now,
            revision: settled(object, target),
            drifted,
            job: seen(owner, policy, &stored, tools).await?,
        };
        let (mut memory, actions) = step(&stored, &observed, i64::from(spec.interval_seconds), terms);
        if memory != stored {
            let map = record::map(policy, &memory).map_err(|error| Trouble::Store(error.to_string()))?;
            tools.writer.keep(owner, &map).await.map_err(trouble)?;
            note(owner, &stored, &memory, tools);
        }
        for action in actions {
            match action {
                Action::Create => {
                    let Some(asking) = &memory.asking else { continue };
                    let (prompts, number) = (&spec.prompt_set_ref.config_map_name, asking.number);
                    let address = address(owner, &valid.owner.name);
                    let job = job::job(policy, prompts, &valid, &address, tools.environment, number);
                    match tools.writer.create_job(owner, &job).await {
                        Ok(()) => {}
                        Err(error) if error.is_final() => {
                            refused(&mut memory, now, &error);
                            let map =
                                record::map(policy, &memory).map_err(|error| Trouble::Store(error.to_string()))?;
                            tools.writer.keep(owner, &map).await.map_err(trouble)?;
                        }
                        Err(error) => return Err(trouble(error)),
                    }
                }
                Action::Delete(number) => {
                    let name = job::name(&owner.name, number);
                    tools.writer.delete_job(owner, policy, &name).await.map_err(trouble)?;
                }
            }
        }
        self.said = Some(memory.said(target.revision.as_deref(), drifted));
        self.memory = Some(memory);
        Ok(())
    }

    /// What was stored, read once. Left empty while the look is under way, so that one that fails reads it again.
    async fn stored(&mut self, owner: &Owner, policy: &DriftPolicy, tools: &Tools<'_>) -> Result<Memory, Trouble> {
        if let Some(memory) = self.memory.take() {
            return Ok(memory);
        }
        let mut like = ConfigMap::default();
        like.metadata.name = Some(record::name(&owner.name));
        like.metadata.owner_references = policy.controller_owner_ref(&()).map(|owner| vec![owner]);
        let found = tools.writer.config_map(owner, &like).await.map_err(trouble)?;
        Ok(found.and_then(|map| record::read(&map)).unwrap_or_default())
    }
}

/// A run whose Job may not be made is one that failed: it is tried again later, and holds up nothing else.
fn refused(memory: &mut Memory, now: i64, error: &apply::Error) {
    memory.asking = None;
    memory.fail(now, error.to_string());
}

/// Counts a run that ended, and logs when the service begins or ceases to answer otherwise.
fn note(owner: &Owner, before: &Memory, now: &Memory, tools: &Tools<'_>) {
    if now.failure.is_some() && now.failure != before.failure {
        tools.metrics.probe_run("failed");
    }
    if (now.known.runs, now.known.last) == (before.known.runs, before.known.last) {
        return;
    }
    let changed = |memory: &Memory| {
        memory
            .verdict()
            .is_some_and(|verdict| verdict.probes == Probes::Changed)
    };
    tools.metrics.probe_run(match now.verdict() {
        None => "learning",
        Some(_) if changed(now) => "changed",
        Some(_) => "same",
    });
    if changed(before) != changed(now) {
        let (namespace, name, changed) = (&owner.namespace, &owner.name, changed(now));
        tracing::info!(
            namespace,
            name,
            changed,
            "Fixed prompts say something else of the service."
        );
    }
}

/// The revision that serves, if nothing is being rolled out and somebody answers.
fn settled(object: &LLMDeployment, target: &Target) -> Option<String> {
    let status = object.status.as_ref()?;
    let seen = Some(status.observed_generation) == object.metadata.generation;
    let serves = target.revision.as_deref()?;
    let one = status.stable_revision.as_deref() == Some(serves) && status.update_revision.as_deref() == Some(serves);
    (seen && one && target.replicas.iter().any(|replica| replica.ready)).then(|| serves.to_owned())
}

/// The Service of the target, for a pod in the same cluster.
fn address(owner: &Owner, service: &str) -> String {
    format!("http://{service}.{}.svc", owner.namespace)
}

async fn seen(
    owner: &Owner,
    policy: &DriftPolicy,
    memory: &Memory,
    tools: &Tools<'_>,
) -> Result<Option<crate::cycle::step::State>, Trouble> {
    let Some(asking) = &memory.asking else {
        return Ok(None);
    };
    let name = job::name(&owner.name, asking.number);
    let Some(job) = tools.writer.job(owner, policy, &name).await.map_err(trouble)? else {
        return Ok(None);
    };
    let pods = tools.writer.pods_of_job(owner, &name).await.map_err(trouble)?;
    Ok(Some(jobs_seen::state(&job, &pods)))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn trouble(error: apply::Error) -> Trouble {
    Trouble::Store(error.to_string())
}
