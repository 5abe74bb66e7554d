//! What may be trained on: exactly the bytes that the manifest names.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use perennial_crds::retrain::{Manifest, ManifestFile, RETRAIN_CONTRACT, TrainingRow};
use perennial_loader::Digest;

use crate::contract::{Sha256Sum, clean_path};

/// The rows of both splits.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// Digest of the manifest.
    pub manifest_digest: String,
    /// Rows to learn from.
    pub train: Vec<TrainingRow>,
    /// Rows to measure with.
    pub validation: Vec<TrainingRow>,
}

/// Why there is no data. Holds no text of a row.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The data is not what it should be.
    #[error("{0}")]
    Rejected(String),
    /// The disk failed.
    #[error("read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Reads the manifest of a cycle and every file that it names.
///
/// # Errors
/// [`DataError::Rejected`] when a byte differs from what the manifest says.
pub fn read(manifest: &Path, cycle: &str) -> Result<Data, DataError> {
    let bytes = std::fs::read(manifest).map_err(|source| DataError::Io {
        path: manifest.to_path_buf(),
        source,
    })?;
    let parsed: Manifest = serde_json::from_slice(&bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        DataError::Rejected(format!(
            "the manifest is no {RETRAIN_CONTRACT} (line {line}, column {column})"
        ))
    })?;
    check(&parsed, cycle).map_err(DataError::Rejected)?;
    let directory = manifest.parent().unwrap_or(Path::new("."));
    let mut data = Data {
        manifest_digest: Digest::of(&bytes).to_string(),
        train: Vec::new(),
        validation: Vec::new(),
    };
    for file in &parsed.files {
        let rows = read_file(directory, file)?;
        match file.split.as_str() {
            "train" => data.train.extend(rows),
            "validation" => data.validation.extend(rows),
            other => {
                return Err(DataError::Rejected(format!(
                    "{} is of an unknown split {other}",
                    file.path
                )));
            }
        }
    }
    for (split, rows) in [("train", &data.train), ("validation", &data.validation)] {
        if rows.is_empty() {
            return Err(DataError::Rejected(format!(
                "the manifest names no rows of split {split}"
            )));
        }
    }
    Ok(data)
}

fn check(manifest: &Manifest, cycle: &str) -> Result<(), String> {
    if manifest.schema != RETRAIN_CONTRACT {
        return Err(format!("the manifest does not say that it is {RETRAIN_CONTRACT}"));
    }
    if manifest.cycle_id != cycle {
        return Err(format!(
            "the manifest belongs to cycle {}, not {cycle}",
            manifest.cycle_id
        ));
    }
    match manifest.files.iter().find(|file| !clean_path(&file.path)) {
        Some(file) => Err(format!(
            "the manifest names a file outside its directory: {}",
            file.path
        )),
        None => Ok(()),
    }
}

