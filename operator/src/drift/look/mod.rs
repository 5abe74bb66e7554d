//! One look at one policy: ask the replicas, take what they tell, store it, say where the policy stands.
//!
//! An [`Entry`] holds nothing that is not stored or cannot be asked for again, so it may be dropped at any moment.

mod watch;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;
use perennial_crds::capture::Level;
use perennial_crds::drift_policy::DriftPolicyStatus;
use perennial_crds::{DriftPolicy, LEARN_AGAIN_ANNOTATION, LLMDeployment};
use perennial_drift::observe::Assembler;
use perennial_drift::policy::Policy;
use tokio::sync::Semaphore;

use super::memory::Memory;
use super::notice;
use super::pane_reader::PaneReader;
use super::status::{Hearing, Trouble, View, status};
use super::target::{Target, target};
use super::terms;
use super::words::Introduces;
use crate::apply::{self, Writer};
use crate::cycle::drive::{Drive, Heard, Places, Tools};
use crate::deployment::build::Environment;
use crate::deployment::observe::Indexes;
use crate::index::Owner;
use crate::loading::LoadingReader;
use crate::metrics::Metrics;
use crate::probes;
use crate::probes::drive::Prober;

/// Seconds until a store that failed is tried again.
const STORE_RETRY: i64 = 10;
/// Seconds from one look to the next while a cycle is under way.
const CYCLING: i64 = 3;
/// Seconds until a target without replicas, or none at all, is looked at again.
const IDLE: i64 = 5;

/// What a look works with.
pub struct Hands {
    /// Writes, and reads what was written.
    pub writer: Writer,
    /// Asks pods for panes.
    pub reader: PaneReader,
    /// Asks Jobs how far they are.
    pub loading: LoadingReader,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// One baseline is learned at a time.
    pub learning: Semaphore,
    /// Settings of the operator, for Jobs.
    pub environment: Environment,
    /// Knows from where models are served.
    pub places: Places,
}

impl Hands {
    /// With these.
    #[must_use]
    pub fn new(
        writer: Writer,
        (reader, loading): (PaneReader, LoadingReader),
        metrics: Arc<Metrics>,
        environment: Environment,
        places: Places,
    ) -> Self {
        Self {
            environment,
            places,
            writer,
            reader,
            loading,
            metrics,
            learning: Semaphore::new(1),
        }
    }
}

/// One policy between two looks.
pub struct Entry {
    uid: String,
    seen: (Option<i64>, Option<String>),
    due: i64,
    loaded: bool,
    memory: Option<Memory>,
    assembler: Option<Assembler>,
    /// Losses of this assembler that are in the memory already.
    lost: u64,
    /// The process that was last heard in each pod.
    boots: HashMap<String, String>,
    /// From then on a time without panes is a time without requests; before it nobody knows.
    covered_from: i64,
    hearing: Hearing,
    prober: Prober,
    drive: Drive,
    trouble: Option<Trouble>,
    written: Option<DriftPolicyStatus>,
}

impl Entry {
    /// Of a policy of which nothing is known.
    #[must_use]
    pub fn new(policy: &DriftPolicy) -> Self {
        Self {
            uid: policy.uid().unwrap_or_default(),
            seen: (None, None),
            due: 0,
            loaded: false,
            memory: None,
            assembler: None,
            lost: 0,
            boots: HashMap::new(),
            covered_from: i64::MAX,
            hearing: Hearing::Unknown,
            prober: Prober::default(),
            drive: Drive::default(),
            trouble: None,
            written: None,
        }
    }

    /// Whether it is of this very policy, and not of an earlier one of the same name.
    #[must_use]
    pub fn is_of(&self, policy: &DriftPolicy) -> bool {
        policy.uid().as_ref() == Some(&self.uid)
    }

