//! What one request and its answer were, in numbers. Pure functions; no text leaves them.

/// Categories of languages: those of [`language`] and one for what cannot be told.
pub const LANGUAGES: usize = 72;
/// Buckets that token ids are hashed into.
pub const TOKEN_BUCKETS: usize = 1024;
/// Frequencies of the random Fourier features; each gives a cosine and a sine.
pub const FREQUENCIES: usize = 128;
/// Numbers in a vector of random Fourier features: the cosines, then the sines.
pub const FOURIER: usize = 2 * FREQUENCIES;
/// Fixed point of all sums: 2^24 is one.
pub const ONE: f64 = 16_777_216.0;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, or a stop word.
    Stop,
    /// The limit of tokens cut it off.
    Length,
    /// It ended in calls of tools.
    ToolCalls,
    /// A filter ended it.
    ContentFilter,
}

/// One request and its answer, as far as the observer knows them. What is not known is `None` and counts as missing.
#[derive(Clone, Debug, Default)]
pub struct Exchange<'a> {
    /// Identity of the request; decides which of its tokens is sampled, so that replicas and retries agree.
    pub id: &'a str,
    /// Who asked, in any form; only a hash is used.
    pub requester: Option<&'a str>,
    /// What the user wrote: the text of the last user message, or the prompt.
    pub prompt: Option<&'a str>,
    /// Tokens of the whole prompt, template included.
    pub prompt_tokens: Option<u32>,
    /// Token ids of the prompt.
    pub prompt_token_ids: Option<&'a [u32]>,
    /// An embedding of the prompt by an encoder that is not the served model; without it the prompt's n-grams serve.
    pub embedding: Option<&'a [f32]>,
    /// Mean negative log-probability of the prompt's tokens, nats.
    pub prompt_perplexity: Option<f64>,
    /// The answer's text.
    pub output: Option<&'a str>,
    /// Tokens of the answer.
    pub output_tokens: Option<u32>,
    /// Why the answer ended.
    pub finish_reason: Option<FinishReason>,
    /// JSON was asked for (`response_format`).
    pub json_requested: bool,
    /// Arguments of the tool calls in the answer, as the model wrote them.
    pub tool_arguments: Vec<&'a str>,
    /// Mean log-probability of the answer's tokens, nats.
    pub output_logprob: Option<f64>,
    /// Mean entropy at the answer's tokens, nats.
    pub output_entropy: Option<f64>,
    /// A person's rating: `Some(true)` is a bad one.
    pub negative_feedback: Option<bool>,
    /// Seconds to the first token.
    pub time_to_first_token: Option<f64>,
    /// Mean seconds between tokens.
    pub inter_token_latency: Option<f64>,
    /// The request failed in the server.
    pub failed: bool,
}

use crate::signal::Signal;

/// What is counted of one request.
#[derive(Clone, Debug, Default)]
pub struct Features {
    /// Numbers.
    pub numbers: [Option<f64>; 8],
    /// Events.
    pub events: [Option<bool>; 8],
    /// Language.
    pub language: Option<u8>,
    /// Token.
    pub token_bucket: Option<u16>,
    /// RFF.
    pub fourier: Option<Box<[i32; FOURIER]>>,
    /// Who.
    pub requester: Option<u64>,
    /// What.
    pub prompt_hash: Option<u64>,
}

impl Features {
    /// Number.
    pub fn number(&self, signal: Signal) -> Option<f64> {
        crate::pane::layout::numeric()
            .position(|s| s == signal)
            .and_then(|i| self.numbers[i])
    }
    /// Event.
    pub fn event(&self, signal: Signal) -> Option<bool> {
        crate::pane::layout::rates()
            .position(|s| s == signal)
            .and_then(|i| self.events[i])
    }
}
