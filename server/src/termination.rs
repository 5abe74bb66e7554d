//! The last words of a failed process.

use std::path::Path;

use perennial_crds::serving::{FailureReason, Termination};
use perennial_engine::ModelError;
use perennial_loader::LoadError;

use crate::observation::EncoderError;

/// Kubernetes keeps this much.
const MAX_BYTES: usize = 4096;

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// Arguments or environment are wrong.
    #[error("{0}")]
    Arguments(String),
    /// `--encoder` names something that is none.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    /// The model could not be brought here.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The model could not be loaded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The first token could not be computed.
    #[error("the model loaded, but could not produce a token: {0}")]
    WarmUp(String),
    /// Something else.
    #[error("{0}")]
    Internal(String),
}

impl StartupError {
    /// The word that the operator acts on.
    #[must_use]
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::Arguments(_) | Self::Encoder(_) => FailureReason::InvalidArguments,
            Self::Load(error) => error.reason(),
            Self::Model(error) => match error {
                ModelError::Read { .. } => FailureReason::ModelNotFound,
                ModelError::Unsupported(_) => FailureReason::UnsupportedModel,
                ModelError::Invalid { .. } => FailureReason::InvalidModel,
                ModelError::InsufficientMemory(_) => FailureReason::InsufficientMemory,
                ModelError::Device(_) => FailureReason::DeviceFailed,
            },
            Self::WarmUp(_) => FailureReason::InvalidModel,
            Self::Internal(_) => FailureReason::Internal,
        }
    }

    /// The last words: one line.
    #[must_use]
    pub fn termination(&self) -> Termination {
        let message = self.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        Termination {
            reason: self.reason(),
            message: shorten(message),
        }
    }
}

/// Leaves room for the JSON around the message and for escapes.
fn shorten(mut message: String) -> String {
    let mut end = message.len().min(MAX_BYTES / 2);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.truncate(end);
    message
}

/// Leaves `words` as JSON where Kubernetes reads them. Outside a container the path cannot be written: that is fine.
pub fn leave(path: &Path, words: &impl serde::Serialize) {
    if let Ok(json) = serde_json::to_vec(words)
        && let Err(error) = std::fs::write(path, json)
    {
        tracing::debug!(path = %path.display(), %error, "no termination message was left");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_one_short_line() {
        let error = StartupError::Internal(format!("a\n  b{}", "ü".repeat(4000)));
        let words = error.termination();
        assert!(words.message.starts_with("a bü") && words.message.len() <= MAX_BYTES / 2);
        assert_eq!(words.reason, FailureReason::Internal);
    }

    #[test]
    fn every_model_error_has_its_reason() {
        let reason = |error: ModelError| StartupError::Model(error).reason();
        assert_eq!(
            reason(ModelError::Unsupported(String::new())),
            FailureReason::UnsupportedModel
        );
        assert_eq!(
            reason(ModelError::InsufficientMemory(String::new())),
            FailureReason::InsufficientMemory
        );
        let damaged = ModelError::Invalid {
            path: "x".into(),
            problem: String::new(),
        };
        assert_eq!(reason(damaged), FailureReason::InvalidModel);
    }

    #[test]
    fn a_path_that_cannot_be_written_is_no_failure() {
        leave(Path::new("/does/not/exist"), &"words");
    }
}
