//! Why a model is not served.

use std::io;
use std::path::{Path, PathBuf};

use perennial_crds::serving::FailureReason;
use perennial_loader::LoadError;

/// A check that was not passed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It is not what it should be; the text says what to do.
    #[error("{0}")]
    Untrusted(String),
    /// It could not be read; another try may go better.
    #[error("read {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It could not be brought here; another try may go better.
    #[error(transparent)]
    Load(LoadError),
}

impl VerifyError {
    pub(super) fn untrusted(what: impl std::fmt::Display) -> Self {
        Self::Untrusted(what.to_string())
    }

    /// A failure of the disk. What ends too early is damaged, not unreadable.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| match source.kind() {
            io::ErrorKind::UnexpectedEof => Self::Untrusted(format!("{} ends too early", name(&path))),
            _ => Self::Io { path, source },
        }
    }
}

impl From<LoadError> for VerifyError {
    fn from(error: LoadError) -> Self {
        match error.reason() {
            FailureReason::SourceUnreachable
            | FailureReason::NoSpaceLeft
            | FailureReason::Unauthorized
            | FailureReason::Internal => Self::Load(error),
            _ => Self::Untrusted(error.to_string()),
        }
    }
}

/// The last part of a path, for people.
pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
