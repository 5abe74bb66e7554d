//! Probes, metrics and loading progress, on a port and a thread of their own: they answer while the cores compute.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use perennial_crds::serving::{LOAD_PATH, LOADING_PATH, Load, LoadingProgress, Observation, PANES_PATH};
use perennial_engine::LoadSnapshot;
use serde::Deserialize;

use crate::lifecycle::Phase;
use crate::shared::Shared;

/// Without a finished step for so long, or for a multiple of the longest step, the engine counts as hung.
const HUNG_AFTER: Duration = Duration::from_secs(60);
const HUNG_STEPS: u32 = 10;
/// Largest body of [`PANES_PATH`].
const MAX_OBSERVATION_BYTES: usize = 1 << 10;

/// Serves the probes on a thread of its own until the process ends.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub fn spawn(listener: std::net::TcpListener, shared: Arc<Shared>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    listener.set_nonblocking(true)?;
    let serve = async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        axum::serve(listener, router(shared)).await
    };
    std::thread::Builder::new().name("probes".to_owned()).spawn(move || {
        if let Err(error) = runtime.block_on(serve) {
            tracing::error!(%error, "the metrics port stopped");
        }
    })?;
    Ok(())
}

/// The routes of the metrics port.
pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route(LOADING_PATH, get(loading))
        .route(LOAD_PATH, get(load))
        .route(
            PANES_PATH,
            get(panes)
                .put(observe)
                .layer(DefaultBodyLimit::max(MAX_OBSERVATION_BYTES)),
        )
        .with_state(shared)
}

async fn live(State(shared): State<Arc<Shared>>) -> Response {
    let load = shared.service().map(|service| service.engine().load());
    match load.as_ref().and_then(dead) {
        None => "ok".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
    }
}

/// Why the engine will not recover by itself.
fn dead(load: &LoadSnapshot) -> Option<String> {
    if load.failed {
        return Some("the engine has stopped after a failure".to_owned());
    }
    let patience = HUNG_AFTER.max(load.longest_step * HUNG_STEPS);
    let busy = load.running + load.waiting > 0;
    (busy && load.since_last_step > patience).then(|| {
        let seconds = load.since_last_step.as_secs();
        format!("there is work, but no step has finished for {seconds} s")
    })
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    let failed = shared.service().is_some_and(|service| service.engine().load().failed);
    match shared.lifecycle.phase() {
        Phase::Ready if !failed => "ok".into_response(),
        Phase::Ready => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the engine has stopped after a failure",
        )
            .into_response(),
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "the model is not ready yet").into_response(),
        Phase::LameDuck | Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "shutting down").into_response(),
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let load = shared.service().map(|service| service.engine().load());
    let text = shared.metrics.render(load.as_ref());
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
        .into_response()
}

async fn loading(State(shared): State<Arc<Shared>>) -> Json<LoadingProgress> {
    Json(shared.progress.snapshot())
}

async fn load(State(shared): State<Arc<Shared>>) -> Json<Load> {
    let engine = shared.service().map(|service| service.engine().load());
    Json(shared.metrics.load.snapshot(engine.as_ref()))
}

#[derive(Deserialize)]
struct Behind {
    after: Option<u64>,
}

async fn panes(State(shared): State<Arc<Shared>>, query: Result<Query<Behind>, QueryRejection>) -> Response {
    match query {
        Ok(Query(Behind { after })) => Json(shared.observer.page(after)).into_response(),
        Err(_) => {
            refused("`after` must be the sequence of a pane, an integer of at least 0; leave it out for all panes")
        }
    }
}

async fn observe(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let observation = match serde_json::from_slice::<Observation>(&body) {
        Ok(observation) => observation,
        Err(error) => return refused(&format!("the body must be like {{\"paneSeconds\": 300}}: {error}")),
    };
    match shared.observer.observe(observation) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => refused(&error.to_string()),
    }
}

fn refused(why: &str) -> Response {
    (StatusCode::BAD_REQUEST, why.to_owned()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_dead_only_when_work_does_not_move() {
        let idle = LoadSnapshot {
            since_last_step: Duration::from_secs(9999),
            ..LoadSnapshot::default()
        };
        assert_eq!(dead(&idle), None);
        let busy = LoadSnapshot {
            waiting: 1,
            ..idle.clone()
        };
        assert!(dead(&busy).is_some_and(|reason| reason.contains("9999 s")));
        let slow = LoadSnapshot {
            longest_step: Duration::from_secs(1000),
            ..busy
        };
        assert_eq!(dead(&slow), None);
        assert!(dead(&LoadSnapshot { failed: true, ..idle }).is_some());
    }
}
