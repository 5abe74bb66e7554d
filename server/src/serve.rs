//! The life of a serving process: ports, model, work, drain.

use std::sync::Arc;
use std::time::Duration;

use perennial_crds::capture::TERMS_FILE;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::capture::{self, Courier, Follower, Pace};
use crate::cli::{MetricsAlias, ServeArguments};
use crate::lifecycle::Phase;
use crate::shared::Shared;
use crate::startup;
use crate::termination::StartupError;
use crate::{api, probes};

/// What answers that were cut off at the end of the drain period get to say so.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Serves until the first `stop`, then drains.
///
/// # Errors
/// When the server could not start.
pub async fn serve(arguments: &ServeArguments, stop: CancellationToken) -> Result<(), StartupError> {
    let alias = arguments.metrics_alias == Some(MetricsAlias::Vllm);
    let capture_bytes = usize::try_from(arguments.capture_buffer_bytes).unwrap_or(usize::MAX);
    let encoder = startup::encoder(arguments).await?;
    let shared = Shared::with_encoder(arguments.served_model_name.clone(), alias, capture_bytes, encoder);
    let shared = Arc::new(shared.map_err(|error| StartupError::Internal(error.to_string()))?);
    let no_more_records = CancellationToken::new();
    let keeping = keep(&shared, arguments, no_more_records.clone()).await?;
    let bound =
        |address, error| StartupError::Arguments(format!("cannot listen on {address}: {error}; choose another"));
    let metrics = std::net::TcpListener::bind(arguments.metrics_address)
        .map_err(|error| bound(arguments.metrics_address, error))?;
    let listener = TcpListener::bind(arguments.api_address)
        .await
        .map_err(|error| bound(arguments.api_address, error))?;
    probes::spawn(metrics, Arc::clone(&shared))
        .map_err(|error| StartupError::Internal(format!("no thread for probes: {error}")))?;
    let close = CancellationToken::new();
    let http =
        axum::serve(listener, api::router(Arc::clone(&shared))).with_graceful_shutdown(close.clone().cancelled_owned());
    let http = tokio::spawn(async move { http.await });
    tracing::info!(api = %arguments.api_address, metrics = %arguments.metrics_address, "listening");

    tokio::select! {
        brought_up = startup::bring_up(&shared, arguments, &stop) => brought_up?,
        () = stop.cancelled() => {
            tracing::info!("told to stop before the model was ready");
            return Ok(());
        }
    }
    stop.cancelled().await;
    drain(&shared, arguments).await;
    close.cancel();
    no_more_records.cancel();
    // Connections that idle are closed at once; the others have written their last words by then. Records get their own time.
    let _ = tokio::join!(tokio::time::timeout(LAST_WORDS, http), keeping);
    Ok(())
}

/// Begins to keep what the terms say. They are read once before anything is answered.
async fn keep(
    shared: &Arc<Shared>,
    arguments: &ServeArguments,
    stop: CancellationToken,
) -> Result<JoinHandle<()>, StartupError> {
    let courier = Courier::new(Pace::default()).map_err(|error| StartupError::Internal(error.to_string()))?;
    let mut follower = Follower::new(arguments.pod_directory.join(TERMS_FILE), capture::follow::EVERY);
    follower.look(&shared.capture).await;
    let shared = Arc::clone(shared);
    Ok(tokio::spawn(async move {
        capture::run(&shared.capture, follower, courier, &stop).await;
    }))
}

async fn drain(shared: &Shared, arguments: &ServeArguments) {
    let start = Instant::now();
    let deadline = start + Duration::from_secs(arguments.drain_seconds);
    let lame_duck = start + Duration::from_secs(arguments.lame_duck_seconds.min(arguments.drain_seconds));
    shared.lifecycle.advance(Phase::LameDuck);
    tracing::info!(
        lame_duck_seconds = arguments.lame_duck_seconds,
        "told to stop; not ready any more"
    );
    tokio::time::sleep_until(lame_duck).await;
    shared.lifecycle.advance(Phase::Draining);
    if let Some(service) = shared.service() {
        service.engine().drain();
    }
    shared.in_flight.close();
    let running = shared.in_flight.len();
    if tokio::time::timeout_at(deadline, shared.in_flight.wait()).await.is_ok() {
        tracing::info!(seconds = start.elapsed().as_secs_f64(), running, "drained");
        return;
    }
    tracing::warn!(
        running = shared.in_flight.len(),
        "the drain period is over; the rest ends with an error"
    );
    shared.abort.cancel();
    let _ = tokio::time::timeout(LAST_WORDS, shared.in_flight.wait()).await;
}
