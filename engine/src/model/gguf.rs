//! Models in one GGUF file.

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use candle_core::quantized::gguf_file::{Content, TensorInfo, Value};
use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{Device, Tensor};

use super::config::{ModelConfig, Rope, frequencies, unsupported_architecture};
use super::decoder::{Embedding, Layer, Linear, Weights};
use super::{CandleRunner, Description, LoadOptions, LoadedModel, device};
use crate::error::ModelError;
use crate::plan::{Plan, WeightSizes, plan};
use crate::tokenizer::gguf as tokenizer;

/// A GGUF file whose header has been read and whose size was checked against it.
pub(super) struct GgufFile<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    content: Content,
}

impl<'a> GgufFile<'a> {
    pub(super) fn open(path: &'a Path) -> Result<Self, ModelError> {
        let read = |source| ModelError::Read {
            path: path.to_path_buf(),
            source,
        };
        let file = File::open(path).map_err(read)?;
        let size = file.metadata().map_err(read)?.len();
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let content = Content::read(&mut reader)
            .map_err(|error| ModelError::invalid(path, format!("its GGUF header of a {size} byte file: {error}")))?;
        for (name, info) in &content.tensor_infos {
            let end = content
                .tensor_data_offset
                .saturating_add(info.offset)
                .saturating_add(stored_bytes(info));
            if end > size {
                let problem = format!("tensor {name} ends at byte {end}, but the file has {size}");
                return Err(ModelError::invalid(path, problem));
            }
        }
        Ok(Self { path, reader, content })
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.content.metadata.get(key)
    }

