//! Models on candle: files, configuration, decoder.
//!
//! One parametrised decoder serves the Llama family from GGUF and from safetensors. Attention over the paged cache is
//! our own; tensors, file formats and matrix products are candle's.

mod attention;
mod config;
mod decoder;
mod files;
mod gguf;
mod runner;
mod safetensors;

use std::path::{Path, PathBuf};

use candle_core::Device;

pub use config::{ModelConfig, Rope, SUPPORTED_ARCHITECTURES};
pub use files::{Format, ModelFiles};
pub use runner::CandleRunner;

use crate::error::ModelError;
use crate::plan::Plan;
use crate::tokenizer::ModelTokenizer;

/// How to load a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Lowers the longest sequence below the model's own.
    pub max_length: Option<usize>,
    /// Sequences that the cache should hold at full length, if memory allows.
    pub max_running: usize,
    /// Memory limit in bytes; the cgroup's when absent.
    pub memory: Option<u64>,
}

/// A model that is ready to compute, with what the text side needs.
pub struct LoadedModel {
    /// The device half.
    pub runner: CandleRunner,
    /// Text to tokens and back.
    pub tokenizer: ModelTokenizer,
    /// The chat template, in Jinja; absent for base models.
    pub chat_template: Option<String>,
    /// What the memory is used for.
    pub plan: Plan,
}

/// A model without its weights: its shape and its text side.
pub struct Description {
    /// The shape.
    pub config: ModelConfig,
    /// Text to tokens and back.
    pub tokenizer: ModelTokenizer,
    /// The chat template, in Jinja; absent for base models.
    pub chat_template: Option<String>,
    /// Token ids that end an answer.
    pub end_tokens: Vec<u32>,
    /// The embedding makes the logits, too.
    pub tied: bool,
}

/// Describes the model in `files` (absolute paths) without reading its weights.
///
/// # Errors
/// [`ModelError`], as [`load`] but for memory.
pub fn describe(files: &[PathBuf]) -> Result<Description, ModelError> {
    match &ModelFiles::find(files)?.format {
        Format::Gguf(path) => gguf::describe(path),
        Format::Safetensors { directory, shards } => safetensors::describe(directory, shards),
    }
}

/// Loads the model in `files` (absolute paths).
///
/// # Errors
/// [`ModelError`]; checks architecture, integrity and memory before reading weights.
pub fn load(files: &[PathBuf], options: &LoadOptions) -> Result<LoadedModel, ModelError> {
    let files = ModelFiles::find(files)?;
    match &files.format {
        Format::Gguf(path) => gguf::load(path, options),
        Format::Safetensors { directory, shards } => safetensors::load(directory, shards, options),
    }
}

/// Plans the memory of the model in a directory or file without loading it.
///
/// # Errors
/// As [`load`].
pub fn plan(path: &Path, options: &LoadOptions) -> Result<Plan, ModelError> {
    match ModelFiles::in_directory(path)?.format {
        Format::Gguf(path) => gguf::plan_file(&path, options),
        Format::Safetensors { directory, shards } => safetensors::plan_files(&directory, &shards, options),
    }
}

/// The device that computes: the first GPU in a build with `cuda`, otherwise the processor.
///
/// # Errors
/// When the GPU cannot be used.
pub fn device() -> Result<Device, ModelError> {
    if cfg!(feature = "cuda") {
        Device::new_cuda(0).map_err(ModelError::Device)
    } else {
        Ok(Device::Cpu)
    }
}
