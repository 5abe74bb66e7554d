//! Sequences that are computed together, one after the other, without padding.

use std::ops::Range;

/// A token to be predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// The token behind which it comes, counted from the first of the batch.
    pub row: usize,
    /// The token.
    pub token: u32,
    /// What its loss counts.
    pub weight: f32,
}

/// Sequences, flat.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    tokens: Vec<u32>,
    /// Where sequences begin, and where the last one ends.
    starts: Vec<usize>,
    targets: Vec<Target>,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            tokens: Vec::new(),
            starts: vec![0],
            targets: Vec::new(),
        }
    }
}

impl Batch {
    /// Adds a sequence. The rows of `targets` are counted from its first token.
    pub fn push(&mut self, tokens: &[u32], targets: &[Target]) {
        let start = self.tokens.len();
        self.tokens.extend(tokens);
        self.starts.push(self.tokens.len());
        self.targets.extend(targets.iter().map(|target| Target {
            row: target.row + start,
            ..*target
        }));
    }

    /// All tokens.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// What is to be predicted.
    #[must_use]
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The sequences, as ranges of tokens.
    pub fn sequences(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        self.starts.windows(2).map(|pair| pair[0]..pair[1])
    }
}
