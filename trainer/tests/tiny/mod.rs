//! A tiny random decoder as safetensors and as GGUF, with a tokenizer of bytes and a chat template.
#![allow(dead_code, reason = "not every test needs all of it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};

pub const VOCABULARY: usize = 258;
pub const CONTEXT: usize = 256;
pub const END: u32 = 257;
const HIDDEN: usize = 64;
const FEED: usize = 96;
const LAYERS: usize = 2;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const WIDTH: usize = 16;
const EPSILON: f32 = 1e-5;
const BASE: f32 = 10_000.0;
const TEMPLATE: &str = "{% for message in messages %}{{ '<s>' + message['role'] + ':' + message['content'] + '</s>' }}\
     {% endfor %}{% if add_generation_prompt %}{{ '<s>assistant:' }}{% endif %}";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Llama,
    Qwen2,
    Qwen3,
}

/// Weights by their names in safetensors: rows, columns (0 for a vector), values.
pub struct Tiny {
    shape: Shape,
    weights: BTreeMap<String, (usize, usize, Vec<f32>)>,
}

struct Random(u64);

impl Random {
    /// Uniform in [-1, 1).
    fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

impl Tiny {
    pub fn new(shape: Shape) -> Self {
        let mut random = Random(2026);
        let mut weights = BTreeMap::new();
        let mut matrix = |name: String, rows: usize, columns: usize| {
            let scale = 1.7 / (columns as f32).sqrt();
            let values = (0..rows * columns).map(|_| random.next() * scale).collect();
            weights.insert(name, (rows, columns, values));
        };
        matrix("model.embed_tokens.weight".to_owned(), VOCABULARY, HIDDEN);
        // Qwen2 uses the embedding again.
        if shape != Shape::Qwen2 {
            matrix("lm_head.weight".to_owned(), VOCABULARY, HIDDEN);
        }
        for layer in 0..LAYERS {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            matrix(name("self_attn.q_proj"), HEADS * WIDTH, HIDDEN);
            matrix(name("self_attn.k_proj"), KV_HEADS * WIDTH, HIDDEN);
            matrix(name("self_attn.v_proj"), KV_HEADS * WIDTH, HIDDEN);
            matrix(name("self_attn.o_proj"), HIDDEN, HEADS * WIDTH);
            matrix(name("mlp.gate_proj"), FEED, HIDDEN);
            matrix(name("mlp.up_proj"), FEED, HIDDEN);
            matrix(name("mlp.down_proj"), HIDDEN, FEED);
        }
        let mut vector = |name: String, size: usize, mean: f32| {
            let values = (0..size).map(|_| mean + 0.2 * random.next()).collect();
            weights.insert(name, (size, 0, values));
        };
        vector("model.norm.weight".to_owned(), HIDDEN, 1.0);
        for layer in 0..LAYERS {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            vector(name("input_layernorm.weight"), HIDDEN, 1.0);
            vector(name("post_attention_layernorm.weight"), HIDDEN, 1.0);
            if shape == Shape::Qwen3 {
                vector(name("self_attn.q_norm.weight"), WIDTH, 1.0);
                vector(name("self_attn.k_norm.weight"), WIDTH, 1.0);
            }
            if shape == Shape::Qwen2 {
                vector(name("self_attn.q_proj.bias"), HEADS * WIDTH, 0.0);
                vector(name("self_attn.k_proj.bias"), KV_HEADS * WIDTH, 0.0);
                vector(name("self_attn.v_proj.bias"), KV_HEADS * WIDTH, 0.0);
            }
        }
        Self { shape, weights }
    }

    fn architecture(&self) -> &'static str {
        match self.shape {
            Shape::Llama => "LlamaForCausalLM",
            Shape::Qwen2 => "Qwen2ForCausalLM",
            Shape::Qwen3 => "Qwen3ForCausalLM",
        }
    }

    /// One file of the given type in a directory, with the files beside it.
    pub fn write_safetensors(&self, directory: &Path, dtype: DType) -> PathBuf {
        let tensors = self.weights.iter().map(|(name, (rows, columns, values))| {
            let dimensions = dimensions(*rows, *columns);
            let tensor = Tensor::from_vec(values.clone(), dimensions, &Device::Cpu);
            let tensor = tensor.and_then(|tensor| tensor.to_dtype(dtype));
            (name.clone(), tensor.expect("a tensor"))
        });
        std::fs::create_dir_all(directory).expect("a directory");
        let path = directory.join("model.safetensors");
        candle_core::safetensors::save(&tensors.collect(), &path).expect("written");
        let config = serde_json::json!({
            "architectures": [self.architecture()], "hidden_size": HIDDEN, "intermediate_size": FEED,
            "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
            "head_dim": WIDTH, "vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT,
            "rms_norm_eps": EPSILON, "rope_theta": BASE, "tie_word_embeddings": self.shape == Shape::Qwen2,
            "eos_token_id": END,
        });
        let text = serde_json::json!({"chat_template": TEMPLATE, "bos_token": "<s>", "eos_token": "</s>"});
        for (name, json) in [
            ("config.json", config),
            ("tokenizer_config.json", text),
            ("tokenizer.json", tokenizer()),
        ] {
            std::fs::write(directory.join(name), json.to_string()).expect("written");
        }
        path
    }

