//! An encoder of prompts from a directory: static embeddings in the layout of Model2Vec.
//!
//! `model.safetensors` holds a vector for each token, `tokenizer.json` says what the tokens are; nothing else is read. The
//! `normalize` of a `config.json` would change nothing, because all vectors are brought to length 1 anyway. What the two
//! files are is told by one digest, that of a model of these files ([`perennial_loader`]), which is part of the layout of
//! panes: panes of two encoders never add. Prompts go into no error and into no log.

use std::path::{Path, PathBuf};

use perennial_drift::features::Encoder;
use perennial_drift::features::table::{self, Table, TableError};
use perennial_loader::{Digest, digest_of_files};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::Deserialize;
use tokenizers::Tokenizer;

/// The file of vectors.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// The file that says what tokens are.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// Bytes of a prompt that are read: splitting them into tokens is nearly all of the cost, and in most languages they are about
/// as many tokens as are added up.
const READ: usize = 2048;
/// Tokens of a prompt that are added up, as Model2Vec has it.
const TOKENS: usize = 512;
/// More is no small encoder.
const MOST_WEIGHTS: u64 = 1 << 30;
const MOST_TOKENIZER: u64 = 128 << 20;
/// Bytes of a tokenizer in memory for each byte of its file: 11 were measured with one of 32,000 tokens.
const TOKENIZER_IN_MEMORY: u64 = 12;
/// Names by which the vectors are known.
const VECTORS: [&str; 2] = ["embeddings", "embedding.weight"];
/// Tensors that are named where the vectors are missing.
const NAMED: usize = 8;

/// Why a directory is no encoder. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum EncoderError {
    /// There is none.
    #[error(
        "there is no directory {path} for --encoder; mount one there that holds {WEIGHTS_FILE} and {TOKENIZER_FILE}"
    )]
    Directory {
        /// Where it should be.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error(
        "the encoder's {path} cannot be read: {source}; --encoder takes a directory with {WEIGHTS_FILE} and {TOKENIZER_FILE}"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Other files than those that were pinned.
    #[error(
        "the encoder in {path} has the sha256 {found}, but --encoder-sha256 is {expected}; bring back the files that were pinned, or pin these"
    )]
    Pinned {
        /// The directory.
        path: PathBuf,
        /// Of the files that are there.
        found: String,
        /// Of those that should be.
        expected: String,
    },
    /// A file is none of an encoder.
    #[error("the encoder's {path} cannot be used: {problem}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// Turns prompts into vectors.
#[derive(Debug)]
pub struct StaticEncoder {
    tokenizer: Tokenizer,
    unknown: Option<u32>,
    table: Table,
    digest: Digest,
    bytes: u64,
}

impl StaticEncoder {
    /// Reads a directory. With `pinned`, only files of this digest are looked into.
    ///
    /// # Errors
    /// [`EncoderError`], naming the file and what is wrong with it.
    pub fn load(directory: &Path, pinned: Option<Digest>) -> Result<Self, EncoderError> {
        if !directory.is_dir() {
            return Err(EncoderError::Directory {
                path: directory.to_path_buf(),
            });
        }
        let (weights_path, tokenizer_path) = (directory.join(WEIGHTS_FILE), directory.join(TOKENIZER_FILE));
        let weights = read(&weights_path, MOST_WEIGHTS)?;
        let text = read(&tokenizer_path, MOST_TOKENIZER)?;
        let digest = digest_of_files([
            (WEIGHTS_FILE, Digest::of(&weights)),
            (TOKENIZER_FILE, Digest::of(&text)),
        ]);
        if let Some(expected) = pinned.filter(|expected| *expected != digest) {
            return Err(EncoderError::Pinned {
                path: directory.to_path_buf(),
                found: digest.hex(),
                expected: expected.hex(),
            });
        }
        let invalid = |path: &Path, problem: String| EncoderError::Invalid {
            path: path.to_path_buf(),
            problem,
        };
        let table = vectors(&weights).map_err(|problem| invalid(&weights_path, problem))?;
        drop(weights);
        let bytes =
            (table.rows() * table.dimension() * size_of::<f32>()) as u64 + TOKENIZER_IN_MEMORY * text.len() as u64;
        let (tokenizer, unknown) =
            tokenizer(&text, table.rows()).map_err(|problem| invalid(&tokenizer_path, problem))?;
        Ok(Self {
            tokenizer,
            unknown,
            table,
            digest,
            bytes,
        })
    }

    /// The vector of a prompt, of length 1: the mean of its tokens' rows. Only its beginning counts, 2048 bytes and 512
    /// tokens. `None` if none of its tokens is known.
    #[must_use]
    pub fn embed(&self, prompt: &str) -> Option<Vec<f32>> {
        let beginning = prompt.get(..prompt.floor_char_boundary(READ))?;
        let encoding = self.tokenizer.encode_fast(beginning, false).ok()?;
        let known = encoding
            .get_ids()
            .iter()
            .copied()
            .filter(|id| Some(*id) != self.unknown);
        self.table.mean(known.take(TOKENS))
    }

    /// What features are made with: its vectors alone.
    #[must_use]
    pub fn recipe(&self) -> Encoder {
        let all = format!(
            "table={} bytes={READ} tokens={TOKENS} files={}",
            table::VERSION,
            self.digest
        );
        let hex = Digest::of(all.as_bytes()).hex();
        Encoder::External {
            dimension: self.table.dimension(),
            bandwidth: table::BANDWIDTH,
            // Sixteen hexadecimal digits always are a number.
            identity: hex
                .get(..16)
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                .unwrap_or(0),
        }
    }

