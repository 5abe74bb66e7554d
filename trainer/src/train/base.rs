//! The base model: fetched, described, and read into 32 bits.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::gguf_file::Content;
use perennial_engine::ModelError;
use perennial_engine::model::{Description, Format, ModelConfig, ModelFiles, describe};

use super::model::{Layer, Linear, Projection, Weights};
use super::names::{LayerNorm, Names};
use super::tensors::{TensorFile, TensorsError};

/// A model whose files are here.
pub struct Base {
    /// Its files: weights and what belongs to them.
    pub files: Vec<PathBuf>,
    /// Which of them are the weights, and in which format.
    pub format: Format,
    /// Its shape and text side.
    pub description: Description,
}

impl Base {
    /// Describes the model in `files`.
    ///
    /// # Errors
    /// [`ModelError`]; its text says what to do.
    pub fn open(files: Vec<PathBuf>) -> Result<Self, ModelError> {
        Ok(Self {
            format: ModelFiles::find(&files)?.format,
            description: describe(&files)?,
            files,
        })
    }

    /// The names of tensors.
    #[must_use]
    pub fn names(&self) -> Names {
        match self.format {
            Format::Gguf(_) => Names::Gguf,
            Format::Safetensors { .. } => Names::Hub,
        }
    }

    /// Heads of a projection whose rows this file has in GGUF's order.
    #[must_use]
    pub fn interleaved_heads(&self, projection: Projection) -> Option<usize> {
        let config = &self.description.config;
        projection.turned_heads(config).filter(|_| config.rope.interleaved)
    }

    /// Reads all weights.
    ///
    /// # Errors
    /// [`ModelError`]; its text says what to do.
    pub fn weights(&self) -> Result<Weights, ModelError> {
        let mut source = match &self.format {
            Format::Gguf(path) => Source::Gguf(GgufTensors::open(path)?),
            Format::Safetensors { directory, shards } => Source::Hub(HubTensors::open(directory, shards)?),
        };
        let (names, config) = (self.names(), &self.description.config);
        let (table, hidden) = ([config.vocabulary, config.hidden], [config.hidden]);
        let (head, head_bias) = if self.description.tied {
            (None, None)
        } else {
            let bias = source.optional(&names.head("bias"), &table[..1])?;
            (Some(source.floats(&names.head("weight"), &table)?), bias)
        };
        let layers: Result<Vec<Layer>, ModelError> =
            (0..config.layers).map(|index| self.layer(&mut source, index)).collect();
        Ok(Weights {
            embedding: source.floats(names.embedding(), &table)?,
            layers: layers?,
            norm: source.floats(names.norm(), &hidden)?,
            head,
            head_bias,
        })
    }

    fn layer(&self, source: &mut Source, index: usize) -> Result<Layer, ModelError> {
        let (names, config) = (self.names(), &self.description.config);
        let (hidden, head) = ([config.hidden], [config.head_width]);
        let projections: Result<Vec<Linear>, ModelError> = Projection::ALL
            .iter()
            .map(|&projection| self.linear(source, index, projection))
            .collect();
        Ok(Layer {
            attention_norm: source.floats(&names.of_layer(index, LayerNorm::Attention), &hidden)?,
            projections: projections?,
            query_norm: source.optional(&names.of_layer(index, LayerNorm::Query), &head)?,
            key_norm: source.optional(&names.of_layer(index, LayerNorm::Key), &head)?,
            feed_norm: source.floats(&names.of_layer(index, LayerNorm::Feed), &hidden)?,
        })
    }

    fn linear(&self, source: &mut Source, index: usize, projection: Projection) -> Result<Linear, ModelError> {
        let (names, config) = (self.names(), &self.description.config);
        let (outputs, inputs) = projection.shape(config);
        let name = names.projection(index, projection);
        let mut weight = source.floats(&format!("{name}.weight"), &[outputs, inputs])?;
        let mut bias = source.optional(&format!("{name}.bias"), &[outputs])?;
        if self.interleaved_heads(projection).is_some() {
            weight = to_halves(&weight, config, inputs);
            bias = bias.map(|bias| to_halves(&bias, config, 1));
        }
        Ok(Linear {
            weight,
            bias,
            outputs,
            inputs,
        })
    }
}

/// Row `row` of GGUF's order is this row of the hub's: neighbours there are halves of a head here.
fn half_row(row: usize, config: &ModelConfig) -> usize {
    let width = config.head_width;
    row / width * width + row % 2 * (width / 2) + row % width / 2
}

fn to_halves(values: &[f32], config: &ModelConfig, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    for (row, values) in values.chunks_exact(columns).enumerate() {
        out[half_row(row, config) * columns..][..columns].copy_from_slice(values);
    }
    out
}

/// Rows in GGUF's order again.
#[must_use]
pub fn to_neighbours(values: &[f32], config: &ModelConfig, columns: usize) -> Vec<f32> {
    // All of its room at once: a list that grows would be there twice.
    let mut out = Vec::with_capacity(values.len());
    for row in 0..values.len() / columns {
        out.extend_from_slice(&values[half_row(row, config) * columns..][..columns]);
    }
    out
}

