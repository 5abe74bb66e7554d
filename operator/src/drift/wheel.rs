//! The wheel: every second the policies whose next pane is due are looked at, many at the same time. One look that gets no
//! answer holds up no other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use kube::ResourceExt;
use perennial_crds::status::DriftStatus;
use perennial_crds::{DriftPolicy, LLMDeployment};
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;

use super::look::{Entry, Hands};
use super::status::Trouble;
use super::words::{Introduces, Said, Words};
use crate::autoscaling::board::Board;
use crate::deployment::observe::Indexes;
use crate::index::Owner;
use crate::metrics::Metrics;

/// From one round to the next.
const ROUND: Duration = Duration::from_secs(1);
/// Policies that are looked at together.
const CONCURRENCY: usize = 16;

/// Gives the policies that are there at this moment.
pub type Policies = Box<dyn Fn() -> Vec<Arc<DriftPolicy>> + Send + Sync>;
/// Gives an LLMDeployment.
pub type Targets = Box<dyn Fn(&Owner) -> Option<Arc<LLMDeployment>> + Send + Sync>;

/// Looks at policies until it is dropped.
pub struct Wheel {
    policies: Policies,
    targets: Targets,
    indexes: Indexes,
    hands: Arc<Hands>,
    words: Words,
    board: Board,
    metrics: Arc<Metrics>,
    /// Time for one look; one that takes longer begins anew from what is stored.
    patience: Duration,
    permits: Arc<Semaphore>,
    /// Looks under way; each gives its entry back, or nothing if it took too long.
    looks: FuturesUnordered<BoxFuture<'static, (Owner, Option<Entry>)>>,
    /// Whose, with what each introduced before.
    looking: HashMap<Owner, Introduces>,
    /// Of all others.
    entries: HashMap<Owner, Entry>,
    /// The policies of the last round, and why each can do nothing.
    present: HashMap<Owner, (Arc<DriftPolicy>, Option<Trouble>)>,
    phases: HashMap<Owner, String>,
}

impl Wheel {
    /// A wheel that knows nothing yet.
    #[must_use]
    pub fn new(
        policies: Policies,
        targets: Targets,
        indexes: Indexes,
        hands: Hands,
        (words, board): (Words, Board),
        metrics: Arc<Metrics>,
        patience: Duration,
    ) -> Self {
        Self {
            words,
            board,
            policies,
            targets,
            indexes,
            hands: Arc::new(hands),
            metrics,
            patience,
            permits: Arc::new(Semaphore::new(CONCURRENCY)),
            looks: FuturesUnordered::new(),
            looking: HashMap::new(),
            entries: HashMap::new(),
            present: HashMap::new(),
            phases: HashMap::new(),
        }
    }

