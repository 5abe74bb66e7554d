//! What panes of one kind have in common. Only panes of the same layout can be added.

use crate::envelope;
use crate::features::{FOURIER, LANGUAGES, TOKEN_BUCKETS};
use crate::signal::{Kind, Signal};

/// Bins of a number's histogram between its scale's ends.
pub const BINS: usize = 128;
/// Requesters are hashed into so many strata, to see whether one of them alone moved.
pub const STRATA: usize = 16;

/// The signals, their scales, and the encoder behind the embedding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    encoder: String,
    fingerprint: u64,
}

impl Layout {
    /// The layout with this encoder of prompts: [`Layout::NGRAMS`], or the name and digest of a model.
    #[must_use]
    pub fn new(encoder: &str) -> Self {
        let mut text = format!(
            "v1 encoder={encoder} bins={BINS} strata={STRATA} fourier={FOURIER} languages={LANGUAGES} tokens={TOKEN_BUCKETS}"
        );
        for signal in Signal::ALL {
            text.push_str(&format!(" {signal:?}={:?}", signal.kind()));
        }
        Self {
            encoder: encoder.to_owned(),
            fingerprint: envelope::fingerprint(text.as_bytes()),
        }
    }

    /// The encoder that needs no model: hashed character n-grams.
    pub const NGRAMS: &'static str = "ngrams-v1";

    /// The encoder of prompts.
    #[must_use]
    pub fn encoder(&self) -> &str {
        &self.encoder
    }

    /// Equal for equal layouts; part of everything that is stored.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

impl Default for Layout {
    fn default() -> Self {
        Self::new(Self::NGRAMS)
    }
}

/// Signals of which panes keep a histogram, in the order of storage.
pub fn numeric() -> impl Iterator<Item = Signal> {
    Signal::ALL
        .into_iter()
        .filter(|signal| matches!(signal.kind(), Kind::Numeric(_)))
}

/// Signals of which panes keep trials and events, in the order of storage.
pub fn rates() -> impl Iterator<Item = Signal> {
    Signal::ALL.into_iter().filter(|signal| signal.kind() == Kind::Rate)
}
