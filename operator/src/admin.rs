//! `/livez`, `/readyz` and `/metrics`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use parking_lot::RwLock;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Whether the operator can do its work, and if not, why.
#[derive(Clone, Debug)]
pub struct Health(Arc<RwLock<Result<(), String>>>);

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(RwLock::new(Err("starting".to_owned()))))
    }
}

impl Health {
    /// From now on `/readyz` answers 200.
    pub fn ready(&self) {
        *self.0.write() = Ok(());
    }

    /// From now on `/readyz` answers 503 with this text.
    pub fn unready(&self, why: impl Into<String>) {
        *self.0.write() = Err(why.into());
    }
}

/// Serves until cancelled.
///
/// # Errors
/// If the socket fails.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    metrics: Arc<Metrics>,
    cancel: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .with_state((health, metrics));
    axum::serve(listener, router)
        .with_graceful_shutdown(cancel.cancelled_owned())
        .await
}

type Shared = State<(Health, Arc<Metrics>)>;

async fn readyz(State((health, _)): Shared) -> (StatusCode, String) {
    match health.0.read().clone() {
        Ok(()) => (StatusCode::OK, "ok".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

async fn render(State((_, metrics)): Shared) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render())
}
