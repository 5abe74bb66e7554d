//! Text to token ids and back.

pub(crate) mod gguf;
pub(crate) mod hub;
mod sentencepiece;
pub(crate) mod simulated;
mod stream;

use std::sync::Arc;

use tokenizers::Tokenizer;

pub use simulated::{CHAT_TEMPLATE as SIMULATED_CHAT_TEMPLATE, simulated};
pub use stream::TokenStream;

/// Text cannot be turned into tokens, or back.
#[derive(Debug, thiserror::Error)]
#[error("the tokenizer failed: {0}")]
pub struct TokenizerError(String);

/// A model's tokenizer; cheap to clone.
#[derive(Clone)]
pub struct ModelTokenizer {
    inner: Arc<Tokenizer>,
    /// Set before a plain prompt when the tokenizer itself does not.
    begin: Option<u32>,
    special: Arc<SpecialTokens>,
}

/// The texts of special tokens, as chat templates want them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a text.
    pub begin: Option<String>,
    /// Ends a text.
    pub end: Option<String>,
}

impl ModelTokenizer {
    pub(crate) fn new(inner: Tokenizer, begin: Option<u32>, special: SpecialTokens) -> Self {
        Self {
            inner: Arc::new(inner),
            begin,
            special: Arc::new(special),
        }
    }

    /// The ids of a plain prompt, with what the model wants at the begin of a text.
    ///
    /// # Errors
    /// When the tokenizer has no id for part of it.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let ids = self.encode(text, true)?;
        Ok(self.begin.into_iter().chain(ids).collect())
    }

    /// The ids of a rendered chat template, which has its special tokens in it already.
    ///
    /// # Errors
    /// When the tokenizer has no id for part of it.
    pub fn encode_rendered(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode(text, false)
    }

    fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self
            .inner
            .encode_fast(text, add_special)
            .map_err(|error| TokenizerError(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids` without special tokens.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        self.inner
            .decode(ids, true)
            .map_err(|error| TokenizerError(error.to_string()))
    }

    /// Texts of special tokens.
    #[must_use]
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special
    }
}
