//! Writes a merged model, tensor by tensor: what was changed anew, everything else as it is in the base.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{TensorInfo, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device};
use perennial_engine::model::Format;

use super::arguments::MergedType;
use super::base::{Base, GgufTensors, HubTensors, to_neighbours};
use super::error::TrainError;
use super::files::{move_to, partial};
use super::gguf;
use super::merge::{Stored, Width, tensor, types};
use super::model::{Layout, Slot, Weights};
use super::tensors::{Announced, TensorsError, narrowed, write};
use crate::contract::write_atomically;

const FILE: &str = "model.gguf";
const DIRECTORY: &str = "model";
const SHARD: &str = "model.safetensors";

/// Tensors that were changed, by name.
type Changed = BTreeMap<String, (Slot, Stored)>;

/// Writes the model whose changed weights [`merge`](super::merge::merge) has rounded into `directory`. Returns its path: a file or a directory.
///
/// # Errors
/// What the disk says.
pub fn store(
    base: &Base,
    weights: &Weights,
    layout: &Layout,
    (asked, width): (MergedType, Width),
    directory: &Path,
) -> Result<PathBuf, TrainError> {
    let types = types(base, layout, asked, width)?;
    let names = base.names();
    let changed: Changed = layout
        .slots()
        .iter()
        .zip(types)
        .map(|(slot, stored)| {
            (
                format!("{}.weight", names.projection(slot.layer, slot.projection)),
                (*slot, stored),
            )
        })
        .collect();
    match &base.format {
        Format::Gguf(from) => {
            let to = directory.join(FILE);
            store_gguf(base, from, weights, &changed, &to)?;
            Ok(to)
        }
        Format::Safetensors {
            directory: from,
            shards,
        } => {
            let to = directory.join(DIRECTORY);
            store_hub(base, from, shards, weights, &changed, &to)?;
            Ok(to)
        }
    }
}

fn store_gguf(base: &Base, from: &Path, weights: &Weights, changed: &Changed, to: &Path) -> Result<(), TrainError> {
    let GgufTensors {
        mut reader, content, ..
    } = GgufTensors::open(from)?;
    // In the order of the base, so that nothing but what is changed is different.
    let mut infos: Vec<(&String, &TensorInfo)> = content.tensor_infos.iter().collect();
    infos.sort_unstable_by_key(|(_, info)| info.offset);
    let announced: Vec<gguf::Announced> = infos
        .iter()
        .map(|(name, info)| gguf::Announced {
            name,
            shape: info.shape.dims(),
            dtype: changed.get(*name).map_or(info.ggml_dtype, |(_, stored)| ggml(*stored)),
        })
        .collect();
    let alignment = Value::U32(gguf::ALIGNMENT);
    let metadata: BTreeMap<&str, &Value> = content
        .metadata
        .iter()
        .map(|(name, value)| match name.as_str() {
            "general.alignment" => (name.as_str(), &alignment),
            name => (name, value),
        })
        .collect();
    let metadata: Vec<(&str, &Value)> = metadata.into_iter().collect();
    let written = write_atomically(to, |file| {
        gguf::write(file, &metadata, &announced, |tensor| -> Result<Vec<u8>, Failure> {
            let stored = match changed.get(tensor.name) {
                Some((slot, _)) => quantized(base, weights, slot, tensor.dtype)?,
                None => content.tensor(&mut reader, tensor.name, &Device::Cpu)?,
            };
            Ok(stored.data()?.into_owned())
        })
    });
    written.map_err(|failure| failure.about(to))
}

fn ggml(stored: Stored) -> GgmlDType {
    match stored {
        Stored::Gguf(dtype) => dtype,
        Stored::Hub(_) => GgmlDType::F32,
    }
}

fn quantized(base: &Base, weights: &Weights, slot: &Slot, dtype: GgmlDType) -> candle_core::Result<QTensor> {
    let values = &weights.layers[slot.layer].projection(slot.projection).weight;
    let tensor = if base.interleaved_heads(slot.projection).is_some() {
        tensor(&to_neighbours(values, &base.description.config, slot.inputs), slot)?
    } else {
        tensor(values, slot)?
    };
    QTensor::quantize(&tensor, dtype)
}

