//! Why there is no decision. Holds no text of a record.

use std::io;
use std::path::{Path, PathBuf};

use crate::collect::bucket::BucketError;

/// A failure; its text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// What was told makes no sense.
    #[error("{0}")]
    Arguments(String),
    /// There is nothing to train on, which is a decision.
    #[error("{0}")]
    Rejected(String),
    /// What an earlier run left is not what it wrote.
    #[error("{0}")]
    Changed(String),
    /// The bucket with records failed; another try may go better.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The disk failed; another try may go better.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl PrepareError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}
