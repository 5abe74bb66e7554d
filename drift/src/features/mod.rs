//! What one request and its answer were, in numbers. Pure functions; no text leaves them.
//!
//! An [`Extractor`] is made once and shared; [`Extractor::features`] takes an [`Exchange`] and returns [`Features`]. The
//! same exchange gives the same features on every machine, so that replicas agree; what they depend on has a
//! [`Recipe`], and features of two recipes must not be counted together.

pub mod embedding;
mod extractor;
pub mod fourier;
mod hash;
pub mod json;
pub mod language;
mod numbers;
pub mod refusal;
pub mod repetition;
pub mod table;

pub use extractor::{Encoder, Extractor, Recipe};
pub use numbers::{Features, NUMERIC, RATES};

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
    /// Characters that `prompt_tokens` stand for: of the whole conversation, not only of `prompt`. Without it those of
    /// `prompt` are taken, which is right only for requests of one message.
    pub prompt_characters: Option<u32>,
    /// Token ids of the prompt.
    pub prompt_token_ids: Option<&'a [u32]>,
    /// An embedding of the prompt by an encoder that is not the served model; read only by an extractor that was made
    /// for it ([`Encoder::External`]).
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

/// At most so many bytes from the beginning of a text, cut between characters.
fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

/// At most so many bytes from the end of a text, cut between characters.
fn cut_end(text: &str, bytes: usize) -> &str {
    text.get(text.ceil_char_boundary(text.len().saturating_sub(bytes))..)
        .unwrap_or(text)
}