    /// Whether it is time to look, or something has changed.
    #[must_use]
    pub fn is_due(&self, policy: &DriftPolicy, trouble: Option<&Trouble>, now: Timestamp) -> bool {
        let other = self
            .trouble
            .as_ref()
            .filter(|trouble| !matches!(trouble, Trouble::Store(_)));
        now.as_second() >= self.due || self.seen != fingerprint(policy) || other != trouble
    }

    /// Its phase, as last said.
    #[must_use]
    pub fn phase(&self) -> Option<String> {
        Some(format!("{:?}", self.written.as_ref()?.phase?))
    }

    /// The learned model that it rolls out.
    #[must_use]
    pub fn introduces(&self) -> Introduces {
        self.drive.introduces()
    }

    /// Looks, stores what was seen, and says so.
    #[expect(
        clippy::too_many_arguments,
        reason = "called from one place, and each argument has a type of its own"
    )]
    pub async fn look(
        &mut self,
        owner: &Owner,
        policy: &DriftPolicy,
        object: Option<&LLMDeployment>,
        trouble: Option<Trouble>,
        indexes: &Indexes,
        hands: &Hands,
        now: Timestamp,
    ) {
        self.seen = fingerprint(policy);
        let terms = terms::policy(&policy.spec);
        let outcome = match (trouble, object) {
            (None, Some(object)) => {
                let name = Owner {
                    namespace: owner.namespace.clone(),
                    name: object.name_any(),
                };
                let target = target(indexes, &name, object);
                let watched = self.watch(owner, policy, &target, &terms, hands, now.as_second()).await;
                let now = now.as_second();
                let capture = object.spec.capture.as_ref().map(|capture| capture.level);
                if capture == Some(Level::None) && matches!(self.hearing, Hearing::All(_)) {
                    self.hearing = Hearing::CaptureOff;
                }
                match watched {
                    Ok(()) => match self.probe(owner, policy, (object, &target), &terms, hands, now).await {
                        Ok(()) => self.cycle(owner, policy, object, indexes, hands, now).await,
                        Err(trouble) => Err(trouble),
                    },
                    Err(trouble) => Err(trouble),
                }
            }
            (trouble, _) => {
                self.due = now.as_second() + IDLE;
                let trouble = trouble.unwrap_or(Trouble::TargetNotFound);
                let tools = Self::tools(indexes, hands);
                let called_off = self.drive.call_off(owner, policy, &trouble, &tools, now.as_second());
                Err(called_off.await.err().unwrap_or(trouble))
            }
        };
        self.trouble = outcome.err();
        if let Some(Trouble::Store(why)) = &self.trouble {
            tracing::warn!(
                namespace = owner.namespace,
                name = owner.name,
                why,
                "Beginning anew from what is stored."
            );
            self.let_go();
            self.due = now.as_second() + STORE_RETRY;
        }
        self.say(owner, policy, &terms, hands, now).await;
    }

    async fn probe(
        &mut self,
        owner: &Owner,
        policy: &DriftPolicy,
        target: (&LLMDeployment, &Target),
        terms: &Policy,
        hands: &Hands,
        now: i64,
    ) -> Result<(), Trouble> {
        let tools = probes::drive::Tools {
            writer: &hands.writer,
            environment: &hands.environment,
            metrics: &hands.metrics,
        };
        let drifted = self.memory.as_ref().and_then(Memory::drifted_since);
        self.prober
            .look(owner, policy, target, terms, drifted, &tools, now)
            .await?;
        if self.prober.is_busy() {
            self.due = self.due.min(now + CYCLING);
        }
        Ok(())
    }

    fn tools<'a>(indexes: &'a Indexes, hands: &'a Hands) -> Tools<'a> {
        Tools {
            writer: &hands.writer,
            loading: &hands.loading,
            indexes,
            places: &hands.places,
            environment: &hands.environment,
            metrics: &hands.metrics,
        }
    }

    async fn cycle(
        &mut self,
        owner: &Owner,
        policy: &DriftPolicy,
        object: &LLMDeployment,
        indexes: &Indexes,
        hands: &Hands,
        now: i64,
    ) -> Result<(), Trouble> {
        let tools = Self::tools(indexes, hands);
        let heard = Heard {
            memory: self.memory.as_ref(),
            all: matches!(self.hearing, Hearing::All(_)),
            probes: self.prober.said(),
        };
        self.drive.look(owner, policy, object, heard, &tools, now).await?;
        if self.drive.is_running() {
            self.due = self.due.min(now + CYCLING);
        }
        Ok(())
    }

    /// Lets go of everything; it is read again from what is stored.
    fn let_go(&mut self) {
        self.prober = Prober::default();
        self.drive = Drive::default();
        self.loaded = false;
        self.memory = None;
        self.drop_assembler();
    }

    async fn say(&mut self, owner: &Owner, policy: &DriftPolicy, terms: &Policy, hands: &Hands, now: Timestamp) {
        let old = self
            .written
            .clone()
            .or_else(|| policy.status.clone())
            .unwrap_or_default();
        let view = View {
            policy,
            terms,
            memory: self.memory.as_ref(),
            hearing: &self.hearing,
            trouble: self.trouble.as_ref(),
            probes: self.prober.view(),
            cycles: self.drive.cycles(),
        };
        let mut new = status(&old, &view, now);
        if self.memory.is_none() && self.trouble.is_some() {
            // What is known stays.
            keep(&mut new, &old, self.drive.cycles().is_some());
        }
        if new == old {
            self.written = Some(new);
            return;
        }
        match hands.writer.policy_status(owner, &self.uid, &new).await {
            Ok(()) => {
                hands.writer.publish(policy, notice::notices(&old, &new)).await;
                self.written = Some(new);
            }
            Err(apply::Error::NotLeading) => {}
            Err(error) => {
                tracing::warn!(namespace = owner.namespace, name = owner.name, %error, "The status could not be written.");
            }
        }
    }
}

