//! What the replicas tell, and what is made of it.

use std::collections::BTreeSet;

use kube::ResourceExt;
use perennial_crds::serving::Observation;
use perennial_crds::{DriftPolicy, LEARN_AGAIN_ANNOTATION};
use perennial_drift::observe::Assembler;
use perennial_drift::pane::key::{RING, Source};
use perennial_drift::pane::layout::Layout;
use perennial_drift::policy::Policy;

use super::{Entry, Hands, IDLE, STORE_RETRY};
use crate::drift::heard::{Answer, accept, fill, hearing, layout};
use crate::drift::memory::{Changes, Memory, Stage};
use crate::drift::status::{Hearing, Trouble};
use crate::drift::store::{forget, load, store};
use crate::drift::target::{Replica, Target};
use crate::drift::terms::About;
use crate::index::Owner;

impl Entry {
    pub(super) fn drop_assembler(&mut self) {
        self.assembler = None;
        self.lost = 0;
        self.boots.clear();
        self.covered_from = i64::MAX;
    }

    pub(super) async fn watch(
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
}