fn read_file(directory: &Path, file: &ManifestFile) -> Result<Vec<TrainingRow>, DataError> {
    let path = directory.join(&file.path);
    let reject = |problem: String| DataError::Rejected(format!("{} {problem}", file.path));
    let io = |source| DataError::Io {
        path: path.clone(),
        source,
    };
    let opened = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(reject("is missing".to_owned())),
        opened => opened.map_err(io)?,
    };
    let mut reader = BufReader::with_capacity(1 << 20, opened);
    let (mut hasher, mut bytes, mut line) = (Sha256Sum::default(), 0, Vec::new());
    let mut rows: Vec<Result<TrainingRow, usize>> = Vec::new();
    loop {
        line.clear();
        let count = reader.read_until(b'\n', &mut line).map_err(io)?;
        if count == 0 {
            break;
        }
        hasher.update(&line);
        bytes += count as u64;
        // The parser's error would quote what it read.
        rows.push(serde_json::from_slice(&line).map_err(|error| error.column()));
    }
    let found = hasher.hex();
    if found != file.sha256 {
        return Err(reject(format!(
            "has sha256 {found}, not {}: it was changed after it was frozen",
            file.sha256
        )));
    }
    if (rows.len() as u64, bytes) != (file.rows, file.bytes) {
        let (found, said) = (rows.len(), file.rows);
        return Err(reject(format!(
            "has {found} rows in {bytes} bytes, not {said} in {}",
            file.bytes
        )));
    }
    let numbered = rows.into_iter().zip(1..);
    let parsed = numbered.map(|(row, line)| {
        row.map_err(|column| {
            reject(format!(
                "has no row of {RETRAIN_CONTRACT} in line {line} (column {column})"
            ))
        })
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    use perennial_crds::retrain::Excluded;

    use super::*;

    const ROW: &str = r#"{"prompt":"a","answer":"secret","label":"CorrectedOutputs","samplingWeight":2.0}"#;

    fn manifest(texts: &[(&str, &str, &str)]) -> (tempfile::TempDir, Manifest) {
        let directory = tempfile::tempdir().expect("a directory");
        let files = texts.iter().map(|(path, split, text)| {
            std::fs::write(directory.path().join(path), text).expect("written");
            ManifestFile {
                path: (*path).to_owned(),
                split: (*split).to_owned(),
                sha256: Digest::of(text.as_bytes()).hex(),
                rows: text.lines().count() as u64,
                bytes: text.len() as u64,
            }
        });
        let manifest = Manifest {
            schema: RETRAIN_CONTRACT.to_owned(),
            cycle_id: "c1".to_owned(),
            from: 0,
            to: 1,
            files: files.collect(),
            max_percent_per_requester: 10,
            excluded: Excluded::default(),
            evaluation_hash: String::new(),
        };
        (directory, manifest)
    }

    fn read_back((directory, manifest): &(tempfile::TempDir, Manifest)) -> Result<Data, DataError> {
        let path = directory.path().join("manifest.json");
        std::fs::write(&path, serde_json::to_vec(manifest).expect("JSON")).expect("written");
        read(&path, "c1")
    }

    fn both() -> (tempfile::TempDir, Manifest) {
        let train = format!("{ROW}\n{ROW}\n");
        manifest(&[("t.jsonl", "train", &train), ("v.jsonl", "validation", ROW)])
    }

    #[test]
    fn rows_of_both_splits_are_read() {
        let data = read_back(&both()).expect("data");
        assert_eq!((data.train.len(), data.validation.len()), (2, 1));
        assert_eq!(data.train[0].answer.as_deref(), Some("secret"));
        assert!(data.manifest_digest.starts_with("sha256:"));
    }

    fn rejected(change: impl FnOnce(&Path, &mut Manifest)) -> String {
        let mut both = both();
        change(both.0.path(), &mut both.1);
        match read_back(&both) {
            Err(DataError::Rejected(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_difference_from_the_manifest_is_found() {
        let changed = rejected(|path, _| {
            let text = format!("{ROW}\n{}\n", ROW.replace("secret", "forged"));
            std::fs::write(path.join("t.jsonl"), text).expect("written");
        });
        assert!(changed.contains("t.jsonl has sha256"), "{changed}");
        assert!(rejected(|_, manifest| manifest.files[1].rows = 2).contains("1 rows in"));
        assert!(rejected(|_, manifest| manifest.files[1].bytes = 2).contains("not 1 in 2"));
        assert!(rejected(|_, manifest| manifest.files[0].split = "test".to_owned()).contains("unknown split test"));
        assert!(rejected(|_, manifest| manifest.files[0].path = "../t.jsonl".to_owned()).contains("outside"));
        assert!(rejected(|_, manifest| manifest.files[0].path = "u.jsonl".to_owned()).contains("is missing"));
        assert!(rejected(|_, manifest| manifest.cycle_id = "c2".to_owned()).contains("cycle c2"));
        assert!(rejected(|_, manifest| manifest.schema = "x".to_owned()).contains("retrain/v1"));
        assert!(rejected(|_, manifest| manifest.files.truncate(1)).contains("split validation"));
    }

    #[test]
    fn an_error_quotes_no_row() {
        let wrong = r#"{"prompt":"a","answer":"secret","label":"secret","samplingWeight":"secret"}"#;
        let files = manifest(&[("t.jsonl", "train", wrong), ("v.jsonl", "validation", ROW)]);
        let why = read_back(&files).expect_err("rejected").to_string();
        assert!(why.contains("line 1") && !why.contains("secret"), "{why}");
    }
}