/// Whether a look is worth it before the next pane is due: generation, and the wish to learn again.
fn fingerprint(policy: &DriftPolicy) -> (Option<i64>, Option<String>) {
    (
        policy.metadata.generation,
        policy.annotations().get(LEARN_AGAIN_ANNOTATION).cloned(),
    )
}

/// Keeps what an older status knows of the memory, and of cycles if they are not known either.
fn keep(new: &mut DriftPolicyStatus, old: &DriftPolicyStatus, cycles_are_known: bool) {
    let is_over = cycles_are_known && old.cycle.is_some() && new.cycle.is_none();
    if !is_over {
        new.phase = old.phase.or(new.phase);
        new.phase_since = old.phase_since.clone().or_else(|| new.phase_since.clone());
    }
    new.top_signal.clone_from(&old.top_signal);
    new.cause.clone_from(&old.cause);
    new.baseline.clone_from(&old.baseline);
    new.observation.clone_from(&old.observation);
    new.evidence.clone_from(&old.evidence);
    new.signals.clone_from(&old.signals);
    new.probe = new.probe.take().or_else(|| old.probe.clone());
    if !cycles_are_known {
        new.cycle.clone_from(&old.cycle);
        new.cycles.clone_from(&old.cycles);
        new.cooldown_until.clone_from(&old.cooldown_until);
        new.unpromoted_in_a_row = old.unpromoted_in_a_row;
    }
    for kind in ["ServingChanged", "RetrainingBlocked", "CandidateAvailable"] {
        let before = old.conditions.iter().find(|condition| condition.type_ == kind);
        if let Some(before) = before.filter(|_| new.conditions.iter().all(|condition| condition.type_ != kind)) {
            new.conditions.push(before.clone());
        }
    }
    for kind in ["BaselineReady", "Drifted"] {
        let before = old.conditions.iter().find(|condition| condition.type_ == kind);
        let after = new.conditions.iter_mut().find(|condition| condition.type_ == kind);
        if let (Some(before), Some(after)) = (before, after) {
            let generation = after.observed_generation;
            *after = before.clone();
            after.observed_generation = generation;
        }
    }
}
