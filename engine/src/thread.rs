//! The engine's thread: takes requests in, schedules, steps, samples, and tells what happened.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use rayon::prelude::*;
use tokio::sync::mpsc;

use crate::batch::{BLOCK_SIZE, ModelRunner, StepBatch, StepOut};
use crate::confidence::confidence;
use crate::contract::{
    Engine, EngineInfo, FinishReason, LoadSnapshot, Queued, Rejected, RequestControl, RequestId, SequenceUpdate,
    StepUpdate,
};
use crate::gauges::Gauges;
use crate::sampler::sample;
use crate::scheduler::{Chosen, Limits, Produced, Row, Scheduler, Sequence};

/// Where an engine's updates come out. Dropping it stops the engine.
pub type Updates = mpsc::Receiver<StepUpdate>;

/// Updates that may lie unread before the engine merges new ones.
const UNREAD_UPDATES: usize = 64;

/// Logits of one step from which on several threads choose: fewer are done before another thread is awake.
const SHARED_LOGITS: usize = 1 << 17;

/// An engine on a thread of its own. The thread ends when the handle is dropped and its requests are done.
pub struct EngineHandle {
    info: EngineInfo,
    limits: Limits,
    gauges: Arc<Gauges>,
    inbox: SyncSender<Arrival>,
}

struct Arrival {
    sequence: Sequence,
    cancelled: Arc<AtomicBool>,
    at: Instant,
}

impl EngineHandle {
    /// Starts the thread around `runner`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(runner: Box<dyn ModelRunner>, limits: Limits) -> std::io::Result<(Self, Updates)> {
        let spec = runner.spec().clone();
        let gauges = Arc::new(Gauges::new(spec.blocks));
        let (inbox, arrivals) = sync_channel(limits.max_queued.max(1));
        let (updates, out) = mpsc::channel(UNREAD_UPDATES);
        let worker = Worker {
            scheduler: Scheduler::new(&limits, spec.blocks, spec.end_tokens.clone()),
            runner,
            gauges: Arc::clone(&gauges),
            arrivals,
            updates,
            pending: StepUpdate::default(),
            live: HashMap::new(),
        };
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || worker.run())?;
        let info = EngineInfo {
            max_length: spec.max_length.min(spec.blocks * BLOCK_SIZE),
            vocabulary: spec.vocabulary,
            block_size: BLOCK_SIZE,
            blocks: spec.blocks,
            end_tokens: spec.end_tokens,
        };
        Ok((
            Self {
                info,
                limits,
                gauges,
                inbox,
            },
            out,
        ))
    }

    fn queue_full(&self) -> Rejected {
        let load = self.gauges.snapshot();
        Rejected::QueueFull {
            waiting: load.waiting,
            queued_tokens: load.queued_tokens,
            retry_after: self.gauges.retry_after(),
        }
    }
}

impl Engine for EngineHandle {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn submit(&self, request: Queued) -> Result<RequestControl, Rejected> {
        let stopped = || Rejected::Stopped("a step failed; see the log".to_owned());
        if self.gauges.failed.load(Ordering::Acquire) {
            return Err(stopped());
        }
        if self.gauges.draining.load(Ordering::Acquire) {
            return Err(Rejected::Draining);
        }
        let vocabulary = self.info.vocabulary;
        if request.prompt.is_empty() || request.prompt.iter().any(|&token| token as usize >= vocabulary) {
            return Err(Rejected::InvalidPrompt { vocabulary });
        }
        let (prompt, max_tokens) = (request.prompt.len(), request.max_tokens.max(1));
        if prompt.saturating_add(max_tokens) > self.info.max_length {
            return Err(Rejected::TooLong {
                prompt,
                max_tokens,
                limit: self.info.max_length,
            });
        }
        if !self
            .gauges
            .enter_queue(prompt, self.limits.max_queued, self.limits.max_queued_tokens)
        {
            return Err(self.queue_full());
        }
        let (control, cancelled) = RequestControl::new();
        let sequence = Sequence::new(request);
        let arrival = Arrival {
            sequence,
            cancelled,
            at: Instant::now(),
        };
        match self.inbox.try_send(arrival) {
            Ok(()) => Ok(control),
            Err(std::sync::mpsc::TrySendError::Full(_)) => {
                self.gauges.leave_queue(prompt);
                Err(self.queue_full())
            }
            Err(std::sync::mpsc::TrySendError::Disconnected(_)) => {
                self.gauges.leave_queue(prompt);
                Err(stopped())
            }
        }
    }

