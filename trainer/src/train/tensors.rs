//! Files of safetensors, read and written tensor by tensor: a model is never held twice.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use serde::{Deserialize, Serialize};

/// A longer header is damage.
const MAX_HEADER_BYTES: u64 = 100 << 20;
const METADATA: &str = "__metadata__";

/// A file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TensorsError {
    /// The disk failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no safetensors file, or lacks what it must have.
    #[error("{} is not usable: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// What a header says of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// `F32`, `F16`, `BF16` or another name.
    pub dtype: String,
    /// Its sizes.
    pub shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl Entry {
    /// Bytes of the tensor.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.data_offsets.1 - self.data_offsets.0
    }
}

/// A file whose header was read.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    data: u64,
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

impl TensorFile {
    /// Reads the header.
    ///
    /// # Errors
    /// When there is none, or the file is too short for what it says.
    pub fn open(path: &Path) -> Result<Self, TensorsError> {
        let io = |source| TensorsError::Io {
            path: path.to_path_buf(),
            source,
        };
        let invalid = |problem: String| TensorsError::Invalid {
            path: path.to_path_buf(),
            problem,
        };
        let mut file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(io)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER_BYTES || length + 8 > size {
            return Err(invalid(format!("a header of {length} bytes in a file of {size}")));
        }
        let mut header = vec![0; usize::try_from(length).unwrap_or(0)];
        file.read_exact(&mut header).map_err(io)?;
        let mut header: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(&header).map_err(|error| invalid(format!("its header: {error}")))?;
        let metadata = header.remove(METADATA).unwrap_or_default();
        let mut entries = BTreeMap::new();
        for (name, value) in header {
            let entry: Entry =
                serde_json::from_value(value).map_err(|error| invalid(format!("tensor {name}: {error}")))?;
            let (begin, end) = entry.data_offsets;
            if begin > end || (8 + length).saturating_add(end) > size {
                return Err(invalid(format!("tensor {name} ends behind the file")));
            }
            entries.insert(name, entry);
        }
        Ok(Self {
            path: path.to_path_buf(),
            file,
            data: 8 + length,
            entries,
            metadata: serde_json::from_value(metadata).unwrap_or_default(),
        })
    }

    /// What it says of its tensors, by name.
    #[must_use]
    pub fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// What else it says.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The bytes of a tensor.
    ///
    /// # Errors
    /// When there is none of this name, or the disk fails.
    pub fn bytes(&mut self, name: &str) -> Result<Vec<u8>, TensorsError> {
        let Some(entry) = self.entries.get(name) else {
            return Err(self.invalid(format!("it has no tensor {name}")));
        };
        let (begin, end) = entry.data_offsets;
        let mut bytes = vec![0; usize::try_from(end - begin).unwrap_or(0)];
        let read = self
            .file
            .seek(SeekFrom::Start(self.data + begin))
            .and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|source| TensorsError::Io {
            path: self.path.clone(),
            source,
        })?;
        Ok(bytes)
    }

    /// The numbers of a tensor in 32 bits.
    ///
    /// # Errors
    /// As [`TensorFile::bytes`], and when they are no floating-point numbers.
    pub fn floats(&mut self, name: &str) -> Result<Vec<f32>, TensorsError> {
        let bytes = self.bytes(name)?;
        let entry = self
            .entries
            .get(name)
            .map(|entry| (entry.dtype.as_str(), entry.shape.as_slice()));
        let Some((dtype, shape)) = entry.and_then(|(dtype, shape)| Some((float(dtype)?, shape))) else {
            return Err(self.invalid(format!("tensor {name} holds no F32, F16 or BF16")));
        };
        if shape.iter().product::<usize>() * dtype.size_in_bytes() != bytes.len() {
            return Err(self.invalid(format!("tensor {name} of shape {shape:?} has {} bytes", bytes.len())));
        }
        let widened = Tensor::from_raw_buffer(&bytes, dtype, shape, &Device::Cpu)
            .and_then(|tensor| tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>());
        widened.map_err(|error| self.invalid(format!("tensor {name}: {error}")))
    }

    fn invalid(&self, problem: String) -> TensorsError {
        TensorsError::Invalid {
            path: self.path.clone(),
            problem,
        }
    }
}

/// The type that a header names, if it is one of floating-point numbers.
#[must_use]
pub fn float(name: &str) -> Option<DType> {
    match name {
        "F32" => Some(DType::F32),
        "F16" => Some(DType::F16),
        "BF16" => Some(DType::BF16),
        _ => None,
    }
}

/// Numbers in 32 bits as the bytes of another type, rounded to the nearest.
///
/// # Errors
/// When candle cannot make them.
pub fn narrowed(values: &[f32], dtype: DType) -> candle_core::Result<Vec<u8>> {
    let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu)?.to_dtype(dtype)?;
    let (storage, _) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Storage::Cpu(CpuStorage::F16(values)) => Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Storage::Cpu(CpuStorage::BF16(values)) => Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        _ => Err(candle_core::Error::UnsupportedDTypeForOp(dtype, "narrowed").bt()),
    }
}

