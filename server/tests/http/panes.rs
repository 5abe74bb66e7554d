//! Requests counted in drift panes: which, what of them, and that no text is told.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Request, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use perennial_crds::serving::{DEFAULT_PANE_SECONDS, PANES_PATH, PanesPage};
use perennial_drift::features::{Encoder, Extractor};
use perennial_drift::pane::Pane;
use perennial_drift::pane::layout::Layout;
use perennial_drift::signal::Signal;
use perennial_server::capture::BUFFER_BYTES;
use perennial_server::shared::{Shared, seconds_since_1970};
use serde_json::{Value, json};

use crate::support::{MODEL, call, chat, events, eventually, first_event, object, post, probe, put, server};

/// A server whose panes are of one second.
async fn observing(flags: &str) -> Arc<Shared> {
    let shared = server(flags).await;
    let answer = put(&shared, PANES_PATH, r#"{"paneSeconds": 1}"#).await;
    assert_eq!(answer, (StatusCode::NO_CONTENT, String::new()));
    shared
}

async fn page(shared: &Arc<Shared>, query: &str) -> PanesPage {
    let (status, text) = probe(shared, &format!("{PANES_PATH}{query}")).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    serde_json::from_str(&text).expect("a page")
}

/// What was counted in all panes.
struct Counted(Vec<Pane>);

impl Counted {
    /// Waits until so many requests are in closed panes.
    async fn of(shared: &Arc<Shared>, requests: u64) -> Self {
        let observed = &shared.metrics.observation.observed;
        eventually("all are counted", || observed.get() >= requests).await;
        let second = seconds_since_1970();
        eventually("the pane is over", || seconds_since_1970() > second).await;
        let page = page(shared, "").await;
        let layout = Layout::of(Extractor::new(Encoder::Ngrams).expect("lists").recipe());
        assert_eq!(page.layout, format!("{:016x}", layout.fingerprint()));
        let decode = |bytes: &String| Pane::decode(&layout, &STANDARD.decode(bytes).expect("base64")).expect("a pane");
        let counted = Self(page.panes.iter().map(|record| decode(&record.bytes)).collect());
        assert_eq!(counted.sum(Pane::requests), requests);
        counted
    }

    fn sum(&self, count: impl Fn(&Pane) -> u64) -> u64 {
        self.0.iter().map(count).sum()
    }

    /// Trials and events.
    fn rate(&self, signal: Signal) -> (u64, u64) {
        let rate = |pane: &Pane| pane.rate(signal).expect("a rate");
        (self.sum(|pane| rate(pane).trials), self.sum(|pane| rate(pane).events))
    }

    /// Requests for which the number is known.
    fn known(&self, signal: Signal) -> u64 {
        self.sum(|pane| pane.number(signal).expect("a number").count())
    }

    fn categorised(&self, signal: Signal) -> u64 {
        self.sum(|pane| pane.categories(signal).expect("categories").iter().sum())
    }
}

const CANARY: &str = "xylocanthomancy";

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_every_kind_are_counted_and_no_text_is_told() {
    let shared = observing("--simulated-decode-tokens-per-second 2000").await;
    let content = format!("Please tell me all that you know of {CANARY} and its many uses in the kitchen.");
    let chat = |stream: bool| {
        chat(
            json!({"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": content}],
            "max_tokens": 9, "ignore_eos": true, "stream": stream, "user": CANARY}),
        )
    };
    let complete = |prompt: Value| {
        let body = json!({"model": MODEL, "prompt": prompt, "max_tokens": 9, "ignore_eos": true, "user": CANARY});
        post("/v1/completions", body.to_string())
    };
    object(call(&shared, chat(false)).await).await;
    events(call(&shared, chat(true)).await).await;
    object(call(&shared, complete(json!(CANARY))).await).await;
    object(call(&shared, complete(json!([97, 98]))).await).await;
    let counted = Counted::of(&shared, 4).await;
    assert_eq!(counted.rate(Signal::FinishReasonLength), (4, 4));
    assert_eq!(counted.rate(Signal::ErrorRate), (4, 0));
    assert_eq!(counted.rate(Signal::EmptyRate).0, 4);
    for signal in [
        Signal::PromptTokens,
        Signal::OutputTokens,
        Signal::OutputLogprob,
        Signal::OutputEntropy,
        Signal::TimeToFirstToken,
        Signal::InterTokenLatency,
    ] {
        assert_eq!(counted.known(signal), 4, "{signal:?}");
    }
    assert_eq!(counted.categorised(Signal::TokenDistribution), 4);
    // Of token ids alone nobody knows the text.
    assert_eq!(counted.known(Signal::TokensPerCharacter), 3);
    assert_eq!(counted.categorised(Signal::Language), 3);
    let tokens: f64 = counted
        .0
        .iter()
        .filter_map(|pane| pane.number(Signal::OutputTokens))
        .map(|all| all.sum())
        .sum();
    assert!((tokens - 4.0 * 10_f64.ln()).abs() < 1e-5, "{tokens}");
    for pane in &counted.0 {
        let (requesters, prompts) = pane.distinct();
        assert!(
            (requesters - 1.0).abs() < 0.1 && prompts < 3.1,
            "{requesters} {prompts}"
        );
    }
    let (_, text) = probe(&shared, PANES_PATH).await;
    let (_, metrics) = probe(&shared, "/metrics").await;
    assert!(metrics.contains("\nperennial_observed_requests_total{model_name=\"simulated\"} 4\n"));
    let told = page(&shared, "").await.panes;
    let bytes: Vec<u8> = told
        .iter()
        .flat_map(|pane| STANDARD.decode(&pane.bytes).expect("base64"))
        .collect();
    for told in [text.as_bytes(), metrics.as_bytes(), &bytes] {
        assert!(!told.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()));
    }
}

