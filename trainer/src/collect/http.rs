//! What the collector answers.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use parking_lot::Mutex;
use perennial_crds::capture::{BATCH_VERSION, Batch, RECORDS_PATH};
use tokio::sync::Semaphore;

use super::hmac;
use super::metrics::{Metrics, Refusal};
use super::store::StoreError;
use super::upload::Shelf;

/// Longest body of a batch, bytes.
pub const MOST_BODY_BYTES: usize = 32 << 20;
/// Batches that are in memory at the same time.
const MOST_BODIES: usize = 2;
/// Longest time in which a batch must arrive.
const BODY_TIME: Duration = Duration::from_secs(30);

/// What all requests share.
pub struct Shared {
    /// Absent until the directory is ours, and again at the end.
    pub store: Shelf,
    /// What is waited for before there is a store.
    pub waits: Mutex<Option<String>>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether the volume takes what is written.
    pub writable: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    token: String,
    /// Under which tokens are compared; new with each process.
    key: [u8; 32],
    bodies: Semaphore,
}

impl Shared {
    /// Without a store.
    #[must_use]
    pub fn new(
        token: String,
        metrics: Arc<Metrics>,
        writable: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    ) -> Self {
        Self {
            store: Shelf::default(),
            waits: Mutex::new(None),
            metrics,
            writable,
            token,
            key: rand::random(),
            bodies: Semaphore::new(MOST_BODIES),
        }
    }

    fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let said = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
        let token = said.and_then(|said| said.strip_prefix(b"Bearer "));
        token.is_some_and(|token| hmac::same(&self.key, token, self.token.as_bytes()))
    }
}

/// All that is answered.
pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route(RECORDS_PATH, post(records))
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(shared)
}

/// A refusal, in words that hold nothing of what was sent.
struct Refused(StatusCode, Refusal, String);

async fn records(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    match take(&shared, request).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(Refused(status, why, words)) => {
            shared.metrics.refused(why);
            (status, words).into_response()
        }
    }
}

async fn take(shared: &Arc<Shared>, request: Request) -> Result<(), Refused> {
    if !shared.is_authorized(request.headers()) {
        let words = "the token is missing or wrong".to_owned();
        return Err(Refused(StatusCode::UNAUTHORIZED, Refusal::Unauthorized, words));
    }
    let failed = |words: &str| Refused(StatusCode::SERVICE_UNAVAILABLE, Refusal::Failed, words.to_owned());
    // Closed never: the semaphore lives as long as the process.
    let _body = shared
        .bodies
        .acquire()
        .await
        .map_err(|_| failed("the collector ends"))?;
    let batch = read(request.into_body()).await?;
    let shared = Arc::clone(shared);
    let taken = tokio::task::spawn_blocking(move || {
        shared
            .store
            .lock()
            .as_mut()
            .map(|store| store.take(batch, seconds_since_1970()))
    });
    match taken.await {
        Ok(Some(Ok(()))) => Ok(()),
        Ok(Some(Err(error))) => Err(refused(&error)),
        Ok(None) => Err(failed("the collector is not ready; try again later")),
        Err(error) => {
            tracing::error!(%error, "a batch was not taken");
            Err(failed("the collector failed; try again later"))
        }
    }
}

async fn read(body: Body) -> Result<Batch, Refused> {
    let invalid = |status, words: String| Refused(status, Refusal::Invalid, words);
    let bytes = tokio::time::timeout(BODY_TIME, axum::body::to_bytes(body, MOST_BODY_BYTES)).await;
    let bytes = match bytes {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            let words = format!("the batch broke off or is longer than {MOST_BODY_BYTES} bytes");
            return Err(invalid(StatusCode::PAYLOAD_TOO_LARGE, words));
        }
        Err(_) => {
            return Err(invalid(
                StatusCode::REQUEST_TIMEOUT,
                "the batch did not arrive in time".to_owned(),
            ));
        }
    };
    let batch: Batch = serde_json::from_slice(&bytes).map_err(|error| {
        // The parser's own words would quote the batch.
        let words = format!("this is no batch (line {}, column {})", error.line(), error.column());
        invalid(StatusCode::BAD_REQUEST, words)
    })?;
    if batch.version != BATCH_VERSION {
        let words = format!(
            "batches of version {} are not known, only {BATCH_VERSION}",
            batch.version
        );
        return Err(invalid(StatusCode::BAD_REQUEST, words));
    }
    Ok(batch)
}

fn refused(error: &StoreError) -> Refused {
    let (status, why) = match error {
        StoreError::Full | StoreError::SpoolFull => (StatusCode::INSUFFICIENT_STORAGE, Refusal::Full),
        StoreError::Invalid(_) => (StatusCode::BAD_REQUEST, Refusal::Invalid),
        StoreError::Io { .. } => (StatusCode::INTERNAL_SERVER_ERROR, Refusal::Failed),
    };
    tracing::warn!(%error, "a batch was not taken");
    Refused(status, why, error.to_string())
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let not_ready = |words: String| (StatusCode::SERVICE_UNAVAILABLE, words).into_response();
    let looked = tokio::task::spawn_blocking(move || {
        // A batch that is being written shows that there is a store.
        if shared.store.try_lock().is_some_and(|store| store.is_none()) {
            let waits = shared.waits.lock().clone();
            return Err(waits
                .unwrap_or_else(|| "the directory is still in use by another collector, or this one ends".to_owned()));
        }
        (shared.writable)()
    });
    match looked.await {
        Ok(Ok(())) => "ok".into_response(),
        Ok(Err(why)) => not_ready(why),
        Err(_) => not_ready("the volume cannot be looked at".to_owned()),
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(CONTENT_TYPE, kind)], shared.metrics.render()).into_response()
}

/// Whether a file can be made in a directory, and there is room.
///
/// # Errors
/// Why not, in words.
pub fn is_writable(directory: &Path, room: u64) -> Result<(), String> {
    let probe = directory.join(".probe");
    let shown = directory.display();
    std::fs::write(&probe, b"")
        .and_then(|()| std::fs::remove_file(&probe))
        .map_err(|error| format!("{shown} cannot be written: {error}"))?;
    if room < super::store::RESERVE_BYTES {
        return Err(format!(
            "{shown} has no room: make the volume larger, or lower spec.capture.maxBytes"
        ));
    }
    Ok(())
}

pub(super) fn seconds_since_1970() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
