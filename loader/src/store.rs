//! What is on disk of one model: finished files, partial ones, and records that let a restarted container continue.
//!
//! `SCRATCH/models/KEY/files` holds finished files only, each moved there in one step after its digest was known;
//! `SCRATCH/models/KEY/state` holds everything else. A record counts only for the bytes it was written for: size and
//! time of modification must be the same, and so must the boot of the machine, because what an earlier boot recorded
//! may never have reached the disk. Otherwise the file is hashed again.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use perennial_crds::serving::ResolvedModel;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::digest::{Digest, hash_file};
use crate::error::LoadError;
use crate::part::Part;
use crate::{LocalModel, resolved_model};

const MODEL_RECORD: &str = "model.json";

/// The place of one model on disk.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

/// A finished file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finished {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    size: u64,
    modified: (i64, i64),
    boot: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct FileRecord {
    file: Finished,
    stamp: Stamp,
}

#[derive(Debug, Serialize, Deserialize)]
struct ModelRecord {
    resolved: ResolvedModel,
    /// Directory of the model below `files`.
    directory: String,
    files: Vec<String>,
}

impl Store {
    /// The place for what `identity` names.
    pub(crate) fn new(scratch: &Path, identity: &str) -> Self {
        Self {
            root: scratch.join("models").join(key(identity)),
        }
    }

    /// Makes the directories.
    pub(crate) fn create(&self) -> Result<(), LoadError> {
        for directory in [self.files(), self.state()] {
            fs::create_dir_all(&directory).map_err(|error| LoadError::io("create directory", &directory, error))?;
        }
        Ok(())
    }

    pub(crate) fn files(&self) -> PathBuf {
        self.root.join("files")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// Where the bytes of a file arrive.
    pub(crate) fn part_file(&self, name: &str) -> PathBuf {
        self.state_file(name, "part")
    }

    /// The record of a partial download, if it is sound and from this boot or `verifiable` by a digest afterwards.
    pub(crate) fn part(&self, name: &str, verifiable: bool) -> Option<Part> {
        let part: Part = read(&self.state_file(name, "part.json"))?;
        let file = fs::metadata(self.part_file(name)).ok()?;
        (part.is_sound() && file.len() <= part.size() && (verifiable || part.boot == boot())).then_some(part)
    }

    pub(crate) fn save_part(&self, name: &str, part: &Part) -> Result<(), LoadError> {
        write(&self.state_file(name, "part.json"), part)
    }

    pub(crate) fn remove_part(&self, name: &str) -> Result<(), LoadError> {
        remove(&self.state_file(name, "part.json"))?;
        remove(&self.part_file(name))
    }

    /// A file that an earlier start finished, if its bytes are still the recorded ones and `expected`.
    pub(crate) fn finished(
        &self,
        name: &str,
        expected: Option<Digest>,
        cancel: &CancellationToken,
    ) -> Result<Option<Finished>, LoadError> {
        let Some(record) = read::<FileRecord>(&self.state_file(name, "json")) else {
            return Ok(None);
        };
        let path = self.files().join(name);
        let Ok(stamp) = stamp(&path) else { return Ok(None) };
        let digest = if stamp == record.stamp {
            record.file.digest
        } else {
            hash_file(&path, None, cancel)?
        };
        if digest != record.file.digest || expected.is_some_and(|expected| expected != digest) {
            remove(&path)?;
            remove(&self.state_file(name, "json"))?;
            return Ok(None);
        }
        if stamp != record.stamp {
            self.record(&record.file)?;
        }
        Ok(Some(record.file))
    }

    /// Moves a verified file from `from` to its place, and records it.
    pub(crate) fn commit(&self, from: &Path, file: &Finished) -> Result<(), LoadError> {
        let path = self.files().join(&file.name);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(|error| LoadError::io("create directory", directory, error))?;
        }
        fs::rename(from, &path).map_err(|error| LoadError::io("move to", &path, error))?;
        remove(&self.state_file(&file.name, "part.json"))?;
        self.record(file)
    }

