//! Brings a model here, and says how far that is.

use std::path::Path;
use std::time::Duration;

use perennial_loader::{LoadError, LoadRequest, LocalModel, Progress, Source};
use tokio_util::sync::CancellationToken;

/// Between lines about a download.
const INTERVAL: Duration = Duration::from_secs(10);

/// Fetches the model of an address, which must have the digest.
///
/// # Errors
/// [`LoadError`]; its text says what to do.
pub fn fetch(
    address: &str,
    digest: Option<&str>,
    scratch: &Path,
    cancel: &CancellationToken,
) -> Result<LocalModel, LoadError> {
    let request = LoadRequest {
        source: Source::parse(address)?,
        digest: digest.map(str::to_owned),
        scratch: scratch.to_path_buf(),
    };
    let progress = Progress::new();
    let local = runtime()?.block_on(async {
        let fetching = perennial_loader::fetch(&request, &progress, cancel);
        tokio::pin!(fetching);
        let mut interval = tokio::time::interval(INTERVAL);
        loop {
            tokio::select! {
                biased;
                fetched = &mut fetching => return fetched,
                _ = interval.tick() => {
                    let now = progress.snapshot();
                    let (bytes, total) = (now.downloaded_bytes, now.total_bytes);
                    tracing::info!(stage = ?now.stage, bytes, total, remaining_seconds = now.remaining_seconds, "fetching");
                }
            }
        }
    })?;
    tracing::info!(uri = %request.source, bytes = local.resolved.size_bytes, "the model's files are here");
    Ok(local)
}

/// The digest of a model on this machine, as the loader computes it.
///
/// # Errors
/// [`LoadError`] when it cannot be read.
pub fn digest_of(path: &Path, cancel: &CancellationToken) -> Result<String, LoadError> {
    let request = LoadRequest {
        source: Source::File(path.to_path_buf()),
        digest: None,
        scratch: path.to_path_buf(),
    };
    let resolved = runtime()?.block_on(perennial_loader::resolve(&request, cancel))?;
    Ok(resolved.digest)
}

/// For what waits for others.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, LoadError> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| LoadError::Internal {
        problem: format!("no runtime: {error}"),
    })
}
