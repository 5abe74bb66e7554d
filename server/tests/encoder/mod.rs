//! A made-up encoder of a dozen words, written as a tool would write it.
#![allow(dead_code, reason = "not every test program uses all of it")]

use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const WORDS: [&str; 8] = ["[UNK]", "why", "is", "the", "sky", "blue", "bread", "flour"];
pub const DIMENSION: usize = 4;

/// A row for each word: no two point the same way.
pub fn rows() -> Vec<f32> {
    (0..WORDS.len())
        .flat_map(|word| {
            (0..DIMENSION).map(move |place| {
                if word % DIMENSION == place {
                    1.0
                } else {
                    0.125 * word as f32
                }
            })
        })
        .collect()
}

pub fn tokenizer() -> Value {
    let vocabulary: serde_json::Map<String, Value> = WORDS
        .iter()
        .zip(0..)
        .map(|(word, id)| ((*word).to_owned(), json!(id)))
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    })
}

pub fn single(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// The bytes of a file of weights.
pub fn weights(tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) -> Vec<u8> {
    let views: Vec<(&str, TensorView<'_>)> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.clone(), bytes).expect("a tensor")))
        .collect();
    safetensors::serialize(views, None).expect("a file")
}

pub fn good_weights() -> Vec<u8> {
    weights(&[("embeddings", Dtype::F32, vec![WORDS.len(), DIMENSION], single(&rows()))])
}

/// A directory that is removed with this.
pub struct Made(TempDir);

impl Made {
    pub fn new() -> Self {
        Self::of(&good_weights(), &tokenizer())
    }

    /// Another one: its last word means something else.
    pub fn other() -> Self {
        let mut rows = rows();
        rows.iter_mut()
            .rev()
            .take(DIMENSION)
            .for_each(|number| *number = -*number);
        let weights = weights(&[("embeddings", Dtype::F32, vec![WORDS.len(), DIMENSION], single(&rows))]);
        Self::of(&weights, &tokenizer())
    }

    pub fn of(weights: &[u8], tokenizer: &Value) -> Self {
        let made = Self(TempDir::new().expect("a directory"));
        std::fs::write(made.file("model.safetensors"), weights).expect("written");
        std::fs::write(made.file("tokenizer.json"), tokenizer.to_string()).expect("written");
        made
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}
