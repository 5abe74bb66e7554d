//! The contract between a server and an engine.
//!
//! It speaks of token ids only: text, templates and stop strings belong to the server. Nothing in it blocks, so a
//! server may call it from any task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::confidence::Confidence;

/// Names one request within one engine; chosen by the caller, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What an engine is, fixed from its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineInfo {
    /// Most tokens of prompt and answer together.
    pub max_length: usize,
    /// Number of token ids.
    pub vocabulary: usize,
    /// Tokens per block of the key-value cache.
    pub block_size: usize,
    /// Blocks in the key-value cache.
    pub blocks: usize,
    /// Token ids that end an answer.
    pub end_tokens: Vec<u32>,
}

/// How the next token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token; higher is more random.
    pub temperature: f32,
    /// Keeps the likeliest tokens whose probabilities sum to this, in (0, 1].
    pub top_p: f32,
    /// Same seed, same prompt, same engine: same tokens.
    pub seed: u64,
    /// Goes on after an end token, up to `max_tokens`.
    pub ignore_end: bool,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            seed: 0,
            ignore_end: false,
        }
    }
}

/// A request handed to [`Engine::submit`].
#[derive(Clone, Debug, PartialEq)]
pub struct Queued {
    /// Its name in every [`SequenceUpdate`].
    pub id: RequestId,
    /// The prompt; never empty.
    pub prompt: Vec<u32>,
    /// Most tokens to produce; at least 1.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Updates tell how sure the model was, of one token in [`crate::MEASURED_EVERY`].
    pub measured: bool,
}

/// Keeps a request alive: dropping it cancels the request, and its memory is free after the next step.
#[derive(Debug)]
pub struct RequestControl {
    cancelled: Arc<AtomicBool>,
}

impl RequestControl {
    pub(crate) fn new() -> (Self, Arc<AtomicBool>) {
        let cancelled = Arc::new(AtomicBool::new(false));
        (
            Self {
                cancelled: Arc::clone(&cancelled),
            },
            cancelled,
        )
    }
}

impl Drop for RequestControl {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Release);
    }
}

/// Why a request was not accepted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Rejected {
    /// The queue is full; worth another try later.
    #[error("{waiting} requests with {queued_tokens} tokens are waiting already; try again in {} s", retry_after.as_secs())]
    QueueFull {
        /// Requests in the queue.
        waiting: usize,
        /// Prompt tokens in the queue.
        queued_tokens: usize,
        /// When there should be room, from the measured token rate.
        retry_after: Duration,
    },
    /// Prompt and answer do not fit, now or later.
    #[error("{prompt} prompt tokens and {max_tokens} tokens to produce exceed the maximum of {limit}")]
    TooLong {
        /// Tokens in the prompt.
        prompt: usize,
        /// Tokens asked for.
        max_tokens: usize,
        /// What fits.
        limit: usize,
    },
    /// The prompt has no token, or one outside the vocabulary.
    #[error("the prompt is empty or holds a token id outside the vocabulary of {vocabulary}")]
    InvalidPrompt {
        /// Number of token ids.
        vocabulary: usize,
    },
    /// The engine finishes what it has and takes no more.
    #[error("the engine is draining and takes no new requests")]
    Draining,
    /// The engine has stopped.
    #[error("the engine has stopped: {0}")]
    Stopped(String),
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model produced an end token.
    End,
    /// `max_tokens` were produced.
    Length,
    /// The request was cancelled.
    Cancelled,
    /// The engine failed; the text says how.
    Failed(Arc<str>),
}

/// What one step did for one request.
#[derive(Clone, Debug, PartialEq)]
pub struct SequenceUpdate {
    /// Which request.
    pub id: RequestId,
    /// The token produced, if any; an end token is not reported.
    pub token: Option<u32>,
    /// How sure the model was of the token; of some tokens of a request that is [`Queued::measured`], and `None` of others.
    pub confidence: Option<Confidence>,
    /// Set on the last update of a request.
    pub finished: Option<FinishReason>,
    /// Set on the first update after the request left the queue: how long it had waited.
    pub queued_for: Option<Duration>,
}

/// What one step did; the server hands each part to its request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepUpdate {
    /// At most one entry per request and step; several steps may be merged while nobody reads.
    pub sequences: Vec<SequenceUpdate>,
}

/// A moment's load, read without a lock.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadSnapshot {
    /// Requests that take part in steps.
    pub running: usize,
    /// Requests in the queue.
    pub waiting: usize,
    /// Prompt tokens in the queue.
    pub queued_tokens: usize,
    /// Blocks of the key-value cache in use.
    pub used_blocks: usize,
    /// Blocks of the key-value cache.
    pub total_blocks: usize,
    /// Requests whose cache was taken away for others, since the start.
    pub preemptions: u64,
    /// Steps since the start.
    pub steps: u64,
    /// Time since the last step finished, or since the start.
    pub since_last_step: Duration,
    /// The longest step so far.
    pub longest_step: Duration,
    /// Whether the engine has stopped after a failure.
    pub failed: bool,
}

/// An engine: takes requests, produces tokens.
///
/// Tokens come back on the [`crate::Updates`] that was made together with the engine. When that channel ends, every
/// request without a `finished` update has failed.
pub trait Engine: Send + Sync {
    /// What it is.
    fn info(&self) -> &EngineInfo;
    /// Queues a request; never blocks.
    ///
    /// # Errors
    /// [`Rejected`] says whether and when another try makes sense.
    fn submit(&self, request: Queued) -> Result<RequestControl, Rejected>;
    /// A moment's load; lock-free.
    fn load(&self) -> LoadSnapshot;
    /// Takes no more requests; those it has are finished.
    fn drain(&self);
}
