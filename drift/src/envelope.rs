//! The outer form of everything that is stored or sent: panes, baselines, states.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `PDRN` |
//! | 1 | kind: `P` pane, `B` baseline, `S` state, `R` what replayed prompts say |
//! | 2 | version of the kind, little endian |
//! | 8 | fingerprint of the layout, little endian |
//! | 4 | length of the payload, little endian |
//! | length | payload: the kind's fields in [postcard's format](https://postcard.jamesmunns.com/wire-format) |
//! | 8 | the first bytes of the SHA-256 of all before |
//!
//! A value has exactly one encoding, so equal bytes and equal values are the same thing. Whatever was cut, mangled, is
//! of a newer version or of another layout is refused, with an error that says which.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use thiserror::Error;

const MAGIC: [u8; 4] = *b"PDRN";
const HEADER: usize = 4 + 1 + 2 + 8 + 4;
const CHECKSUM: usize = 8;

/// What an envelope holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A [`crate::pane::Pane`].
    Pane,
    /// A [`crate::baseline::Baseline`].
    Baseline,
    /// A [`crate::decision::State`].
    State,
    /// A [`crate::probe::Watch`].
    Probes,
}

impl Content {
    fn letter(self) -> u8 {
        match self {
            Self::Pane => b'P',
            Self::Baseline => b'B',
            Self::State => b'S',
            Self::Probes => b'R',
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Pane => "pane",
            Self::Baseline => "baseline",
            Self::State => "state",
            Self::Probes => "record of probes",
        }
    }
}

/// Why bytes were refused. Nothing is changed by what was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// Something else.
    #[error("these bytes are no {0} of Perennial's drift core")]
    Foreign(&'static str),
    /// Written by newer software.
    #[error("this {what} is of version {got}, and version {known} is the newest known here: upgrade the reader first")]
    Newer {
        /// Kind.
        what: &'static str,
        /// Found.
        got: u16,
        /// Known.
        known: u16,
    },
    /// Cut off, or with something behind it.
    #[error("this {what} should have {expected} bytes and has {got}: it was cut off or something was added")]
    Length {
        /// Kind.
        what: &'static str,
        /// By its header.
        expected: usize,
        /// Found.
        got: usize,
    },
    /// Damaged.
    #[error("this {0} is damaged: its checksum is wrong")]
    Checksum(&'static str),
    /// Of another layout.
    #[error(
        "this {what} has the layout {got:016x}, and {expected:016x} is wanted: it was made with other signals, bins or encoder"
    )]
    Layout {
        /// Kind.
        what: &'static str,
        /// Found.
        got: u64,
        /// Wanted.
        expected: u64,
    },
    /// Fields that cannot be read.
    #[error("this {0} cannot be read: its fields are malformed")]
    Malformed(&'static str),
    /// Fields that contradict each other.
    #[error("this {what} is impossible: {why}")]
    Impossible {
        /// Kind.
        what: &'static str,
        /// The contradiction.
        why: &'static str,
    },
    /// Too large to be written.
    #[error("this {0} is too large to be written")]
    TooLarge(&'static str),
}

/// Puts a value into its envelope.
///
/// # Errors
/// [`EnvelopeError::TooLarge`] over 4 GiB.
pub fn seal<T: Serialize>(content: Content, version: u16, layout: u64, value: &T) -> Result<Vec<u8>, EnvelopeError> {
    let what = content.word();
    let payload = postcard::to_stdvec(value).map_err(|_| EnvelopeError::TooLarge(what))?;
    let length = u32::try_from(payload.len()).map_err(|_| EnvelopeError::TooLarge(what))?;
    let mut bytes = Vec::with_capacity(HEADER + payload.len() + CHECKSUM);
    bytes.extend_from_slice(&MAGIC);
    bytes.push(content.letter());
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&layout.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&payload);
    let sum = checksum(&bytes);
    bytes.extend_from_slice(&sum);
    Ok(bytes)
}

/// Takes a value out of its envelope. `layout` is the fingerprint that is wanted.
///
/// # Errors
/// [`EnvelopeError`] when anything is not as it was written.
pub fn open<T: Serialize + DeserializeOwned>(
    content: Content,
    version: u16,
    layout: u64,
    bytes: &[u8],
) -> Result<T, EnvelopeError> {
    let what = content.word();
    let foreign = EnvelopeError::Foreign(what);
    let header = bytes.get(..HEADER).ok_or_else(|| foreign.clone())?;
    if header[..4] != MAGIC || header[4] != content.letter() {
        return Err(foreign);
    }
    let got = u16::from_le_bytes([header[5], header[6]]);
    if got > version {
        return Err(EnvelopeError::Newer {
            what,
            got,
            known: version,
        });
    }
    let length = u32::from_le_bytes([header[15], header[16], header[17], header[18]]) as usize;
    let expected = HEADER + length + CHECKSUM;
    if bytes.len() != expected {
        return Err(EnvelopeError::Length {
            what,
            expected,
            got: bytes.len(),
        });
    }
    let (body, sum) = bytes.split_at(HEADER + length);
    if sum != checksum(body) {
        return Err(EnvelopeError::Checksum(what));
    }
    let mut fingerprint = [0; 8];
    fingerprint.copy_from_slice(&header[7..15]);
    let got = u64::from_le_bytes(fingerprint);
    if got != layout {
        return Err(EnvelopeError::Layout {
            what,
            got,
            expected: layout,
        });
    }
    let payload = &body[HEADER..];
    let value: T = postcard::from_bytes(payload).map_err(|_| EnvelopeError::Malformed(what))?;
    // Postcard takes longer forms of a number, too: only the one form that we write is taken.
    let again = postcard::to_stdvec(&value).map_err(|_| EnvelopeError::Malformed(what))?;
    if again != payload {
        return Err(EnvelopeError::Malformed(what));
    }
    Ok(value)
}

/// `sha256:` and the hexadecimal digest of these bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes)
        .iter()
        .fold("sha256:".to_owned(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The first eight bytes of the SHA-256 as a number.
pub(crate) fn fingerprint(text: &[u8]) -> u64 {
    u64::from_le_bytes(checksum(text))
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&Sha256::digest(bytes)[..CHECKSUM]);
    sum
}
