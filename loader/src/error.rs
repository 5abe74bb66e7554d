//! Why a model could not be had, in words for the person who can do something about it.

use std::path::PathBuf;

use perennial_crds::serving::FailureReason;

/// A failure to resolve, fetch or push a model. `Display` is one line that says what to do; it never holds a credential.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The address or another argument makes no sense.
    #[error("{subject}: {problem}")]
    InvalidArguments {
        /// What was given.
        subject: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// The source answers, but has no such thing.
    #[error("{subject} was not found: {advice}")]
    NotFound {
        /// What was asked for.
        subject: String,
        /// What to check.
        advice: String,
    },
    /// The source wants (other) credentials.
    #[error("{subject} refused access: {advice}")]
    Unauthorized {
        /// What was asked for.
        subject: String,
        /// Which credential to set.
        advice: String,
    },
    /// The source or the registry cannot be reached, keeps breaking off, or answers with errors.
    #[error("{subject} did not answer as it should: {problem}")]
    Unreachable {
        /// What was asked for.
        subject: String,
        /// What happened, and how often it was tried.
        problem: String,
    },
    /// The bytes are not the ones that were asked for.
    #[error(
        "{subject} has digest {actual}, but {expected} was asked for: correct the digest, or find out who changed the bytes"
    )]
    DigestMismatch {
        /// What was read.
        subject: String,
        /// The digest that was given.
        expected: String,
        /// The digest of the bytes.
        actual: String,
    },
    /// The disk is too small.
    #[error("{}: {problem}; give the pod more ephemeral storage or free some", directory.display())]
    NoSpaceLeft {
        /// Where the bytes should go.
        directory: PathBuf,
        /// The figures, where they are known.
        problem: String,
    },
    /// The source holds something that is no model, or a damaged one.
    #[error("{subject} is not usable: {problem}")]
    InvalidModel {
        /// What was read.
        subject: String,
        /// What is wrong.
        problem: String,
    },
    /// The source holds the model in a form that the loader does not know.
    #[error("{subject} is not supported: {problem}")]
    Unsupported {
        /// What was read.
        subject: String,
        /// What is not supported, and what is.
        problem: String,
    },
    /// The disk failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The process is being stopped.
    #[error("loading was cancelled because the process is being stopped")]
    Cancelled,
    /// A defect or an environment that cannot work.
    #[error("{problem}")]
    Internal {
        /// What happened.
        problem: String,
    },
}

impl LoadError {
    /// The word that the operator acts on.
    #[must_use]
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::InvalidArguments { .. } => FailureReason::InvalidArguments,
            Self::NotFound { .. } => FailureReason::ModelNotFound,
            Self::Unauthorized { .. } => FailureReason::Unauthorized,
            Self::Unreachable { .. } => FailureReason::SourceUnreachable,
            Self::DigestMismatch { .. } => FailureReason::DigestMismatch,
            Self::NoSpaceLeft { .. } => FailureReason::NoSpaceLeft,
            Self::InvalidModel { .. } => FailureReason::InvalidModel,
            Self::Unsupported { .. } => FailureReason::UnsupportedModel,
            Self::Io { .. } | Self::Cancelled | Self::Internal { .. } => FailureReason::Internal,
        }
    }

    /// An I/O error on `path`; a full disk becomes [`LoadError::NoSpaceLeft`].
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::NoSpaceLeft {
                directory: path.parent().map_or_else(|| path.clone(), PathBuf::from),
                problem: "the disk filled up while the model was written".to_owned(),
            },
            _ => Self::Io { action, path, source },
        }
    }

    pub(crate) fn internal(problem: impl std::fmt::Display) -> Self {
        Self::Internal {
            problem: one_line(&problem.to_string()),
        }
    }
}

/// `text` on one line, at most 300 characters: a server's words must not break the log or the termination message.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for word in text.split(|character: char| character.is_whitespace() || character.is_control()) {
        if word.is_empty() {
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// The innermost cause of `error`: what a person needs of a client's nested errors, and without its URL.
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    one_line(&cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_recognised() {
        let error = LoadError::io("write", "/scratch/model.gguf", std::io::Error::from_raw_os_error(28));
        assert_eq!(error.reason(), FailureReason::NoSpaceLeft);
        assert!(error.to_string().starts_with("/scratch: the disk filled up"), "{error}");
    }

    #[test]
    fn foreign_text_is_one_short_line() {
        assert_eq!(one_line("a\r\n  b\tc\u{7}d "), "a b c d");
        assert_eq!(one_line(&"x".repeat(1000)).len(), 303);
    }
}