fn store_hub(
    base: &Base,
    from: &Path,
    shards: &[PathBuf],
    weights: &Weights,
    changed: &Changed,
    to: &Path,
) -> Result<(), TrainError> {
    let unfinished = partial(to);
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(TrainError::io("remove", &unfinished))?;
    }
    fs::create_dir_all(&unfinished).map_err(TrainError::io("create", &unfinished))?;
    for companion in companions(&base.files) {
        let copy = unfinished.join(companion.file_name().unwrap_or_default());
        fs::copy(companion, &copy).map_err(TrainError::io("write", &copy))?;
        let synced = fs::File::open(&copy).and_then(|file| file.sync_all());
        synced.map_err(TrainError::io("write", &copy))?;
    }
    let mut source = HubTensors::open(from, shards)?;
    let announced = announce(&source, changed);
    // Some readers want to be told whose layout it is.
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let path = unfinished.join(SHARD);
    let written = write_atomically(&path, |file: &mut BufWriter<fs::File>| {
        write(file, &metadata, &announced, |tensor| {
            bytes_of(tensor, &mut source, weights, changed)
        })
    });
    written.map_err(|failure: Failure| failure.about(&path))?;
    move_to(&unfinished, to).map_err(TrainError::io("move", to))
}

/// Files that are copied: all but the weights and their index.
fn companions(files: &[PathBuf]) -> impl Iterator<Item = &PathBuf> {
    files.iter().filter(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        !name.ends_with(".safetensors") && !name.ends_with(".safetensors.index.json")
    })
}

fn announce(source: &HubTensors, changed: &Changed) -> Vec<Announced> {
    let mut announced: Vec<Announced> = source
        .shards
        .iter()
        .flat_map(|shard| shard.entries())
        .map(|(name, entry)| match changed.get(name) {
            Some((slot, Stored::Hub(dtype))) => Announced {
                name: name.clone(),
                dtype: named(*dtype).to_owned(),
                shape: entry.shape.clone(),
                bytes: (slot.outputs * slot.inputs * dtype.size_in_bytes()) as u64,
            },
            _ => Announced {
                name: name.clone(),
                dtype: entry.dtype.clone(),
                shape: entry.shape.clone(),
                bytes: entry.bytes(),
            },
        })
        .collect();
    announced.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    announced
}

fn named(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "F16",
        DType::BF16 => "BF16",
        _ => "F32",
    }
}

fn bytes_of(
    tensor: &Announced,
    source: &mut HubTensors,
    weights: &Weights,
    changed: &Changed,
) -> Result<Vec<u8>, Failure> {
    if let Some((slot, Stored::Hub(dtype))) = changed.get(&tensor.name) {
        let values = &weights.layers[slot.layer].projection(slot.projection).weight;
        return Ok(narrowed(values, *dtype)?);
    }
    match source.shard(&tensor.name) {
        Some(shard) => Ok(shard.bytes(&tensor.name)?),
        None => Err(io::Error::from(io::ErrorKind::NotFound).into()),
    }
}

/// What may go wrong while a file is written.
#[derive(Debug)]
enum Failure {
    Disk(io::Error),
    Base(TensorsError),
    Tensor(candle_core::Error),
}

impl Failure {
    fn about(self, path: &Path) -> TrainError {
        match self {
            Self::Disk(error) => TrainError::io("write", path)(error),
            Self::Base(error) => error.into(),
            Self::Tensor(error) => TrainError::Merge(error),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

impl From<TensorsError> for Failure {
    fn from(error: TensorsError) -> Self {
        Self::Base(error)
    }
}

impl From<candle_core::Error> for Failure {
    fn from(error: candle_core::Error) -> Self {
        match error {
            // A full disk must look like one.
            candle_core::Error::Io(error) => Self::Disk(error),
            other => Self::Tensor(other),
        }
    }
}
