//! One look at one policy: ask the replicas, take what they tell, store it, say where the policy stands.
//!
//! An [`Entry`] holds nothing that is not stored or cannot be asked for again, so it may be dropped at any moment.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;
use perennial_crds::drift_policy::DriftPolicyStatus;
use perennial_crds::serving::Observation;
use perennial_crds::{DriftPolicy, LEARN_AGAIN_ANNOTATION, LLMDeployment};
use perennial_drift::observe::Assembler;
use perennial_drift::pane::key::{RING, Source};
use perennial_drift::pane::layout::Layout;
use perennial_drift::policy::Policy;
use tokio::sync::Semaphore;

use super::heard::{Answer, accept, fill, hearing, layout};
use super::memory::{Changes, Memory, Stage};
use super::notice;
use super::pane_reader::PaneReader;
use super::status::{Hearing, Trouble, View, status};
use super::store::{forget, load, store};
use super::target::{Replica, Target, target};
use super::terms::{self, About};
use crate::apply::{self, Writer};
use crate::cycle::drive::{Drive, Heard, Tools};
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
}

impl Hands {
    /// With these.
    #[must_use]
    pub fn new(
        writer: Writer,
        (reader, loading): (PaneReader, LoadingReader),
        metrics: Arc<Metrics>,
        environment: Environment,
    ) -> Self {
        Self {
            environment,
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
                Err(trouble.unwrap_or(Trouble::TargetNotFound))
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

    async fn cycle(
        &mut self,
        owner: &Owner,
        policy: &DriftPolicy,
        object: &LLMDeployment,
        indexes: &Indexes,
        hands: &Hands,
        now: i64,
    ) -> Result<(), Trouble> {
        let tools = Tools {
            writer: &hands.writer,
            loading: &hands.loading,
            indexes,
            environment: &hands.environment,
            metrics: &hands.metrics,
        };
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

    fn drop_assembler(&mut self) {
        self.assembler = None;
        self.lost = 0;
        self.boots.clear();
        self.covered_from = i64::MAX;
    }

    async fn watch(
        &mut self,
        owner: &Owner,
        policy: &DriftPolicy,
        target: &Target,
        terms: &Policy,
        hands: &Hands,
        now: i64,
    ) -> Result<(), Trouble> {
        if !self.loaded {
            self.memory = load(owner, policy, hands).await?;
            self.loaded = true;
        }
        let known = self.memory.as_ref().map(|memory| memory.about.model.clone());
        let Some(model) = target.model.clone().or(known) else {
            self.hearing = Hearing::NoReplica;
            self.due = now + IDLE;
            return Ok(());
        };
        let again = policy.annotations().get(LEARN_AGAIN_ANNOTATION).map(String::as_str);
        let about = About::new(&policy.spec, &target.uid, &model, again);
        let differs = self.memory.as_ref().and_then(|memory| about.differs(&memory.about));
        if let Some(why) = differs {
            self.begin_anew(owner, policy, hands, why).await?;
        }
        if target.replicas.is_empty() {
            self.hearing = Hearing::NoReplica;
            self.drop_assembler();
            self.due = now + IDLE;
            return Ok(());
        }
        let answers = self.ask(target, about.pane_seconds, hands).await;
        let layouts: BTreeSet<u64> = answers.iter().filter_map(|(_, answer)| layout(answer)).collect();
        self.hearing = hearing(&answers, layouts.len(), now, about.pane_seconds);
        self.due = now + i64::from(about.pane_seconds / 10).clamp(1, 10);
        let (Some(layout), 1) = (layouts.first().copied(), layouts.len()) else {
            return Ok(());
        };
        if self.memory.as_ref().is_some_and(|memory| memory.layout != layout) {
            self.begin_anew(owner, policy, hands, "the servers count in another way")
                .await?;
        }
        if self.memory.is_none() {
            let memory = Memory::new(about, layout, now);
            store(owner, policy, &memory, &Changes::default(), hands).await?;
            self.memory = Some(memory);
        }
        self.take(owner, policy, target, terms, answers, hands, now).await
    }

    /// Asks all replicas at the same time.
    async fn ask<'a>(&self, target: &'a Target, pane_seconds: u32, hands: &Hands) -> Vec<(&'a Replica, Answer)> {
        let asked = target.replicas.iter().map(|replica| async move {
            let boot = self.boots.get(&replica.uid);
            let after = boot.and_then(|boot| {
                self.assembler.as_ref()?.last_of(&Source {
                    pod: replica.uid.clone(),
                    boot: boot.clone(),
                })
            });
            let mut whole = after.is_none();
            let mut page = hands.reader.read(replica.address, after).await;
            if let (Ok(read), Some(boot), false) = (&page, boot, whole)
                && read.boot_id != *boot
            {
                whole = true;
                page = hands.reader.read(replica.address, None).await;
            }
            let answer = match page {
                Ok(page) if page.pane_seconds != pane_seconds => {
                    match hands
                        .reader
                        .observe(replica.address, Observation { pane_seconds })
                        .await
                    {
                        Ok(()) => Answer::Told,
                        Err(error) => Answer::Failed(error),
                    }
                }
                Ok(page) => Answer::Page { page, whole },
                Err(error) => Answer::Failed(error),
            };
            hands.metrics.read_panes(match &answer {
                Answer::Page { .. } | Answer::Told => "success",
                Answer::Failed(error) => error.label(),
            });
            (replica, answer)
        });
        futures::future::join_all(asked).await
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "called from one place, and each argument has a type of its own"
    )]
    async fn take(
        &mut self,
        owner: &Owner,
        policy: &DriftPolicy,
        target: &Target,
        terms: &Policy,
        answers: Vec<(&Replica, Answer)>,
        hands: &Hands,
        now: i64,
    ) -> Result<(), Trouble> {
        let Some(mut memory) = self.memory.take() else {
            return Ok(());
        };
        memory.serves(target.revision.as_deref(), now);
        let (layout, seconds) = (Layout::told(memory.layout), memory.about.pane_seconds);
        let assembler = self
            .assembler
            .get_or_insert_with(|| Assembler::new(&layout, seconds, memory.until));
        let (mut heard_until, mut missing) = (i64::MAX, false);
        for (replica, answer) in answers {
            let Answer::Page { page, whole } = answer else {
                missing |= replica.ready;
                continue;
            };
            heard_until = heard_until.min(page.now);
            if whole {
                let from = match page.panes.first() {
                    Some(oldest) if page.panes.len() >= RING => oldest.start,
                    _ => target.steady_since.unwrap_or(now),
                };
                self.covered_from = self.covered_from.min(from);
            }
            accept(assembler, &layout, replica, &page, now);
            self.boots.insert(replica.uid.clone(), page.boot_id);
        }
        // Nobody was heard: silence is not a time without requests.
        let heard = heard_until != i64::MAX;
        let until = if missing {
            now - i64::from(seconds / 2).max(STORE_RETRY)
        } else {
            heard_until.min(now)
        };
        let lost = assembler.counts().lost;
        let news = lost - self.lost;
        self.lost = lost;
        memory.seen.lost += news;
        hands.metrics.lost_panes(news);
        let mut intervals = if heard { assembler.close(until) } else { Vec::new() };
        for interval in &mut intervals {
            fill(interval, self.covered_from, &layout, seconds);
        }
        if intervals.is_empty() {
            self.memory = Some(memory);
            return Ok(());
        }
        let (steady_since, terms) = (target.steady_since, terms.clone());
        // Learning a baseline takes a while and a hundred megabytes: off the threads that others need, and one at a time.
        let learning = match &memory.stage {
            Stage::Learning(_) => Some(hands.learning.acquire().await),
            Stage::Watching(_) => None,
        };
        let taken = tokio::task::spawn_blocking(move || {
            let outcome = memory.take(intervals, steady_since, &terms);
            (memory, outcome)
        });
        let (memory, outcome) = taken.await.map_err(|error| Trouble::Store(error.to_string()))?;
        drop(learning);
        let changes = outcome.map_err(|error| Trouble::Store(error.to_string()))?;
        if changes.restarted {
            tracing::info!(
                namespace = owner.namespace,
                name = owner.name,
                "The terms changed; evidence begins anew."
            );
        }
        store(owner, policy, &memory, &changes, hands).await?;
        let next = memory.until + i64::from(seconds) + 1;
        if next > now {
            self.due = next;
        }
        self.memory = Some(memory);
        Ok(())
    }

    /// Forgets the baseline and all that was learned.
    async fn begin_anew(
        &mut self,
        owner: &Owner,
        policy: &DriftPolicy,
        hands: &Hands,
        why: &str,
    ) -> Result<(), Trouble> {
        tracing::info!(
            namespace = owner.namespace,
            name = owner.name,
            why,
            "A new baseline is learned."
        );
        forget(owner, policy, hands).await?;
        self.memory = None;
        self.drop_assembler();
        Ok(())
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
            keep(&mut new, &old);
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

/// Keeps what an older status knows of the memory.
fn keep(new: &mut DriftPolicyStatus, old: &DriftPolicyStatus) {
    new.phase = old.phase.or(new.phase);
    new.phase_since = old.phase_since.clone().or_else(|| new.phase_since.clone());
    new.top_signal.clone_from(&old.top_signal);
    new.cause.clone_from(&old.cause);
    new.baseline.clone_from(&old.baseline);
    new.observation.clone_from(&old.observation);
    new.evidence.clone_from(&old.evidence);
    new.signals.clone_from(&old.signals);
    new.probe = new.probe.take().or_else(|| old.probe.clone());
    new.cycle.clone_from(&old.cycle);
    new.cycles.clone_from(&old.cycles);
    new.cooldown_until.clone_from(&old.cooldown_until);
    new.unpromoted_in_a_row = old.unpromoted_in_a_row;
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
