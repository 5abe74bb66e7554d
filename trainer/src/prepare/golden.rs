//! The user's own suites.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use perennial_crds::retrain::SuiteItem;

use super::error::PrepareError;
use crate::contract::check_item;

/// Reads the suites of these names: a folder each, in which every file holds an item a line.
///
/// # Errors
/// [`PrepareError::Rejected`] when a line is no item, or a suite has none.
pub fn read(directory: &Path, names: &[String]) -> Result<BTreeMap<String, Vec<SuiteItem>>, PrepareError> {
    let mut suites = BTreeMap::new();
    for name in names {
        let folder = directory.join(name);
        let mut items = Vec::new();
        for path in files(&folder, name)? {
            let text = fs::read(&path).map_err(PrepareError::io("read", &path))?;
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            parse(&text, name, &file, &mut items)?;
        }
        if items.is_empty() {
            return Err(PrepareError::Rejected(format!(
                "the suite {name} has no items: give its ConfigMap a key with one JSON object a line"
            )));
        }
        suites.insert(name.clone(), items);
    }
    Ok(suites)
}

/// The keys of a ConfigMap are files, which lead to a hidden folder.
fn files(folder: &Path, name: &str) -> Result<Vec<PathBuf>, PrepareError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(PrepareError::Rejected(format!("the suite {name} is not there")));
        }
        entries => entries.map_err(PrepareError::io("read", folder))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(PrepareError::io("read", folder))?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && path.is_file() {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn parse(text: &[u8], suite: &str, file: &str, items: &mut Vec<SuiteItem>) -> Result<(), PrepareError> {
    let rejected = |line: usize, problem: &str| {
        PrepareError::Rejected(format!("line {line} of {file} of the suite {suite} {problem}"))
    };
    for (line, number) in text.split(|byte| *byte == b'\n').zip(1..) {
        let line = std::str::from_utf8(line).map_err(|_| rejected(number, "is no UTF-8"))?;
        if !line.trim().is_empty() {
            items.push(check_item(line).map_err(|problem| rejected(number, &problem))?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
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
}
