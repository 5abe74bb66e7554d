//! `publish` and `restore`: a learned model that serves gets a tag in its repository, with where it comes from; and a cluster that is
//! built again finds both by that tag.
//!
//! What is read is believed only in its form: whoever may write to the repository may write anything.

mod arguments;
mod error;
mod lineage;
mod work;

use std::fmt::Debug;
use std::process::ExitCode;

use perennial_crds::publish::{PUBLISH_CONTRACT, PublishResult, RESTORE_CONTRACT, RestoreResult};
use perennial_crds::retrain::Outcome;
use perennial_loader::{Loader, Settings};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use arguments::{Arguments, RestoreArguments};
pub use error::PublishError;
pub use work::{publish, restore};

use crate::contract::{leave, message, retry};

/// Tags a model and leaves the last words.
pub async fn run(arguments: Arguments, stop: &CancellationToken) -> ExitCode {
    let done = publish(&arguments, &Loader::new(Settings::from_env()), stop).await;
    end(&arguments.termination_path, done, |outcome, said| PublishResult {
        schema: PUBLISH_CONTRACT.to_owned(),
        outcome,
        digest: None,
        message: said,
    })
}

/// Reads a tag and leaves the last words.
pub async fn run_restore(arguments: RestoreArguments, stop: &CancellationToken) -> ExitCode {
    let done = restore(&arguments, &Loader::new(Settings::from_env()), stop).await;
    end(&arguments.termination_path, done, |outcome, said| RestoreResult {
        schema: RESTORE_CONTRACT.to_owned(),
        outcome,
        digest: None,
        lineage: None,
        message: said,
    })
}

fn end<T: Serialize + Debug>(
    path: &std::path::Path,
    done: Result<T, PublishError>,
    failed: impl FnOnce(Outcome, String) -> T,
) -> ExitCode {
    match done {
        Ok(result) => {
            tracing::info!(?result, "done");
            leave(path, &result);
            ExitCode::SUCCESS
        }
        Err(PublishError::Untrusted(problem)) => {
            tracing::error!(problem, "failed");
            leave(path, &failed(Outcome::Untrusted, message(&problem)));
            ExitCode::FAILURE
        }
        Err(error) => {
            tracing::error!(%error, "another try may go better");
            leave(path, &failed(Outcome::Retryable, message(&error.to_string())));
            retry()
        }
    }
}
