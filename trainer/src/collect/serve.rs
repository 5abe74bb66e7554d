//! The collector's life: the directory becomes its own, batches are taken, the last segment is finished and uploaded.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::arguments::Arguments;
use super::begin::{Start, begin};
use super::bucket::{Bucket, BucketError};
use super::http::{Shared, is_writable, router, seconds_since_1970};
use super::metrics::Metrics;
use super::retention::Keep;
use super::store::{Limits, RESERVE_BYTES, Room, Store, StoreError};
use super::upload::{Uploader, wait};

/// How often the store looks for what has to be done.
const TICK: Duration = Duration::from_secs(1);
/// Longest time in which batches that are being sent may end.
const LAST: Duration = Duration::from_secs(10);
/// Longest time in which what is left may go to the bucket after that: with [`LAST`] it is less than the pod's grace.
const LAST_UPLOAD: Duration = Duration::from_secs(40);
const LOCK_FILE: &str = ".lock";

/// Why the collector ends.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// It cannot listen.
    #[error("listen on {address}: {source}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bucket cannot be used as it was told.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// Two metrics of one name, which is a bug.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Collects until `stop`.
///
/// # Errors
/// [`CollectError`].
pub async fn serve(arguments: Arguments, stop: &CancellationToken) -> Result<(), CollectError> {
    let address = arguments.listen;
    let bucket = arguments.s3.open()?;
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|source| CollectError::Listen { address, source })?;
    let metrics = Arc::new(Metrics::new()?);
    let directory = arguments.directory.clone();
    std::fs::create_dir_all(&directory).map_err(StoreError::io("create", &directory))?;
    let shared = Arc::new(Shared::new(
        arguments.token.clone(),
        Arc::clone(&metrics),
        writable(&arguments, &metrics),
    ));
    tracing::info!(%address, directory = %directory.display(), bucket = bucket.as_ref().map(Bucket::name), "collecting");
    let router = router(Arc::clone(&shared));
    let answering = async {
        let stopped = stop.clone();
        let server = axum::serve(listener, router).with_graceful_shutdown(stopped.cancelled_owned());
        let ended = async {
            stop.cancelled().await;
            tokio::time::sleep(LAST).await;
        };
        tokio::select! {
            answered = server.into_future() => answered,
            () = ended => Ok(()),
        }
    };
    let mut uploader = bucket
        .clone()
        .map(|bucket| Uploader::new(bucket, &directory, limits(&arguments).keep, Arc::clone(&metrics)));
    let uploading = async {
        if let Some(uploader) = &mut uploader {
            uploader.run(&shared.store, stop).await;
        }
    };
    let keeping = keep(&arguments, bucket.as_ref(), &shared, metrics, stop);
    let (answered, kept, ()) = tokio::join!(answering, keeping, uploading);
    answered.map_err(|source| CollectError::Listen { address, source })?;
    let lock = kept?;
    let last = close(&shared).await;
    if let (Some(uploader), Some(store)) = (&mut uploader, last) {
        upload_last(uploader, store).await;
    }
    drop(lock);
    Ok(())
}

/// Whether what is taken can be written.
fn writable(arguments: &Arguments, metrics: &Arc<Metrics>) -> Box<dyn Fn() -> Result<(), String> + Send + Sync> {
    let directory = arguments.directory.clone();
    let spool = limits(arguments).spool;
    let metrics = Arc::clone(metrics);
    Box::new(move || {
        let waiting = u64::try_from(metrics.bytes.get()).unwrap_or(0);
        if spool.is_some_and(|most| waiting.saturating_add(RESERVE_BYTES) > most) {
            return Err(StoreError::SpoolFull.to_string());
        }
        let room = free(&directory).map_err(|error| format!("{} cannot be read: {error}", directory.display()))?;
        is_writable(&directory, room)
    })
}

/// Uploads what is left. What does not get there stays on the disk, for the next collector that finds it.
async fn upload_last(uploader: &mut Uploader, store: Store) {
    let shelf = Arc::new(Mutex::new(Some(store)));
    let deadline = Instant::now() + LAST_UPLOAD;
    if uploader.finish(&shelf, deadline).await {
        tracing::info!("the last segment is in the bucket");
        return;
    }
    let left = shelf.lock().as_ref().map_or(0, |store| store.waiting().len());
    tracing::warn!(
        segments = left,
        "the bucket did not take all segments in time; they are lost if the disk goes with the pod"
    );
}