const SLOW: &str = "--simulated-decode-tokens-per-second 50";

fn endless(stream: bool) -> Request<Body> {
    chat(json!({"max_tokens": 2000, "ignore_eos": true, "stream": stream}))
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_whose_clients_went_away_are_counted_without_an_end() {
    let shared = observing(SLOW).await;
    let mut stream = first_event(call(&shared, endless(true)).await).await;
    stream.next().await.expect("a token").expect("no error");
    drop(stream);
    let running = || shared.service().map(|service| service.engine().load().running);
    eventually("the first is gone", || running() == Some(0)).await;
    let state = Arc::clone(&shared);
    let whole = tokio::spawn(async move { call(&state, endless(false)).await });
    eventually("the second runs", || running() == Some(1)).await;
    whole.abort();
    let counted = Counted::of(&shared, 2).await;
    assert_eq!(counted.rate(Signal::FinishReasonLength), (0, 0));
    assert_eq!(counted.rate(Signal::ErrorRate), (2, 0));
    assert_eq!(
        (counted.known(Signal::PromptTokens), counted.known(Signal::OutputTokens)),
        (2, 2)
    );
    assert!(counted.known(Signal::TimeToFirstToken) >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_broke_off_is_counted_as_failed() {
    let shared = observing(SLOW).await;
    let running = call(&shared, endless(true)).await;
    shared.abort.cancel();
    events(running).await;
    let counted = Counted::of(&shared, 1).await;
    assert_eq!(counted.rate(Signal::ErrorRate), (1, 1));
    assert_eq!(counted.known(Signal::OutputTokens), 0);
    assert_eq!(counted.rate(Signal::EmptyRate), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_asked_or_wants_counted_is_not() {
    let shared = observing("").await;
    let with = |name: &'static str, value: &'static str| {
        let mut request = chat(json!({"max_tokens": 2, "ignore_eos": true}));
        let headers = request.headers_mut();
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        request
    };
    for (name, value) in [
        ("x-perennial-observe", "Off"),
        ("x-perennial-traffic", "probe"),
        ("x-perennial-traffic", "evaluation"),
        ("x-perennial-traffic", "shadow"),
        ("x-perennial-traffic", "canary"),
    ] {
        let response = call(&shared, with(name, value)).await;
        assert_eq!(response.status(), StatusCode::OK);
        object(response).await;
    }
    for wrong in [
        json!({"n": 2}),
        json!({"model": "other"}),
        json!({"user": "x".repeat(513)}),
    ] {
        assert!(call(&shared, chat(wrong)).await.status().is_client_error());
    }
    for (name, value) in [("x-perennial-observe", "maybe"), ("x-perennial-traffic", "users")] {
        object(call(&shared, with(name, value)).await).await;
    }
    // Requests are counted in the order in which they end.
    Counted::of(&shared, 2).await;
    assert_eq!(shared.metrics.observation.dropped.get(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_length_of_panes_is_set_and_read() {
    let shared = Arc::new(Shared::new(MODEL.to_owned(), false, BUFFER_BYTES).expect("a state"));
    let before = page(&shared, "").await;
    assert_eq!(
        (before.pane_seconds, before.panes.len(), before.lost),
        (DEFAULT_PANE_SECONDS, 0, 0)
    );
    for (body, expected) in [
        ("{", "paneSeconds"),
        ("{}", "paneSeconds"),
        (r#"{"paneSeconds": -1}"#, "paneSeconds"),
        (r#"{"paneSeconds": 0}"#, "from 1 to 3600"),
        (r#"{"paneSeconds": 3601}"#, "from 1 to 3600"),
    ] {
        let (status, text) = put(&shared, PANES_PATH, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert!(text.contains(expected), "{text}");
    }
    let large = format!("{{\"paneSeconds\": 1{}}}", " ".repeat(1024));
    assert_eq!(put(&shared, PANES_PATH, large).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        put(&shared, PANES_PATH, r#"{"paneSeconds": 300}"#).await.0,
        StatusCode::NO_CONTENT
    );
    assert_eq!(page(&shared, "?after=7").await.boot_id, before.boot_id);
    assert_eq!(
        put(&shared, PANES_PATH, r#"{"paneSeconds": 60, "newer": 1}"#).await.0,
        StatusCode::NO_CONTENT
    );
    let after = page(&shared, "").await;
    assert_eq!(after.pane_seconds, 60);
    assert_ne!(after.boot_id, before.boot_id);
    for query in ["?after=-1", "?after=x", "?after="] {
        let (status, text) = probe(&shared, &format!("{PANES_PATH}{query}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
        assert!(text.contains("`after`"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_are_counted_once_for_each_answer_also_where_nobody_asks_and_not_those_of_machines() {
    let shared = observing("").await;
    let rate = |body: Value, header: Option<(&'static str, &'static str)>| {
        let mut request = post("/v1/feedback", body.to_string());
        if let Some((name, value)) = header {
            request
                .headers_mut()
                .insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let shared = Arc::clone(&shared);
        async move { call(&shared, request).await.status().as_u16() }
    };
    for (id, score) in [
        ("a", -1.0),
        ("b", -0.1),
        ("c", 0.0),
        ("d", 1.0),
        ("a", -1.0),
        ("a", 1.0),
    ] {
        assert_eq!(rate(json!({"request_id": id, "score": score}), None).await, 202);
    }
    let kept_out = ("x-perennial-observe", "off");
    assert_eq!(rate(json!({"request_id": "e", "score": -1}), Some(kept_out)).await, 202);
    let machine = ("x-perennial-traffic", "evaluation");
    assert_eq!(rate(json!({"request_id": "f", "score": -1}), Some(machine)).await, 202);
    let counted = Counted::of(&shared, 0).await;
    assert_eq!(counted.rate(Signal::NegativeFeedback), (4, 2));
    assert_eq!(counted.rate(Signal::ErrorRate), (0, 0), "a rating is no request");
}
