//! One look at the cycles of one policy: read (`seen`), decide, store, do (`act`).

mod act;
mod seen;

use std::collections::BTreeSet;

use kube::ResourceExt;
use perennial_crds::conditions::Reason;
use perennial_crds::{DriftPolicy, LLMDeployment};

use self::act::{carry_out, note};
use self::seen::{Templates, blind, jobs_of, load, observe, restore_of, strays};
use super::ledger::{Ledger, Stage};
use super::progress::Told;
use super::step::{Policy, Standing, Step, call_off, step};
use super::words::Cycles;
use super::{record, target};
use crate::apply::{self, Writer};
use crate::deployment::build::Environment;
use crate::deployment::observe::Indexes;
use crate::deployment::validate::validate;
use crate::drift::memory::Memory;
use crate::drift::status::Trouble;
use crate::drift::words::Introduces;
use crate::index::Owner;
use crate::loading::LoadingReader;
use crate::metrics::Metrics;
use crate::probes::memory::Said;

/// Seconds from one look for Jobs without a cycle to the next.
const STRAYS: i64 = 60;
/// Seconds in which a target that is gone may come back before its cycle ends.
const GONE: i64 = 300;

/// Gives the paths on a claim, of a namespace and a name, from which LLMDeployments take models.
pub type Places = Box<dyn Fn(&str, &str) -> BTreeSet<String> + Send + Sync>;

/// What a look works with.
pub struct Tools<'a> {
    /// Reads and writes.
    pub writer: &'a Writer,
    /// Asks Jobs how far they are.
    pub loading: &'a LoadingReader,
    /// The caches.
    pub indexes: &'a Indexes,
    /// Knows from where models are served.
    pub places: &'a Places,
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
    /// Since when there is no target, seconds since 1970.
    gone_since: Option<i64>,
    /// Without a target, and no Job runs.
    cleared: bool,
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

    /// The learned model that is being rolled out.
    #[must_use]
    pub fn introduces(&self) -> Introduces {
        let Some(ledger) = &self.ledger else {
            return Introduces::Unknown;
        };
        let model = ledger.introduces();
        model.map_or(Introduces::Nothing, |model| Introduces::Model(model.digest.clone()))
    }

    /// There is no target, or another policy has it: a cycle that is under way ends, and its Jobs go. One that was removed may
    /// come back soon.
    ///
    /// # Errors
    /// [`Trouble::Store`]; then all is read again before the next look.
    pub async fn call_off(
        &mut self,
        owner: &Owner,
        policy: &DriftPolicy,
        why: &Trouble,
        tools: &Tools<'_>,
        now: i64,
    ) -> Result<(), Trouble> {
        let since = *self.gone_since.get_or_insert(now);
        if self.cleared || policy.spec.retraining.is_none() {
            return Ok(());
        }
        let mut ledger = match self.ledger.take() {
            Some(ledger) => ledger,
            None => load(owner, policy, tools).await?,
        };
        let (reason, told) = match why {
            Trouble::TargetTaken(_) => (Reason::TargetTaken, "another policy watches the target"),
            _ => (Reason::TargetNotFound, "the target is not there any more"),
        };
        let waits = matches!(why, Trouble::TargetNotFound) && now - since < GONE;
        if ledger.cycle.is_some() && !waits {
            let (name, uid) = (policy.name_any(), policy.uid().unwrap_or_default());
            let identity = Policy { name: &name, uid: &uid };
            let mut observed = blind(now, policy);
            observed.jobs = jobs_of(owner, policy, &ledger, tools, now).await?.0;
            let after = call_off(&ledger, &observed, &policy.spec, &identity, (reason.as_str(), told));
            tools
                .writer
                .keep(owner, &record::map(policy, &after))
                .await
                .map_err(trouble)?;
            note(owner, tools, &ledger, &after);
            ledger = after;
        }
        if ledger.cycle.is_none() {
            let left = strays(owner, policy, &ledger, tools).await?;
            for name in &left {
                tools.writer.delete_job(owner, policy, name).await.map_err(trouble)?;
            }
            self.cleared = left.is_empty();
            self.standing = Some(Standing::Idle {
                reason,
                message: told.to_owned(),
                blocked: false,
            });
        }
        self.ledger = Some(ledger);
        Ok(())
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
        (self.gone_since, self.cleared) = (None, false);
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
        if let Some(retraining) = policy.spec.retraining.as_ref().filter(|_| stored.cycle.is_none()) {
            let claim = &retraining.workspace.persistent_volume_claim.claim_name;
            observed.places = (tools.places)(&owner.namespace, claim);
        }
        if now >= self.strays_at {
            observed.strays = strays(owner, policy, &stored, tools).await?;
            self.strays_at = now + STRAYS;
        }
        observed.reported = std::mem::take(&mut self.reported);
        let (name, uid) = (policy.name_any(), policy.uid().unwrap_or_default());
        let identity = Policy { name: &name, uid: &uid };
        observed.restore = restore_of(owner, policy, &identity, &stored, tools).await?;
        let (jobs, trains_at) = jobs_of(owner, policy, &stored, tools, now).await?;
        observed.jobs = jobs;
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

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn trouble(error: apply::Error) -> Trouble {
    Trouble::Store(error.to_string())
}