/// Opens the store when the directory is ours, and looks after it until `stop`. What is returned keeps others out.
async fn keep(
    arguments: &Arguments,
    bucket: Option<&Bucket>,
    shared: &Arc<Shared>,
    metrics: Arc<Metrics>,
    stop: &CancellationToken,
) -> Result<Option<File>, CollectError> {
    let outcome = open(arguments, bucket, shared, metrics, stop).await;
    // Without a store there is no use in answering.
    let lock = outcome.inspect_err(|_| stop.cancel())?;
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(lock),
            _ = tick.tick() => {}
        }
        let shared = Arc::clone(shared);
        let ticked = tokio::task::spawn_blocking(move || {
            if let Some(store) = shared.store.lock().as_mut() {
                store.tick(seconds_since_1970());
            }
        });
        if let Err(error) = ticked.await {
            tracing::error!(%error, "the store was not looked after");
        }
    }
}

async fn open(
    arguments: &Arguments,
    bucket: Option<&Bucket>,
    shared: &Arc<Shared>,
    metrics: Arc<Metrics>,
    stop: &CancellationToken,
) -> Result<Option<File>, CollectError> {
    let directory = arguments.directory.clone();
    let lock = lock(&directory, stop).await?;
    if stop.is_cancelled() {
        return Ok(lock);
    }
    let start = match bucket {
        Some(bucket) => match begin_when_there(bucket, shared, &metrics, stop).await {
            Some(start) => Some(start),
            None => return Ok(lock),
        },
        None => None,
    };
    let limits = limits(arguments);
    let opened = tokio::task::spawn_blocking(move || {
        let room: Room = Box::new(free);
        match start {
            Some(start) => Store::go_on(&directory, limits, room, metrics, start),
            None => Store::open(&directory, limits, room, metrics),
        }
    });
    let store = opened.await.map_err(|error| StoreError::Io {
        action: "open",
        path: arguments.directory.clone(),
        source: io::Error::other(error),
    })??;
    *shared.store.lock() = Some(store);
    Ok(lock)
}

/// Asks the bucket where to go on, until it answers; nothing if the end comes before.
async fn begin_when_there(
    bucket: &Bucket,
    shared: &Arc<Shared>,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> Option<Start> {
    let mut failures = 0;
    loop {
        let begun = tokio::select! {
            () = stop.cancelled() => return None,
            begun = begin(bucket, rand::random()) => begun,
        };
        let error = match begun {
            Ok(start) => {
                if failures > 0 {
                    tracing::info!(bucket = bucket.name(), failures, "the bucket works");
                }
                *shared.waits.lock() = None;
                return Some(start);
            }
            Err(error) => error.to_string(),
        };
        metrics.upload_errors.inc();
        failures += 1;
        let before = shared.waits.lock().replace(error.clone());
        if before.as_ref() != Some(&error) {
            tracing::warn!(
                error,
                "nothing is taken before the bucket can be used; it is tried again"
            );
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(wait(failures)) => {}
        }
    }
}

fn limits(arguments: &Arguments) -> Limits {
    Limits {
        segment_seconds: i64::from(arguments.segment_seconds),
        segment_bytes: arguments.segment_bytes,
        keep: Keep {
            seconds: i64::from(arguments.retention_days) * 86_400,
            bytes: arguments.max_bytes,
        },
        spool: arguments.s3.bucket.as_ref().map(|_| arguments.spool_bytes),
    }
}

/// Waits until no other collector has the directory. Without locks on the volume there is nothing to wait for.
async fn lock(directory: &Path, stop: &CancellationToken) -> Result<Option<File>, StoreError> {
    let path = directory.join(LOCK_FILE);
    let file = File::create(&path).map_err(StoreError::io("create", &path))?;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if !told => {
                tracing::info!("another collector has the directory; waiting for its end");
                told = true;
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => {
                tracing::warn!(%error, "the volume has no locks; see to it that there is one collector");
                return Ok(None);
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

/// Finishes the last segment; nothing is taken any more.
async fn close(shared: &Arc<Shared>) -> Option<Store> {
    let shared = Arc::clone(shared);
    let closed = tokio::task::spawn_blocking(move || {
        let mut store = shared.store.lock().take()?;
        match store.close() {
            Ok(()) => tracing::info!("the last segment is finished"),
            Err(error) => tracing::warn!(%error, "the last segment is finished by the next collector"),
        }
        Some(store)
    });
    closed.await.unwrap_or_else(|error| {
        tracing::error!(%error, "the store was not closed");
        None
    })
}

/// Bytes that may be written below a directory.
fn free(directory: &Path) -> io::Result<u64> {
    let figures = rustix::fs::statvfs(directory)?;
    Ok(figures.f_bavail.saturating_mul(figures.f_frsize))
}
