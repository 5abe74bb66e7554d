//! The API on the simulated engine: answers, streams, errors.

use crate::support::{MODEL, call, chat, events, object, post, probe, server, text};
use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_holds_what_the_whole_answer_holds() {
    let shared = server("").await;
    let whole = object(call(&shared, chat(json!({"max_tokens": 40, "ignore_eos": true}))).await).await;
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(whole["choices"][0]["finish_reason"], "length");
    assert_eq!(whole["usage"]["completion_tokens"], 40);
    let options = json!({"max_tokens": 40, "ignore_eos": true, "stream": true,
        "stream_options": {"include_usage": true}});
    let events = events(call(&shared, chat(options)).await).await;
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let piece = |event: &Value| {
        event["choices"][0]["delta"]["content"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let streamed: String = events.iter().map(piece).collect();
    assert_eq!(whole["choices"][0]["message"]["content"], streamed);
    let last = &events[events.len() - 2];
    assert_eq!(last["choices"][0]["finish_reason"], "length");
    assert_eq!(events.last().expect("usage")["usage"], whole["usage"]);
    assert!(events[0]["usage"].is_null() && events[0].get("usage").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_strings_end_the_answer_before_them() {
    let shared = server("").await;
    let prompt = json!({"model": MODEL, "prompt": "abc", "temperature": 0, "max_tokens": 60, "ignore_eos": true});
    let whole = object(call(&shared, post("/v1/completions", prompt.to_string())).await).await;
    let whole = whole["choices"][0]["text"].as_str().expect("text").to_owned();
    for (from, to) in [(10, 13), (20, 27), (40, 41)] {
        let stop = &whole[from..to];
        let mut stopping = prompt.clone();
        stopping["stop"] = json!([stop]);
        let answer = object(call(&shared, post("/v1/completions", stopping.to_string())).await).await;
        let expected = &whole[..whole.find(stop).expect("it is in the whole")];
        assert_eq!(answer["choices"][0]["text"], expected);
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seed_decides_and_text_and_token_prompts_agree() {
    let shared = server("").await;
    let complete = |prompt: Value, seed: i64| {
        json!({"model": MODEL, "prompt": prompt, "seed": seed, "temperature": 2, "max_tokens": 30,
            "ignore_eos": true, "user": "me"})
        .to_string()
    };
    let mut answers = Vec::new();
    for body in [
        complete(json!("ab"), 5),
        complete(json!(["ab"]), 5),
        complete(json!([97, 98]), 5),
    ] {
        let answer = object(call(&shared, post("/v1/completions", body)).await).await;
        assert_eq!(answer["usage"]["prompt_tokens"], 2);
        answers.push(answer["choices"][0]["text"].clone());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
}

async fn refused(shared: &std::sync::Arc<perennial_server::shared::Shared>, request: Request<Body>) -> (u16, Value) {
    let response = call(shared, request).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    assert!(response.headers().contains_key("x-request-id"));
    let status = response.status().as_u16();
    let error = object(response).await["error"].clone();
    assert!(
        error["message"].as_str().is_some_and(|message| !message.is_empty()),
        "{error}"
    );
    assert!(error["type"].is_string());
    (status, error)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_is_an_error_object() {
    let shared = server("--max-context-tokens 256").await;
    let get = |path: &str| Request::get(path).body(Body::empty()).expect("a request");
    let no_type = Request::post("/v1/completions")
        .body(Body::from("{}"))
        .expect("a request");
    let large = post("/v1/completions", vec![b' '; (4 << 20) + 1]);
    let cases = [
        (get("/nowhere"), 404, Value::Null),
        (get("/v1/completions"), 405, Value::Null),
        (get("/v1/models/other"), 404, json!("model")),
        (no_type, 415, Value::Null),
        (large, 413, Value::Null),
        (post("/v1/completions", "{"), 400, Value::Null),
        (post("/v1/completions", "[]"), 400, Value::Null),
        (post("/v1/completions", "{}"), 400, json!("model")),
        (chat(json!({"model": "other"})), 404, json!("model")),
        (chat(json!({"messages": []})), 400, json!("messages")),
        (chat(json!({"n": 2})), 400, json!("n")),
        (chat(json!({"tools": [{}]})), 400, json!("tools")),
        (chat(json!({"temperature": 3})), 400, json!("temperature")),
        (
            post("/v1/completions", json!({"model": MODEL, "prompt": [-1]}).to_string()),
            400,
            json!("prompt"),
        ),
        (
            post("/v1/completions", json!({"model": MODEL, "prompt": [999]}).to_string()),
            400,
            json!("prompt"),
        ),
        (
            post("/v1/completions", json!({"model": MODEL, "prompt": ""}).to_string()),
            400,
            json!("prompt"),
        ),
    ];
    for (request, expected, param) in cases {
        let what = format!("{} {}", request.method(), request.uri());
        let (status, error) = refused(&shared, request).await;
        assert_eq!((status, &error["param"]), (expected, &param), "{what}: {error}");
    }
    let (status, error) = refused(&shared, chat(json!({"max_tokens": 250}))).await;
    assert_eq!((status, error["code"].as_str()), (400, Some("context_length_exceeded")));
    let message = error["message"].as_str().expect("a message");
    assert!(
        message.contains("256 tokens") && message.contains("250 tokens"),
        "{message}"
    );
    let long = json!({"messages": [{"role": "user", "content": "x".repeat(3000)}]});
    assert_eq!(refused(&shared, chat(long)).await.1["code"], "context_length_exceeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_is_echoed() {
    let shared = server("").await;
    let request = Request::get("/v1/models")
        .header("x-request-id", "mine-1")
        .body(Body::empty())
        .expect("a request");
    let response = call(&shared, request).await;
    assert_eq!(response.headers()["x-request-id"], "mine-1");
    assert_eq!(object(response).await["data"][0]["id"], MODEL);
    let made = call(
        &shared,
        Request::get("/v1/models/simulated")
            .body(Body::empty())
            .expect("a request"),
    )
    .await;
    assert!(
        made.headers()["x-request-id"]
            .to_str()
            .expect("text")
            .starts_with("req-")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_429_with_a_time_to_come_back() {
    let shared = server("--max-running 1 --max-queued 1 --simulated-decode-tokens-per-second 20").await;
    let slow = || chat(json!({"max_tokens": 400, "ignore_eos": true, "stream": true}));
    let mut held = Vec::new();
    let rejected = loop {
        let response = call(&shared, slow()).await;
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            break response;
        }
        assert_eq!(response.status(), StatusCode::OK);
        held.push(response);
        assert!(held.len() < 4, "the queue has one place");
    };
    let seconds: u64 = rejected.headers()["retry-after"]
        .to_str()
        .expect("text")
        .parse()
        .expect("a number");
    assert!((1..=60).contains(&seconds));
    assert_eq!(object(rejected).await["error"]["code"], "queue_full");
    assert!(
        probe(&shared, "/metrics")
            .await
            .1
            .contains("\nllm_requests_rejected_total{model_name=\"simulated\"} 1")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_metrics_speak() {
    let shared = server("").await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(probe(&shared, path).await, (StatusCode::OK, "ok".to_owned()));
    }
    let loading: Value = serde_json::from_str(&probe(&shared, "/loading").await.1).expect("JSON");
    assert_eq!(loading["stage"], "Ready");
    object(call(&shared, chat(json!({"max_tokens": 3, "ignore_eos": true}))).await).await;
    let (_, metrics) = probe(&shared, "/metrics").await;
    for line in [
        "llm_request_success_total{finished_reason=\"length\",model_name=\"simulated\"} 2",
        "vllm:generation_tokens_total{model_name=\"simulated\"} 4",
        "llm_time_to_first_token_seconds_count{model_name=\"simulated\"} 2",
        "llm_inter_token_latency_seconds_count{model_name=\"simulated\"} 2",
        "llm_num_requests_running{model_name=\"simulated\"} 0",
    ] {
        assert!(metrics.contains(&format!("\n{line}\n")), "{line} is not in\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_describes_every_route() {
    let shared = server("").await;
    let response = call(
        &shared,
        Request::get("/openapi.json").body(Body::empty()).expect("a request"),
    )
    .await;
    let document: Value = serde_json::from_str(&text(response).await).expect("JSON");
    let paths: Vec<&String> = document["paths"].as_object().expect("paths").keys().collect();
    assert_eq!(paths.len(), 6, "{paths:?}");
    for path in paths {
        let path = path.replace("{model}", MODEL);
        let response = call(&shared, Request::get(&path).body(Body::empty()).expect("a request")).await;
        assert_ne!(response.status(), StatusCode::NOT_FOUND, "{path}");
    }
}