    /// Turns until dropped.
    pub async fn run(mut self) {
        self.indexes.wait_until_ready().await;
        let mut ticks = tokio::time::interval(ROUND);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.round(Timestamp::now()),
                Some((owner, entry)) = self.looks.next() => self.looked(owner, entry),
            }
        }
    }

    /// Begins to look at what is due.
    fn round(&mut self, now: Timestamp) {
        let mut policies = (self.policies)();
        policies.retain(|policy| policy.metadata.deletion_timestamp.is_none());
        // The older of two policies of one target acts.
        policies.sort_by_key(|policy| (policy.creation_timestamp().map(|time| time.0), policy.name_any()));
        let mut watched: HashMap<Owner, String> = HashMap::new();
        let mut present: HashMap<Owner, (Arc<DriftPolicy>, Option<Trouble>)> = HashMap::new();
        for policy in policies {
            let (owner, target) = (Owner::of(&*policy), target(&policy));
            let trouble = match watched.get(&target) {
                Some(older) => Some(Trouble::TargetTaken(older.clone())),
                None => {
                    watched.insert(target.clone(), owner.name.clone());
                    (self.targets)(&target).is_none().then_some(Trouble::TargetNotFound)
                }
            };
            present.insert(owner, (policy, trouble));
        }
        self.entries
            .retain(|owner, entry| present.get(owner).is_some_and(|(policy, _)| entry.is_of(policy)));
        for (owner, (policy, trouble)) in &present {
            if self.looking.contains_key(owner) {
                continue;
            }
            let entry = self.entries.remove(owner).unwrap_or_else(|| Entry::new(policy));
            if entry.is_due(policy, trouble.as_ref(), now) {
                self.begin(owner.clone(), entry, Arc::clone(policy), trouble.clone());
            } else {
                self.entries.insert(owner.clone(), entry);
            }
        }
        self.present = present;
        self.tell();
        self.count();
    }

    fn begin(&mut self, owner: Owner, mut entry: Entry, policy: Arc<DriftPolicy>, trouble: Option<Trouble>) {
        self.looking.insert(owner.clone(), entry.introduces());
        let target = (self.targets)(&target(&policy));
        let (hands, indexes, permits) = (Arc::clone(&self.hands), self.indexes.clone(), Arc::clone(&self.permits));
        let patience = self.patience;
        self.looks.push(Box::pin(async move {
            // Never closed.
            let _permit = permits.acquire_owned().await;
            let now = Timestamp::now();
            let look = entry.look(&owner, &policy, target.as_deref(), trouble, &indexes, &hands, now);
            let done = tokio::time::timeout(patience, look).await.is_ok();
            (owner, done.then_some(entry))
        }));
    }

    fn looked(&mut self, owner: Owner, entry: Option<Entry>) {
        let before = self.looking.remove(&owner);
        if let Some(entry) = entry {
            let changed = before.as_ref() != Some(&entry.introduces());
            self.entries.insert(owner, entry);
            if changed {
                // A rollout need not wait for the next round, nor one that was called off.
                self.tell();
            }
        } else {
            tracing::warn!(
                namespace = owner.namespace,
                name = owner.name,
                "A look took too long; beginning anew."
            );
        }
    }

    /// What a policy said at the end of its last look.
    fn phase(&self, owner: &Owner) -> Option<String> {
        if self.looking.contains_key(owner) {
            self.phases.get(owner).cloned()
        } else {
            self.entries.get(owner).and_then(Entry::phase)
        }
    }

    /// What a policy had rolled out at the end of its last look.
    fn introduces(&self, owner: &Owner) -> Introduces {
        let before = self.looking.get(owner).cloned();
        before
            .or_else(|| self.entries.get(owner).map(Entry::introduces))
            .unwrap_or_default()
    }

    /// Tells the targets' statuses what their policies say.
    fn tell(&self) {
        let words = self.present.iter().filter_map(|(owner, (policy, trouble))| {
            // One whose look has not come to an end since this operator leads still says what it said before.
            let before = || policy.status.as_ref().and_then(|status| status.phase);
            let phase = self.phase(owner);
            let said = Said {
                status: DriftStatus {
                    policy: owner.name.clone(),
                    phase: phase.or_else(|| before().map(|phase| format!("{phase:?}")))?,
                },
                introduces: self.introduces(owner),
            };
            trouble.is_none().then(|| (target(policy), said))
        });
        for changed in self.words.say(words.collect()) {
            self.board.nudge(&changed);
        }
    }

    /// Keeps the count of policies by phase.
    fn count(&mut self) {
        let now: HashMap<Owner, String> = self
            .entries
            .keys()
            .chain(self.looking.keys())
            .filter_map(|owner| Some((owner.clone(), self.phase(owner)?)))
            .collect();
        for (owner, phase) in &self.phases {
            if now.get(owner) != Some(phase) {
                self.metrics.policy_moved(Some(phase), None);
            }
        }
        for (owner, phase) in &now {
            if self.phases.get(owner) != Some(phase) {
                self.metrics.policy_moved(None, Some(phase));
            }
        }
        self.phases = now;
    }
}

impl Drop for Wheel {
    /// Whoever leads next counts its own.
    fn drop(&mut self) {
        for phase in self.phases.values() {
            self.metrics.policy_moved(Some(phase), None);
        }
    }
}

fn target(policy: &DriftPolicy) -> Owner {
    Owner {
        namespace: policy.namespace().unwrap_or_default(),
        name: policy.spec.target_ref.name.clone(),
    }
}
