//! What panes of one kind have in common. Only panes of the same layout can be added.

use crate::envelope;
use crate::features::{FOURIER, LANGUAGES, Recipe, TOKEN_BUCKETS};
use crate::signal::{Kind, Signal};

/// Bins of a number's histogram between its scale's ends.
pub const BINS: usize = 128;
/// Requesters are hashed into so many strata, to see whether one of them alone moved.
pub const STRATA: usize = 16;

/// The signals, their scales, and the recipe by which features are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    recipe: String,
    fingerprint: u64,
}

impl Layout {
    /// The layout of features made in this way, in any words that differ when features do. [`Layout::of`] has them for an
    /// extractor.
    #[must_use]
    pub fn new(recipe: &str) -> Self {
        let mut text = format!(
            "v1 recipe={recipe} bins={BINS} strata={STRATA} fourier={FOURIER} languages={LANGUAGES} tokens={TOKEN_BUCKETS}"
        );
        for signal in Signal::ALL {
            text.push_str(&format!(" {signal:?}={:?}", signal.kind()));
        }
        Self {
            recipe: recipe.to_owned(),
            fingerprint: envelope::fingerprint(text.as_bytes()),
        }
    }

    /// The layout of what is extracted by this recipe: panes of other versions of a list or an encoder do not add.
    #[must_use]
    pub fn of(recipe: &Recipe) -> Self {
        let refusals: Vec<String> = recipe.refusals.iter().map(|list| format!("{list:?}")).collect();
        Self::new(&format!(
            "{:?} seed={:x} embedding={} fourier={} languages={} repetition={} refusals={}",
            recipe.encoder,
            recipe.seed,
            recipe.embedding,
            recipe.fourier,
            recipe.languages,
            recipe.repetition,
            refusals.join(",")
        ))
    }

    /// The layout that a server told: enough to add its panes and to refuse those of others.
    #[must_use]
    pub fn told(fingerprint: u64) -> Self {
        Self {
            recipe: format!("told {fingerprint:016x}"),
            fingerprint,
        }
    }

    /// What features are made of.
    #[must_use]
    pub fn recipe(&self) -> &str {
        &self.recipe
    }

    /// Equal for equal layouts; part of everything that is stored.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// The layout of features that nothing was extracted from: of tests and synthetic streams.
impl Default for Layout {
    fn default() -> Self {
        Self::new("test")
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
