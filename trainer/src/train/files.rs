//! Directories that are there as a whole or not at all, even when the pod is killed while it writes.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::contract::sync_directory_of;

/// Moves a finished directory to its place, also where an older one is, and sees to it that the move is on the disk.
///
/// # Errors
/// What the system says.
pub fn move_to(from: &Path, to: &Path) -> io::Result<()> {
    if to.is_dir() {
        fs::remove_dir_all(to)?;
    }
    fs::rename(from, to)?;
    sync_directory_of(to)
}

/// Where a directory is made before it is moved to `path`.
#[must_use]
pub fn partial(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.partial"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_takes_the_place_of_an_older_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let (old, new) = (directory.path().join("model"), directory.path().join(".model.partial"));
        for (path, text) in [(&old, "old"), (&new, "new")] {
            fs::create_dir(path).expect("a directory");
            fs::write(path.join(text), text).expect("a file");
        }
        assert_eq!(partial(&old), new);
        move_to(&new, &old).expect("moved");
        assert!(old.join("new").exists() && !old.join("old").exists());
    }
}
