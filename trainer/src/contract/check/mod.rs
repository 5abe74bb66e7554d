//! `check-contract`: does somebody's training image keep to `retrain/v1`?
//!
//! [`make()`] lays out what a pod of the operator would find; the user runs his image on it; [`examine()`] reads what it left, as
//! the operator and the Jobs after it would, and says of each promise whether it was kept.

mod examine;
mod make;
mod said;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tokio_util::sync::CancellationToken;

pub use examine::{Check, State, examine};
pub use make::make;

/// Check whether a training image keeps to the contract retrain/v1, without a cluster.
///
/// First `check-contract --make DIRECTORY`: makes what a pod would find and says how to run the image. Then
/// `check-contract DIRECTORY --exit-code $?`: says of each promise whether it was kept; exits with 1 if one was not.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The directory of the run.
    #[arg(value_name = "DIRECTORY")]
    pub directory: PathBuf,
    /// Make it.
    #[arg(long, conflicts_with = "exit_code")]
    pub make: bool,
    /// With --make: the model to begin with, a file or a directory. A placeholder that nothing can be trained from when absent.
    #[arg(long, value_name = "PATH", requires = "make")]
    pub model: Option<PathBuf>,
    /// What the image exited with.
    #[arg(long, value_name = "NUMBER")]
    pub exit_code: Option<i32>,
}

/// Why nothing can be said. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The directory is not one of a run, or cannot become one.
    #[error("{0}")]
    Directory(String),
    /// The disk failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The model to begin with is none.
    #[error(transparent)]
    Model(#[from] crate::verify::VerifyError),
}

impl CheckError {
    fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}

/// Makes or checks a run, and tells it on standard output.
pub async fn run(arguments: Arguments, stop: &CancellationToken) -> ExitCode {
    let told = if arguments.make {
        make(&arguments.directory, arguments.model.as_deref(), stop)
            .await
            .map(|how| (how, true))
    } else {
        examine(&arguments.directory, arguments.exit_code, stop)
            .await
            .map(|checks| (table(&checks), checks.iter().all(|check| check.state != State::Failed)))
    };
    match told {
        Ok((text, good)) => {
            print!("{text}");
            if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("perennial-trainer: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The checks for people.
#[must_use]
pub fn table(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.promise.len()).max().unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let state = check.state.word();
        let line = format!("{state:<5} {:<width$}  {}", check.promise, check.said);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let count = |state: State| checks.iter().filter(|check| check.state == state).count();
    text + &format!(
        "{} passed, {} failed, {} not checked\n",
        count(State::Passed),
        count(State::Failed),
        count(State::Skipped)
    )
}