    /// Removes everything: what is here must never be served.
    pub(crate) fn remove_all(&self) -> Result<(), LoadError> {
        match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(LoadError::io("remove", &self.root, error))
            }
            _ => Ok(()),
        }
    }

    /// Records that the model is complete, and describes it. `directory` is the model's directory below `files`.
    pub(crate) fn complete(
        &self,
        uri: String,
        digest: Digest,
        directory: &str,
        files: &[Finished],
    ) -> Result<LocalModel, LoadError> {
        let resolved = resolved_model(uri, digest.to_string(), files.iter().map(|file| file.size));
        let mut names: Vec<String> = files.iter().map(|file| file.name.clone()).collect();
        names.sort_unstable();
        let record = ModelRecord {
            resolved,
            directory: directory.to_owned(),
            files: names,
        };
        write(&self.state().join(MODEL_RECORD), &record)?;
        Ok(self.describe(record))
    }

    /// The complete model of an earlier start, if every byte of it is still right and its digest is `expected`.
    pub(crate) fn completed(
        &self,
        expected: Option<Digest>,
        cancel: &CancellationToken,
    ) -> Result<Option<LocalModel>, LoadError> {
        let Some(record) = read::<ModelRecord>(&self.state().join(MODEL_RECORD)) else {
            return Ok(None);
        };
        if expected.is_some_and(|expected| expected.to_string() != record.resolved.digest) {
            return Ok(None);
        }
        for name in &record.files {
            if self.finished(name, None, cancel)?.is_none() {
                remove(&self.state().join(MODEL_RECORD))?;
                return Ok(None);
            }
        }
        Ok(Some(self.describe(record)))
    }

    fn describe(&self, record: ModelRecord) -> LocalModel {
        let files = self.files();
        LocalModel {
            directory: if record.directory.is_empty() {
                files.clone()
            } else {
                files.join(&record.directory)
            },
            files: record.files.iter().map(|name| files.join(name)).collect(),
            resolved: record.resolved,
        }
    }

    fn record(&self, file: &Finished) -> Result<(), LoadError> {
        let path = self.files().join(&file.name);
        let stamp = stamp(&path).map_err(|error| LoadError::io("read", &path, error))?;
        write(
            &self.state_file(&file.name, "json"),
            &FileRecord {
                file: file.clone(),
                stamp,
            },
        )
    }

    fn state_file(&self, name: &str, extension: &str) -> PathBuf {
        self.state().join(format!("{}.{extension}", key(name)))
    }
}

/// Identifies this boot of the machine; the same text everywhere where the kernel does not tell.
pub(crate) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

fn key(identity: &str) -> String {
    let mut hex = Digest::of(identity.as_bytes()).hex();
    hex.truncate(24);
    hex
}

fn stamp(path: &Path) -> std::io::Result<Stamp> {
    let metadata = fs::symlink_metadata(path)?;
    Ok(Stamp {
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        boot: boot(),
    })
}

/// A record; one that is missing, damaged or of another version is no record.
fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Writes a record in one step, so that it is never half there.
fn write<T: Serialize>(path: &Path, record: &T) -> Result<(), LoadError> {
    let bytes = serde_json::to_vec(record).map_err(LoadError::internal)?;
    let temporary = path.with_extension("new");
    fs::write(&temporary, bytes).map_err(|error| LoadError::io("write", &temporary, error))?;
    fs::rename(&temporary, path).map_err(|error| LoadError::io("write", path, error))
}

fn remove(path: &Path) -> Result<(), LoadError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(LoadError::io("remove", path, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store_with_file(directory: &Path) -> (Store, Finished) {
        let store = Store::new(directory, "test");
        store.create().unwrap();
        let file = Finished {
            name: "sub/a.gguf".into(),
            size: 5,
            digest: Digest::of(b"bytes"),
        };
        fs::write(store.part_file(&file.name), b"bytes").unwrap();
        store.commit(&store.part_file(&file.name), &file).unwrap();
        (store, file)
    }

    #[test]
    fn a_record_counts_only_for_its_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let (store, file) = store_with_file(directory.path());
        let cancel = CancellationToken::new();
        assert_eq!(store.finished(&file.name, None, &cancel).unwrap(), Some(file.clone()));
        let path = store.files().join(&file.name);
        // Touched but equal: hashed again, and kept.
        fs::write(&path, b"bytes").unwrap();
        assert_eq!(
            store.finished(&file.name, Some(file.digest), &cancel).unwrap(),
            Some(file.clone())
        );
        fs::write(&path, b"other").unwrap();
        assert_eq!(store.finished(&file.name, None, &cancel).unwrap(), None);
        assert!(!path.exists());
    }

    #[test]
    fn another_digest_is_not_served() {
        let directory = tempfile::tempdir().unwrap();
        let (store, file) = store_with_file(directory.path());
        let cancel = CancellationToken::new();
        store
            .complete("file:///x".into(), file.digest, "", std::slice::from_ref(&file))
            .unwrap();
        assert!(store.completed(Some(file.digest), &cancel).unwrap().is_some());
        assert!(store.completed(Some(Digest::of(b"other")), &cancel).unwrap().is_none());
        fs::write(store.files().join(&file.name), b"other").unwrap();
        assert!(store.completed(Some(file.digest), &cancel).unwrap().is_none());
        assert!(store.completed(None, &cancel).unwrap().is_none());
    }

    #[test]
    fn parts_of_another_boot_need_a_digest() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path(), "test");
        store.create().unwrap();
        fs::write(store.part_file("a"), b"12345").unwrap();
        store
            .save_part("a", &Part::new(10, 5, None, "an earlier boot".into()))
            .unwrap();
        assert!(store.part("a", false).is_none());
        assert!(store.part("a", true).is_some());
        fs::write(store.state_file("a", "part.json"), b"{").unwrap();
        assert!(store.part("a", true).is_none());
    }
}
