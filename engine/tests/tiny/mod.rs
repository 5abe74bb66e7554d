//! A tiny random decoder: written as GGUF and as safetensors, and computed the slow and obvious way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

pub const VOCABULARY: usize = 258;
pub const CONTEXT: usize = 256;
const HIDDEN: usize = 48;
const FEED: usize = 64;
const LAYERS: usize = 2;
const HEADS: usize = 6;
const KV_HEADS: usize = 2;
const WIDTH: usize = 8;
const EPSILON: f32 = 1e-5;
const BASE: f32 = 10_000.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Llama,
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
        matrix("lm_head.weight".to_owned(), VOCABULARY, HIDDEN);
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
        let mut norm = |name: String, size: usize| {
            let values = (0..size).map(|_| 1.0 + 0.2 * random.next()).collect();
            weights.insert(name, (size, 0, values));
        };
        norm("model.norm.weight".to_owned(), HIDDEN);
        for layer in 0..LAYERS {
            norm(format!("model.layers.{layer}.input_layernorm.weight"), HIDDEN);
            norm(format!("model.layers.{layer}.post_attention_layernorm.weight"), HIDDEN);
            if shape == Shape::Qwen3 {
                norm(format!("model.layers.{layer}.self_attn.q_norm.weight"), WIDTH);
                norm(format!("model.layers.{layer}.self_attn.k_norm.weight"), WIDTH);
            }
        }
        Self { shape, weights }
    }

    fn get(&self, name: &str) -> &(usize, usize, Vec<f32>) {
        &self.weights[name]
    }

    /// One file in a directory, with the files beside it.
    pub fn write_safetensors(&self, directory: &Path) -> PathBuf {
        let tensors = self.weights.iter().map(|(name, (rows, columns, values))| {
            let dimensions = if *columns == 0 {
                vec![*rows]
            } else {
                vec![*rows, *columns]
            };
            (
                name.clone(),
                Tensor::from_vec(values.clone(), dimensions, &Device::Cpu).expect("a tensor"),
            )
        });
        let path = directory.join("model.safetensors");
        candle_core::safetensors::save(&tensors.collect(), &path).expect("written");
        let architecture = if self.shape == Shape::Llama {
            "LlamaForCausalLM"
        } else {
            "Qwen3ForCausalLM"
        };
        let config = serde_json::json!({
            "architectures": [architecture], "hidden_size": HIDDEN, "intermediate_size": FEED,
            "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
            "head_dim": WIDTH, "vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT,
            "rms_norm_eps": EPSILON, "rope_theta": BASE, "tie_word_embeddings": false, "eos_token_id": 257,
        });
        std::fs::write(directory.join("config.json"), config.to_string()).expect("written");
        std::fs::write(directory.join("tokenizer.json"), tokenizer().to_string()).expect("written");
        path
    }

    pub fn write_gguf(&self, directory: &Path) -> PathBuf {
        let architecture = if self.shape == Shape::Llama { "llama" } else { "qwen3" };
        let number = |value: usize| Value::U32(value as u32);
        let mut metadata = vec![(
            "general.architecture".to_owned(),
            Value::String(architecture.to_owned()),
        )];
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
            ("tokenizer.ggml.model".to_owned(), Value::String("gpt2".to_owned())),
            ("tokenizer.ggml.pre".to_owned(), Value::String("smollm".to_owned())),
            ("tokenizer.ggml.tokens".to_owned(), strings(tokens)),
            ("tokenizer.ggml.token_type".to_owned(), Value::Array(kinds)),
            ("tokenizer.ggml.merges".to_owned(), strings(Vec::new())),
            ("tokenizer.ggml.eos_token_id".to_owned(), number(257)),
        ]);
        let tensors: Vec<(String, QTensor)> = self
            .weights
            .keys()
            .map(|name| (gguf_name(name), self.gguf_tensor(name)))
            .collect();
        let path = directory.join("model.gguf");
        let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(name, value)| (name.as_str(), value)).collect();
        let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let mut file = std::fs::File::create(&path).expect("a file");
        gguf_file::write(&mut file, &metadata, &tensors).expect("written");
        path
    }

    fn gguf_tensor(&self, name: &str) -> QTensor {
        let (rows, columns, values) = self.get(name).clone();
        let rotary = name.contains("q_proj") || name.contains("k_proj");
        let values = if rotary && self.shape == Shape::Llama {
            interleave(&values, rows, columns)
        } else {
            values
        };
        let dimensions = if columns == 0 { vec![rows] } else { vec![rows, columns] };
        let tensor = Tensor::from_vec(values, dimensions, &Device::Cpu).expect("a tensor");
        QTensor::quantize(&tensor, GgmlDType::F32).expect("a tensor")
    }

    /// The likeliest next token, computed from scratch with plain loops.
    pub fn next_token(&self, tokens: &[u32]) -> u32 {
        let embedding = &self.get("model.embed_tokens.weight").2;
        let row = |token: u32| embedding[token as usize * HIDDEN..][..HIDDEN].to_vec();
        let mut stream: Vec<Vec<f32>> = tokens.iter().map(|&token| row(token)).collect();
        for layer in 0..LAYERS {
            self.attend(layer, &mut stream);
            self.feed(layer, &mut stream);
        }
        let last = self.norm("model.norm.weight", stream.last().expect("a token"));
        let logits = self.product("lm_head.weight", &last);
        let best = logits
            .iter()
            .enumerate()
            .max_by(|one, other| one.1.total_cmp(other.1))
            .expect("a token");
        best.0 as u32
    }

    fn attend(&self, layer: usize, stream: &mut [Vec<f32>]) {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        let normed: Vec<Vec<f32>> = stream
            .iter()
            .map(|token| self.norm(&name("input_layernorm"), token))
            .collect();
        let turned = |part: &str| -> Vec<Vec<f32>> {
            let product = |(position, token): (usize, &Vec<f32>)| turn(self.product(&name(part), token), position);
            normed.iter().enumerate().map(product).collect()
        };
        let (queries, keys) = (turned("self_attn.q_proj"), turned("self_attn.k_proj"));
        let values: Vec<Vec<f32>> = normed
            .iter()
            .map(|token| self.product(&name("self_attn.v_proj"), token))
            .collect();
        for position in 0..stream.len() {
            let mut attended = vec![0.0; HEADS * WIDTH];
            for head in 0..HEADS {
                let shared = head * KV_HEADS / HEADS * WIDTH;
                let query = &queries[position][head * WIDTH..][..WIDTH];
                let score = |key: &Vec<f32>| dot(query, &key[shared..][..WIDTH]) / (WIDTH as f32).sqrt();
                let weights: Vec<f32> = keys[..=position].iter().map(|key| score(key).exp()).collect();
                let total: f32 = weights.iter().sum();
                for (weight, value) in weights.iter().zip(&values) {
                    for at in 0..WIDTH {
                        attended[head * WIDTH + at] += weight / total * value[shared + at];
                    }
                }
            }
            add(
                &mut stream[position],
                &self.product(&name("self_attn.o_proj"), &attended),
            );
        }
    }

    fn feed(&self, layer: usize, stream: &mut [Vec<f32>]) {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        for token in stream {
            let normed = self.norm(&name("post_attention_layernorm"), token);
            let gate = self.product(&name("mlp.gate_proj"), &normed);
            let up = self.product(&name("mlp.up_proj"), &normed);
            let gated: Vec<f32> = gate
                .iter()
                .zip(up)
                .map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up)
                .collect();
            add(token, &self.product(&name("mlp.down_proj"), &gated));
        }
    }

    fn norm(&self, name: &str, token: &[f32]) -> Vec<f32> {
        let scale = 1.0 / (dot(token, token) / token.len() as f32 + EPSILON).sqrt();
        token
            .iter()
            .zip(&self.get(name).2)
            .map(|(value, weight)| value * scale * weight)
            .collect()
    }

    fn product(&self, name: &str, input: &[f32]) -> Vec<f32> {
        self.get(name)
            .2
            .chunks(input.len())
            .map(|row| dot(row, input))
            .collect()
    }
}

fn dot(left: &[f32], right: &[f32]) -> f32 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

fn add(to: &mut [f32], what: &[f32]) {
    to.iter_mut().zip(what).for_each(|(to, what)| *to += what);
}

fn turn(mut heads: Vec<f32>, position: usize) -> Vec<f32> {
    for head in heads.chunks_mut(WIDTH) {
        for pair in 0..WIDTH / 2 {
            let angle = position as f32 / BASE.powf(2.0 * pair as f32 / WIDTH as f32);
            let (first, second) = (head[pair], head[pair + WIDTH / 2]);
            head[pair] = first * angle.cos() - second * angle.sin();
            head[pair + WIDTH / 2] = first * angle.sin() + second * angle.cos();
        }
    }
    heads
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
