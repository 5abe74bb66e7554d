//! `POST /v1/feedback`.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Request, StatusCode};
use perennial_server::capture::BUFFER_BYTES;
use perennial_server::lifecycle::Phase;
use perennial_server::shared::Shared;
use serde_json::{Value, json};

use crate::collector::{Collector, Keeping, Manner};
use crate::support::{MODEL, call, chat, eventually, object, post, server};

async fn send(shared: &Arc<Shared>, body: &Value) -> (u16, Value) {
    let response = call(shared, post("/v1/feedback", body.to_string())).await;
    assert!(response.headers().contains_key("x-request-id"));
    let retry = response.headers().contains_key("retry-after");
    let status = response.status();
    assert_eq!(retry, status == StatusCode::SERVICE_UNAVAILABLE);
    (status.as_u16(), object(response).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_follows_its_answer_to_the_collector() {
    let collector = Collector::start(Manner::Take).await;
    let server = Keeping::under("", collector.terms()).await;
    let response = call(&server.shared, chat(json!({"max_tokens": 2}))).await;
    let id = response.headers()["x-request-id"].to_str().expect("text").to_owned();
    object(response).await;
    collector.has(1).await;
    for feedback in [
        json!({"request_id": id, "score": -1}),
        json!({"request_id": id, "score": 0.25, "corrected_output": "Ask eve@example.com."}),
        json!({"request_id": id, "corrected_output": "x".repeat(65_536), "score": null}),
    ] {
        let counted = feedback["score"].is_number();
        let expected = json!({"object": "feedback", "request_id": id, "stored": true, "counted": counted});
        assert_eq!(send(&server.shared, &feedback).await, (202, expected));
    }
    collector.has(4).await;
    let kept = collector.feedback();
    let scores: Vec<Option<f64>> = kept.iter().map(|feedback| feedback.score).collect();
    assert_eq!(scores, [Some(-1.0), Some(0.25), None]);
    assert_eq!(kept[1].corrected_output.as_deref(), Some("Ask [EMAIL]."));
    assert!(
        kept.iter()
            .all(|feedback| feedback.request_id == id && feedback.time > 1_764_547_200)
    );
    assert_eq!(collector.exchanges()[0].request_id, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_feedback_is_named() {
    let collector = Collector::start(Manner::Take).await;
    let server = Keeping::under("", collector.terms()).await;
    let good = |name: &str, value: Value| {
        let mut body = json!({"request_id": "r", "score": 0.5});
        body[name] = value;
        body
    };
    for (body, param) in [
        (json!({}), "request_id"),
        (json!({"score": 1}), "request_id"),
        (good("request_id", Value::Null), "request_id"),
        (good("request_id", json!("")), "request_id"),
        (good("request_id", json!("x".repeat(257))), "request_id"),
        (good("request_id", json!(7)), "request_id"),
        (
            good("request_id", json!("chatcmpl-0123456789abcdef0123456789abcdef")),
            "request_id",
        ),
        (
            good("request_id", json!("cmpl-0123456789abcdef0123456789abcdef")),
            "request_id",
        ),
        (json!({"request_id": "r"}), "score"),
        (
            json!({"request_id": "r", "score": null, "corrected_output": null}),
            "score",
        ),
        (good("score", json!(1.01)), "score"),
        (good("score", json!(-1.01)), "score"),
        (good("score", json!("good")), "score"),
        (good("score", json!(true)), "score"),
        (good("corrected_output", json!("")), "corrected_output"),
        (good("corrected_output", json!(["x"])), "corrected_output"),
        (good("corrected_output", json!("x".repeat(65_537))), "corrected_output"),
        (good("corrected_output", json!("é".repeat(32_769))), "corrected_output"),
        (good("rating", json!(1)), "rating"),
        (good("user", json!("me")), "user"),
        (good("n", json!(1)), "n"),
    ] {
        let (status, answer) = send(&server.shared, &body).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!(param)), "{answer}");
        assert_eq!(answer["error"]["type"], "invalid_request_error");
    }
    let response = call(&server.shared, chat(json!({"max_tokens": 1}))).await;
    let of_the_body = object(response).await["id"].clone();
    let (status, answer) = send(&server.shared, &good("request_id", of_the_body)).await;
    let message = answer["error"]["message"].as_str().expect("a message");
    assert!(status == 400 && message.contains("header x-request-id"), "{message}");
    let raw = |request| call(&server.shared, request);
    for (request, status) in [
        (post("/v1/feedback", "{"), 400),
        (post("/v1/feedback", "[]"), 400),
        (post("/v1/feedback", vec![b' '; (4 << 20) + 1]), 413),
        (
            Request::post("/v1/feedback").body(Body::from("{}")).expect("a request"),
            415,
        ),
        (
            Request::get("/v1/feedback").body(Body::empty()).expect("a request"),
            405,
        ),
    ] {
        assert_eq!(raw(request).await.status().as_u16(), status);
    }
    // An id that a gateway gave, and that is echoed.
    let of_a_gateway = good("request_id", json!("chatcmpl-of-a-gateway"));
    assert_eq!(send(&server.shared, &of_a_gateway).await.0, 202);
    let longest = json!({"request_id": "x".repeat(256), "score": 1, "corrected_output": "é".repeat(32_768)});
    assert_eq!(send(&server.shared, &longest).await.0, 202);
    // With the answer.
    collector.has(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_that_is_sent_again_is_answered_as_before_and_kept_once() {
    let collector = Collector::start(Manner::Take).await;
    let server = Keeping::under("", collector.terms()).await;
    let body = json!({"request_id": "req-1", "score": -1, "corrected_output": "42"});
    let first = send(&server.shared, &body).await;
    assert_eq!((first.0, &first.1["stored"]), (202, &json!(true)));
    for _ in 0..3 {
        assert_eq!(send(&server.shared, &body).await, first);
    }
    for text in 1..8 {
        let body = json!({"request_id": "req-1", "corrected_output": text.to_string()});
        assert_eq!(send(&server.shared, &body).await.1["stored"], json!(true));
    }
    let more = json!({"request_id": "req-1", "score": 1, "corrected_output": "8"});
    let (status, answer) = send(&server.shared, &more).await;
    assert_eq!((status, &answer["stored"]), (202, &json!(false)));
    let message = answer["message"].as_str().expect("a message");
    assert!(message.contains("as much feedback on this request"), "{message}");
    let another = json!({"request_id": "req-2", "score": 1});
    assert_eq!(send(&server.shared, &another).await.1["stored"], json!(true));
    collector.has(9).await;
    let last = collector.feedback().pop().expect("feedback");
    assert_eq!(last.request_id, "req-2");
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_that_is_not_to_be_kept_is_not() {
    let collector = Collector::start(Manner::Take).await;
    let server = Keeping::under("", collector.terms()).await;
    let body = json!({"request_id": "req-1", "score": -1, "corrected_output": "42"});
    for (name, value) in [("x-perennial-observe", "off"), ("x-perennial-traffic", "evaluation")] {
        let mut request = post("/v1/feedback", body.to_string());
        let (name, value) = (HeaderName::from_static(name), HeaderValue::from_static(value));
        request.headers_mut().insert(name, value);
        let response = call(&server.shared, request).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let answer = object(response).await;
        assert_eq!((&answer["stored"], &answer["counted"]), (&json!(false), &json!(false)));
        let message = answer["message"].as_str().expect("a message");
        assert!(message.contains("header"), "{message}");
    }
    let wanted = json!({"request_id": "req-2", "score": 1});
    assert_eq!(send(&server.shared, &wanted).await.1["stored"], json!(true));
    collector.has(1).await;
    assert_eq!(collector.feedback()[0].request_id, "req-2");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_gives_feedback_is_told_when_it_is_not_kept() {
    let body = json!({"request_id": "req-1", "score": 1});
    let shared = server("").await;
    let (status, answer) = send(&shared, &body).await;
    assert_eq!(
        (status, &answer["stored"], &answer["counted"]),
        (202, &json!(false), &json!(true)),
        "a score is counted where nothing is kept"
    );
    let correction = json!({"request_id": "req-1", "corrected_output": "42"});
    let (status, answer) = send(&shared, &correction).await;
    assert_eq!((status, answer["error"]["code"].as_str()), (409, Some("capture_off")));
    let message = answer["error"]["message"].as_str().expect("a message");
    assert!(
        message.contains("spec.capture.level") && message.contains("Payload"),
        "{message}"
    );

    let collector = Collector::start(Manner::Take).await;
    let mut terms = collector.terms();
    terms["samplePerMille"] = json!(0);
    let server = Keeping::under("", terms).await;
    let (status, answer) = send(&server.shared, &body).await;
    assert_eq!((status, &answer["stored"]), (202, &json!(false)));
    assert!(
        answer["message"]
            .as_str()
            .is_some_and(|message| message.contains("sample")),
        "{answer}"
    );
    assert_eq!(server.shared.metrics.capture.sampled.get(), 0);

    server.shared.lifecycle.advance(Phase::LameDuck);
    assert_eq!(send(&server.shared, &body).await.0, 202);
    server.shared.lifecycle.advance(Phase::Draining);
    assert_eq!(send(&server.shared, &body).await.0, 503);
    let starting = Arc::new(Shared::new(MODEL.to_owned(), false, BUFFER_BYTES).expect("a state"));
    assert_eq!(send(&starting, &body).await.0, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_is_refused_while_there_is_no_room_and_none_that_was_taken_is_lost() {
    let collector = Collector::start(Manner::Fail).await;
    let flags = format!("--capture-buffer-bytes {}", 2 << 20);
    let server = Keeping::under(&flags, collector.terms()).await;
    let body = |number: i64| json!({"request_id": format!("r-{number}"), "corrected_output": "x".repeat(60_000)});
    let mut taken = 0;
    loop {
        let (status, answer) = send(&server.shared, &body(taken)).await;
        if status == 503 {
            assert_eq!(answer["error"]["code"], "service_unavailable");
            break;
        }
        assert_eq!((status, &answer["stored"]), (202, &json!(true)));
        taken += 1;
        assert!(taken <= 34, "that is more than two mebibytes");
        // It counts once it is redacted.
        let bytes = &server.shared.metrics.capture.spool_bytes;
        eventually("it waits", || bytes.get() >= taken * 60_000).await;
    }
    collector.behave(Manner::Take);
    collector.has(usize::try_from(taken).expect("a count")).await;
    eventually("there is room", || server.shared.metrics.capture.spool_bytes.get() == 0).await;
    // What was refused is not taken for known.
    assert_eq!(send(&server.shared, &body(taken)).await.0, 202);
    collector.has(usize::try_from(taken + 1).expect("a count")).await;
    assert_eq!(server.shared.metrics.capture.dropped.get(), 0);
}
