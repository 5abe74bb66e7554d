//! The engine's load in atomics, so that reading it never waits for a step.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::contract::LoadSnapshot;

#[derive(Debug)]
pub(crate) struct Gauges {
    start: Instant,
    pub(crate) running: AtomicUsize,
    pub(crate) waiting: AtomicUsize,
    pub(crate) queued_tokens: AtomicUsize,
    pub(crate) used_blocks: AtomicUsize,
    total_blocks: usize,
    pub(crate) preemptions: AtomicU64,
    steps: AtomicU64,
    last_step: AtomicU64,
    longest_step: AtomicU64,
    /// Tokens computed per second, smoothed; bits of an `f64`.
    rate: AtomicU64,
    pub(crate) failed: AtomicBool,
    pub(crate) draining: AtomicBool,
}

impl Gauges {
    pub(crate) fn new(total_blocks: usize) -> Self {
        Self {
            start: Instant::now(),
            running: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            queued_tokens: AtomicUsize::new(0),
            used_blocks: AtomicUsize::new(0),
            total_blocks,
            preemptions: AtomicU64::new(0),
            steps: AtomicU64::new(0),
            last_step: AtomicU64::new(0),
            longest_step: AtomicU64::new(0),
            rate: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }
    }

    /// Takes a place in the queue, if there is one.
    pub(crate) fn enter_queue(&self, tokens: usize, max_queued: usize, max_tokens: usize) -> bool {
        let place = |now: usize| (now < max_queued).then_some(now + 1);
        if self
            .waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, place)
            .is_err()
        {
            return false;
        }
        // A prompt longer than the bound still gets in when the queue is empty.
        let room = |now: usize| (now == 0 || now + tokens <= max_tokens).then_some(now + tokens);
        let entered = self
            .queued_tokens
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, room)
            .is_ok();
        if !entered {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
        }
        entered
    }

    pub(crate) fn leave_queue(&self, tokens: usize) {
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        self.queued_tokens.fetch_sub(tokens, Ordering::AcqRel);
    }

    pub(crate) fn step_started(&self) {
        self.last_step.store(self.now(), Ordering::Release);
    }

    pub(crate) fn step_finished(&self, tokens: usize, took: Duration) {
        self.steps.fetch_add(1, Ordering::AcqRel);
        self.last_step.store(self.now(), Ordering::Release);
        self.longest_step.fetch_max(took.as_micros() as u64, Ordering::AcqRel);
        let measured = tokens as f64 / took.as_secs_f64().max(1e-6);
        let smoothed = self.rate();
        let next = if smoothed == 0.0 {
            measured
        } else {
            smoothed * 0.9 + measured * 0.1
        };
        self.rate.store(next.to_bits(), Ordering::Release);
    }

    fn rate(&self) -> f64 {
        f64::from_bits(self.rate.load(Ordering::Acquire))
    }

    /// When the queue should have room again: its tokens at the measured rate, between 1 s and a minute.
    pub(crate) fn retry_after(&self) -> Duration {
        let rate = self.rate();
        let tokens = self.queued_tokens.load(Ordering::Acquire) as f64;
        let seconds = if rate > 0.0 {
            (tokens / rate).ceil().clamp(1.0, 60.0)
        } else {
            1.0
        };
        Duration::from_secs(seconds as u64)
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    pub(crate) fn snapshot(&self) -> LoadSnapshot {
        let last = Duration::from_micros(self.last_step.load(Ordering::Acquire));
        LoadSnapshot {
            running: self.running.load(Ordering::Acquire),
            waiting: self.waiting.load(Ordering::Acquire),
            queued_tokens: self.queued_tokens.load(Ordering::Acquire),
            used_blocks: self.used_blocks.load(Ordering::Acquire),
            total_blocks: self.total_blocks,
            preemptions: self.preemptions.load(Ordering::Acquire),
            steps: self.steps.load(Ordering::Acquire),
            since_last_step: self.start.elapsed().saturating_sub(last),
            longest_step: Duration::from_micros(self.longest_step.load(Ordering::Acquire)),
            failed: self.failed.load(Ordering::Acquire),
        }
    }
}