/// A GGUF file whose header was read.
pub struct GgufTensors {
    path: PathBuf,
    /// Its bytes.
    pub reader: BufReader<File>,
    /// Its header.
    pub content: Content,
}

impl GgufTensors {
    /// Reads the header.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let file = File::open(path).map_err(|source| ModelError::Read {
            path: path.to_path_buf(),
            source,
        })?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let content = Content::read(&mut reader).map_err(|error| damaged(path, &error))?;
        Ok(Self {
            path: path.to_path_buf(),
            reader,
            content,
        })
    }

    fn floats(&mut self, name: &str) -> Result<(Vec<usize>, Vec<f32>), ModelError> {
        let tensor = self.content.tensor(&mut self.reader, name, &Device::Cpu);
        let values = tensor.and_then(|tensor| {
            let values = tensor.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
            Ok((tensor.shape().dims().to_vec(), values))
        });
        values.map_err(|error| damaged(&self.path, &error))
    }
}

/// Shards of safetensors whose headers were read.
pub struct HubTensors {
    directory: PathBuf,
    /// The shards.
    pub shards: Vec<TensorFile>,
}

impl HubTensors {
    /// Reads the headers.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn open(directory: &Path, shards: &[PathBuf]) -> Result<Self, ModelError> {
        let shards: Result<Vec<TensorFile>, TensorsError> =
            shards.iter().map(|shard| TensorFile::open(shard)).collect();
        Ok(Self {
            directory: directory.to_path_buf(),
            shards: shards?,
        })
    }

    /// The shard that holds a tensor.
    pub fn shard(&mut self, name: &str) -> Option<&mut TensorFile> {
        self.shards.iter_mut().find(|shard| shard.entries().contains_key(name))
    }

    fn floats(&mut self, name: &str) -> Result<(Vec<usize>, Vec<f32>), ModelError> {
        let directory = self.directory.clone();
        let Some(shard) = self.shard(name) else {
            return Err(damaged(&directory, &format!("no shard has a tensor {name}")));
        };
        let values = shard.floats(name)?;
        let shape = shard.entries().get(name).map(|entry| entry.shape.clone());
        Ok((shape.unwrap_or_default(), values))
    }
}

enum Source {
    Gguf(GgufTensors),
    Hub(HubTensors),
}

impl Source {
    fn has(&self, name: &str) -> bool {
        match self {
            Self::Gguf(file) => file.content.tensor_infos.contains_key(name),
            Self::Hub(shards) => shards.shards.iter().any(|shard| shard.entries().contains_key(name)),
        }
    }

    fn floats(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let (found, values) = match self {
            Self::Gguf(file) => file.floats(name)?,
            Self::Hub(shards) => shards.floats(name)?,
        };
        if found == shape {
            return Ok(values);
        }
        let path = match self {
            Self::Gguf(file) => &file.path,
            Self::Hub(shards) => &shards.directory,
        };
        Err(damaged(
            path,
            &format!("tensor {name} is {found:?}, expected {shape:?}"),
        ))
    }

    fn optional(&mut self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>, ModelError> {
        if self.has(name) {
            self.floats(name, shape).map(Some)
        } else {
            Ok(None)
        }
    }
}

fn damaged(path: &Path, problem: &dyn std::fmt::Display) -> ModelError {
    ModelError::Invalid {
        path: path.to_path_buf(),
        problem: problem.to_string(),
    }
}

impl From<TensorsError> for ModelError {
    fn from(error: TensorsError) -> Self {
        match error {
            TensorsError::Io { path, source } => Self::Read { path, source },
            TensorsError::Invalid { path, problem } => Self::Invalid { path, problem },
        }
    }
}

#[cfg(test)]
mod tests {
    use perennial_engine::model::Rope;

    use super::*;

    #[test]
    fn rows_go_to_halves_and_back() {
        let config = ModelConfig {
            architecture: "llama".to_owned(),
            hidden: 4,
            layers: 1,
            heads: 2,
            kv_heads: 1,
            head_width: 6,
            feed_forward: 4,
            vocabulary: 8,
            context: 8,
            norm_epsilon: 1e-5,
            rope: Rope {
                frequencies: vec![1.0; 3],
                interleaved: true,
            },
        };
        let neighbours: Vec<f32> = (0..12).flat_map(|row| [row as f32, -(row as f32)]).collect();
        let halves = to_halves(&neighbours, &config, 2);
        let first: Vec<f32> = halves.iter().step_by(2).copied().collect();
        assert_eq!(first, [0.0, 2.0, 4.0, 1.0, 3.0, 5.0, 6.0, 8.0, 10.0, 7.0, 9.0, 11.0]);
        assert_eq!(to_neighbours(&halves, &config, 2), neighbours);
    }
}
