//! Why a tag was not written or read.

use perennial_crds::serving::FailureReason;
use perennial_loader::LoadError;

/// A tag that was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// It cannot be; the text says what to do.
    #[error("{0}")]
    Untrusted(String),
    /// The registry is away; another try may go better.
    #[error(transparent)]
    Away(LoadError),
}

impl From<LoadError> for PublishError {
    fn from(error: LoadError) -> Self {
        match error.reason() {
            FailureReason::SourceUnreachable | FailureReason::Internal => Self::Away(error),
            _ => Self::Untrusted(error.to_string()),
        }
    }
}
