//! From the disk to the bucket: each finished segment, then its listing, and only then it is removed here. And out of the bucket
//! again, when it is too old or there is too much.
//!
//! Whatever is interrupted is done again from its beginning, with the same bytes under the same name.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::bucket::{Bucket, BucketError};
use super::http::seconds_since_1970;
use super::metrics::Metrics;
use super::retention::{Keep, surplus};
use super::segment::{Name, State};
use super::store::Store;
use super::stored::closed;

/// How often it is looked for finished segments.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is looked for segments that have to go.
const TIDY: Duration = Duration::from_secs(300);
/// Longest wait before the bucket is tried again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The same at the end, when there is no time to lose.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// The store that batches go to; absent before its beginning and after its end.
pub type Shelf = Arc<Mutex<Option<Store>>>;

/// How long to wait after so many failures in a row.
#[must_use]
pub fn wait(failures: u32) -> Duration {
    LOOK.saturating_mul(1 << failures.saturating_sub(1).min(6))
        .min(LONGEST_WAIT)
}

/// Brings segments to the bucket.
pub struct Uploader {
    bucket: Bucket,
    directory: PathBuf,
    keep: Keep,
    metrics: Arc<Metrics>,
    /// Failures since the bucket last worked.
    failures: u32,
    tidied: Option<Instant>,
}

impl Uploader {
    /// From this directory to this bucket.
    #[must_use]
    pub fn new(bucket: Bucket, directory: &Path, keep: Keep, metrics: Arc<Metrics>) -> Self {
        Self {
            bucket,
            directory: directory.to_path_buf(),
            keep,
            metrics,
            failures: 0,
            tidied: None,
        }
    }

    /// Uploads and tidies until `stop`.
    pub async fn run(&mut self, shelf: &Shelf, stop: &CancellationToken) {
        loop {
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = self.round(shelf) => outcome,
            };
            self.tell(&outcome);
            let pause = if outcome.is_ok() { LOOK } else { wait(self.failures) };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Uploads what is left, until `deadline` at the latest. Whether nothing is left.
    pub async fn finish(&mut self, shelf: &Shelf, deadline: Instant) -> bool {
        loop {
            let Ok(outcome) = tokio::time::timeout_at(deadline, self.send(shelf)).await else {
                return false;
            };
            self.tell(&outcome);
            if outcome.is_ok() {
                return true;
            }
            let again = Instant::now() + wait(self.failures).min(LAST_WAIT);
            if again >= deadline {
                return false;
            }
            tokio::time::sleep_until(again).await;
        }
    }

    async fn round(&mut self, shelf: &Shelf) -> Result<(), BucketError> {
        // Before there is a store, the bucket is asked for what it begins with, and nothing else.
        if shelf.lock().is_none() {
            return Ok(());
        }
        self.send(shelf).await?;
        if self.tidied.is_none_or(|tidied| tidied.elapsed() >= TIDY) {
            self.tidy(seconds_since_1970()).await?;
            self.tidied = Some(Instant::now());
        }
        Ok(())
    }

    /// Uploads all finished segments.
    ///
    /// # Errors
    /// Of the first that did not get there; it and those after it stay where they are.
    pub async fn send(&self, shelf: &Shelf) -> Result<(), BucketError> {
        let waiting = shelf.lock().as_ref().map(Store::waiting).unwrap_or_default();
        for name in waiting {
            if let Some((segment, listing)) = self.read(name).await? {
                self.bucket.put(name, segment, listing).await?;
                self.metrics.uploads.inc();
            }
            self.forget(shelf, name).await?;
        }
        Ok(())
    }

    /// A segment and its listing; nothing if it went for its age in the meantime.
    async fn read(&self, name: Name) -> Result<Option<(Vec<u8>, Vec<u8>)>, BucketError> {
        let folder = self.directory.join(name.day());
        let mut parts = Vec::new();
        for file in [name.file(State::Closed), name.listing()] {
            let path = folder.join(file);
            match tokio::fs::read(&path).await {
                Ok(bytes) => parts.push(bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(source) => {
                    let action = "read";
                    return Err(BucketError::Io { action, path, source });
                }
            }
        }
        let listing = parts.pop().unwrap_or_default();
        Ok(parts.pop().map(|segment| (segment, listing)))
    }

    async fn forget(&self, shelf: &Shelf, name: Name) -> Result<(), BucketError> {
        let shelf = Arc::clone(shelf);
        let forgotten = tokio::task::spawn_blocking(move || match shelf.lock().as_mut() {
            Some(store) => store.sent(name),
            None => Ok(()),
        });
        let failed = |source| BucketError::Io {
            action: "delete a segment in",
            path: self.directory.clone(),
            source,
        };
        let outcome = forgotten.await.map_err(|error| failed(io::Error::other(error)))?;
        outcome.map_err(|error| failed(io::Error::other(error)))
    }

    /// Deletes the segments of the bucket that have to go.
    ///
    /// # Errors
    /// [`BucketError`]; what is left is deleted the next time.
    pub async fn tidy(&self, now: i64) -> Result<(), BucketError> {
        let mut segments = closed(&self.bucket.list().await?);
        for (name, why) in surplus(&segments, None, self.keep, now) {
            self.bucket.delete(name).await?;
            segments.retain(|segment| segment.name != name);
            self.metrics.removed(why);
            tracing::info!(
                day = name.day(),
                sequence = name.sequence,
                reason = why.label(),
                "deleted a segment in the bucket"
            );
        }
        let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        self.metrics.bucket_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        let count = i64::try_from(segments.len()).unwrap_or(i64::MAX);
        self.metrics.bucket_segments.set(count);
        Ok(())
    }

    /// Counts, and says it once when the bucket fails and once when it works again.
    fn tell(&mut self, outcome: &Result<(), BucketError>) {
        match outcome {
            Err(error) => {
                self.metrics.upload_errors.inc();
                if self.failures == 0 {
                    tracing::warn!(%error, "the bucket cannot be used; segments wait on the disk, and it is tried again");
                }
                self.failures = self.failures.saturating_add(1);
            }
            Ok(()) if self.failures > 0 => {
                tracing::info!(
                    bucket = self.bucket.name(),
                    failures = self.failures,
                    "the bucket works again"
                );
                self.failures = 0;
            }
            Ok(()) => {}
        }
    }
}

#[cfg(test)]
#[path = "upload_tests.rs"]
mod tests;