/// A tensor to be written; its bytes are asked for when it is their turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Its name.
    pub name: String,
    /// `F32`, `F16`, `BF16` or another name.
    pub dtype: String,
    /// Its sizes.
    pub shape: Vec<usize>,
    /// Its bytes.
    pub bytes: u64,
}

/// Writes a file: first what is announced, then the bytes of each in that order.
///
/// # Errors
/// What `bytes_of` or the disk says.
pub fn write<E: From<io::Error>>(
    out: &mut impl Write,
    metadata: &BTreeMap<String, String>,
    tensors: &[Announced],
    mut bytes_of: impl FnMut(&Announced) -> Result<Vec<u8>, E>,
) -> Result<(), E> {
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert(METADATA.to_owned(), serde_json::json!(metadata));
    }
    let mut offset = 0;
    for tensor in tensors {
        let entry = Entry {
            dtype: tensor.dtype.clone(),
            shape: tensor.shape.clone(),
            data_offsets: (offset, offset + tensor.bytes),
        };
        offset += tensor.bytes;
        header.insert(tensor.name.clone(), serde_json::json!(entry));
    }
    let mut header = serde_json::to_vec(&header).map_err(io::Error::from)?;
    // Readers map the file: numbers should begin at a multiple of their size.
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for tensor in tensors {
        let bytes = bytes_of(tensor)?;
        if bytes.len() as u64 != tensor.bytes {
            let problem = format!("{} has {} bytes, not {}", tensor.name, bytes.len(), tensor.bytes);
            return Err(io::Error::other(problem).into());
        }
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// Writes numbers in 32 bits, by name, with their shapes.
///
/// # Errors
/// What the disk says.
pub fn write_floats(
    out: &mut impl Write,
    metadata: &BTreeMap<String, String>,
    tensors: &BTreeMap<String, (Vec<usize>, &[f32])>,
) -> io::Result<()> {
    let announced: Vec<Announced> = tensors
        .iter()
        .map(|(name, (shape, values))| Announced {
            name: name.clone(),
            dtype: "F32".to_owned(),
            shape: shape.clone(),
            bytes: size_of_val(*values) as u64,
        })
        .collect();
    write(out, metadata, &announced, |tensor| {
        let values = tensors.get(&tensor.name).map_or(&[][..], |(_, values)| values);
        Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.safetensors");
        std::fs::write(&path, bytes).expect("a file");
        (directory, path)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let values = [1.0, -2.5, 3.0e-3, 4.0, 5.0, 6.0];
        let mut bytes = Vec::new();
        let metadata = BTreeMap::from([("state".to_owned(), "{\"step\":3}".to_owned())]);
        let tensors = BTreeMap::from([
            ("b".to_owned(), (vec![2, 3], &values[..])),
            ("a".to_owned(), (vec![1], &values[..1])),
        ]);
        write_floats(&mut bytes, &metadata, &tensors).expect("written");
        let (_directory, path) = file(&bytes);
        let mut read = TensorFile::open(&path).expect("a file");
        assert_eq!(read.metadata(), &metadata);
        assert_eq!(read.entries()["b"].shape, [2, 3]);
        assert_eq!(read.floats("b").expect("numbers"), values);
        assert!(read.floats("c").expect_err("none").to_string().contains("no tensor c"));
        // candle reads it too.
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu).expect("tensors");
        assert_eq!(tensors["b"].dims(), [2, 3]);
    }

    #[test]
    fn narrow_types_are_rounded_and_widened_again() {
        let values = [1.0_f32, -0.333_333_34, 70_000.0];
        for (dtype, name, expected) in [
            (DType::F16, "F16", [1.0, -0.333_251_95, f32::INFINITY]),
            (DType::BF16, "BF16", [1.0, -0.333_984_38, 70_144.0]),
            (DType::F32, "F32", values),
        ] {
            let narrow = narrowed(&values, dtype).expect("bytes");
            let tensor = Announced {
                name: "x".to_owned(),
                dtype: name.to_owned(),
                shape: vec![3],
                bytes: narrow.len() as u64,
            };
            let mut bytes = Vec::new();
            let of = |_: &Announced| Ok::<_, io::Error>(narrow.clone());
            write(&mut bytes, &BTreeMap::new(), &[tensor], of).expect("written");
            let (_directory, path) = file(&bytes);
            let widened = TensorFile::open(&path).expect("a file").floats("x").expect("numbers");
            assert_eq!(widened, expected, "{name}");
        }
    }

    #[test]
    fn damage_is_an_error() {
        let mut whole = Vec::new();
        let tensors = BTreeMap::from([("a".to_owned(), (vec![2], &[1.0_f32, 2.0][..]))]);
        write_floats(&mut whole, &BTreeMap::new(), &tensors).expect("written");
        for length in 0..whole.len() {
            let (_directory, path) = file(&whole[..length]);
            assert!(TensorFile::open(&path).is_err(), "{length}");
        }
        let (_directory, path) = file(&[0xFF; 64]);
        assert!(TensorFile::open(&path).is_err());
    }
}
