//! Requests kept for retraining: which, what of them, and that nobody waits for it and nothing is lost.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode};
use futures::StreamExt;
use perennial_crds::capture::{Finish, Level};
use perennial_crds::serving::{PANES_PATH, PanesPage};
use perennial_server::capture::{Pace, Texts};
use perennial_server::metrics::Outcome;
use perennial_server::shared::{Shared, seconds_since_1970};
use serde_json::{Value, json};

use crate::collector::{Collector, Keeping, Manner, hasty};
use crate::support::{MODEL, call, chat, events, eventually, first_event, object, post, probe, put};

async fn metric(shared: &Arc<Shared>, name: &str) -> f64 {
    let (_, text) = probe(shared, "/metrics").await;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("perennial_capture_{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
        .parse()
        .expect("a number")
}

async fn records(shared: &Arc<Shared>, outcome: &str) -> f64 {
    metric(
        shared,
        &format!("records_total{{model_name=\"{MODEL}\",outcome=\"{outcome}\"}}"),
    )
    .await
}

/// Hands over an exchange without an engine.
fn hand_over(shared: &Shared, id: &str, prompt: &str) {
    let draft = shared
        .capture
        .draft(id, None, Texts::Prompt(prompt))
        .expect("it is sampled");
    shared.capture.hand_over(draft.end(Outcome::Stop, 1, 1, 0));
}

const BRIEF: &str = "--simulated-decode-tokens-per-second 2000";

#[tokio::test(flavor = "multi_thread")]
async fn exchanges_arrive_whole_and_redacted() {
    let collector = Collector::start(Manner::Take).await;
    let server = Keeping::under(BRIEF, collector.terms()).await;
    let messages =
        json!([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "I am bob@example.com"}]);
    let ask = |stream: bool| {
        chat(json!({"messages": messages, "max_tokens": 9, "ignore_eos": true, "stream": stream, "user": "team-7"}))
    };
    let whole = call(&server.shared, ask(false)).await;
    let id = whole.headers()["x-request-id"].to_str().expect("text").to_owned();
    let answer = object(whole).await["choices"][0]["message"]["content"].clone();
    events(call(&server.shared, ask(true)).await).await;
    let prompt = json!({"model": MODEL, "prompt": "Call +49 30 1234567", "max_tokens": 2, "ignore_eos": true});
    object(call(&server.shared, post("/v1/completions", prompt.to_string())).await).await;
    // Of token ids alone nobody knows the text.
    let ids = json!({"model": MODEL, "prompt": [97, 98], "max_tokens": 2, "ignore_eos": true});
    object(call(&server.shared, post("/v1/completions", ids.to_string())).await).await;
    collector.has(3).await;
    let kept = collector.exchanges();
    for exchange in &kept[..2] {
        let contents: Vec<&str> = exchange
            .messages
            .iter()
            .map(|message| message.content.as_str())
            .collect();
        assert_eq!(contents, ["Be kind.", "I am [EMAIL]"]);
        assert_eq!(
            (exchange.requester.as_deref(), exchange.prompt.as_deref()),
            (Some("team-7"), None)
        );
        assert_eq!((exchange.finish, exchange.output_tokens), (Finish::Length, 9));
        assert!(exchange.prompt_tokens > 0 && exchange.time > 1_764_547_200);
        assert_eq!(
            (exchange.revision.as_deref(), exchange.sampling_weight),
            (Some("r1"), 1.0)
        );
        assert_eq!(exchange.redactions.get("EMAIL"), Some(&1));
    }
    assert_eq!((&kept[0].request_id, json!(kept[0].answer)), (&id, answer));
    assert_eq!(
        (kept[2].prompt.as_deref(), kept[2].messages.len()),
        (Some("Call [PHONE]"), 0)
    );
    assert_eq!(records(&server.shared, "sampled").await, 3.0);
    let counters = &server.shared.metrics.capture;
    eventually("all are sent", || {
        counters.sent.get() == 3 && counters.spool_bytes.get() == 0
    })
    .await;
    let (_, metrics) = probe(&server.shared, "/metrics").await;
    assert!(metrics.contains("\nperennial_capture_redactions_total{model_name=\"simulated\",rule=\"email\"} 2\n"));
    assert!(!metrics.contains("example.com") && !metrics.contains("team-7"));
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanges_that_failed_or_were_given_up_are_kept_too() {
    let collector = Collector::start(Manner::Take).await;
    let server = Keeping::under("--simulated-decode-tokens-per-second 50", collector.terms()).await;
    let endless = || chat(json!({"max_tokens": 2000, "ignore_eos": true, "stream": true}));
    let mut stream = first_event(call(&server.shared, endless()).await).await;
    stream.next().await.expect("a token").expect("no error");
    drop(stream);
    collector.has(1).await;
    let running = call(&server.shared, endless()).await;
    server.shared.abort.cancel();
    events(running).await;
    collector.has(2).await;
    let finishes: Vec<Finish> = collector.exchanges().iter().map(|exchange| exchange.finish).collect();
    assert_eq!(finishes, [Finish::Abort, Finish::Error]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_asked_or_wants_kept_is_not() {
    let collector = Collector::start(Manner::Take).await;
    let server = Keeping::under(BRIEF, collector.terms()).await;
    let ask = |name: &'static str, value: &'static str, id: &'static str| {
        let mut request = chat(json!({"max_tokens": 2, "ignore_eos": true}));
        let headers = request.headers_mut();
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        headers.insert(HeaderName::from_static("x-request-id"), HeaderValue::from_static(id));
        call(&server.shared, request)
    };
    for (name, value) in [
        ("x-perennial-observe", "off"),
        ("x-perennial-traffic", "probe"),
        ("x-perennial-traffic", "evaluation"),
        ("x-perennial-traffic", "shadow"),
        ("x-perennial-traffic", "canary"),
    ] {
        object(ask(name, value, "no").await).await;
    }
    object(ask("x-perennial-observe", "on", "yes").await).await;
    collector.has(1).await;
    let mut terms = collector.terms();
    terms["samplePerMille"] = json!(500);
    server.terms(Some(terms)).await;
    for id in 0..40 {
        let mut request = chat(json!({"max_tokens": 1}));
        let id = HeaderValue::from_str(&format!("req-{id}")).expect("a value");
        request
            .headers_mut()
            .insert(HeaderName::from_static("x-request-id"), id);
        object(call(&server.shared, request).await).await;
    }
    let mut expected = vec![("yes".to_owned(), 1.0)];
    let sampled = (0..40).map(|id| format!("req-{id}"));
    expected.extend(
        sampled
            .filter(|id| perennial_server::capture::sample::is_sampled(id, 500))
            .map(|id| (id, 2.0)),
    );
    collector.has(expected.len()).await;
    let kept = collector.exchanges().into_iter();
    let kept: Vec<(String, f64)> = kept
        .map(|exchange| (exchange.request_id, exchange.sampling_weight))
        .collect();
    assert_eq!(kept, expected);
    assert!((8..=32).contains(&expected.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_misbehaves_delays_no_answer_and_nothing_is_lost() {
    let collector = Collector::start(Manner::Hang).await;
    let server = Keeping::under(BRIEF, collector.terms()).await;
    let mut answers = Vec::new();
    for manner in [
        Manner::Hang,
        Manner::Fail,
        Manner::Lose,
        Manner::Hang,
        Manner::Lose,
        Manner::Take,
    ] {
        collector.behave(manner);
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..20 {
            let shared = Arc::clone(&server.shared);
            clients.spawn(async move {
                let options = json!({"max_tokens": 5 + client % 7, "ignore_eos": true, "stream": true, "user": "u"});
                events(call(&shared, chat(options)).await).await
            });
        }
        // All end while the collector is as it is.
        while let Some(answer) = clients.join_next().await {
            let events = answer.expect("no panic");
            let piece = |event: &Value| {
                event["choices"][0]["delta"]["content"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            };
            answers.push(events.iter().map(piece).collect::<String>());
        }
        if manner != Manner::Take {
            collector.is_tried().await;
        }
    }
    collector.has(120).await;
    assert_eq!(
        collector.numbers(),
        (0..120).collect::<Vec<u64>>(),
        "each once, in order"
    );
    let mut kept: Vec<String> = collector
        .exchanges()
        .into_iter()
        .map(|exchange| exchange.answer)
        .collect();
    kept.sort();
    answers.sort();
    assert_eq!(kept, answers);
    eventually("all are known to be sent", || {
        server.shared.metrics.capture.sent.get() == 120
    })
    .await;
    assert!(metric(&server.shared, "send_errors_total{model_name=\"simulated\"}").await >= 5.0);
    assert_eq!(records(&server.shared, "dropped").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_there_is_no_room_the_oldest_are_missing_and_the_collector_is_told() {
    let collector = Collector::start(Manner::Fail).await;
    let flags = format!("--capture-buffer-bytes {}", 2 << 20);
    let server = Keeping::under(&flags, collector.terms()).await;
    let prompt = "word ".repeat(12_000);
    for id in 0..60 {
        hand_over(&server.shared, &id.to_string(), &prompt);
    }
    let counters = &server.shared.metrics.capture;
    // Some 34 of them fill two mebibytes.
    eventually("there was no room", || counters.dropped.get() >= 25).await;
    collector.behave(Manner::Take);
    eventually("all are sent or dropped", || {
        counters.sent.get() + counters.dropped.get() == 60
    })
    .await;
    let numbers = collector.numbers();
    assert!(numbers.is_sorted() && numbers.last() == Some(&59), "{numbers:?}");
    let ids: Vec<u64> = collector
        .exchanges()
        .iter()
        .map(|exchange| exchange.request_id.parse().expect("a number"))
        .collect();
    assert_eq!(ids, numbers, "numbers are those of all records, lost ones too");
    assert_eq!(numbers.len() as u64, counters.sent.get());
    hand_over(&server.shared, "last", "Why?");
    collector.has(numbers.len() + 1).await;
    assert_eq!(collector.with(|held| held.dropped), counters.dropped.get());
}

#[tokio::test(flavor = "multi_thread")]
async fn terms_are_followed_while_requests_run() {
    let collector = Collector::start(Manner::Take).await;
    let server = Keeping::start(BRIEF, hasty()).await;
    let (shared, observed) = (&server.shared, &server.shared.metrics.observation.observed);
    let ask = || async { object(call(shared, chat(json!({"max_tokens": 2, "ignore_eos": true}))).await).await };
    assert_eq!(shared.capture.level(), Level::Features);
    ask().await;
    eventually("it is counted", || observed.get() == 1).await;
    server.terms(Some(json!({"level": "None"}))).await;
    ask().await;
    server.terms(Some(collector.terms())).await;
    ask().await;
    collector.has(1).await;
    // Requests are counted in the order in which they end, so the second never will be.
    eventually("the third is counted", || observed.get() >= 2).await;
    assert_eq!(observed.get(), 2);
    server.terms(None).await;
    assert_eq!(shared.capture.level(), Level::Features);
    ask().await;
    eventually("the fourth is counted", || observed.get() == 3).await;
    assert_eq!(records(shared, "sampled").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_counted_can_be_read_when_nothing_is_to_be_kept() {
    let server = Keeping::start(BRIEF, hasty()).await;
    let (shared, observed) = (&server.shared, &server.shared.metrics.observation.observed);
    let length = put(shared, PANES_PATH, r#"{"paneSeconds": 1}"#).await;
    assert_eq!(length.0, StatusCode::NO_CONTENT);
    let page = || async {
        let (_, text) = probe(shared, PANES_PATH).await;
        serde_json::from_str::<PanesPage>(&text).expect("a page")
    };
    let counted = |count: u64| async move {
        object(call(shared, chat(json!({"max_tokens": 2, "ignore_eos": true}))).await).await;
        eventually("it is counted", || observed.get() == count).await;
        let second = seconds_since_1970();
        eventually("its pane is over", || seconds_since_1970() > second).await;
    };
    counted(1).await;
    let before = page().await;
    assert_eq!(before.panes.len(), 1);
    server.terms(Some(json!({"level": "None"}))).await;
    let nothing = page().await;
    assert_eq!(nothing.panes, []);
    assert_ne!(nothing.boot_id, before.boot_id);
    server.terms(None).await;
    counted(2).await;
    let after = page().await;
    let sequences: Vec<u64> = after.panes.iter().map(|pane| pane.sequence).collect();
    assert_eq!((after.boot_id, sequences), (nothing.boot_id, vec![0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_ends_after_the_level_was_lowered_leaves_nothing() {
    let collector = Collector::start(Manner::Take).await;
    let server = Keeping::under("--simulated-decode-tokens-per-second 50", collector.terms()).await;
    let stream = call(
        &server.shared,
        chat(json!({"max_tokens": 150, "ignore_eos": true, "stream": true})),
    )
    .await;
    let mut stream = first_event(stream).await;
    server.terms(Some(json!({"level": "None"}))).await;
    while stream.next().await.is_some() {}
    server.terms(Some(collector.terms())).await;
    object(call(&server.shared, chat(json!({"max_tokens": 1}))).await).await;
    collector.has(1).await;
    let observed = &server.shared.metrics.observation.observed;
    eventually("the second is counted", || observed.get() >= 1).await;
    assert_eq!((observed.get(), records(&server.shared, "sampled").await), (1, 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lower_level_forgets_what_waits_even_while_it_is_being_sent() {
    let collector = Collector::start(Manner::Hang).await;
    let mut pace = hasty();
    pace.answer = Duration::from_secs(3600);
    let server = Keeping::start(BRIEF, pace).await;
    server.terms(Some(collector.terms())).await;
    hand_over(&server.shared, "a", "Why?");
    eventually("it is on its way", || collector.with(|held| held.attempts == 1)).await;
    hand_over(&server.shared, "b", "Why?");
    server.terms(Some(json!({"level": "Features"}))).await;
    assert_eq!(server.shared.metrics.capture.spool_bytes.get(), 0);
    collector.behave(Manner::Take);
    server.terms(Some(collector.terms())).await;
    hand_over(&server.shared, "c", "Why?");
    // It would not come if the courier still waited for an answer.
    collector.has(1).await;
    let ids: Vec<String> = collector
        .exchanges()
        .into_iter()
        .map(|exchange| exchange.request_id)
        .collect();
    assert_eq!(ids, ["c"]);
    assert_eq!(records(&server.shared, "dropped").await, 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_is_sent_at_the_end_but_not_for_ever() {
    let slow = Pace {
        gather: Duration::from_secs(3600),
        ..hasty()
    };
    let collector = Collector::start(Manner::Take).await;
    let server = Keeping::start(BRIEF, slow.clone()).await;
    server.terms(Some(collector.terms())).await;
    for id in 0..30 {
        hand_over(&server.shared, &id.to_string(), "Why?");
    }
    server.end().await;
    assert_eq!(collector.numbers(), (0..30).collect::<Vec<u64>>());
    let collector = Collector::start(Manner::Hang).await;
    let brief = Pace {
        last: Duration::from_millis(50),
        ..slow
    };
    let server = Keeping::start(BRIEF, brief).await;
    server.terms(Some(collector.terms())).await;
    hand_over(&server.shared, "a", "Why?");
    server.end().await;
    assert_eq!(collector.numbers(), [0_u64; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_wait_while_the_token_is_not_the_collectors() {
    let collector = Collector::start(Manner::Take).await;
    let mut wrong = collector.terms();
    wrong["token"] = json!("another");
    let server = Keeping::under(BRIEF, wrong).await;
    hand_over(&server.shared, "a", "Why?");
    let errors = &server.shared.metrics.capture.send_errors;
    eventually("it is refused", || errors.get() >= 2).await;
    assert_eq!(collector.numbers(), [0_u64; 0]);
    server.terms(Some(collector.terms())).await;
    collector.has(1).await;
}
