//! What is watched of a model's traffic. The class of a signal decides the cure.

use serde::{Deserialize, Serialize};

/// One thing that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Signal {
    /// Tokens of the prompt.
    PromptTokens,
    /// Tokens per character of the prompt: rises with a language or a subject that the tokenizer knows badly.
    TokensPerCharacter,
    /// Mean negative log-probability of the prompt's tokens under the served model, in nats; sampled.
    PromptPerplexity,
    /// Language of the prompt.
    Language,
    /// Which tokens prompts are made of: one token of each request, hashed.
    TokenDistribution,
    /// What prompts are about: random Fourier features of an embedding that is not the served model's.
    PromptEmbedding,
    /// Tokens of the answer.
    OutputTokens,
    /// Mean log-probability of the answer's tokens, in nats.
    OutputLogprob,
    /// Mean entropy of the distributions that the answer's tokens were drawn from, in nats.
    OutputEntropy,
    /// Answers cut off by the limit of tokens.
    FinishReasonLength,
    /// Answers that refuse.
    RefusalRate,
    /// Answers caught in a loop.
    RepetitionRate,
    /// Answers without a word.
    EmptyRate,
    /// Answers that are no JSON where JSON was asked for.
    InvalidJSONRate,
    /// Tool calls whose arguments cannot be read.
    ToolCallFailureRate,
    /// Answers that a person rated badly.
    NegativeFeedback,
    /// Seconds to the first token.
    TimeToFirstToken,
    /// Mean seconds between tokens.
    InterTokenLatency,
    /// Requests that failed.
    ErrorRate,
}

/// What a signal speaks of; decides the cure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Class {
    /// What is asked.
    Input,
    /// What is answered.
    Output,
    /// What the answers are worth.
    Quality,
    /// How the service runs: context for a person, never a cause of retraining.
    Operational,
}

/// How a number is put on the scale on which it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transform {
    /// As it is.
    Identity,
    /// `ln(x)`, for positive numbers of any size.
    Log,
    /// `ln(1 + x)`, for counts.
    Log1p,
}

/// A number's scale: its transform, and where its bins begin and end after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Applied first.
    pub transform: Transform,
    /// Lower end of the first bin; what is below is counted in a bin of its own.
    pub low: f64,
    /// Upper end of the last bin; what is above is counted in a bin of its own.
    pub high: f64,
}

/// What a pane keeps of a signal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A histogram and moments.
    Numeric(Scale),
    /// Trials and events.
    Rate,
    /// A count for each of so many categories.
    Categories(usize),
    /// Sums of random Fourier features.
    Embedding,
}

impl Signal {
    /// All signals, in the order in which they are stored.
    pub const ALL: [Self; 19] = [
        Self::PromptTokens,
        Self::TokensPerCharacter,
        Self::PromptPerplexity,
        Self::Language,
        Self::TokenDistribution,
        Self::PromptEmbedding,
        Self::OutputTokens,
        Self::OutputLogprob,
        Self::OutputEntropy,
        Self::FinishReasonLength,
        Self::RefusalRate,
        Self::RepetitionRate,
        Self::EmptyRate,
        Self::InvalidJSONRate,
        Self::ToolCallFailureRate,
        Self::NegativeFeedback,
        Self::TimeToFirstToken,
        Self::InterTokenLatency,
        Self::ErrorRate,
    ];

    /// What it speaks of.
    #[must_use]
    pub fn class(self) -> Class {
        match self {
            Self::PromptTokens
            | Self::TokensPerCharacter
            | Self::PromptPerplexity
            | Self::Language
            | Self::TokenDistribution
            | Self::PromptEmbedding => Class::Input,
            Self::OutputTokens
            | Self::OutputLogprob
            | Self::OutputEntropy
            | Self::FinishReasonLength
            | Self::RefusalRate
            | Self::RepetitionRate
            | Self::EmptyRate
            | Self::InvalidJSONRate
            | Self::ToolCallFailureRate => Class::Output,
            Self::NegativeFeedback => Class::Quality,
            Self::TimeToFirstToken | Self::InterTokenLatency | Self::ErrorRate => Class::Operational,
        }
    }

    /// What a pane keeps of it.
    #[must_use]
    pub fn kind(self) -> Kind {
        let scale = |transform, low, high| Kind::Numeric(Scale { transform, low, high });
        match self {
            // Up to a million tokens.
            Self::PromptTokens | Self::OutputTokens => scale(Transform::Log1p, 0.0, 14.0),
            Self::TokensPerCharacter => scale(Transform::Log, -5.0, 2.0),
            Self::PromptPerplexity | Self::OutputEntropy => scale(Transform::Identity, 0.0, 12.0),
            Self::OutputLogprob => scale(Transform::Identity, -8.0, 0.0),
            // From a tenth of a millisecond to three hours.
            Self::TimeToFirstToken | Self::InterTokenLatency => scale(Transform::Log, -9.25, 9.25),
            Self::Language => Kind::Categories(crate::features::LANGUAGES),
            Self::TokenDistribution => Kind::Categories(crate::features::TOKEN_BUCKETS),
            Self::PromptEmbedding => Kind::Embedding,
            Self::FinishReasonLength
            | Self::RefusalRate
            | Self::RepetitionRate
            | Self::EmptyRate
            | Self::InvalidJSONRate
            | Self::ToolCallFailureRate
            | Self::NegativeFeedback
            | Self::ErrorRate => Kind::Rate,
        }
    }
}
