//! Which of the files are the model.

use std::path::{Path, PathBuf};

use crate::error::ModelError;

/// The format of the weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// One file with everything in it.
    Gguf(PathBuf),
    /// Shards, sorted, with `config.json` and `tokenizer.json` beside them.
    Safetensors {
        /// The directory of `config.json`.
        directory: PathBuf,
        /// The shards.
        shards: Vec<PathBuf>,
    },
}

/// A model's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFiles {
    /// Format and weights.
    pub format: Format,
}

impl ModelFiles {
    /// Finds the model among `files`.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] when there is none, or more than one.
    pub fn find(files: &[PathBuf]) -> Result<Self, ModelError> {
        let with = |extension: &str| {
            let matching = files
                .iter()
                .filter(|file| file.extension().is_some_and(|found| found == extension));
            let mut matching: Vec<PathBuf> = matching.cloned().collect();
            matching.sort();
            matching
        };
        let (gguf, shards) = (with("gguf"), with("safetensors"));
        match (gguf.as_slice(), shards.as_slice()) {
            ([file], _) => Ok(Self {
                format: Format::Gguf(file.clone()),
            }),
            ([], []) => Err(ModelError::Unsupported(format!(
                "there is no .gguf or .safetensors file among the model's {} files; choose a repository or path that \
                 has one",
                files.len()
            ))),
            ([], [first, ..]) => {
                let directory = first.parent().unwrap_or(Path::new(".")).to_path_buf();
                Ok(Self {
                    format: Format::Safetensors { directory, shards },
                })
            }
            (many, _) => Err(ModelError::Unsupported(format!(
                "there are {} GGUF files, and only one can be served; name one of: {}",
                many.len(),
                many.iter()
                    .filter_map(|file| file.file_name()?.to_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            ))),
        }
    }

    /// Finds the model in a directory, or takes a single file.
    ///
    /// # Errors
    /// As [`ModelFiles::find`], or when the directory cannot be read.
    pub fn in_directory(path: &Path) -> Result<Self, ModelError> {
        if path.is_file() {
            return Self::find(&[path.to_path_buf()]);
        }
        let read = |source| ModelError::Read {
            path: path.to_path_buf(),
            source,
        };
        let entries: std::io::Result<Vec<PathBuf>> = std::fs::read_dir(path)
            .map_err(read)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect();
        Self::find(&entries.map_err(read)?)
    }
}
