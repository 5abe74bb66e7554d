//! Suites: the items that both models are judged on.

use std::path::Path;

use perennial_crds::retrain::{GATE_CONTRACT, SuiteItem};

use super::files::{Sha256Sum, sha256_of_file};

/// Digest of all suites in a directory, so that both models are judged on the same items: the sha256 of what `sha256sum *.jsonl`
/// prints there, sorted by name.
///
/// # Errors
/// What the system says.
pub fn suites_digest(directory: &Path) -> std::io::Result<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        // Exactly the files that are read as suites.
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort_unstable();
    let mut sum = Sha256Sum::default();
    for name in names {
        let (hex, _) = sha256_of_file(&directory.join(&name))?;
        sum.update(format!("{hex}  {name}\n").as_bytes());
    }
    Ok(format!("sha256:{}", sum.hex()))
}

/// Reads an item that only asks, whether or not it says what is right.
///
/// # Errors
/// What is wrong with it and what to do, without quoting it.
pub fn check_question(line: &str) -> Result<SuiteItem, String> {
    let item: SuiteItem = serde_json::from_str(line)
        .map_err(|error| format!("is no item of {GATE_CONTRACT} (column {})", error.column()))?;
    if item.messages.is_empty() && item.prompt.is_none() {
        return Err("asks nothing; give it messages or prompt".to_owned());
    }
    Ok(item)
}

/// Reads an item of a suite.
///
/// # Errors
/// What is wrong with it and what to do, without quoting it.
pub fn check_item(line: &str) -> Result<SuiteItem, String> {
    let item = check_question(line)?;
    if item.answer.is_none() && item.exact.is_none() && item.regex.is_none() {
        return Err("says nothing of the right answer; give it answer, exact or regex".to_owned());
    }
    if item
        .regex
        .as_ref()
        .is_some_and(|pattern| regex::Regex::new(pattern).is_err())
    {
        return Err("has a pattern that is no regular expression".to_owned());
    }
    Ok(item)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_listing_and_changes_with_every_byte_and_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("written");
        let digest = || suites_digest(directory.path()).expect("a digest");
        write("b.jsonl", "2\n");
        write("a.jsonl", "1\n");
        let listing = format!(
            "{}  a.jsonl\n{}  b.jsonl\n",
            Sha256Sum::of(b"1\n"),
            Sha256Sum::of(b"2\n")
        );
        let first = digest();
        assert_eq!(first, format!("sha256:{}", Sha256Sum::of(listing.as_bytes())));
        write("notes.txt", "?");
        write(".c.jsonl.partial", "?");
        assert_eq!(digest(), first);
        write("b.jsonl", "3\n");
        assert_ne!(digest(), first);
        assert!(suites_digest(Path::new("/does/not/exist")).is_err());
    }

    #[test]
    fn what_is_no_item_is_said_and_never_quoted() {
        assert!(check_item(r#"{"prompt":"a","answer":"b"}"#).is_ok());
        assert!(check_item(r#"{"prompt":"a","regex":"^b$"}"#).is_ok());
        for (line, part) in [
            (r#"{"prompt":"secret"}"#, "give it answer"),
            (r#"{"answer":"secret"}"#, "asks nothing"),
            (r#"{"prompt":"a","regex":"(secret"}"#, "no regular expression"),
            (r#"{"prompt":{"secret":1},"answer":"secret"}"#, "is no item of gate/v1"),
        ] {
            let why = check_item(line).expect_err("refused");
            assert!(why.contains(part) && !why.contains("secret"), "{why}");
        }
        let asked = r#"{"prompt":"a"}"#;
        assert!(check_question(asked).is_ok() && check_item(asked).is_err());
        let nothing = check_question(r#"{"answer":"secret"}"#).expect_err("refused");
        assert!(nothing.contains("asks nothing"), "{nothing}");
    }
}
