//! Headers of safetensors files: every tensor lies within the file, and they fill it without gaps or overlaps.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use serde::Deserialize;

use super::error::{VerifyError, name};

/// A header longer than this is damage.
const MOST_HEADER: u64 = 100 << 20;
const METADATA: &str = "__metadata__";

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Tensor {
        dtype: String,
        shape: Vec<u64>,
        data_offsets: (u64, u64),
    },
    Metadata(#[expect(dead_code, reason = "only its form matters")] BTreeMap<String, String>),
}

/// Checks a file.
///
/// # Errors
/// What is wrong with it.
pub fn check(path: &Path) -> Result<(), VerifyError> {
    let damaged = |problem: &str| VerifyError::untrusted(format_args!("{} is damaged: {problem}", name(path)));
    let mut file = File::open(path).map_err(VerifyError::io(path))?;
    let size = file.metadata().map_err(VerifyError::io(path))?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(VerifyError::io(path))?;
    let length = u64::from_le_bytes(length);
    let Some(data) = size.checked_sub(8).and_then(|rest| rest.checked_sub(length)) else {
        return Err(damaged("its header is longer than the file"));
    };
    if length > MOST_HEADER {
        return Err(damaged("its header is too long"));
    }
    let header = BufReader::new(file.take(length));
    let entries: BTreeMap<String, Entry> =
        serde_json::from_reader(header).map_err(|error| match error.io_error_kind() {
            Some(kind) => VerifyError::io(path)(kind.into()),
            None => damaged("its header is none"),
        })?;
    let mut ranges = Vec::new();
    for (key, entry) in entries {
        match entry {
            Entry::Tensor {
                dtype,
                shape,
                data_offsets,
            } => ranges.push(range(&dtype, &shape, data_offsets).map_err(damaged)?),
            Entry::Metadata(_) if key == METADATA => {}
            Entry::Metadata(_) => return Err(damaged("a tensor has fields that are none of a tensor")),
        }
    }
    ranges.sort_unstable();
    let mut end = 0;
    for (from, to) in ranges {
        if from != end {
            return Err(damaged("its tensors overlap or leave gaps"));
        }
        end = to;
    }
    match end.cmp(&data) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(damaged("a tensor ends behind the end of the file")),
        std::cmp::Ordering::Less => Err(damaged("there is something behind its tensors")),
    }
}

fn range(dtype: &str, shape: &[u64], (from, to): (u64, u64)) -> Result<(u64, u64), &'static str> {
    let bits = bits(dtype).ok_or("a tensor is of a type that is not known")?;
    let elements = shape.iter().try_fold(1_u64, |product, side| product.checked_mul(*side));
    let bytes = elements
        .and_then(|elements| elements.checked_mul(bits))
        .filter(|bits| bits % 8 == 0);
    match (bytes, to.checked_sub(from)) {
        (Some(bits), Some(length)) if bits / 8 == length => Ok((from, to)),
        _ => Err("a tensor's size does not fit its shape"),
    }
}

fn bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "C64" | "F64" | "I64" | "U64" => 64,
        "F32" | "I32" | "U32" => 32,
        "F16" | "BF16" | "I16" | "U16" => 16,
        "F8_E4M3" | "F8_E5M2" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" | "I8" | "U8" | "BOOL" => 8,
        "F6_E2M3" | "F6_E3M2" => 6,
        "F4" => 4,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(header: &str, data: usize) -> Result<(), String> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("model.safetensors");
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        std::fs::write(&path, bytes).expect("written");
        check(&path).map_err(|error| error.to_string())
    }

    const GOOD: &str = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F16","shape":[2,2],"data_offsets":[4,12]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"c":{"dtype":"F4","shape":[0],"data_offsets":[12,12]}}"#;

    #[test]
    fn what_is_whole_is_taken() {
        assert_eq!(checked(GOOD, 12), Ok(()));
        assert_eq!(checked("{}   ", 0), Ok(()));
    }

    #[test]
    fn whatever_does_not_fit_is_found() {
        for (header, data, part) in [
            (GOOD.to_owned(), 11, "ends behind the end"),
            (GOOD.to_owned(), 13, "something behind"),
            (GOOD.replace("[4,12]", "[3,11]"), 12, "overlap or leave gaps"),
            (GOOD.replace("[4,12]", "[5,13]"), 13, "overlap or leave gaps"),
            (GOOD.replace("[4,12]", "[4,11]"), 12, "does not fit its shape"),
            (GOOD.replace("[4,12]", "[12,4]"), 12, "does not fit its shape"),
            (
                GOOD.replace("[2,2]", "[4294967296,4294967296,4294967296]"),
                12,
                "does not fit its shape",
            ),
            (GOOD.replace("F16", "PICKLE"), 12, "type that is not known"),
            (GOOD.replace("__metadata__", "x"), 12, "none of a tensor"),
            (GOOD.replace("[2,2]", "[-2,2]"), 12, "its header is none"),
            ("[]".to_owned(), 0, "its header is none"),
            ("{}{}".to_owned(), 0, "its header is none"),
        ] {
            let problem = checked(&header, data).expect_err("damaged");
            assert!(problem.contains(part), "{problem}");
        }
    }

    #[test]
    fn a_file_that_was_cut_anywhere_is_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("model.safetensors");
        let mut bytes = (GOOD.len() as u64).to_le_bytes().to_vec();
        bytes.extend(GOOD.as_bytes());
        bytes.resize(bytes.len() + 12, 0);
        for end in 0..bytes.len() {
            std::fs::write(&path, &bytes[..end]).expect("written");
            assert!(matches!(check(&path), Err(VerifyError::Untrusted(_))), "cut at {end}");
        }
        std::fs::write(&path, u64::MAX.to_le_bytes()).expect("written");
        assert!(matches!(check(&path), Err(VerifyError::Untrusted(_))));
    }
}
