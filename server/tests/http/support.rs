//! A server on the simulated engine, called without a socket.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse;
use clap::Parser;
use futures::StreamExt;
use http_body_util::BodyExt;
use perennial_server::cli::{Cli, Command};
use perennial_server::shared::Shared;
use perennial_server::{api, probes, startup};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub const MODEL: &str = "simulated";

pub async fn server(flags: &str) -> Arc<Shared> {
    let line = format!("perennial-server serve --served-model-name {MODEL} --engine simulated {flags}");
    let cli = Cli::try_parse_from(line.split_whitespace()).expect("arguments");
    let Command::Serve(arguments) = cli.command else {
        panic!("not serve")
    };
    let bytes = usize::try_from(arguments.capture_buffer_bytes).expect("a size");
    let encoder = startup::encoder(&arguments).await.expect("an encoder");
    let shared = Arc::new(Shared::with_encoder(MODEL.to_owned(), true, bytes, encoder).expect("metrics"));
    startup::bring_up(&shared, &arguments, &CancellationToken::new())
        .await
        .expect("a model");
    shared
}

pub fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post(path).header("content-type", "application/json");
    request.body(body.into()).expect("a request")
}

pub fn chat(extra: Value) -> Request<Body> {
    let mut body = json!({"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "temperature": 0});
    for (name, value) in extra.as_object().expect("an object") {
        body[name] = value.clone();
    }
    post("/v1/chat/completions", body.to_string())
}

pub async fn call(shared: &Arc<Shared>, request: Request<Body>) -> Response<Body> {
    api::router(Arc::clone(shared)).oneshot(request).await.into_response()
}

pub async fn probe(shared: &Arc<Shared>, path: &str) -> (StatusCode, String) {
    ask(shared, Request::get(path).body(Body::empty()).expect("a request")).await
}

pub async fn put(shared: &Arc<Shared>, path: &str, body: impl Into<Body>) -> (StatusCode, String) {
    ask(shared, Request::put(path).body(body.into()).expect("a request")).await
}

/// Asks the metrics port.
async fn ask(shared: &Arc<Shared>, request: Request<Body>) -> (StatusCode, String) {
    let response = probes::router(Arc::clone(shared))
        .oneshot(request)
        .await
        .into_response();
    (response.status(), text(response).await)
}

pub async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

pub async fn object(response: Response<Body>) -> Value {
    serde_json::from_str(&text(response).await).expect("JSON")
}

/// The events of a stream; the last is `[DONE]`.
pub async fn events(response: Response<Body>) -> Vec<Value> {
    let text = text(response).await;
    let mut events: Vec<&str> = text.split("\n\n").filter(|event| !event.is_empty()).collect();
    assert_eq!(events.pop(), Some("data: [DONE]"));
    let parse = |event: &str| serde_json::from_str(event.strip_prefix("data: ").expect("data")).expect("JSON");
    events.into_iter().map(parse).collect()
}

/// Reads one event of a stream and leaves the rest.
pub async fn first_event(response: Response<Body>) -> axum::body::BodyDataStream {
    let mut stream = response.into_body().into_data_stream();
    stream.next().await.expect("an event").expect("no error");
    stream
}

pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}
