//! Why a model cannot be served.

use std::path::PathBuf;

/// A model that cannot be loaded; each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The engine does not know the architecture, format, or a feature of it.
    #[error("{0}")]
    Unsupported(String),
    /// A file is truncated, damaged, or contradicts itself.
    #[error("{} is damaged: {problem}; download it again", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, with numbers.
        problem: String,
    },
    /// Weights, cache and reserve do not fit.
    #[error("{0}")]
    InsufficientMemory(String),
    /// The accelerator is missing or failed.
    #[error("the device failed: {0}; check the driver and that the pod requests a GPU")]
    Device(candle_core::Error),
}

impl ModelError {
    pub(crate) fn invalid(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Invalid {
            path: path.into(),
            problem: problem.into(),
        }
    }
}
