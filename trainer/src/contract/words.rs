//! Last words: what a Job says to the operator when it ends, by way of etcd.

use std::path::Path;
use std::process::ExitCode;

use perennial_crds::retrain::{EXIT_RETRY, MAX_MESSAGE_BYTES};
use serde::Serialize;
use serde_json::Value;

/// Bytes of a message in last words: room for the JSON around it and for escapes.
const MOST_MESSAGE: usize = 1000;
/// Said in place of a message when nothing else helped.
const TOO_LONG: &str = "what there was to say was too long for last words";

/// A text as one short line.
#[must_use]
pub fn message(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line[..line.floor_char_boundary(MOST_MESSAGE)].to_owned()
}

/// A value as JSON that Kubernetes keeps as a whole: of what is too long, `message` is cut; if that does not help, only
/// `schema` and `outcome` are left.
#[must_use]
pub fn words(value: &impl Serialize) -> Vec<u8> {
    let mut json = bytes(value);
    if json.len() <= MAX_MESSAGE_BYTES {
        return json;
    }
    let mut value = serde_json::to_value(value).unwrap_or_default();
    while json.len() > MAX_MESSAGE_BYTES && cut(&mut value, json.len() - MAX_MESSAGE_BYTES) {
        json = bytes(&value);
    }
    if json.len() <= MAX_MESSAGE_BYTES {
        return json;
    }
    let mut least = serde_json::Map::new();
    for name in ["schema", "outcome"] {
        if let Some(said) = value.get(name).filter(|said| bytes(said).len() < 200) {
            least.insert(name.to_owned(), said.clone());
        }
    }
    least.insert("message".to_owned(), TOO_LONG.into());
    bytes(&Value::Object(least))
}

fn bytes(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// Cuts so many bytes from the end of `message`; whether there was anything to cut.
fn cut(value: &mut Value, surplus: usize) -> bool {
    match value.get_mut("message") {
        Some(Value::String(text)) if !text.is_empty() => {
            let end = text.floor_char_boundary(text.len().saturating_sub(surplus));
            text.truncate(end);
            true
        }
        _ => false,
    }
}

/// Last words without a decision.
#[must_use]
pub fn failure(message: &str) -> Value {
    serde_json::json!({"message": message})
}

/// Leaves a value as JSON where Kubernetes reads it. Outside a container the path cannot be written: that is fine.
pub fn leave(path: &Path, value: &impl Serialize) {
    leave_text(path, &words(value));
}

/// Leaves the reason of a failure, which the operator tells on, and tells it.
#[must_use]
pub fn fail(path: &Path, error: &dyn std::fmt::Display) -> ExitCode {
    let message = message(&error.to_string());
    tracing::error!(message, "failed");
    leave(path, &failure(&message));
    ExitCode::FAILURE
}

fn leave_text(path: &Path, text: &[u8]) {
    if let Err(error) = std::fs::write(path, text) {
        tracing::debug!(path = %path.display(), %error, "no termination message was left");
    }
}

/// The exit code that asks for another try.
#[must_use]
pub fn retry() -> ExitCode {
    ExitCode::from(u8::try_from(EXIT_RETRY).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use perennial_crds::retrain::{Outcome, PREPARE_CONTRACT, PrepareResult};
    use proptest::prelude::*;

    use super::*;

    fn said(message: String, suites: usize) -> PrepareResult {
        PrepareResult {
            schema: PREPARE_CONTRACT.to_owned(),
            outcome: Outcome::DataRejected,
            manifest_digest: Some("sha256:00".to_owned()),
            records: 7,
            items: (0..suites).map(|number| (format!("suite-{number}"), 1)).collect(),
            suites_digest: None,
            message,
        }
    }

    fn read(words: &[u8]) -> PrepareResult {
        serde_json::from_slice(words).expect("JSON")
    }

    #[test]
    fn what_fits_is_said_as_it_is() {
        let short = said("no \"records\"".to_owned(), 2);
        assert_eq!(read(&words(&short)), short);
    }

    #[test]
    fn without_room_for_anything_else_schema_and_outcome_are_left() {
        let least = words(&said("a".repeat(100), 1000));
        let value: Value = serde_json::from_slice(&least).expect("JSON");
        assert_eq!(
            value,
            serde_json::json!({"schema": PREPARE_CONTRACT, "outcome": "DataRejected", "message": TOO_LONG})
        );
    }

    #[test]
    fn a_failure_is_one_short_line_in_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("words");
        assert_eq!(fail(&path, &"no\n memory"), ExitCode::FAILURE);
        assert_eq!(
            std::fs::read_to_string(&path).expect("words"),
            r#"{"message":"no memory"}"#
        );
        leave(&path, &said("x".to_owned(), 1));
        assert_eq!(read(&std::fs::read(&path).expect("words")).message, "x");
        leave(Path::new("/does/not/exist"), &1);
        assert_eq!(retry(), ExitCode::from(75));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn only_the_message_is_cut_and_always_on_a_boundary(text in "[a-z\"\\\\ü€😀\n]{0,6000}") {
            let whole = said(text.clone(), 3);
            let found = words(&whole);
            prop_assert!(found.len() <= MAX_MESSAGE_BYTES);
            let found = read(&found);
            prop_assert!(text.starts_with(&found.message));
            prop_assert!(found.message.len() == text.len() || !found.message.is_empty());
            prop_assert_eq!(PrepareResult { message: String::new(), ..found }, PrepareResult { message: String::new(), ..whole });
        }
    }
}
