//! The items on which both models are judged.

use std::path::{Path, PathBuf};

use perennial_crds::retrain::SuiteItem;

use crate::contract::check_item;

/// Items under a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Suite {
    /// Its name.
    pub name: String,
    /// Its items.
    pub items: Vec<SuiteItem>,
}

/// Why there are no items. Holds no text of one.
#[derive(Debug, thiserror::Error)]
pub enum SuitesError {
    /// They are no items.
    #[error("{0}")]
    Rejected(String),
    /// The disk failed.
    #[error("read {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Reads every `NAME.jsonl` of a directory, sorted by name.
///
/// # Errors
/// When a line is no item.
pub fn read(directory: &Path) -> Result<Vec<Suite>, SuitesError> {
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| SuitesError::Io { path, source }
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io(directory))? {
        let path = entry.map_err(io(directory))?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    let suite = |path: PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).map_err(io(&path))?;
        let items = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let items: Result<Vec<SuiteItem>, SuitesError> = items
            .map(|(index, line)| check_item(line).map_err(|problem| rejected(&name, index, &problem)))
            .collect();
        Ok(Suite { items: items?, name })
    };
    paths.into_iter().map(suite).collect()
}

fn rejected(suite: &str, index: usize, problem: &str) -> SuitesError {
    SuitesError::Rejected(format!("line {} of suite {suite} {problem}", index + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suites(files: &[(&str, &str)]) -> Result<Vec<Suite>, SuitesError> {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).expect("written");
        }
        read(directory.path())
    }

    #[test]
    fn suites_are_sorted_and_other_files_left_alone() {
        let item = "{\"prompt\":\"a\",\"answer\":\"b\"}\n";
        let found = suites(&[("b.jsonl", item), ("a.jsonl", &item.repeat(2)), ("c.txt", "?")]).expect("suites");
        let found: Vec<_> = found
            .iter()
            .map(|suite| (suite.name.as_str(), suite.items.len()))
            .collect();
        assert_eq!(found, [("a", 2), ("b", 1)]);
    }

    #[test]
    fn what_is_no_item_is_named_by_its_line_and_never_quoted() {
        for (line, part) in [
            (r#"{"prompt":"secret"}"#, "give it answer"),
            (r#"{"answer":"secret"}"#, "asks nothing"),
            (r#"{"prompt":"a","regex":"(secret"}"#, "no regular expression"),
            (r#"{"prompt":{"secret":1},"answer":"secret"}"#, "is no item of gate/v1"),
        ] {
            let text = format!("{{\"prompt\":\"a\",\"answer\":\"b\"}}\n{line}\n");
            let why = suites(&[("a.jsonl", &text)]).expect_err("rejected").to_string();
            assert!(why.starts_with("line 2 of suite a") && why.contains(part), "{why}");
            assert!(!why.contains("secret"), "{why}");
        }
    }
}
