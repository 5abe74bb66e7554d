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

/// Whether there was something to delete.
fn of_one(folder: &Path, discard: bool) -> io::Result<bool> {
    // Not through a link: what is behind it is not ours.
    match fs::symlink_metadata(folder) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    // Texts first, so that they are gone also where the rest cannot be deleted.
    let rows = rows(&folder.join(DATA));
    let items = directory(&folder.join(SUITES));
    let texts = rows? | items?;
    if discard {
        fs::remove_dir_all(folder)?;
    }
    Ok(texts || discard)
}

/// All but the manifest, which holds figures and hashes and goes on telling what a model was trained on.
fn rows(data: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(data) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        entries => entries?,
    };
    let mut found = false;
    for entry in entries {
        let entry = entry?;
        if entry.file_name() == MANIFEST_FILE {
            continue;
        }
        found = true;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(found)
}

fn directory(path: &Path) -> io::Result<bool> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
