//! Clients that leave, and servers that stop.

use std::sync::Arc;
use std::time::Duration;

use crate::support::{call, chat, events, eventually, first_event, object, probe, server};
use axum::http::StatusCode;
use http_body_util::BodyExt;
use perennial_server::capture::BUFFER_BYTES;
use perennial_server::lifecycle::Phase;
use perennial_server::shared::Shared;
use serde_json::json;

fn is_idle(shared: &Shared) -> bool {
    let load = shared.service().expect("a model").engine().load();
    (load.running, load.waiting, load.used_blocks) == (0, 0, 0)
}

const SLOW: &str = "--simulated-decode-tokens-per-second 50 --max-running 2";

fn endless(stream: bool) -> axum::http::Request<axum::body::Body> {
    chat(json!({"max_tokens": 2000, "ignore_eos": true, "stream": stream}))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_a_stream_frees_its_place() {
    let shared = server(SLOW).await;
    let stream = first_event(call(&shared, endless(true)).await).await;
    eventually("it runs", || !is_idle(&shared)).await;
    drop(stream);
    eventually("everything is free", || is_idle(&shared)).await;
    eventually("nothing is in flight", || shared.in_flight.is_empty()).await;
    assert!(
        probe(&shared, "/metrics")
            .await
            .1
            .contains("{finished_reason=\"abort\",model_name=\"simulated\"} 1")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_wait_for_the_answer_frees_its_place() {
    let shared = server(SLOW).await;
    let state = Arc::clone(&shared);
    let request = tokio::spawn(async move { call(&state, endless(false)).await });
    eventually("it runs", || !is_idle(&shared)).await;
    request.abort();
    eventually("everything is free", || is_idle(&shared)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_disconnects_lose_no_block() {
    let shared = server("--max-running 8 --max-queued 2000").await;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..1000_u64 {
        let state = Arc::clone(&shared);
        clients.spawn(async move {
            let patience = Duration::from_micros(client * 37 % 5000);
            let _ = tokio::time::timeout(patience, async {
                let response = call(&state, endless(client % 2 == 0)).await;
                response.into_body().collect().await
            })
            .await;
        });
    }
    while let Some(joined) = clients.join_next().await {
        joined.expect("no panic");
    }
    eventually("everything is free", || is_idle(&shared)).await;
    assert_eq!(
        object(call(&shared, chat(json!({"max_tokens": 3}))).await).await["object"],
        "chat.completion"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lame_duck_answers_and_closes_and_then_refuses() {
    let shared = server("--simulated-decode-tokens-per-second 100").await;
    let running = call(
        &shared,
        chat(json!({"max_tokens": 60, "ignore_eos": true, "stream": true})),
    )
    .await;
    shared.lifecycle.advance(Phase::LameDuck);
    assert_eq!(probe(&shared, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(probe(&shared, "/livez").await.0, StatusCode::OK);
    let late = call(&shared, chat(json!({"max_tokens": 2}))).await;
    assert_eq!(late.status(), StatusCode::OK);
    assert_eq!(late.headers()["connection"], "close");
    shared.lifecycle.advance(Phase::Draining);
    let refused = call(&shared, chat(json!({}))).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["connection"], "close");
    assert!(refused.headers().contains_key("retry-after"));
    let events = events(running).await;
    assert_eq!(
        events.last().expect("an end")["choices"][0]["finish_reason"],
        "length",
        "nothing is cut off"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_outlasts_the_drain_ends_with_an_error_event() {
    let shared = server(SLOW).await;
    let running = call(&shared, endless(true)).await;
    let state = Arc::clone(&shared);
    let whole = tokio::spawn(async move { call(&state, endless(false)).await });
    eventually("both run", || {
        shared
            .service()
            .is_some_and(|service| service.engine().load().running == 2)
    })
    .await;
    shared.abort.cancel();
    let events = events(running).await;
    let message = events.last().expect("an end")["error"]["message"]
        .as_str()
        .expect("a message");
    assert!(message.contains("drain period"), "{message}");
    assert_eq!(
        whole.await.expect("no panic").status(),
        StatusCode::INTERNAL_SERVER_ERROR
    );
    eventually("everything is free", || is_idle(&shared)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_model_is_ready_work_is_refused() {
    let shared = Shared::new(crate::support::MODEL.to_owned(), false, BUFFER_BYTES);
    let shared = Arc::new(shared.expect("metrics"));
    let refused = call(&shared, chat(json!({}))).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    let message = object(refused).await["error"]["message"].to_string();
    assert!(message.contains("Resolving"), "{message}");
    assert_eq!(probe(&shared, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(probe(&shared, "/livez").await.0, StatusCode::OK);
    assert_eq!(probe(&shared, "/metrics").await.0, StatusCode::OK);
}