    /// Of both files, as of a model of them: `sha256sum model.safetensors tokenizer.json | sha256sum`.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Numbers in a vector.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.table.dimension()
    }

    /// Tokens that may have a vector.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.table.rows()
    }

    /// About what it takes of memory: the vectors in single precision, and the tokenizer.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, EncoderError> {
    let failed = |source| EncoderError::Read {
        path: path.to_path_buf(),
        source,
    };
    let found = std::fs::metadata(path).map_err(failed)?;
    let problem = if !found.is_file() {
        "it is no file".to_owned()
    } else if found.len() > most {
        format!("it has {} MiB, and at most {} are taken", found.len() >> 20, most >> 20)
    } else {
        return std::fs::read(path).map_err(failed);
    };
    Err(EncoderError::Invalid {
        path: path.to_path_buf(),
        problem,
    })
}

/// The table of a file of weights, or what is wrong with that.
fn vectors(bytes: &[u8]) -> Result<Table, String> {
    let tensors = SafeTensors::deserialize(bytes)
        .map_err(|error| format!("it is no safetensors file, or only a part of one ({error})"))?;
    let Some((name, view)) = VECTORS.iter().find_map(|name| Some((name, tensors.tensor(name).ok()?))) else {
        let mut names = tensors.names();
        names.sort_unstable();
        names.truncate(NAMED);
        return Err(format!(
            "it has no tensor {}, but {}; static embeddings are needed, not a transformer",
            VECTORS.join(" or "),
            names.join(", ")
        ));
    };
    if tensors.tensor("mapping").is_ok() {
        return Err(
            "several tokens share a row (tensor mapping), which is not supported; export it without a quantised vocabulary"
                .to_owned(),
        );
    }
    let [_, dimension] = view.shape() else {
        return Err(format!(
            "tensor {name} has the shape {:?}, but a row for each token is needed, [tokens, dimension]",
            view.shape()
        ));
    };
    let rows = numbers(name, &view)?;
    let weights = match tensors.tensor("weights") {
        Ok(weights) if weights.shape().len() != 1 => {
            return Err(format!(
                "tensor weights has the shape {:?}, but a number for each token is needed",
                weights.shape()
            ));
        }
        Ok(weights) => Some(numbers("weights", &weights)?),
        Err(_) => None,
    };
    Table::new(*dimension, rows, weights.as_deref()).map_err(|error| match error {
        TableError::Shape { .. } => format!("tensor {name} has the shape {:?}, which is empty", view.shape()),
        error => format!("tensor {name}: {error}"),
    })
}

fn numbers(name: &str, view: &TensorView<'_>) -> Result<Vec<f32>, String> {
    let bytes = view.data();
    // The size of a tensor is checked with the header, so that nothing is left over.
    Ok(match view.dtype() {
        Dtype::F32 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|number| f32::from_le_bytes(*number))
            .collect(),
        Dtype::F64 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|number| f64::from_le_bytes(*number) as f32)
            .collect(),
        Dtype::F16 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|number| half::f16::from_le_bytes(*number).to_f32())
            .collect(),
        Dtype::BF16 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|number| half::bf16::from_le_bytes(*number).to_f32())
            .collect(),
        other => {
            return Err(format!(
                "tensor {name} is of the type {other}; F32, F16, BF16 and F64 are read"
            ));
        }
    })
}

/// What is looked at of a tokenizer besides what the library makes of it.
#[derive(Deserialize)]
struct Description {
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    unk_token: Option<String>,
    unk_id: Option<u32>,
    dropout: Option<f64>,
}

/// The tokenizer, and the token that stands for what it does not know; or what is wrong with it.
fn tokenizer(text: &[u8], rows: usize) -> Result<(Tokenizer, Option<u32>), String> {
    let no_tokenizer = |error: &dyn std::fmt::Display| format!("it describes no tokenizer ({error})");
    let Description { model } = serde_json::from_slice(text).map_err(|error| no_tokenizer(&error))?;
    if model.dropout.is_some_and(|dropout| dropout > 0.0) {
        return Err(
            "its model has a dropout, so the same prompt has other tokens each time; set dropout to null".to_owned(),
        );
    }
    let mut tokenizer = Tokenizer::from_bytes(text).map_err(|error| no_tokenizer(&error))?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|error| no_tokenizer(&error))?;
    let most = tokenizer.get_vocab(true).into_values().max();
    match most {
        Some(most) if (most as usize) < rows => {}
        Some(most) => {
            return Err(format!(
                "it has tokens up to {most}, but {WEIGHTS_FILE} only {rows} rows, counted from 0: the two files are not of one encoder"
            ));
        }
        None => return Err("it has no tokens".to_owned()),
    }
    // Some fail on words that they do not know, and every prompt has such words sooner or later.
    tokenizer
        .encode_fast("Why is the sky blue? \u{10fffd}", false)
        .map_err(|error| format!("it fails on what it does not know ({error}); give its model an unk_token"))?;
    let unknown = model
        .unk_token
        .and_then(|token| tokenizer.token_to_id(&token))
        .or(model.unk_id);
    Ok((tokenizer, unknown))
}

#[cfg(test)]
#[path = "../../tests/encoder/mod.rs"]
mod made;

#[cfg(test)]
#[path = "encoder_tests.rs"]
mod tests;
