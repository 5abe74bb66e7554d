//! Folders of files with an item a line, as the keys of a ConfigMap are mounted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use perennial_crds::retrain::SuiteItem;

/// An item, and where people find it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Placed {
    /// Name of its file.
    pub(crate) file: String,
    /// Its line, from 1.
    pub(crate) line: usize,
    pub(crate) item: SuiteItem,
}

/// Why there are no items. Holds no text of one.
#[derive(Debug)]
pub(crate) enum ItemsError {
    /// The folder is not there.
    Missing,
    /// A line is none, and what to do.
    Wrong { file: String, line: usize, problem: String },
    /// The disk failed.
    Io { path: PathBuf, source: io::Error },
}

impl ItemsError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}

/// Reads the items of all files of a folder, by name and line. `check` makes an item of a line.
pub(crate) fn read_items(
    folder: &Path,
    check: impl Fn(&str) -> Result<SuiteItem, String>,
) -> Result<Vec<Placed>, ItemsError> {
    let mut items = Vec::new();
    for path in files(folder)? {
        let text = fs::read(&path).map_err(ItemsError::io(&path))?;
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for (bytes, line) in text.split(|byte| *byte == b'\n').zip(1..) {
            let wrong = |problem: String| ItemsError::Wrong {
                file: file.clone(),
                line,
                problem,
            };
            let text = std::str::from_utf8(bytes).map_err(|_| wrong("is no UTF-8".to_owned()))?;
            if text.trim().is_empty() {
                continue;
            }
            items.push(Placed {
                item: check(text).map_err(wrong)?,
                file: file.clone(),
                line,
            });
        }
    }
    Ok(items)
}

/// The keys of a ConfigMap are files, which lead to a hidden folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>, ItemsError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ItemsError::Missing),
        entries => entries.map_err(ItemsError::io(folder))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(ItemsError::io(folder))?.path();
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::contract::check_question;

    #[test]
    fn files_come_by_name_and_every_item_knows_its_place() {
        let directory = tempfile::tempdir().expect("a directory");
        // As the kubelet lays them out.
        let hidden = directory.path().join("..1");
        fs::create_dir(&hidden).expect("a folder");
        fs::write(hidden.join("b.jsonl"), "{\"prompt\":\"3\"}").expect("written");
        fs::write(hidden.join("a.jsonl"), "{\"prompt\":\"1\"}\r\n \n{\"prompt\":\"2\"}\n").expect("written");
        symlink("..1", directory.path().join("..data")).expect("a link");
        for name in ["a.jsonl", "b.jsonl"] {
            symlink(Path::new("..data").join(name), directory.path().join(name)).expect("a link");
        }
        let items = read_items(directory.path(), check_question).expect("items");
        let places: Vec<(&str, usize, Option<&str>)> = items
            .iter()
            .map(|placed| (placed.file.as_str(), placed.line, placed.item.prompt.as_deref()))
            .collect();
        assert_eq!(
            places,
            [
                ("a.jsonl", 1, Some("1")),
                ("a.jsonl", 3, Some("2")),
                ("b.jsonl", 1, Some("3"))
            ]
        );
        fs::write(directory.path().join("c"), b"\n\xff").expect("written");
        let wrong = read_items(directory.path(), check_question).expect_err("no text");
        assert!(
            matches!(&wrong, ItemsError::Wrong { file, line: 2, problem } if file == "c" && problem == "is no UTF-8"),
            "{wrong:?}"
        );
        let missing = read_items(Path::new("/does/not/exist"), check_question).expect_err("missing");
        assert!(matches!(missing, ItemsError::Missing));
    }
}
