//! The user's own suites, and sets of prompts that must not be learned.

use std::collections::BTreeMap;
use std::path::Path;

use perennial_crds::retrain::SuiteItem;

use super::error::PrepareError;
use crate::contract::{ItemsError, check_item, check_question, read_items};

/// Reads the suites of these names: a folder each, in which every file holds an item a line.
///
/// # Errors
/// [`PrepareError::Rejected`] when a line is no item, or a suite has none.
pub fn read(directory: &Path, names: &[String]) -> Result<BTreeMap<String, Vec<SuiteItem>>, PrepareError> {
    let mut suites = BTreeMap::new();
    for name in names {
        let items = items(directory, name, "suite", check_item)?;
        if items.is_empty() {
            return Err(PrepareError::Rejected(format!(
                "the suite {name} has no items: give its ConfigMap a key with one JSON object a line"
            )));
        }
        suites.insert(name.clone(), items);
    }
    Ok(suites)
}

/// Reads the prompts of the sets of these names, which lie beside the suites and need no answer. A set may be empty, because
/// nothing is judged by it.
///
/// # Errors
/// [`PrepareError::Rejected`] when a set is not there or a line is none: what must not be learned is then not known.
pub fn read_excluded(directory: &Path, names: &[String]) -> Result<Vec<SuiteItem>, PrepareError> {
    let mut prompts = Vec::new();
    for name in names {
        prompts.extend(items(directory, name, "set of prompts", check_question)?);
    }
    Ok(prompts)
}

fn items(
    directory: &Path,
    name: &str,
    kind: &str,
    check: impl Fn(&str) -> Result<SuiteItem, String>,
) -> Result<Vec<SuiteItem>, PrepareError> {
    let read = read_items(&directory.join(name), check).map_err(|error| match error {
        ItemsError::Missing => PrepareError::Rejected(format!("the {kind} {name} is not there")),
        ItemsError::Wrong { file, line, problem } => {
            PrepareError::Rejected(format!("line {line} of {file} of the {kind} {name} {problem}"))
        }
        ItemsError::Io { path, source } => PrepareError::io("read", &path)(source),
    })?;
    Ok(read.into_iter().map(|placed| placed.item).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const ITEM: &str = r#"{"prompt":"a","answer":"b"}"#;

    fn suites(files: &[(&str, &str)]) -> Result<Vec<SuiteItem>, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let folder = directory.path().join("golden");
        fs::create_dir(&folder).expect("a folder");
        for (name, text) in files {
            fs::write(folder.join(name), text).expect("written");
        }
        let suites = read(directory.path(), &["golden".to_owned()]).map_err(|error| error.to_string())?;
        Ok(suites["golden"].clone())
    }

    #[test]
    fn every_key_of_a_config_map_holds_items() {
        let two = format!("{ITEM}\n\n{ITEM}\r\n");
        assert_eq!(
            suites(&[("items.jsonl", &two), ("more", ITEM)]).expect("items").len(),
            3
        );
        let directory = tempfile::tempdir().expect("a directory");
        // As the kubelet lays them out.
        let (folder, hidden) = (directory.path().join("golden"), directory.path().join("golden/..1"));
        fs::create_dir_all(&hidden).expect("a folder");
        fs::write(hidden.join("items"), ITEM).expect("written");
        symlink("..1", folder.join("..data")).expect("a link");
        symlink("..data/items", folder.join("items")).expect("a link");
        let suites = read(directory.path(), &["golden".to_owned()]).expect("items");
        assert_eq!(suites["golden"].len(), 1);
    }

    #[test]
    fn what_is_no_item_is_told_by_its_place() {
        let wrong = format!("{ITEM}\n{{\"prompt\":\"secret\"}}");
        let why = suites(&[("items.jsonl", &wrong)]).expect_err("refused");
        assert!(
            why.starts_with("line 2 of items.jsonl of the suite golden says nothing"),
            "{why}"
        );
        assert!(!why.contains("secret"), "{why}");
        assert!(
            suites(&[("items.jsonl", "\n")])
                .expect_err("refused")
                .contains("no items")
        );
        let missing = read(Path::new("/does/not/exist"), &["golden".to_owned()]).expect_err("refused");
        assert!(matches!(missing, PrepareError::Rejected(_)));
    }

    #[test]
    fn sets_of_prompts_need_no_answer_and_all_of_them_count() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |set: &str, text: &str| {
            fs::create_dir_all(directory.path().join(set)).expect("a folder");
            fs::write(directory.path().join(set).join("prompts"), text).expect("written");
        };
        let sets = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            read_excluded(directory.path(), &names).map_err(|error| error.to_string())
        };
        write("one", "{\"prompt\":\"a\"}\n{\"prompt\":\"b\",\"answer\":\"c\"}\n");
        write("two", "{\"messages\":[{\"role\":\"user\",\"content\":\"d\"}]}");
        write("none", "\n");
        assert_eq!(sets(&["one", "none", "two"]).expect("prompts").len(), 3);
        assert!(sets(&[]).expect("none").is_empty());
        write("wrong", "{\"answer\":\"secret\"}");
        let why = sets(&["one", "wrong"]).expect_err("refused");
        assert_eq!(
            why,
            "line 1 of prompts of the set of prompts wrong asks nothing; give it messages or prompt"
        );
        assert_eq!(
            sets(&["other"]).expect_err("refused"),
            "the set of prompts other is not there"
        );
    }
}
