//! Content digests: of a file, and of several files together.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::error::LoadError;
use crate::progress::Progress;

const PREFIX: &str = "sha256:";
const BUFFER_BYTES: usize = 1 << 20;

/// A sha256, written `sha256:` and 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The 64 hex digits without the prefix.
    #[must_use]
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// Reads 64 hex digits.
    #[must_use]
    pub fn from_hex(hex: &str) -> Option<Self> {
        let digits = hex.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{PREFIX}{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Digest {
    type Err = LoadError;

    fn from_str(text: &str) -> Result<Self, LoadError> {
        text.strip_prefix(PREFIX)
            .and_then(Self::from_hex)
            .ok_or_else(|| LoadError::InvalidArguments {
                subject: format!("digest {text:?}"),
                problem: "write it as sha256: and 64 hex digits".to_owned(),
            })
    }
}

impl TryFrom<String> for Digest {
    type Error = LoadError;

    fn try_from(text: String) -> Result<Self, LoadError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// A sha256 in the making.
#[derive(Default)]
pub(crate) struct Hasher(Sha256);

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// The digest of several files: the sha256 of `sha256sum`'s listing, sorted by path; of one file, its own sha256.
#[must_use]
pub fn digest_of_files<'a>(files: impl IntoIterator<Item = (&'a str, Digest)>) -> Digest {
    let mut files: Vec<(&str, Digest)> = files.into_iter().collect();
    if let [(_, only)] = files.as_slice() {
        return *only;
    }
    files.sort_unstable();
    let mut hasher = Hasher::default();
    for (path, digest) in files {
        hasher.update(format!("{}  {path}\n", digest.hex()).as_bytes());
    }
    hasher.finish()
}

/// Hashes a file on the present thread, counting its bytes in `progress`.
pub(crate) fn hash_file(
    path: &Path,
    progress: Option<&Progress>,
    cancel: &CancellationToken,
) -> Result<Digest, LoadError> {
    let mut file = File::open(path).map_err(|error| LoadError::io("open", path, error))?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        if cancel.is_cancelled() {
            return Err(LoadError::Cancelled);
        }
        let count = file
            .read(&mut buffer)
            .map_err(|error| LoadError::io("read", path, error))?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
        if let Some(progress) = progress {
            progress.add(u64::try_from(count).unwrap_or(0));
        }
    }
}

/// Refuses bytes that are not the ones asked for.
pub(crate) fn check(subject: &str, expected: Option<Digest>, actual: Digest) -> Result<(), LoadError> {
    match expected {
        Some(expected) if expected != actual => Err(LoadError::DigestMismatch {
            subject: subject.to_owned(),
            expected: expected.to_string(),
            actual: actual.to_string(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digests_read_and_write_themselves() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Digest::of(b""));
        for wrong in [
            "",
            "sha256:",
            "e3b0c44298",
            "md5:00",
            &EMPTY[..70],
            &format!("{EMPTY}0"),
        ] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
        assert!(Digest::from_hex(&"é".repeat(32)).is_none());
    }

    #[test]
    fn several_files_are_the_listing_of_sha256sum_sorted_by_path() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        assert_eq!(digest_of_files([("only", a)]), a);
        let listing = format!("{}  config.json\n{}  model.safetensors\n", b.hex(), a.hex());
        let expected = Digest::of(listing.as_bytes());
        assert_eq!(
            digest_of_files([("model.safetensors", a), ("config.json", b)]),
            expected
        );
        assert_eq!(
            digest_of_files([("config.json", b), ("model.safetensors", a)]),
            expected
        );
    }
}
