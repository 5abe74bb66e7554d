//! The fixed prompts: which there are, and a digest of what is asked.

use std::path::Path;

use perennial_crds::probe::{MOST_PROBES, PROBE_CONTRACT};
use perennial_crds::retrain::SuiteItem;

use super::error::ProbeError;
use crate::contract::{ItemsError, Placed, Sha256Sum, check_question, read_items};

/// A prompt as it is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// Name of its file.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
    /// What is asked: a chat, if it has messages.
    pub item: SuiteItem,
    /// Most tokens of the answer.
    pub max_tokens: u32,
}

impl Prompt {
    /// Where people find it.
    #[must_use]
    pub fn place(&self) -> String {
        format!("line {} of {}", self.line, self.file)
    }
}

/// Reads the prompts of a directory, by file and line.
///
/// # Errors
/// [`ProbeError::Rejected`] when a line is none, or they are none or too many.
pub fn read(directory: &Path, most_tokens: u32) -> Result<Vec<Prompt>, ProbeError> {
    let read = read_items(directory, check_question).map_err(|error| match error {
        ItemsError::Missing => none(),
        ItemsError::Wrong { file, line, problem } => ProbeError::Rejected(format!("line {line} of {file} {problem}")),
        ItemsError::Io { path, source } => ProbeError::Io { path, source },
    })?;
    match read.len() {
        0 => Err(none()),
        1..=MOST_PROBES => Ok(read.into_iter().map(|placed| prompt(placed, most_tokens)).collect()),
        many => Err(ProbeError::Rejected(format!(
            "there are {many} prompts, and at most {MOST_PROBES} are asked: leave some out"
        ))),
    }
}

fn none() -> ProbeError {
    ProbeError::Rejected("there are no prompts: give their ConfigMap a key with one JSON object a line".to_owned())
}

fn prompt(placed: Placed, most_tokens: u32) -> Prompt {
    let max_tokens = placed
        .item
        .max_tokens
        .map_or(most_tokens, |tokens| tokens.min(most_tokens));
    Prompt {
        file: placed.file,
        line: placed.line,
        item: placed.item,
        max_tokens,
    }
}

/// sha256 over what is asked, in order. Every text comes behind its length, so that no two sets look the same; the names of files
/// and what a prompt says of the right answer change nothing.
#[must_use]
pub fn set_digest(prompts: &[Prompt]) -> String {
    let mut sum = Sha256Sum::default();
    text(&mut sum, PROBE_CONTRACT);
    for prompt in prompts {
        number(&mut sum, u64::from(prompt.max_tokens));
        let messages = &prompt.item.messages;
        number(&mut sum, messages.len() as u64);
        for message in messages {
            text(&mut sum, &message.role);
            text(&mut sum, &message.content);
        }
        // No messages: a completion.
        if messages.is_empty() {
            text(&mut sum, prompt.item.prompt.as_deref().unwrap_or_default());
        }
    }
    format!("sha256:{}", sum.hex())
}

fn number(sum: &mut Sha256Sum, number: u64) {
    sum.update(&number.to_le_bytes());
}

fn text(sum: &mut Sha256Sum, text: &str) {
    number(sum, text.len() as u64);
    sum.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(files: &[(&str, &str)], most_tokens: u32) -> Result<Vec<Prompt>, String> {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).expect("written");
        }
        read(directory.path(), most_tokens).map_err(|error| error.to_string())
    }

    fn digest(text: &str) -> String {
        set_digest(&prompts(&[("a", text)], 64).expect("prompts"))
    }

    #[test]
    fn a_prompt_may_ask_for_fewer_tokens_and_never_for_more() {
        let text = "{\"prompt\":\"a\"}\n\n{\"prompt\":\"b\",\"maxTokens\":3}\n{\"prompt\":\"c\",\"maxTokens\":65}";
        let read = prompts(&[("a", text)], 64).expect("prompts");
        let tokens: Vec<u32> = read.iter().map(|prompt| prompt.max_tokens).collect();
        assert_eq!(tokens, [64, 3, 64]);
        assert_eq!(read[1].place(), "line 3 of a");
    }

    #[test]
    fn none_and_too_many_are_refused_and_a_wrong_one_is_told_by_its_place() {
        let line = "{\"prompt\":\"secret\"}\n";
        assert_eq!(
            prompts(&[("a", &line.repeat(MOST_PROBES))], 1).expect("prompts").len(),
            MOST_PROBES
        );
        for (files, part) in [
            (vec![], "there are no prompts"),
            (vec![("a", "\n \n".to_owned())], "there are no prompts"),
            (
                vec![("a", line.repeat(MOST_PROBES)), ("b", line.to_owned())],
                "there are 129 prompts, and at most 128",
            ),
            (
                vec![("a", line.to_owned()), ("b", format!("{line}secret"))],
                "line 2 of b is no item",
            ),
            (
                vec![("a", "{\"answer\":\"secret\"}".to_owned())],
                "line 1 of a asks nothing",
            ),
        ] {
            let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
            let why = prompts(&files, 1).expect_err("refused");
            assert!(why.starts_with(part) && !why.contains("secret"), "{why}");
        }
        let missing = read(Path::new("/does/not/exist"), 1).expect_err("refused");
        assert!(matches!(missing, ProbeError::Rejected(_)), "{missing}");
    }

    #[test]
    fn the_digest_changes_with_all_that_is_asked_and_with_nothing_else() {
        let two = "{\"prompt\":\"a\"}\n{\"prompt\":\"b\"}\n";
        let first = digest(two);
        assert!(first.starts_with("sha256:") && first.len() == 71, "{first}");
        let apart = [
            ("c", "{\"prompt\":\"a\",\"answer\":\"x\",\"maxTokens\":64}"),
            ("d", "\n{ \"prompt\": \"b\" }"),
        ];
        assert_eq!(set_digest(&prompts(&apart, 64).expect("prompts")), first);
        let mut seen = vec![first];
        for other in [
            "{\"prompt\":\"a\"}",
            "{\"prompt\":\"b\"}\n{\"prompt\":\"a\"}",
            "{\"prompt\":\"ab\"}\n{\"prompt\":\"\"}",
            "{\"prompt\":\"a\",\"maxTokens\":63}\n{\"prompt\":\"b\"}",
            "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}\n{\"prompt\":\"b\"}",
            "{\"messages\":[{\"role\":\"system\",\"content\":\"a\"}]}\n{\"prompt\":\"b\"}",
            "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"user\",\"content\":\"b\"}]}",
        ] {
            seen.push(digest(other));
        }
        seen.push(set_digest(&prompts(&[("a", two)], 65).expect("prompts")));
        let all = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), all);
    }
}