    /// One file in which matrices are of the given type.
    pub fn write_gguf(&self, directory: &Path, dtype: GgmlDType) -> PathBuf {
        let metadata = self.metadata();
        let tensors: Vec<(String, QTensor)> = self
            .weights
            .keys()
            .map(|name| (gguf_name(name), self.gguf_tensor(name, dtype)))
            .collect();
        std::fs::create_dir_all(directory).expect("a directory");
        let path = directory.join("tiny.gguf");
        let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(name, value)| (name.as_str(), value)).collect();
        let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let mut file = std::fs::File::create(&path).expect("a file");
        gguf_file::write(&mut file, &metadata, &tensors).expect("written");
        path
    }

    fn metadata(&self) -> Vec<(String, Value)> {
        let architecture = match self.shape {
            Shape::Llama => "llama",
            Shape::Qwen2 => "qwen2",
            Shape::Qwen3 => "qwen3",
        };
        let number = |value: usize| Value::U32(value as u32);
        let text = |value: &str| Value::String(value.to_owned());
        let mut metadata = vec![("general.architecture".to_owned(), text(architecture))];
        let mut set = |name: &str, value: Value| metadata.push((format!("{architecture}.{name}"), value));
        set("embedding_length", number(HIDDEN));
        set("block_count", number(LAYERS));
        set("feed_forward_length", number(FEED));
        set("attention.head_count", number(HEADS));
        set("attention.head_count_kv", number(KV_HEADS));
        set("attention.key_length", number(WIDTH));
        set("attention.layer_norm_rms_epsilon", Value::F32(EPSILON));
        set("rope.freq_base", Value::F32(BASE));
        set("context_length", number(CONTEXT));
        let strings = |list: Vec<String>| Value::Array(list.into_iter().map(Value::String).collect());
        let tokens: Vec<String> = symbols()
            .into_iter()
            .chain(["<s>".to_owned(), "</s>".to_owned()])
            .collect();
        let kinds = (0..VOCABULARY)
            .map(|id| Value::I32(if id < 256 { 1 } else { 3 }))
            .collect();
        metadata.extend([
            ("general.name".to_owned(), text("Tiny")),
            ("tokenizer.ggml.model".to_owned(), text("gpt2")),
            ("tokenizer.ggml.pre".to_owned(), text("smollm")),
            ("tokenizer.ggml.tokens".to_owned(), strings(tokens)),
            ("tokenizer.ggml.token_type".to_owned(), Value::Array(kinds)),
            ("tokenizer.ggml.merges".to_owned(), strings(Vec::new())),
            ("tokenizer.ggml.bos_token_id".to_owned(), number(256)),
            ("tokenizer.ggml.eos_token_id".to_owned(), number(257)),
            ("tokenizer.chat_template".to_owned(), text(TEMPLATE)),
        ]);
        metadata
    }

    fn gguf_tensor(&self, name: &str, dtype: GgmlDType) -> QTensor {
        let (rows, columns, values) = self.weights[name].clone();
        let rotary = name.contains("q_proj") || name.contains("k_proj");
        let values = if rotary && self.shape == Shape::Llama {
            interleave(&values, rows, columns)
        } else {
            values
        };
        let tensor = Tensor::from_vec(values, dimensions(rows, columns), &Device::Cpu).expect("a tensor");
        let dtype = if columns == 0 { GgmlDType::F32 } else { dtype };
        QTensor::quantize(&tensor, dtype).expect("a tensor")
    }
}

fn dimensions(rows: usize, columns: usize) -> Vec<usize> {
    if columns == 0 { vec![rows] } else { vec![rows, columns] }
}

/// GGUF's llama pairs neighbouring dimensions where safetensors pair halves of a head.
fn interleave(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let half = WIDTH / 2;
    let source = |row: usize| row / WIDTH * WIDTH + (row % 2) * half + row % WIDTH / 2;
    (0..rows)
        .flat_map(|row| values[source(row) * columns..][..columns].to_vec())
        .collect()
}

fn gguf_name(name: &str) -> String {
    const NAMES: [(&str, &str); 15] = [
        ("model.embed_tokens", "token_embd"),
        ("lm_head", "output"),
        ("model.norm", "output_norm"),
        ("model.layers.", "blk."),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
    ];
    NAMES
        .iter()
        .fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

/// GPT-2's characters for the 256 bytes.
fn symbols() -> Vec<String> {
    let printable = |byte: u32| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut next = 256;
    let mut symbol = |byte: u32| {
        let code = if printable(byte) {
            byte
        } else {
            next += 1;
            next - 1
        };
        char::from_u32(code).expect("a character").to_string()
    };
    (0..256).map(&mut symbol).collect()
}

fn tokenizer() -> serde_json::Value {
    let vocabulary: serde_json::Map<String, serde_json::Value> = symbols()
        .into_iter()
        .enumerate()
        .map(|(id, symbol)| (symbol, id.into()))
        .collect();
    let added = |id: u32, content: &str| {
        serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let byte_level = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": true});
    serde_json::json!({"version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(256, "<s>"), added(257, "</s>")], "normalizer": null, "pre_tokenizer": byte_level,
        "post_processor": null, "decoder": byte_level, "model": {"type": "BPE", "dropout": null, "unk_token": null,
        "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
        "vocab": vocabulary, "merges": []}})
}
