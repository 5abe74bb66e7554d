//! Why training ended without a decision.

use std::io;
use std::path::PathBuf;

use perennial_crds::serving::FailureReason;
use perennial_engine::ModelError;
use perennial_loader::LoadError;

use super::tensors::TensorsError;

/// A failure; its text says what to do and holds no text of a row.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// What was told makes no sense.
    #[error("{0}")]
    Arguments(String),
    /// The model could not be brought here.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The model cannot be used.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Training does not fit into memory.
    #[error("{0}")]
    Memory(String),
    /// The disk failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A tensor could not be written as it should be.
    #[error("the merged model cannot be made: {0}")]
    Merge(#[from] candle_core::Error),
    /// The pod is being stopped; a checkpoint was left.
    #[error("stopped before the end; the next try goes on from the checkpoint")]
    Interrupted,
    /// The pod is being stopped while models are judged, of which nothing is kept.
    #[error("stopped before both models were judged; the next try begins anew")]
    Unjudged,
    /// There was not enough time.
    #[error("{0}")]
    Deadline(String),
}

impl TrainError {
    /// A failure of the disk.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// Whether another try may go better: what was far away may be reachable then, and a full disk emptied.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Load(LoadError::Cancelled) | Self::Interrupted | Self::Unjudged | Self::Io { .. } => true,
            Self::Load(error) => matches!(
                error.reason(),
                FailureReason::SourceUnreachable | FailureReason::NoSpaceLeft | FailureReason::Internal
            ),
            Self::Model(error) => matches!(error, ModelError::Read { .. }),
            Self::Arguments(_) | Self::Memory(_) | Self::Merge(_) | Self::Deadline(_) => false,
        }
    }
}

impl From<TensorsError> for TrainError {
    fn from(error: TensorsError) -> Self {
        match error {
            TensorsError::Io { path, source } => Self::Io {
                action: "read",
                path,
                source,
            },
            invalid @ TensorsError::Invalid { .. } => Self::Model(invalid.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_go_better_is_tried_again() {
        let unreachable = LoadError::Unreachable {
            subject: String::new(),
            problem: String::new(),
        };
        let mismatch = LoadError::DigestMismatch {
            subject: String::new(),
            expected: String::new(),
            actual: String::new(),
        };
        assert!(TrainError::Load(unreachable).is_retryable());
        assert!(TrainError::io("write", "/x")(io::Error::from(io::ErrorKind::StorageFull)).is_retryable());
        assert!(TrainError::Interrupted.is_retryable() && TrainError::Unjudged.is_retryable());
        assert!(!TrainError::Deadline(String::new()).is_retryable());
        assert!(!TrainError::Load(mismatch).is_retryable());
        assert!(!TrainError::Memory(String::new()).is_retryable());
        assert!(!TrainError::Model(ModelError::Unsupported(String::new())).is_retryable());
    }
}
