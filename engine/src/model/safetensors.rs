//! Models in safetensors shards with `config.json` and `tokenizer.json` beside them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use candle_core::quantized::QMatMul;
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

use super::config::{HubConfig, ModelConfig, TokenIds};
use super::decoder::{Embedding, Layer, Linear, Weights};
use super::{CandleRunner, Description, LoadOptions, LoadedModel, device};
use crate::error::ModelError;
use crate::plan::{Plan, WeightSizes, plan};
use crate::tokenizer::hub::{self, HubText};

/// A header longer than this is damage.
const MAX_HEADER: u64 = 100 << 20;

#[derive(Debug, Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

#[derive(Debug)]
struct Located {
    shard: usize,
    entry: Entry,
    start: u64,
}

/// All shards' headers, checked against the files' sizes.
struct Shards<'a> {
    paths: &'a [PathBuf],
    tensors: HashMap<String, Located>,
}

impl<'a> Shards<'a> {
    fn open(paths: &'a [PathBuf]) -> Result<Self, ModelError> {
        let mut tensors = HashMap::new();
        for (shard, path) in paths.iter().enumerate() {
            for (name, entry, start) in header(path)? {
                tensors.insert(name, Located { shard, entry, start });
            }
        }
        Ok(Self { paths, tensors })
    }

    /// Widened to 32 bits: the processor's kernels compute in them.
    fn sizes(&self, tied: bool) -> WeightSizes {
        let used = self
            .tensors
            .iter()
            .filter(|(name, _)| !(tied && *name == "lm_head.weight"));
        let kept = used
            .map(|(_, located)| located.entry.shape.iter().product::<usize>() as u64 * 4)
            .sum();
        WeightSizes { kept, packed: 0 }
    }

    fn tensor(&self, name: &str, shape: &[usize], device: &Device) -> Result<Tensor, ModelError> {
        let Some(located) = self.tensors.get(name) else {
            let directory = self.paths.first().map_or(Path::new(""), PathBuf::as_path);
            return Err(ModelError::invalid(directory, format!("no shard has a tensor {name}")));
        };
        let path = &self.paths[located.shard];
        if located.entry.shape != shape {
            let problem = format!("tensor {name} is {:?}, expected {shape:?}", located.entry.shape);
            return Err(ModelError::invalid(path, problem));
        }
        let bytes = read_range(
            path,
            located.start,
            located.entry.data_offsets.1 - located.entry.data_offsets.0,
        )
        .map_err(|source| ModelError::Read {
            path: path.clone(),
            source,
        })?;
        let widened = Tensor::from_raw_buffer(&bytes, dtype(path, name, &located.entry)?, shape, device)
            .and_then(|tensor| tensor.to_dtype(DType::F32));
        widened.map_err(|error| ModelError::invalid(path, format!("tensor {name}: {error}")))
    }

    fn optional(&self, name: &str, shape: &[usize], device: &Device) -> Result<Option<Tensor>, ModelError> {
        if self.tensors.contains_key(name) {
            self.tensor(name, shape, device).map(Some)
        } else {
            Ok(None)
        }
    }

    fn linear(&self, name: &str, shape: (usize, usize), device: &Device) -> Result<Linear, ModelError> {
        let weight = self.tensor(&format!("{name}.weight"), &[shape.0, shape.1], device)?;
        let bias = self.optional(&format!("{name}.bias"), &[shape.0], device)?;
        Ok(Linear::new(QMatMul::Tensor(weight), bias))
    }

    fn layer(&self, index: usize, config: &ModelConfig, device: &Device) -> Result<Layer, ModelError> {
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let (hidden, feed, head) = (config.hidden, config.feed_forward, config.head_width);
        let (wide, narrow) = (config.heads * head, config.kv_heads * head);
        Ok(Layer {
            attention_norm: self.tensor(&name("input_layernorm.weight"), &[hidden], device)?,
            query: self.linear(&name("self_attn.q_proj"), (wide, hidden), device)?,
            key: self.linear(&name("self_attn.k_proj"), (narrow, hidden), device)?,
            value: self.linear(&name("self_attn.v_proj"), (narrow, hidden), device)?,
            query_norm: self.optional(&name("self_attn.q_norm.weight"), &[head], device)?,
            key_norm: self.optional(&name("self_attn.k_norm.weight"), &[head], device)?,
            output: self.linear(&name("self_attn.o_proj"), (hidden, wide), device)?,
            feed_norm: self.tensor(&name("post_attention_layernorm.weight"), &[hidden], device)?,
            gate: self.linear(&name("mlp.gate_proj"), (feed, hidden), device)?,
            up: self.linear(&name("mlp.up_proj"), (feed, hidden), device)?,
            down: self.linear(&name("mlp.down_proj"), (hidden, feed), device)?,
        })
    }

    fn weights(&self, config: &ModelConfig, tied: bool, device: &Device) -> Result<Weights, ModelError> {
        let shape = (config.vocabulary, config.hidden);
        let rows = self.tensor("model.embed_tokens.weight", &[shape.0, shape.1], device)?;
        let head = if tied || !self.tensors.contains_key("lm_head.weight") {
            Linear::new(QMatMul::Tensor(rows.clone()), None)
        } else {
            self.linear("lm_head", shape, device)?
        };
        let layers: Result<Vec<Layer>, ModelError> = (0..config.layers)
            .map(|index| self.layer(index, config, device))
            .collect();
        let norm = self.tensor("model.norm.weight", &[config.hidden], device)?;
        Ok(Weights {
            embedding: Embedding::Dense(rows),
            layers: layers?,
            norm,
            head,
        })
    }
}

