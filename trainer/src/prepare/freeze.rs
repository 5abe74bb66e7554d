//! Writes what was decided, so that it is there as a whole or not at all, and knows it again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use perennial_crds::retrain::{
    MANIFEST_FILE, Manifest, ManifestFile, PrepareSettings, RETRAIN_CONTRACT, SuiteItem, TrainingRow,
};
use serde::Serialize;

use super::error::PrepareError;
use super::plan::Prepared;
use crate::contract::{Sha256Sum, clean_path, sha256_of_file, suites_digest, write_atomically, write_bytes};

/// Folder with what may be trained on.
pub const DATA: &str = "data";
/// Folder with what both models are judged by.
pub const SUITES: &str = "suites";
const REPORT: &str = "drift";
const REPORT_FILE: &str = "report.json";
/// Folders of the Jobs that follow, which may run as other users.
const THEIRS: [&str; 2] = ["output", "gate"];
/// Mode of these folders.
const FOR_ALL: u32 = 0o777;

/// What is frozen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frozen {
    /// Digest of the manifest.
    pub manifest_digest: String,
    /// Rows in all files.
    pub records: u64,
    /// Items of each suite.
    pub items: BTreeMap<String, u64>,
    /// Digest of all suites.
    pub suites_digest: String,
}

/// Writes rows, suites and the report, and at last the manifest, with which all of it is valid.
///
/// # Errors
/// What the system says.
pub fn freeze(
    output: &Path,
    prepared: &Prepared,
    own: &BTreeMap<String, Vec<SuiteItem>>,
    report: &str,
    settings: &PrepareSettings,
) -> Result<Frozen, PrepareError> {
    let (data, suites, drift) = (output.join(DATA), output.join(SUITES), output.join(REPORT));
    // What an earlier try left, which did not come to its end: another window may have had other suites.
    if suites.exists() {
        fs::remove_dir_all(&suites).map_err(PrepareError::io("delete", &suites))?;
    }
    for folder in [&data, &suites, &drift] {
        fs::create_dir_all(folder).map_err(PrepareError::io("create", folder))?;
    }
    for folder in THEIRS.map(|name| output.join(name)) {
        share(&folder).map_err(PrepareError::io("create", &folder))?;
    }
    let recent = settings.recent_suites.iter().map(|name| (name, &prepared.held_out));
    for (name, items) in own.iter().chain(recent) {
        write_lines(&suites.join(format!("{name}.jsonl")), items)?;
    }
    let path = drift.join(REPORT_FILE);
    write_bytes(&path, report.as_bytes()).map_err(PrepareError::io("write", &path))?;
    let files = [("train", &prepared.train), ("validation", &prepared.validation)];
    let files = files.map(|(split, rows)| file(&data, split, rows));
    let manifest = Manifest {
        schema: RETRAIN_CONTRACT.to_owned(),
        cycle_id: settings.cycle_id.clone(),
        from: settings.from,
        to: settings.to,
        files: files.into_iter().collect::<Result<_, _>>()?,
        max_percent_per_requester: settings.max_percent_per_requester,
        excluded: prepared.excluded.clone(),
        evaluation_hash: prepared.evaluation_hash.clone(),
    };
    let path = data.join(MANIFEST_FILE);
    write_atomically::<io::Error>(&path, |file| Ok(serde_json::to_writer_pretty(file, &manifest)?))
        .map_err(PrepareError::io("write", &path))?;
    finished(output, settings)?.ok_or_else(|| PrepareError::Changed("what was written is not there".to_owned()))
}

/// Makes a folder into which any user may write. An earlier try may have been killed before it had opened it.
fn share(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    if fs::metadata(folder)?.permissions().mode() & FOR_ALL == FOR_ALL {
        return Ok(());
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(FOR_ALL))
}

fn file(data: &Path, split: &str, rows: &[TrainingRow]) -> Result<ManifestFile, PrepareError> {
    let name = format!("{split}.jsonl");
    let (sha256, bytes) = write_lines(&data.join(&name), rows)?;
    Ok(ManifestFile {
        path: name,
        split: split.to_owned(),
        sha256,
        rows: rows.len() as u64,
        bytes,
    })
}

/// Writes a line for each; tells the hash and the size.
fn write_lines<T: Serialize>(path: &Path, rows: &[T]) -> Result<(String, u64), PrepareError> {
    let (mut sum, mut size) = (Sha256Sum::default(), 0);
    let written = write_atomically::<io::Error>(path, |file| {
        for row in rows {
            let mut line = serde_json::to_vec(row)?;
            line.push(b'\n');
            sum.update(&line);
            size += line.len() as u64;
            file.write_all(&line)?;
        }
        Ok(())
    });
    written.map_err(PrepareError::io("write", path))?;
    Ok((sum.hex(), size))
}

/// What an earlier run froze for this cycle, if it came to its end.
///
/// # Errors
/// [`PrepareError::Changed`] when that is not what is there now, or is of another cycle.
pub fn finished(output: &Path, settings: &PrepareSettings) -> Result<Option<Frozen>, PrepareError> {
    let data = output.join(DATA);
    let path = data.join(MANIFEST_FILE);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(PrepareError::io("read", &path))?,
    };
    let changed = |what: String| PrepareError::Changed(format!("{what}; a cycle has a directory of its own"));
    let manifest: Manifest = serde_json::from_slice(&bytes)
        .map_err(|_| changed(format!("{} is there and is no manifest", path.display())))?;
    if manifest.cycle_id != settings.cycle_id {
        let (there, told) = (&manifest.cycle_id, &settings.cycle_id);
        return Err(changed(format!(
            "the data of cycle {there} is where that of {told} should go"
        )));
    }
    for file in &manifest.files {
        let path = data.join(&file.path);
        let found = sha256_of_file(&path).map_err(PrepareError::io("read", &path))?;
        if !clean_path(&file.path) || found != (file.sha256.clone(), file.bytes) {
            return Err(changed(format!("{} was changed after it was frozen", path.display())));
        }
    }
    let suites = output.join(SUITES);
    let mut items = BTreeMap::new();
    for name in settings.own_suites.iter().chain(&settings.recent_suites) {
        let path = suites.join(format!("{name}.jsonl"));
        let text = fs::read(&path).map_err(PrepareError::io("read", &path))?;
        items.insert(name.clone(), text.iter().filter(|byte| **byte == b'\n').count() as u64);
    }
    Ok(Some(Frozen {
        manifest_digest: format!("sha256:{}", Sha256Sum::of(&bytes)),
        records: manifest.files.iter().map(|file| file.rows).sum(),
        items,
        suites_digest: suites_digest(&suites).map_err(PrepareError::io("read", &suites))?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_an_earlier_try_made_and_did_not_open_is_opened() {
        let directory = tempfile::tempdir().expect("a directory");
        let mode = |folder: &Path| fs::metadata(folder).expect("a folder").permissions().mode() & 0o777;
        let (fresh, left) = (directory.path().join("output"), directory.path().join("gate"));
        fs::create_dir(&left).expect("a folder");
        fs::set_permissions(&left, fs::Permissions::from_mode(0o755)).expect("a mode");
        for folder in [&fresh, &left] {
            share(folder).expect("a folder");
            assert_eq!(mode(folder), 0o777, "{}", folder.display());
            share(folder).expect("as it is");
        }
    }
}