    fn load(&self) -> LoadSnapshot {
        self.gauges.snapshot()
    }

    fn drain(&self) {
        self.gauges.draining.store(true, Ordering::Release);
    }
}

struct Live {
    cancelled: Arc<AtomicBool>,
    /// Until the request first leaves the queue.
    queued_at: Option<Instant>,
}

struct Worker {
    scheduler: Scheduler,
    runner: Box<dyn ModelRunner>,
    gauges: Arc<Gauges>,
    arrivals: Receiver<Arrival>,
    updates: mpsc::Sender<StepUpdate>,
    /// Not sent yet: filled by this step, or left over while nobody read.
    pending: StepUpdate,
    live: HashMap<RequestId, Live>,
}

impl Worker {
    fn run(mut self) {
        let mut batch = StepBatch::default();
        let mut out = StepOut::default();
        while self.take_arrivals() {
            self.sweep_cancelled();
            let stepped = if self.scheduler.schedule(&mut batch) {
                self.step(&batch, &mut out)
            } else {
                Ok(())
            };
            self.publish();
            if let Err(failure) = stepped {
                self.fail(&failure);
                return;
            }
            if !self.send() {
                return;
            }
        }
    }

    /// Takes everything from the inbox; waits when there is nothing else to do. False when the engine is dropped
    /// and idle.
    fn take_arrivals(&mut self) -> bool {
        if self.scheduler.is_empty() {
            match self.arrivals.recv() {
                Ok(arrival) => {
                    self.gauges.step_started();
                    self.take(arrival);
                }
                Err(_) => return false,
            }
        }
        while let Ok(arrival) = self.arrivals.try_recv() {
            self.take(arrival);
        }
        true
    }

    fn take(
        &mut self,
        Arrival {
            sequence,
            cancelled,
            at,
        }: Arrival,
    ) {
        self.live.insert(
            sequence.id,
            Live {
                cancelled,
                queued_at: Some(at),
            },
        );
        self.scheduler.add(sequence);
    }

    fn sweep_cancelled(&mut self) {
        let Self {
            scheduler,
            live,
            pending,
            gauges,
            ..
        } = self;
        if !live.values().any(|request| request.cancelled.load(Ordering::Acquire)) {
            return;
        }
        let gone = |id| {
            live.get(&id)
                .is_none_or(|request: &Live| request.cancelled.load(Ordering::Acquire))
        };
        let mut removed = Vec::new();
        scheduler.remove(gone, |sequence| removed.push((sequence.id, sequence.prompt_tokens())));
        for (id, prompt) in removed {
            let queued = live.remove(&id).is_some_and(|request| request.queued_at.is_some());
            if queued {
                gauges.leave_queue(prompt);
            }
            pending.sequences.push(finished(id, FinishReason::Cancelled));
        }
    }

