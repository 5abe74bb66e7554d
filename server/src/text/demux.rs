//! Hands each step's updates to their requests, and measures them as they pass.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use perennial_engine::{FinishReason, RequestId, SequenceUpdate, Updates};

use super::mailbox::Mailbox;
use crate::metrics::{Metrics, Outcome};
use crate::shared::Shared;

struct Entry {
    mailbox: Arc<Mailbox>,
    arrived: Instant,
    /// When it left the queue.
    started: Option<Instant>,
    last_token: Option<Instant>,
    prompt_tokens: usize,
    generated: usize,
}

impl Entry {
    fn end(&self, outcome: Outcome, now: Instant, metrics: &Metrics) {
        let computed = self.started.map(|started| now - started);
        metrics.finished(
            outcome,
            self.prompt_tokens,
            self.generated,
            now - self.arrived,
            computed,
        );
    }
}

/// The requests that wait for tokens.
#[derive(Default)]
pub struct Demux {
    entries: Mutex<HashMap<RequestId, Entry>>,
}

impl Demux {
    pub(super) fn register(&self, id: RequestId, prompt_tokens: usize) -> Arc<Mailbox> {
        let arrived = Instant::now();
        let mailbox = Arc::new(Mailbox::new(arrived));
        let entry = Entry {
            mailbox: Arc::clone(&mailbox),
            arrived,
            started: None,
            last_token: None,
            prompt_tokens,
            generated: 0,
        };
        self.entries.lock().insert(id, entry);
        mailbox
    }

    /// Forgets a request that the engine did not take.
    pub(super) fn forget(&self, id: RequestId) {
        self.entries.lock().remove(&id);
    }

    /// Forgets a request whose text ended before its tokens did: a stop string was found, or nobody listens.
    pub(super) fn finish(&self, id: RequestId, outcome: Outcome, metrics: &Metrics) {
        if let Some(entry) = self.entries.lock().remove(&id) {
            entry.end(outcome, Instant::now(), metrics);
        }
    }

    /// Runs until the engine is gone; then every request that still waits has failed.
    pub async fn run(&self, mut updates: Updates, shared: &Shared) {
        while let Some(step) = updates.recv().await {
            let now = Instant::now();
            let mut entries = self.entries.lock();
            for update in step.sequences {
                apply(&mut entries, update, now, &shared.metrics);
            }
        }
        let reason = FinishReason::Failed("the engine has stopped".into());
        for (_, entry) in self.entries.lock().drain() {
            entry.mailbox.put(None, None, Some(reason.clone()), Instant::now());
        }
    }
}

fn apply(entries: &mut HashMap<RequestId, Entry>, update: SequenceUpdate, now: Instant, metrics: &Metrics) {
    if let Some(waited) = update.queued_for {
        metrics.left_queue(waited);
    }
    let Some(entry) = entries.get_mut(&update.id) else {
        return;
    };
    if update.queued_for.is_some() {
        entry.started = Some(now);
    }
    if update.token.is_some() {
        match entry.last_token.replace(now) {
            None => metrics.first_token(now - entry.arrived),
            Some(before) => metrics.next_token(now - before),
        }
        entry.generated += 1;
        metrics.generated();
    }
    entry
        .mailbox
        .put(update.token, update.confidence, update.finished.clone(), now);
    if let Some(reason) = update.finished {
        let outcome = match reason {
            FinishReason::End => Outcome::Stop,
            FinishReason::Length => Outcome::Length,
            FinishReason::Cancelled => Outcome::Abort,
            FinishReason::Failed(_) => Outcome::Error,
        };
        entry.end(outcome, now, metrics);
        entries.remove(&update.id);
    }
}
