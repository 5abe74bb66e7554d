//! Files that are there as a whole or not at all, and their hashes.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Component, Path};

use sha2::{Digest as _, Sha256};

const BUFFER_BYTES: usize = 1 << 20;

/// A sha256 in the making, told in hex digits as `sha256sum` prints them.
#[derive(Clone, Default)]
pub struct Sha256Sum(Sha256);

impl Sha256Sum {
    /// Of bytes that are all there.
    #[must_use]
    pub fn of(bytes: &[u8]) -> String {
        let mut sum = Self::default();
        sum.update(bytes);
        sum.hex()
    }

    /// More bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The 64 hex digits.
    #[must_use]
    pub fn hex(self) -> String {
        hex(&self.0.finalize())
    }
}

/// Bytes as lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The hex digits of a file's sha256, and its size.
///
/// # Errors
/// What the system says.
pub fn sha256_of_file(path: &Path) -> io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    let (mut sum, mut size) = (Sha256Sum::default(), 0);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((sum.hex(), size));
        }
        sum.update(&buffer[..count]);
        size += count as u64;
    }
}

/// Writes a file beside its place and moves it there when its bytes are on the disk.
///
/// # Errors
/// What the system says; the old file is then untouched.
pub fn write_atomically<E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<(), E>,
) -> Result<(), E> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!(".{name}.partial"));
    let outcome = written(&partial, write).and_then(|()| {
        fs::rename(&partial, path)?;
        sync_directory_of(path).map_err(E::from)
    });
    if outcome.is_err() {
        // The disk may be full: what is left of the attempt would keep it so.
        let _ = fs::remove_file(&partial);
    }
    outcome
}

/// [`write_atomically`] of bytes that are all there.
///
/// # Errors
/// What the system says.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_atomically(path, |file| file.write_all(bytes))
}

fn written<E: From<io::Error>>(
    partial: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<(), E>,
) -> Result<(), E> {
    let mut file = BufWriter::with_capacity(BUFFER_BYTES, File::create(partial)?);
    write(&mut file)?;
    file.flush()?;
    file.get_ref().sync_all()?;
    Ok(())
}

/// Sees to it that the name of a file is on the disk.
pub(crate) fn sync_directory_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Whether a path leads downwards and nowhere else.
#[must_use]
pub fn clean_path(path: &str) -> bool {
    !path.is_empty()
        && !path.contains('\0')
        && Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn hashes_are_those_of_sha256sum() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a");
        fs::write(&path, "abc").expect("written");
        assert_eq!(Sha256Sum::of(b"abc"), OF_ABC);
        assert_eq!(sha256_of_file(&path).expect("a hash"), (OF_ABC.to_owned(), 3));
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a");
        write_bytes(&path, b"old").expect("written");
        let failed = write_atomically(&path, |file| {
            file.write_all(b"new")?;
            Err(io::Error::other("no"))
        });
        assert_eq!(failed.expect_err("failed").to_string(), "no");
        assert_eq!(fs::read(&path).expect("the file"), b"old");
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);
        write_bytes(&path, b"new").expect("written");
        assert_eq!(fs::read(&path).expect("the file"), b"new");
    }

    #[test]
    fn only_paths_that_lead_downwards_are_clean() {
        assert!(clean_path("a") && clean_path("a/b.c"));
        for path in ["", "/a", "../a", "a/../b", "./a", "a\0"] {
            assert!(!clean_path(path), "{path:?}");
        }
    }
}
