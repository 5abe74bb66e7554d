//! From what is known of a request to its features, with the encoder that the server was given, if it was given one.

use perennial_drift::features::refusal::RefusalError;
use perennial_drift::features::{Encoder, Exchange, Extractor, Features};
use perennial_drift::pane::layout::Layout;

use super::encoder::StaticEncoder;
use super::record::Record;

/// All that the features of a server's requests are made with.
pub struct Extraction {
    extractor: Extractor,
    encoder: Option<StaticEncoder>,
}

impl Extraction {
    /// Prompts are embedded by the encoder, without one by their n-grams.
    ///
    /// # Errors
    /// [`RefusalError`] when a list of refusals is malformed, which is a bug.
    pub fn new(encoder: Option<StaticEncoder>) -> Result<Self, RefusalError> {
        let recipe = encoder.as_ref().map_or(Encoder::Ngrams, StaticEncoder::recipe);
        Ok(Self {
            extractor: Extractor::new(recipe)?,
            encoder,
        })
    }

    /// The layout of panes that count these features.
    #[must_use]
    pub fn layout(&self) -> Layout {
        Layout::of(self.extractor.recipe())
    }

    /// The features of a request. One whose prompt the encoder does not know is missing in its signal, never embedded otherwise.
    #[must_use]
    pub fn features(&self, record: &Record) -> Features {
        let exchange = record.exchange();
        let embedding = self
            .encoder
            .as_ref()
            .zip(exchange.prompt)
            .and_then(|(encoder, prompt)| encoder.embed(prompt));
        self.extractor.features(&Exchange {
            embedding: embedding.as_deref(),
            ..exchange
        })
    }

    /// What the encoder takes of memory.
    #[must_use]
    pub fn encoder_bytes(&self) -> u64 {
        self.encoder.as_ref().map_or(0, StaticEncoder::bytes)
    }
}
