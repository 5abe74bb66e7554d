//! The wheel: every second the policies whose next pane is due are looked at, many at the same time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kube::ResourceExt;
use perennial_crds::status::DriftStatus;
use perennial_crds::{DriftPolicy, LLMDeployment};
use tokio::time::MissedTickBehavior;

use super::look::{Entry, Hands};
use super::status::Trouble;
use super::words::Words;
use crate::autoscaling::board::Board;
use crate::deployment::observe::Indexes;
use crate::index::Owner;
use crate::metrics::Metrics;

/// From one round to the next.
const ROUND: Duration = Duration::from_secs(1);
/// Policies that are looked at together.
const CONCURRENCY: usize = 16;
/// Time for one look; one that takes longer begins anew from what is stored.
const PATIENCE: Duration = Duration::from_secs(120);

/// Gives the policies that are there at this moment.
pub type Policies = Box<dyn Fn() -> Vec<Arc<DriftPolicy>> + Send + Sync>;
/// Gives an LLMDeployment.
pub type Targets = Box<dyn Fn(&Owner) -> Option<Arc<LLMDeployment>> + Send + Sync>;

/// Looks at policies until it is dropped.
pub struct Wheel {
    policies: Policies,
    targets: Targets,
    indexes: Indexes,
    hands: Hands,
    words: Words,
    board: Board,
    metrics: Arc<Metrics>,
    entries: HashMap<Owner, Entry>,
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
    ) -> Self {
        Self {
            words,
            board,
            policies,
            targets,
            indexes,
            hands,
            metrics,
            entries: HashMap::new(),
            phases: HashMap::new(),
        }
    }

    /// Turns until dropped.
    pub async fn run(mut self) {
        self.indexes.wait_until_ready().await;
        let mut ticks = tokio::time::interval(ROUND);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.round(Timestamp::now()).await;
        }
    }

    async fn round(&mut self, now: Timestamp) {
        let mut policies = (self.policies)();
        policies.retain(|policy| policy.metadata.deletion_timestamp.is_none());
        // The older of two policies of one target acts.
        policies.sort_by_key(|policy| (policy.creation_timestamp().map(|time| time.0), policy.name_any()));
        let mut watched: HashMap<Owner, String> = HashMap::new();
        let mut present: HashMap<Owner, (Arc<DriftPolicy>, Option<Trouble>)> = HashMap::new();
        for policy in policies {
            let (owner, target) = (owner(&policy), target(&policy));
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
        let mut due = Vec::new();
        for (owner, (policy, trouble)) in &present {
            let entry = self.entries.remove(owner).unwrap_or_else(|| Entry::new(policy));
            if entry.is_due(policy, trouble.as_ref(), now) {
                due.push((owner.clone(), entry, Arc::clone(policy), trouble.clone()));
            } else {
                self.entries.insert(owner.clone(), entry);
            }
        }
        let (hands, indexes, targets) = (&self.hands, &self.indexes, &self.targets);
        let looks = due.into_iter().map(|(owner, mut entry, policy, trouble)| async move {
            let target = (targets)(&target(&policy));
            let look = entry.look(&owner, &policy, target.as_deref(), trouble, indexes, hands, now);
            let done = tokio::time::timeout(PATIENCE, look).await.is_ok();
            (owner, done.then_some(entry))
        });
        let done: Vec<_> = futures::stream::iter(looks)
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        for (owner, entry) in done {
            if let Some(entry) = entry {
                self.entries.insert(owner, entry);
            } else {
                tracing::warn!(
                    namespace = owner.namespace,
                    name = owner.name,
                    "A look took too long; beginning anew."
                );
            }
        }
        self.tell(&present);
        self.count();
    }

    /// Tells the targets' statuses what their policies say.
    fn tell(&self, present: &HashMap<Owner, (Arc<DriftPolicy>, Option<Trouble>)>) {
        let words = present.iter().filter_map(|(owner, (policy, trouble))| {
            // One whose look has not come to an end since this operator leads still says what it said before.
            let before = || policy.status.as_ref().and_then(|status| status.phase);
            let phase = self.entries.get(owner).and_then(Entry::phase);
            let said = DriftStatus {
                policy: owner.name.clone(),
                phase: phase.or_else(|| before().map(|phase| format!("{phase:?}")))?,
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
            .iter()
            .filter_map(|(owner, entry)| Some((owner.clone(), entry.phase()?)))
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

fn owner(policy: &DriftPolicy) -> Owner {
    Owner {
        namespace: policy.namespace().unwrap_or_default(),
        name: policy.name_any(),
    }
}

fn target(policy: &DriftPolicy) -> Owner {
    Owner {
        namespace: policy.namespace().unwrap_or_default(),
        name: policy.spec.target_ref.name.clone(),
    }
}
