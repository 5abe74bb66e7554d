//! Tells whoever asks how far training is: the operator does not see the volume.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use perennial_crds::retrain::PROGRESS_PATH;

use super::reporter;

/// Answers with what the reporter wrote last, on a thread of its own, until the process ends.
///
/// # Errors
/// If the port is taken.
pub fn serve(port: u16, output: &Path) -> std::io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let app = router(output);
    std::thread::Builder::new().name("progress".to_owned()).spawn(move || {
        let served = runtime.block_on(async { axum::serve(tokio::net::TcpListener::from_std(listener)?, app).await });
        if let Err(error) = served {
            tracing::warn!(%error, "nobody is told any more how far training is");
        }
    })?;
    Ok(())
}

fn router(output: &Path) -> Router {
    let path = reporter::path(output);
    let answer = async move || match tokio::fs::read(&path).await {
        Ok(progress) => ([(CONTENT_TYPE, "application/json")], progress).into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    };
    Router::new().route(PROGRESS_PATH, get(answer))
}
