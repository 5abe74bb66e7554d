//! Headers of GGUF files: every tensor lies within the file.
//!
//! Written out, because a reader for models believes the lengths that it reads: this one is for files that nobody trusts yet.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::error::{VerifyError, name};

/// More tensors or entries than any model has.
const MOST_ENTRIES: u64 = 1 << 20;
const MOST_DIMENSIONS: u32 = 8;
const DEFAULT_ALIGNMENT: u64 = 32;
const ALIGNMENT: &[u8] = b"general.alignment";
/// Longest name.
const MOST_NAME: u64 = 1 << 16;
/// Deepest arrays of arrays.
const MOST_DEPTH: u32 = 4;

/// Why a header is none.
enum Problem {
    Io(std::io::Error),
    Damaged(&'static str),
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// Checks a file.
///
/// # Errors
/// What is wrong with it.
pub fn check(path: &Path) -> Result<(), VerifyError> {
    let file = File::open(path).map_err(VerifyError::io(path))?;
    let size = file.metadata().map_err(VerifyError::io(path))?.len();
    let mut header = Header {
        reader: BufReader::with_capacity(1 << 16, file),
        size,
        at: 0,
        alignment: DEFAULT_ALIGNMENT,
    };
    header.check().map_err(|problem| match problem {
        Problem::Io(error) => VerifyError::io(path)(error),
        Problem::Damaged(problem) => VerifyError::untrusted(format_args!("{} is damaged: {problem}", name(path))),
    })
}

struct Header {
    reader: BufReader<File>,
    size: u64,
    at: u64,
    alignment: u64,
}

impl Header {
    fn check(&mut self) -> Result<(), Problem> {
        if &self.array::<4>()? != b"GGUF" {
            return Err(Problem::Damaged("it does not begin with GGUF"));
        }
        if !matches!(self.u32()?, 2 | 3) {
            return Err(Problem::Damaged("it is of a version that is not known"));
        }
        let (tensors, entries) = (self.u64()?, self.u64()?);
        if tensors > MOST_ENTRIES || entries > MOST_ENTRIES {
            return Err(Problem::Damaged("it claims more tensors or entries than any model has"));
        }
        for _ in 0..entries {
            self.entry()?;
        }
        let mut end = 0;
        for _ in 0..tensors {
            end = end.max(self.tensor()?);
        }
        let start = self.at.checked_next_multiple_of(self.alignment);
        match start.and_then(|start| start.checked_add(end)) {
            Some(end) if tensors == 0 || end <= self.size => Ok(()),
            _ => Err(Problem::Damaged("a tensor ends behind the end of the file")),
        }
    }

    fn entry(&mut self) -> Result<(), Problem> {
        let key = self.text()?;
        let kind = self.u32()?;
        if key == ALIGNMENT {
            let alignment = match kind {
                4 => u64::from(self.u32()?),
                10 => self.u64()?,
                _ => 0,
            };
            if !alignment.is_power_of_two() {
                return Err(Problem::Damaged("its alignment is none"));
            }
            self.alignment = alignment;
            return Ok(());
        }
        self.skip_value(kind, 0)
    }

    fn skip_value(&mut self, kind: u32, depth: u32) -> Result<(), Problem> {
        match kind {
            8 => {
                let length = self.u64()?;
                self.skip(length)
            }
            9 => {
                let (kind, count) = (self.u32()?, self.u64()?);
                match width(kind) {
                    Some(width) => self.skip(count.saturating_mul(width)),
                    None if depth < MOST_DEPTH => {
                        // Each of them takes at least eight bytes, so this ends with the file.
                        (0..count).try_for_each(|_| self.skip_value(kind, depth + 1))
                    }
                    None => Err(Problem::Damaged("its arrays are too deep")),
                }
            }
            _ => match width(kind) {
                Some(width) => self.skip(width),
                None => Err(Problem::Damaged("an entry is of a type that is not known")),
            },
        }
    }

    /// Where the tensor ends behind the beginning of all tensors.
    fn tensor(&mut self) -> Result<u64, Problem> {
        self.text()?;
        let dimensions = self.u32()?;
        if dimensions > MOST_DIMENSIONS {
            return Err(Problem::Damaged("a tensor has too many dimensions"));
        }
        let mut elements = Some(1_u64);
        let mut row = 1;
        for dimension in 0..dimensions {
            let side = self.u64()?;
            if dimension == 0 {
                row = side;
            }
            elements = elements.and_then(|elements| elements.checked_mul(side));
        }
        let Some((block, bytes)) = block(self.u32()?) else {
            return Err(Problem::Damaged("a tensor is of a type that is not known"));
        };
        let offset = self.u64()?;
        if row % block != 0 || offset % self.alignment != 0 {
            return Err(Problem::Damaged("a tensor's rows or place do not fit its type"));
        }
        let end = elements
            .and_then(|elements| (elements / block).checked_mul(bytes))
            .and_then(|bytes| offset.checked_add(bytes));
        end.ok_or(Problem::Damaged("a tensor ends behind the end of the file"))
    }

    fn text(&mut self) -> Result<Vec<u8>, Problem> {
        let length = self.u64()?;
        if length > MOST_NAME {
            return Err(Problem::Damaged("a name is too long"));
        }
        let mut text = vec![0; usize::try_from(length).unwrap_or(0)];
        self.fill(&mut text)?;
        Ok(text)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), Problem> {
        let end = self.at.checked_add(bytes).filter(|end| *end <= self.size);
        let (Some(end), Ok(step)) = (end, i64::try_from(bytes)) else {
            return Err(Problem::Damaged("it ends too early"));
        };
        self.reader.seek_relative(step)?;
        self.at = end;
        Ok(())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Problem> {
        self.reader.read_exact(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, Problem> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Problem> {
        self.array().map(u64::from_le_bytes)
    }
}

/// Bytes of a value of metadata; none for texts and arrays.
fn width(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

/// Elements and bytes of a block of a tensor's type, as `ggml.h` numbers them.
fn block(kind: u32) -> Option<(u64, u64)> {
    Some(match kind {
        0 | 26 => (1, 4),
        1 | 25 | 30 => (1, 2),
        24 => (1, 1),
        27 | 28 => (1, 8),
        2 | 20 => (32, 18),
        3 => (32, 20),
        6 => (32, 22),
        7 => (32, 24),
        8 => (32, 34),
        9 => (32, 36),
        10 => (256, 84),
        11 | 21 => (256, 110),
        12 => (256, 144),
        13 => (256, 176),
        14 => (256, 210),
        15 => (256, 292),
        16 | 35 => (256, 66),
        17 => (256, 74),
        18 => (256, 98),
        19 => (256, 50),
        22 => (256, 82),
        23 => (256, 136),
        29 => (256, 56),
        34 => (256, 54),
        39 => (32, 17),
        _ => return None,
    })
}

#[cfg(test)]
#[path = "gguf_tests.rs"]
mod tests;