    fn text(&self, key: &str) -> Option<&str> {
        match self.value(key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    fn number(&self, key: &str) -> Option<usize> {
        self.value(key)?.to_u64().ok().map(|number| number as usize)
    }

    fn float(&self, key: &str) -> Option<f64> {
        match self.value(key)? {
            Value::F32(number) => Some(f64::from(*number)),
            Value::F64(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn config(&mut self) -> Result<ModelConfig, ModelError> {
        let architecture = self.text("general.architecture").unwrap_or("missing").to_owned();
        if !matches!(architecture.as_str(), "llama" | "qwen2" | "qwen3") {
            return Err(unsupported_architecture(&architecture));
        }
        let key = |name: &str| format!("{architecture}.{name}");
        if self.number(&key("expert_count")).unwrap_or(0) > 0 {
            return Err(unsupported_architecture(&format!(
                "{architecture} with a mixture of experts"
            )));
        }
        let path = self.path;
        let need = |name: &str| {
            let missing = || ModelError::invalid(path, format!("its metadata has no number {architecture}.{name}"));
            self.number(&key(name)).ok_or_else(missing)
        };
        let (hidden, heads) = (need("embedding_length")?, need("attention.head_count")?);
        let head_width = self
            .number(&key("attention.key_length"))
            .unwrap_or(hidden / heads.max(1));
        let embedding = self
            .content
            .tensor_infos
            .get("token_embd.weight")
            .map(|info| info.shape.dims().to_vec());
        let Some([vocabulary, _]) = embedding.as_deref() else {
            return Err(ModelError::invalid(path, "it has no token embedding"));
        };
        let mut config = ModelConfig {
            hidden,
            layers: need("block_count")?,
            heads,
            kv_heads: self.number(&key("attention.head_count_kv")).unwrap_or(heads),
            head_width,
            feed_forward: need("feed_forward_length")?,
            vocabulary: *vocabulary,
            context: need("context_length")?,
            norm_epsilon: self.float(&key("attention.layer_norm_rms_epsilon")).unwrap_or(1e-6) as f32,
            rope: Rope {
                frequencies: Vec::new(),
                interleaved: architecture == "llama",
            },
            architecture,
        };
        config.rope.frequencies = self.frequencies(&config)?;
        config.check().map_err(|problem| ModelError::invalid(path, problem))?;
        Ok(config)
    }

    fn frequencies(&mut self, config: &ModelConfig) -> Result<Vec<f32>, ModelError> {
        let key = |name: &str| format!("{}.rope.{name}", config.architecture);
        if self
            .number(&key("dimension_count"))
            .is_some_and(|turned| turned != config.head_width)
        {
            return Err(ModelError::Unsupported(
                "only part of each head is rotary, which is not supported".to_owned(),
            ));
        }
        let mut frequencies = frequencies(self.float(&key("freq_base")).unwrap_or(10_000.0), config.head_width);
        match self.text(&key("scaling.type")).unwrap_or("none") {
            "none" => {}
            "linear" => {
                let factor = self.float(&key("scaling.factor")).unwrap_or(1.0) as f32;
                frequencies.iter_mut().for_each(|frequency| *frequency /= factor);
            }
            other => {
                return Err(ModelError::Unsupported(format!(
                    "the rotary scaling {other} is not supported"
                )));
            }
        }
        if self.has("rope_freqs.weight") {
            let factors = self.vector("rope_freqs.weight", &Device::Cpu)?;
            let factors = factors
                .to_vec1::<f32>()
                .map_err(|error| self.damaged("rope_freqs.weight", &error))?;
            frequencies
                .iter_mut()
                .zip(factors)
                .for_each(|(frequency, factor)| *frequency /= factor);
        }
        Ok(frequencies)
    }

    /// What the weights take in memory: 16 and 32 bit matrices are widened, some quantized ones copied by kernels.
    fn sizes(&self) -> WeightSizes {
        let tied = !self.has("output.weight");
        let mut sizes = WeightSizes::default();
        for (name, info) in &self.content.tensor_infos {
            let stored = stored_bytes(info);
            let embedding = name == "token_embd.weight";
            match info.ggml_dtype {
                GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16 => {
                    sizes.kept += info.shape.elem_count() as u64 * 4;
                }
                _ => sizes.kept += stored,
            }
            if !embedding || tied {
                sizes.packed += packed_bytes(info, stored);
            }
        }
        sizes
    }

    fn has(&self, name: &str) -> bool {
        self.content.tensor_infos.contains_key(name)
    }

    fn damaged(&self, name: &str, error: &candle_core::Error) -> ModelError {
        ModelError::invalid(self.path, format!("tensor {name}: {error}"))
    }

    fn tensor(&mut self, name: &str, device: &Device) -> Result<QTensor, ModelError> {
        let Some(info) = self.content.tensor_infos.get(name) else {
            return Err(ModelError::invalid(self.path, format!("it has no tensor {name}")));
        };
        let read = info.read(&mut self.reader, self.content.tensor_data_offset, device);
        read.map_err(|error| self.damaged(name, &error))
    }

    fn vector(&mut self, name: &str, device: &Device) -> Result<Tensor, ModelError> {
        let tensor = self.tensor(name, device)?;
        tensor.dequantize(device).map_err(|error| self.damaged(name, &error))
    }

    fn optional_vector(&mut self, name: &str, device: &Device) -> Result<Option<Tensor>, ModelError> {
        if self.has(name) {
            self.vector(name, device).map(Some)
        } else {
            Ok(None)
        }
    }

    fn linear(&mut self, name: &str, shape: (usize, usize), device: &Device) -> Result<Linear, ModelError> {
        let (weight_name, bias_name) = (format!("{name}.weight"), format!("{name}.bias"));
        let weight = self.tensor(&weight_name, device)?;
        if weight.shape().dims() != [shape.0, shape.1] {
            let problem = format!("tensor {weight_name} is {:?}, expected {shape:?}", weight.shape());
            return Err(ModelError::invalid(self.path, problem));
        }
        let weight = QMatMul::from_qtensor(weight).map_err(|error| self.damaged(&weight_name, &error))?;
        Ok(Linear::new(weight, self.optional_vector(&bias_name, device)?))
    }

    fn layer(&mut self, index: usize, config: &ModelConfig, device: &Device) -> Result<Layer, ModelError> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let (hidden, feed) = (config.hidden, config.feed_forward);
        let (wide, narrow) = (config.heads * config.head_width, config.kv_heads * config.head_width);
        Ok(Layer {
            attention_norm: self.vector(&name("attn_norm.weight"), device)?,
            query: self.linear(&name("attn_q"), (wide, hidden), device)?,
            key: self.linear(&name("attn_k"), (narrow, hidden), device)?,
            value: self.linear(&name("attn_v"), (narrow, hidden), device)?,
            query_norm: self.optional_vector(&name("attn_q_norm.weight"), device)?,
            key_norm: self.optional_vector(&name("attn_k_norm.weight"), device)?,
            output: self.linear(&name("attn_output"), (hidden, wide), device)?,
            feed_norm: self.vector(&name("ffn_norm.weight"), device)?,
            gate: self.linear(&name("ffn_gate"), (feed, hidden), device)?,
            up: self.linear(&name("ffn_up"), (feed, hidden), device)?,
            down: self.linear(&name("ffn_down"), (hidden, feed), device)?,
        })
    }

    fn weights(&mut self, config: &ModelConfig, device: &Device) -> Result<Weights, ModelError> {
        let rows = Arc::new(self.tensor("token_embd.weight", device)?);
        let dense = matches!(rows.dtype(), GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16);
        let embedding = if dense {
            let rows = rows
                .dequantize(device)
                .map_err(|error| self.damaged("token_embd.weight", &error))?;
            Embedding::Dense(rows)
        } else {
            Embedding::Quantized(Arc::clone(&rows))
        };
        let head = if self.has("output.weight") {
            self.linear("output", (config.vocabulary, config.hidden), device)?
        } else {
            let weight = match &embedding {
                Embedding::Dense(rows) => QMatMul::Tensor(rows.clone()),
                Embedding::Quantized(rows) => QMatMul::QTensor(Arc::clone(rows)),
            };
            Linear::new(weight, None)
        };
        let layers: Result<Vec<Layer>, ModelError> = (0..config.layers)
            .map(|index| self.layer(index, config, device))
            .collect();
        Ok(Weights {
            embedding,
            layers: layers?,
            norm: self.vector("output_norm.weight", device)?,
            head,
        })
    }
}

fn stored_bytes(info: &TensorInfo) -> u64 {
    let blocks = (info.shape.elem_count() as u64).div_ceil(info.ggml_dtype.block_size() as u64);
    blocks.saturating_mul(info.ggml_dtype.type_size() as u64)
}

/// The copy that candle's kernels make of a matrix the first time it is used, measured for its x86 tiles.
fn packed_bytes(info: &TensorInfo, stored: u64) -> u64 {
    let &[rows, columns] = info.shape.dims() else { return 0 };
    if !rows.is_multiple_of(16) || !columns.is_multiple_of(256) {
        return 0;
    }
    match info.ggml_dtype {
        GgmlDType::Q4K => stored * 2,
        GgmlDType::Q6K => stored * 3 / 2,
        GgmlDType::Q8_0 => stored * 9 / 8,
        _ => 0,
    }
}

pub(super) fn plan_file(path: &Path, options: &LoadOptions) -> Result<Plan, ModelError> {
    let mut file = GgufFile::open(path)?;
    let config = file.config()?;
    plan(&config, file.sizes(), options)
}

pub(super) fn describe(path: &Path) -> Result<Description, ModelError> {
    let mut file = GgufFile::open(path)?;
    let config = file.config()?;
    let (tokenizer, end_tokens) = tokenizer::build(path, &file.content.metadata)?;
    Ok(Description {
        config,
        tokenizer,
        chat_template: file.text("tokenizer.chat_template").map(str::to_owned),
        end_tokens,
        tied: !file.has("output.weight"),
    })
}

pub(super) fn load(path: &Path, options: &LoadOptions) -> Result<LoadedModel, ModelError> {
    let mut file = GgufFile::open(path)?;
    let config = file.config()?;
    let plan = plan(&config, file.sizes(), options)?;
    let (tokenizer, end_tokens) = tokenizer::build(path, &file.content.metadata)?;
    let chat_template = file.text("tokenizer.chat_template").map(str::to_owned);
    let device = device()?;
    file.reader
        .seek(SeekFrom::Start(0))
        .map_err(|source| ModelError::Read {
            path: path.to_path_buf(),
            source,
        })?;
    let weights = file.weights(&config, &device)?;
    let runner = CandleRunner::new(config, weights, &plan, end_tokens, device);
    Ok(LoadedModel {
        runner,
        tokenizer,
        chat_template,
        plan,
    })
}
