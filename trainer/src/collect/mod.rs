//! `collect`: keeps what serving pods send of their requests, on a volume or in a bucket of the user's.
//!
//! A batch is acknowledged when it is on the disk, and one that is brought again is not written again. [`segment`] is the form of
//! the files, [`store`] the directory, [`http`] what is answered. With a [`bucket`] the directory is where finished segments wait
//! until they are [uploaded](upload). Nothing can be read from the collector but counts, and no text of a record gets into its
//! log or its answers.

mod arguments;
mod begin;
pub mod bucket;
#[cfg(test)]
pub(crate) mod fixture;
mod hmac;
pub mod http;
mod metrics;
mod recover;
mod remove;
mod requester;
mod retention;
pub mod s3;
pub mod segment;
mod serve;
pub mod store;
pub mod stored;
pub mod upload;

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

pub use arguments::Arguments;
pub use begin::{Start, begin};
pub use metrics::{Metrics, Refusal, Surplus};
pub use recover::list;
pub use retention::Keep;
pub use serve::{CollectError, serve};

/// Collects until `stop`.
pub async fn run(arguments: Arguments, stop: &CancellationToken) -> ExitCode {
    match serve(arguments, stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the collector ends");
            ExitCode::FAILURE
        }
    }
}
