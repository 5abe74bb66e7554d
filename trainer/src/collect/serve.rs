//! The collector's life: the directory becomes its own, batches are taken, the last segment is finished.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::arguments::Arguments;
use super::http::{Shared, is_writable, router, seconds_since_1970};
use super::metrics::Metrics;
use super::retention::Keep;
use super::store::{Limits, Room, Store, StoreError};

/// How often the store looks for what has to be done.
const TICK: Duration = Duration::from_secs(1);
/// Longest time in which batches that are being sent may end.
const LAST: Duration = Duration::from_secs(10);
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
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|source| CollectError::Listen { address, source })?;
    let metrics = Arc::new(Metrics::new()?);
    let directory = arguments.directory.clone();
    std::fs::create_dir_all(&directory).map_err(StoreError::io("create", &directory))?;
    let looked_at = directory.clone();
    let writable = move || {
        let room = free(&looked_at).map_err(|error| format!("{} cannot be read: {error}", looked_at.display()))?;
        is_writable(&looked_at, room)
    };
    let shared = Arc::new(Shared::new(
        arguments.token.clone(),
        Arc::clone(&metrics),
        Box::new(writable),
    ));
    tracing::info!(%address, directory = %directory.display(), "collecting");
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
    let (answered, kept) = tokio::join!(answering, keep(&arguments, &shared, metrics, stop));
    answered.map_err(|source| CollectError::Listen { address, source })?;
    let lock = kept?;
    close(&shared).await;
    drop(lock);
    Ok(())
}

/// Opens the store when the directory is ours, and looks after it until `stop`. What is returned keeps others out.
async fn keep(
    arguments: &Arguments,
    shared: &Arc<Shared>,
    metrics: Arc<Metrics>,
    stop: &CancellationToken,
) -> Result<Option<File>, CollectError> {
    let outcome = open(arguments, shared, metrics, stop).await;
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
    shared: &Arc<Shared>,
    metrics: Arc<Metrics>,
    stop: &CancellationToken,
) -> Result<Option<File>, CollectError> {
    let directory = arguments.directory.clone();
    let lock = lock(&directory, stop).await?;
    if stop.is_cancelled() {
        return Ok(lock);
    }
    let limits = limits(arguments);
    let opened = tokio::task::spawn_blocking(move || {
        let room: Room = Box::new(free);
        Store::open(&directory, limits, room, metrics)
    });
    let store = opened.await.map_err(|error| StoreError::Io {
        action: "open",
        path: arguments.directory.clone(),
        source: io::Error::other(error),
    })??;
    *shared.store.lock() = Some(store);
    Ok(lock)
}

fn limits(arguments: &Arguments) -> Limits {
    Limits {
        segment_seconds: i64::from(arguments.segment_seconds),
        segment_bytes: arguments.segment_bytes,
        keep: Keep {
            seconds: i64::from(arguments.retention_days) * 86_400,
            bytes: arguments.max_bytes,
        },
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

async fn close(shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    let closed = tokio::task::spawn_blocking(move || match shared.store.lock().take() {
        Some(mut store) => store.close(),
        None => Ok(()),
    });
    match closed.await {
        Ok(Ok(())) => tracing::info!("the last segment is finished"),
        Ok(Err(error)) => tracing::warn!(%error, "the last segment is finished by the next collector"),
        Err(error) => tracing::error!(%error, "the store was not closed"),
    }
}

/// Bytes that may be written below a directory.
fn free(directory: &Path) -> io::Result<u64> {
    let figures = rustix::fs::statvfs(directory)?;
    Ok(figures.f_bavail.saturating_mul(figures.f_frsize))
}
