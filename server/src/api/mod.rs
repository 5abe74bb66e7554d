//! OpenAI's HTTP API.

mod chat;
mod completions;
mod error;
mod feedback;
mod models;
mod observed;
mod parameters;
mod request_id;
mod stream;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, Version, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

pub use error::ApiError;

use crate::lifecycle::Phase;
use crate::shared::Shared;
use crate::text::Service;

/// Largest request body.
pub const MAX_BODY_BYTES: usize = 4 << 20;

/// The routes of the API port.
pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/completions", post(completions::create))
        .route("/v1/feedback", post(feedback::create))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::retrieve))
        .route("/openapi.json", get(openapi))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(Arc::clone(&shared), close_when_leaving))
        .layer(from_fn(request_id::assign))
        .with_state(shared)
}

/// The model, if work is taken now.
fn available(shared: &Shared) -> Result<&Service, ApiError> {
    match (shared.lifecycle.phase(), shared.service()) {
        (Phase::Ready | Phase::LameDuck, Some(service)) => Ok(service),
        (Phase::Draining, _) => Err(ApiError::unavailable(
            "the server is shutting down; connect again to reach another",
        )),
        _ => {
            let stage = shared.progress.snapshot().stage;
            Err(ApiError::unavailable(format!(
                "the model is not ready yet ({stage}); try again soon"
            )))
        }
    }
}

async fn unknown_path(request: Request) -> ApiError {
    ApiError::not_found(format!(
        "there is no {} {}; see /openapi.json",
        request.method(),
        request.uri().path()
    ))
}

async fn unknown_method(request: Request) -> ApiError {
    ApiError::method_not_allowed(format!(
        "{} does not take {}; see /openapi.json",
        request.uri().path(),
        request.method()
    ))
}

async fn openapi() -> Response {
    const DOCUMENT: &str = include_str!("openapi.json");
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}

/// From the first moment of shutting down, clients are asked to open their next connection elsewhere.
async fn close_when_leaving(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let speaks_http_1 = request.version() < Version::HTTP_2;
    let mut response = next.run(request).await;
    if speaks_http_1 && shared.lifecycle.is_closing() {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
