//! What is prepared once, and the one function that the rest of the crate calls.

use super::embedding;
use super::fourier::{self, Projection};
use super::refusal::{ListVersion, RefusalError, Refusals};
use super::{Exchange, Features, language, numbers, repetition};
use std::sync::Arc;

/// The frequencies that every replica draws, unless it is told another seed.
const SEED: u64 = 0x5045_5245_4E4E_4941;

/// What embeds prompts. One baseline knows one encoder: vectors of two encoders have nothing in common, so an exchange
/// never falls back from one to the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Encoder {
    /// The n-grams of [`embedding`].
    Ngrams,
    /// [`Exchange::embedding`], a vector of an encoder outside; an exchange without one counts as missing.
    External {
        /// Numbers in a vector.
        dimension: usize,
        /// Bandwidth of the kernel between vectors of length 1: about the median distance of two prompts.
        bandwidth: f64,
        /// Which encoder: the first bytes of a SHA-256 of all that its vectors depend on, so that panes of two encoders never
        /// add. 0 where nothing is known but the vectors.
        identity: u64,
    },
}

/// Everything that features depend on besides the exchange. Told in reports; different recipes are not comparable.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// What embeds prompts.
    pub encoder: Encoder,
    /// Seed of the frequencies.
    pub seed: u64,
    /// [`embedding::VERSION`].
    pub embedding: u32,
    /// [`fourier::VERSION`].
    pub fourier: u32,
    /// [`language::VERSION`].
    pub languages: u32,
    /// [`repetition::VERSION`].
    pub repetition: u32,
    /// Lists of refusals.
    pub refusals: Vec<ListVersion>,
}

/// Turns exchanges into features. A clone shares what was prepared.
#[derive(Clone, Debug)]
pub struct Extractor {
    prepared: Arc<Prepared>,
}

#[derive(Debug)]
struct Prepared {
    refusals: Refusals,
    projection: Projection,
    recipe: Recipe,
}

impl Extractor {
    /// Prepares the lists of refusals and the frequencies of the seed that all replicas share.
    ///
    /// # Errors
    /// [`RefusalError`] when a compiled-in list is malformed, which a test excludes.
    pub fn new(encoder: Encoder) -> Result<Self, RefusalError> {
        Self::with_seed(encoder, SEED)
    }

    /// The same with frequencies of another seed.
    ///
    /// # Errors
    /// As [`Extractor::new`].
    pub fn with_seed(encoder: Encoder, seed: u64) -> Result<Self, RefusalError> {
        let (dimension, bandwidth) = match encoder {
            Encoder::Ngrams => (embedding::DIMENSION, embedding::BANDWIDTH),
            Encoder::External {
                dimension, bandwidth, ..
            } => (dimension, bandwidth),
        };
        let refusals = Refusals::new()?;
        let recipe = Recipe {
            encoder,
            seed,
            embedding: embedding::VERSION,
            fourier: fourier::VERSION,
            languages: language::VERSION,
            repetition: repetition::VERSION,
            refusals: refusals.versions().to_vec(),
        };
        let projection = Projection::new(dimension, bandwidth, seed);
        Ok(Self {
            prepared: Arc::new(Prepared {
                refusals,
                projection,
                recipe,
            }),
        })
    }

    /// What the features depend on.
    #[must_use]
    pub fn recipe(&self) -> &Recipe {
        &self.prepared.recipe
    }

    /// The features of an exchange.
    #[must_use]
    pub fn features(&self, exchange: &Exchange<'_>) -> Features {
        let Prepared {
            refusals,
            projection,
            recipe,
        } = &*self.prepared;
        let fourier = match recipe.encoder {
            Encoder::Ngrams => exchange
                .prompt
                .and_then(|prompt| projection.features(&embedding::embed(prompt))),
            Encoder::External { .. } => exchange.embedding.and_then(|vector| projection.features(vector)),
        };
        Features {
            numbers: numbers::numbers(exchange),
            events: numbers::events(exchange, |answer| refusals.refuses(answer)),
            language: exchange.prompt.map(language::category),
            token_bucket: numbers::token_bucket(exchange),
            fourier,
            requester: numbers::requester(exchange),
            prompt_hash: numbers::prompt_hash(exchange),
        }
    }
}

#[cfg(test)]
#[path = "extractor_tests.rs"]
mod tests;
