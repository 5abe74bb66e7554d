//! Deletes from the folders of cycles that have ended what nobody needs any more: first the users' texts, so that they are
//! not kept for longer than they are used, and models that never will serve, so that the volume does not fill.
//!
//! A trainer of the user's may have written as another user what cannot be deleted here. Then the rest goes all the same,
//! and it is told.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use perennial_crds::retrain::{EndedCycle, MANIFEST_FILE};

use super::freeze::{DATA, SUITES};

/// Tidies up beside `output`, the folder of the cycle that begins. Tells how many folders could not be dealt with.
pub fn tidy(output: &Path, ended: &[EndedCycle]) -> usize {
    let Some(beside) = output.parent() else { return 0 };
    let mut failed = 0;
    for cycle in ended {
        let folder = beside.join(&cycle.cycle_id);
        if folder == output {
            continue;
        }
        match of_one(&folder, cycle.discard) {
            Ok(false) => {}
            Ok(true) => tracing::info!(
                ended = cycle.cycle_id,
                all = cycle.discard,
                "deleted what is not needed"
            ),
            Err(error) => {
                failed += 1;
                tracing::warn!(folder = %folder.display(), %error, "cannot delete what is not needed: delete it by hand");
            }
        }
    }
    failed
}

/// Whether there was something to delete; the first error, after all else.
fn of_one(folder: &Path, discard: bool) -> io::Result<bool> {
    if !is_directory(folder)? {
        return Ok(false);
    }
    if discard {
        return remove(folder).map(|()| true);
    }
    let rows = rows(&folder.join(DATA));
    let items = folder.join(SUITES);
    let items = is_directory(&items).and_then(|there| {
        if there {
            remove(&items).map(|()| true)
        } else {
            Ok(false)
        }
    });
    Ok(rows? | items?)
}

/// All but the manifest, which holds figures and hashes and goes on telling what a model was trained on.
fn rows(data: &Path) -> io::Result<bool> {
    if !is_directory(data)? {
        return Ok(false);
    }
    let (mut found, mut outcome) = (false, Ok(()));
    for entry in fs::read_dir(data)? {
        let entry = entry?;
        if entry.file_name() != MANIFEST_FILE {
            found = true;
            outcome = outcome.and(remove(&entry.path()));
        }
    }
    outcome.map(|()| found)
}

/// Whether it is a folder, and not a link to one: what is behind a link is not ours.
fn is_directory(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(found.is_dir()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes as much as can be, follows no link, and gives the first error. The library's own ends at that.
fn remove(path: &Path) -> io::Result<()> {
    let told = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    if !fs::symlink_metadata(path).map_err(told)?.is_dir() {
        return fs::remove_file(path).map_err(told);
    }
    let mut outcome = Ok(());
    match fs::read_dir(path) {
        Ok(entries) => {
            for entry in entries {
                outcome = outcome.and(entry.and_then(|entry| remove(&entry.path())));
            }
        }
        Err(error) => outcome = Err(told(error)),
    }
    outcome.and(fs::remove_dir(path).map_err(told))
}
