//! Why there are no fingerprints. Holds no text of a prompt or answer.

use std::io;
use std::path::PathBuf;

/// A failure; its text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The prompts are none, which is a decision.
    #[error("{0}")]
    Rejected(String),
    /// The server did not answer; another try may go better.
    #[error("{0}")]
    Unanswered(String),
    /// It was told to stop.
    #[error("told to stop before all prompts were answered")]
    Interrupted,
    /// The disk failed; another try may go better.
    #[error("read {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no HTTP client.
    #[error("the HTTP client cannot start: {0}")]
    Client(#[source] reqwest::Error),
}