    fn step(&mut self, batch: &StepBatch, out: &mut StepOut) -> Result<(), Arc<str>> {
        let start = Instant::now();
        self.gauges.running.store(self.scheduler.running(), Ordering::Release);
        let mut queued_for = self.note_started(start);
        out.logits.clear();
        let runner = &mut self.runner;
        match catch_unwind(AssertUnwindSafe(|| runner.step(batch, out))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error.to_string().into()),
            Err(_) => return Err("the model runner panicked; this is a bug, see the log".into()),
        }
        let chosen = self.choose(&out.logits)?;
        let mut produced = Vec::with_capacity(chosen.len());
        self.scheduler.commit(&chosen, &mut produced);
        for Produced {
            id,
            token,
            confidence,
            finished,
        } in produced
        {
            if finished.is_some() {
                self.live.remove(&id);
            }
            self.pending.sequences.push(SequenceUpdate {
                id,
                token,
                confidence,
                finished,
                queued_for: queued_for.remove(&id),
            });
        }
        for (id, waited) in queued_for {
            self.pending.sequences.push(SequenceUpdate {
                id,
                token: None,
                confidence: None,
                finished: None,
                queued_for: Some(waited),
            });
        }
        self.gauges.step_finished(batch.tokens.len(), start.elapsed());
        Ok(())
    }

    /// The requests that left the queue with this step, and how long each had waited.
    fn note_started(&mut self, now: Instant) -> HashMap<RequestId, std::time::Duration> {
        let mut queued_for = HashMap::new();
        for &(id, prompt) in self.scheduler.started() {
            let Some(request) = self.live.get_mut(&id) else {
                continue;
            };
            if let Some(at) = request.queued_at.take() {
                self.gauges.leave_queue(prompt);
                queued_for.insert(id, now.saturating_duration_since(at));
            }
        }
        queued_for
    }

    fn choose(&self, logits: &[f32]) -> Result<Vec<Chosen>, Arc<str>> {
        let vocabulary = self.runner.spec().vocabulary;
        let rows = self.scheduler.rows();
        if logits.len() != rows.len() * vocabulary {
            let found = logits.len();
            return Err(format!("the runner gave {found} logits for {} rows of {vocabulary}", rows.len()).into());
        }
        let choose = |(row, logits): (&Row, &[f32])| {
            let token = sample(logits, &row.sampling, row.index)
                .ok_or_else(|| Arc::from(crate::RunnerError::NotANumber.to_string()))?;
            let confidence = if row.measured { confidence(logits, token) } else { None };
            Ok(Chosen { token, confidence })
        };
        if logits.len() < SHARED_LOGITS {
            return rows.iter().zip(logits.chunks_exact(vocabulary)).map(choose).collect();
        }
        let logits = logits.par_chunks_exact(vocabulary);
        rows.par_iter().zip(logits).map(choose).collect()
    }

    fn publish(&self) {
        let gauges = &self.gauges;
        gauges.running.store(self.scheduler.running(), Ordering::Release);
        gauges
            .used_blocks
            .store(self.scheduler.used_blocks(), Ordering::Release);
        gauges
            .preemptions
            .store(self.scheduler.preemptions(), Ordering::Release);
    }

    /// Sends what is pending; while nobody reads it stays and grows by at most the answers' own lengths. Waits only
    /// when there is no step to hold up. False when the reader is gone.
    fn send(&mut self) -> bool {
        if self.pending.sequences.is_empty() {
            return true;
        }
        if self.scheduler.is_empty() {
            return self.updates.blocking_send(std::mem::take(&mut self.pending)).is_ok();
        }
        match self.updates.try_reserve() {
            Ok(permit) => {
                permit.send(std::mem::take(&mut self.pending));
                true
            }
            Err(mpsc::error::TrySendError::Full(())) => true,
            Err(mpsc::error::TrySendError::Closed(())) => false,
        }
    }

    /// Ends every request with the failure, those still in the inbox too.
    fn fail(&mut self, failure: &Arc<str>) {
        tracing::error!(failure = &**failure, "the engine has stopped");
        self.gauges.failed.store(true, Ordering::Release);
        while let Ok(arrival) = self.arrivals.try_recv() {
            self.take(arrival);
        }
        for (id, _) in self.live.drain() {
            self.pending
                .sequences
                .push(finished(id, FinishReason::Failed(Arc::clone(failure))));
        }
        self.gauges.running.store(0, Ordering::Release);
        self.gauges.waiting.store(0, Ordering::Release);
        self.gauges.queued_tokens.store(0, Ordering::Release);
        // Nobody reads any more: then nobody waits for an answer either.
        let _ = self.updates.blocking_send(std::mem::take(&mut self.pending));
    }
}

fn finished(id: RequestId, reason: FinishReason) -> SequenceUpdate {
    SequenceUpdate {
        id,
        token: None,
        confidence: None,
        finished: Some(reason),
        queued_for: None,
    }
}
