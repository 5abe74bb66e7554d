//! Who asked is stored as a keyed hash: the same requester can be recognised, and nobody can find out who that is by hashing names.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::hmac::hmac_sha256;
use crate::contract::sync_directory_of;

/// Name of the file with the key.
pub const KEY_FILE: &str = ".requester-key";
/// Its length.
pub const KEY_BYTES: usize = 32;
/// Bytes of a hash that are kept.
const HASH_BYTES: usize = 8;

/// Hashes the names of requesters.
pub struct Requesters {
    key: [u8; KEY_BYTES],
}

impl Requesters {
    /// With a key that is kept elsewhere.
    #[must_use]
    pub fn with(key: [u8; KEY_BYTES]) -> Self {
        Self { key }
    }

    /// With the key of a directory, which is made if there is none.
    ///
    /// # Errors
    /// What the system says, or that the key is damaged.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join(KEY_FILE);
        match fs::read(&path) {
            Ok(bytes) => match <[u8; KEY_BYTES]>::try_from(bytes) {
                Ok(key) => Ok(Self { key }),
                Err(_) => Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "the key for names of requesters is damaged: restore {KEY_FILE}, or delete it if requesters of before \
                         need not be recognised"
                    ),
                )),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::make(&path),
            Err(error) => Err(error),
        }
    }

    fn make(path: &Path) -> io::Result<Self> {
        let key: [u8; KEY_BYTES] = rand::random();
        let partial = path.with_extension("partial");
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)?;
        file.write_all(&key)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        sync_directory_of(path)?;
        Ok(Self { key })
    }

    /// The hash of a name: 16 hex digits.
    #[must_use]
    pub fn hash(&self, requester: &str) -> String {
        crate::contract::hex(&hmac_sha256(&self.key, requester.as_bytes())[..HASH_BYTES])
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_for_nobody_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = Requesters::open(directory.path()).expect("a key");
        let again = Requesters::open(directory.path()).expect("a key");
        assert_eq!(first.hash("alice"), again.hash("alice"));
        assert_ne!(first.hash("alice"), first.hash("bob"));
        assert_eq!(first.hash("alice").len(), 16);
        let file = fs::metadata(directory.path().join(KEY_FILE)).expect("the key");
        assert_eq!((file.len(), file.permissions().mode() & 0o777), (32, 0o600));
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);
    }

    #[test]
    fn directories_have_keys_of_their_own_and_a_damaged_one_is_not_used() {
        let (one, other) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("other"));
        let hash = |directory: &Path| Requesters::open(directory).expect("a key").hash("alice");
        assert_ne!(hash(one.path()), hash(other.path()));
        fs::write(one.path().join(KEY_FILE), "short").expect("written");
        let error = Requesters::open(one.path()).err().expect("refused");
        assert!(error.to_string().contains("damaged"), "{error}");
    }
}
