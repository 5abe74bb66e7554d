//! Token ids to text as they come, never half a character.

use super::{ModelTokenizer, TokenizerError};

/// Turns one answer's tokens into text, piece by piece.
///
/// A token may hold part of a character, and some decoders look at the token before. So each piece is the difference
/// between two decodings of a short window, and is held back while it ends inside a character.
pub struct TokenStream {
    tokenizer: ModelTokenizer,
    ids: Vec<u32>,
    /// Where the window begins.
    window: usize,
    /// How many ids have become text.
    done: usize,
}

impl TokenStream {
    /// An answer's begin.
    #[must_use]
    pub fn new(tokenizer: ModelTokenizer) -> Self {
        Self {
            tokenizer,
            ids: Vec::new(),
            window: 0,
            done: 0,
        }
    }

    /// The text that `id` completes; often empty.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        self.ids.push(id);
        let piece = self.piece()?;
        if piece.is_empty() || piece.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        self.window = self.done;
        self.done = self.ids.len();
        Ok(piece)
    }

    /// The text that was held back, if the answer ends here; half a character becomes U+FFFD.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn finish(&mut self) -> Result<String, TokenizerError> {
        let piece = self.piece()?;
        self.window = self.ids.len();
        self.done = self.ids.len();
        Ok(piece)
    }

    fn piece(&self) -> Result<String, TokenizerError> {
        let before = self.tokenizer.decode(&self.ids[self.window..self.done])?;
        let after = self.tokenizer.decode(&self.ids[self.window..])?;
        Ok(after.strip_prefix(&before).unwrap_or(&after).to_owned())
    }
}
