//! When two prompts are the same, and what is chosen by chance. Pure.

use perennial_crds::capture::{ExchangeRecord, Message};
use perennial_crds::retrain::SuiteItem;
use sha2::{Digest as _, Sha256};

/// The sha256 of a prompt as [`normalised`].
pub type PromptHash = [u8; 32];

/// Something that asks.
pub trait Asks {
    /// The messages of a chat; empty for a completion.
    fn messages(&self) -> &[Message];
    /// The prompt of a completion.
    fn text(&self) -> Option<&str>;

    /// What is asked: the last message of the user, or the prompt of a completion.
    fn question(&self) -> Option<&str> {
        let last = self.messages().iter().rev().find(|message| message.role == "user");
        let last = last.or_else(|| self.messages().last());
        let asked = last.map(|message| message.content.as_str()).or_else(|| self.text());
        asked.filter(|text| !text.trim().is_empty())
    }

    /// Hash of what is asked.
    fn hash(&self) -> Option<PromptHash> {
        self.question().map(hash)
    }

    /// Hashes of everything that the user says in it, what is asked included.
    fn hashes(&self) -> Vec<PromptHash> {
        let users = self.messages().iter().filter(|message| message.role == "user");
        let said = users.map(|message| message.content.as_str()).chain(self.question());
        let mut hashes: Vec<PromptHash> = said.filter(|text| !text.trim().is_empty()).map(hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    }
}

impl Asks for ExchangeRecord {
    fn messages(&self) -> &[Message] {
        &self.messages
    }

    fn text(&self) -> Option<&str> {
        self.prompt.as_deref()
    }
}

impl Asks for SuiteItem {
    fn messages(&self) -> &[Message] {
        &self.messages
    }

    fn text(&self) -> Option<&str> {
        self.prompt.as_deref()
    }
}

/// A prompt without what does not make it another one: white space at its ends and more than one in a row, upper case.
#[must_use]
pub fn normalised(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").to_lowercase()
}

fn hash(text: &str) -> PromptHash {
    Sha256::digest(normalised(text)).into()
}

/// A number that looks like chance and follows from the seed, what it is for, and whose it is.
#[must_use]
pub fn lot(seed: u64, purpose: &str, of: &[u8]) -> [u8; 32] {
    let length = (purpose.len() as u64).to_le_bytes();
    let hasher = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(length);
    hasher.chain_update(purpose).chain_update(of).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(messages: &[(&str, &str)]) -> SuiteItem {
        let message = |(role, content): &(&str, &str)| Message {
            role: (*role).to_owned(),
            content: (*content).to_owned(),
        };
        SuiteItem {
            messages: messages.iter().map(message).collect(),
            prompt: None,
            answer: None,
            exact: None,
            regex: None,
            max_tokens: None,
        }
    }

    #[test]
    fn case_and_white_space_make_no_other_prompt() {
        assert_eq!(normalised("  What\n is  ÄTNA? "), "what is ätna?");
        assert_eq!(hash("A  b"), hash("a\tB\n"));
        assert_ne!(hash("ab"), hash("a b"));
    }

    #[test]
    fn the_last_message_of_the_user_is_what_is_asked() {
        let item = chat(&[
            ("system", "s"),
            ("user", "One"),
            ("assistant", "a"),
            ("user", "two"),
            ("assistant", "b"),
        ]);
        assert_eq!(item.question(), Some("two"));
        let mut both = [hash("one"), hash("two")];
        both.sort_unstable();
        assert_eq!(item.hashes(), both);
        assert_eq!(chat(&[("system", "s")]).question(), Some("s"));
        assert_eq!(chat(&[("user", " ")]).question(), None);
        let prompt = SuiteItem {
            prompt: Some("One".to_owned()),
            ..chat(&[])
        };
        assert_eq!((prompt.question(), prompt.hash()), (Some("One"), Some(hash("one"))));
        assert_eq!(prompt.hashes(), [hash("one")]);
    }

    #[test]
    fn lots_differ_by_seed_purpose_and_owner() {
        let first = lot(1, "a", b"bc");
        assert_eq!(first, lot(1, "a", b"bc"));
        for other in [lot(2, "a", b"bc"), lot(1, "ab", b"c"), lot(1, "a", b"bd")] {
            assert_ne!(first, other);
        }
    }
}