/// The tensors of a shard with the absolute offset of each.
fn header(path: &Path) -> Result<Vec<(String, Entry, u64)>, ModelError> {
    let read = |source| ModelError::Read {
        path: path.to_path_buf(),
        source,
    };
    let size = std::fs::metadata(path).map_err(read)?.len();
    let length = match read_range(path, 0, 8.min(size)).map_err(read)?.try_into() {
        Ok(bytes) => u64::from_le_bytes(bytes),
        Err(_) => {
            return Err(ModelError::invalid(
                path,
                format!("it has {size} bytes, too few for a header"),
            ));
        }
    };
    if length > MAX_HEADER || length.saturating_add(8) > size {
        return Err(ModelError::invalid(
            path,
            format!("its header of {length} bytes does not fit its {size} bytes"),
        ));
    }
    let text = read_range(path, 8, length).map_err(read)?;
    let entries: HashMap<String, serde_json::Value> = serde_json::from_slice(&text)
        .map_err(|error| ModelError::invalid(path, format!("its header is no JSON: {error}")))?;
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        if name == "__metadata__" {
            continue;
        }
        let entry: Entry = serde_json::from_value(value)
            .map_err(|error| ModelError::invalid(path, format!("tensor {name} in its header: {error}")))?;
        let (begin, end) = entry.data_offsets;
        let last = (8 + length).saturating_add(end);
        if begin > end || last > size {
            let problem = format!("tensor {name} ends at byte {last}, but the file has {size}");
            return Err(ModelError::invalid(path, problem));
        }
        tensors.push((name, entry, 8 + length + begin));
    }
    Ok(tensors)
}

fn read_range(path: &Path, start: u64, length: u64) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = vec![0; length as usize];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The type of a tensor, if its size agrees with its shape.
fn dtype(path: &Path, name: &str, entry: &Entry) -> Result<DType, ModelError> {
    let dtype = match entry.dtype.as_str() {
        "F32" => DType::F32,
        "F16" => DType::F16,
        "BF16" => DType::BF16,
        other => {
            return Err(ModelError::Unsupported(format!(
                "tensor {name} is of type {other}; only F32, F16 and BF16 are read from safetensors"
            )));
        }
    };
    let (stored, needed) = (
        entry.data_offsets.1 - entry.data_offsets.0,
        entry.shape.iter().fold(dtype.size_in_bytes() as u64, |bytes, &size| {
            bytes.saturating_mul(size as u64)
        }),
    );
    if stored != needed {
        let problem = format!(
            "tensor {name} of shape {:?} has {stored} bytes, not {needed}",
            entry.shape
        );
        return Err(ModelError::invalid(path, problem));
    }
    Ok(dtype)
}

fn config(directory: &Path) -> Result<(ModelConfig, bool, Vec<u32>), ModelError> {
    let path = directory.join("config.json");
    let Some(json) = hub::optional_json(&path)? else {
        return Err(ModelError::Unsupported(format!(
            "there is no config.json beside the safetensors in {}; add it or choose a GGUF file",
            directory.display()
        )));
    };
    // An unknown architecture may lack any other field: name it first.
    if let Some(name) = json["architectures"][0].as_str() {
        super::config::check_architecture(name)?;
    }
    let hub: HubConfig = serde_json::from_value(json).map_err(|error| ModelError::invalid(&path, error.to_string()))?;
    let (tied, ends) = (hub.tie_word_embeddings, hub.eos_token_id.clone());
    let model = hub.into_model()?;
    model.check().map_err(|problem| ModelError::invalid(&path, problem))?;
    Ok((model, tied, ends.map(TokenIds::into_vec).unwrap_or_default()))
}

pub(super) fn plan_files(directory: &Path, shards: &[PathBuf], options: &LoadOptions) -> Result<Plan, ModelError> {
    let (config, tied, _) = config(directory)?;
    plan(&config, Shards::open(shards)?.sizes(tied), options)
}

pub(super) fn describe(directory: &Path, shards: &[PathBuf]) -> Result<Description, ModelError> {
    let (config, tied, ends) = config(directory)?;
    let shards = Shards::open(shards)?;
    let (text, end_tokens) = text(directory, ends)?;
    Ok(Description {
        config,
        tokenizer: text.tokenizer,
        chat_template: text.chat_template,
        end_tokens,
        tied: tied || !shards.tensors.contains_key("lm_head.weight"),
    })
}

/// The text side, and all tokens that end an answer: `ends` of the configuration and what other files say.
fn text(directory: &Path, mut ends: Vec<u32>) -> Result<(HubText, Vec<u32>), ModelError> {
    let text = hub::read(directory)?;
    if let Some(json) = hub::optional_json(&directory.join("generation_config.json"))? {
        let listed = serde_json::from_value::<TokenIds>(json["eos_token_id"].clone());
        ends.extend(listed.map(TokenIds::into_vec).unwrap_or_default());
    }
    ends.extend(text.end);
    ends.sort_unstable();
    ends.dedup();
    Ok((text, ends))
}

pub(super) fn load(directory: &Path, shards: &[PathBuf], options: &LoadOptions) -> Result<LoadedModel, ModelError> {
    let (config, tied, ends) = config(directory)?;
    let shards = Shards::open(shards)?;
    let plan = plan(&config, shards.sizes(tied), options)?;
    let (text, ends) = text(directory, ends)?;
    let device = device()?;
    let weights = shards.weights(&config, tied, &device)?;
    let runner = CandleRunner::new(config, weights, &plan, ends, device);
    Ok(LoadedModel {
        runner,
        tokenizer: text.tokenizer,
        chat_template: text.chat_template,
        plan,
    })
}
