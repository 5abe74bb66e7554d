//! Fixed prompts, asked of a server that plays the OpenAI API.
#![allow(clippy::expect_used, clippy::panic, reason = "a helper that fails is a failed test")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use clap::Parser;
use parking_lot::Mutex;
use perennial_crds::probe::{PROBE_CONTRACT, PROBE_TOKENS, ProbeResult};
use perennial_crds::retrain::{EXIT_RETRY, MAX_MESSAGE_BYTES, Outcome};
use perennial_trainer::probe;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What no log and no last words may hold, for prompts and answers.
const CANARY: &str = "canary";

/// A request as it came.
struct Came {
    from: SocketAddr,
    path: String,
    headers: HeaderMap,
    body: Value,
}

#[derive(Default)]
struct Played {
    came: Mutex<Vec<Came>>,
    /// Answers that are not the usual one, by prompt.
    answers: Mutex<BTreeMap<String, (String, &'static str)>>,
    /// What it answers first, in place of an answer.
    statuses: Mutex<VecDeque<StatusCode>>,
    /// Requests that it is busy with, and the most there ever were.
    busy: AtomicUsize,
    most_busy: AtomicUsize,
}

async fn answer(
    State(played): State<Arc<Played>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    uri: Uri,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let busy = played.busy.fetch_add(1, Ordering::SeqCst) + 1;
    played.most_busy.fetch_max(busy, Ordering::SeqCst);
    // Time for another request to come, if there is one.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let chat = uri.path().ends_with("/chat/completions");
    let asked = if chat {
        &body["messages"][0]["content"]
    } else {
        &body["prompt"]
    };
    let asked = asked.as_str().expect("a prompt").to_owned();
    played.came.lock().push(Came {
        from,
        path: uri.path().to_owned(),
        headers,
        body,
    });
    let status = played.statuses.lock().pop_front();
    let answer = played.answers.lock().get(&asked).cloned();
    played.busy.fetch_sub(1, Ordering::SeqCst);
    if let Some(status) = status {
        // As servers do that quote what they refuse.
        let said = json!({"error": {"message": format!("{CANARY} {asked}")}});
        return (status, [(header::RETRY_AFTER, "0")], Json(said)).into_response();
    }
    let (text, reason) = answer.unwrap_or_else(|| (format!("{CANARY} answer to {asked}"), "stop"));
    let choice = if chat {
        json!({"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason})
    } else {
        json!({"index": 0, "text": text, "finish_reason": reason})
    };
    Json(json!({"object": "any", "choices": [choice]})).into_response()
}

struct Site {
    directory: TempDir,
    played: Arc<Played>,
    address: SocketAddr,
    _stop: DropGuard,
}

impl Site {
    /// With a server that answers, and these files of prompts.
    async fn new(files: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().expect("a directory");
        let prompts = directory.path().join("prompts");
        std::fs::create_dir(&prompts).expect("a directory");
        for (name, text) in files {
            std::fs::write(prompts.join(name), text).expect("written");
        }
        let played = Arc::new(Played::default());
        let router = Router::new().fallback(answer).with_state(played.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).with_graceful_shutdown(stopped).await });
        Self {
            directory,
            played,
            address,
            _stop: stop.drop_guard(),
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// The environment of its Job.
    fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("PROBE_URL", format!("http://{}", self.address)),
            ("PROBE_MODEL", "served".to_owned()),
            ("PROBE_PROMPTS_DIRECTORY", self.path("prompts").display().to_string()),
            ("PROBE_PAUSE_MILLISECONDS", "1".to_owned()),
            ("PROBE_TERMINATION_PATH", self.path("words").display().to_string()),
        ]
    }

    fn arguments(&self) -> probe::Arguments {
        #[derive(Parser)]
        struct Cli {
            #[command(flatten)]
            arguments: probe::Arguments,
        }
        let option = |(name, value): (&str, String)| {
            let name = name.trim_start_matches("PROBE_").to_lowercase().replace('_', "-");
            format!("--{name}={value}")
        };
        let options = self.environment().into_iter().map(option);
        Cli::parse_from(std::iter::once("probe".to_owned()).chain(options)).arguments
    }

    async fn probe(&self) -> ProbeResult {
        probe::execute(&self.arguments(), &CancellationToken::new())
            .await
            .expect("a decision")
    }

    async fn rejected(&self) -> String {
        let result = self.probe().await;
        assert_eq!(
            (result.outcome, result.answers.as_str(), &result.set_digest),
            (Outcome::DataRejected, "", &None)
        );
        assert!(!result.message.contains(CANARY), "{}", result.message);
        result.message
    }

    /// Runs the command as its Job does, and looks for texts in all that it says.
    async fn process(&self) -> (Output, ProbeResult) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_perennial-trainer"));
        command.arg("probe").envs(self.environment()).env("RUST_LOG", "trace");
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = output.await.expect("no panic").expect("a process");
        let words = std::fs::read(self.path("words")).expect("last words");
        assert!(words.len() < MAX_MESSAGE_BYTES);
        for said in [&output.stdout, &output.stderr, &words] {
            let said = String::from_utf8_lossy(said);
            assert!(!said.contains(CANARY), "{said}");
        }
        (output, serde_json::from_slice(&words).expect("JSON"))
    }
}

/// Two chats around a completion, in two files.
const FILES: [(&str, &str); 2] = [
    (
        "b.jsonl",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"canary three\"}],\"maxTokens\":7}\n",
    ),
    (
        "a.jsonl",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"canary one\"},{\"role\":\"assistant\",\"content\":\"x\"}]}\n\n\
         {\"prompt\":\"canary two\",\"exact\":\"never sent\"}\n",
    ),
];

#[tokio::test]
async fn prompts_are_asked_one_after_the_other_as_no_traffic_of_users() {
    let site = Site::new(&FILES).await;
    let result = site.probe().await;
    assert_eq!(
        (result.schema.as_str(), result.outcome),
        (PROBE_CONTRACT, Outcome::Succeeded)
    );
    assert_eq!(result.fingerprints().map(|found| found.len()), Some(3));
    let came = site.played.came.lock();
    let chat = |messages: Value, tokens: u32| json!({"model": "served", "messages": messages, "max_tokens": tokens, "temperature": 0, "seed": 0, "stream": false});
    let expected = [
        (
            "/v1/chat/completions",
            chat(
                json!([{"role": "user", "content": "canary one"}, {"role": "assistant", "content": "x"}]),
                PROBE_TOKENS,
            ),
        ),
        (
            "/v1/completions",
            json!({"model": "served", "prompt": "canary two", "max_tokens": PROBE_TOKENS, "temperature": 0, "seed": 0, "stream": false}),
        ),
        (
            "/v1/chat/completions",
            chat(json!([{"role": "user", "content": "canary three"}]), 7),
        ),
    ];
    let asked: Vec<(&str, Value)> = came
        .iter()
        .map(|came| (came.path.as_str(), came.body.clone()))
        .collect();
    assert_eq!(asked, expected);
    for came in came.iter() {
        assert_eq!(came.headers["x-perennial-traffic"], "probe");
        assert_eq!(came.headers["x-perennial-observe"], "off");
        assert_eq!(came.headers[header::CONTENT_TYPE], "application/json");
    }
    let connections: BTreeSet<SocketAddr> = came.iter().map(|came| came.from).collect();
    assert_eq!(connections.len(), 3, "a connection for each prompt");
    assert_eq!(site.played.most_busy.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn another_answer_changes_its_own_digits_and_no_others() {
    let site = Site::new(&FILES).await;
    let first = site.probe().await;
    assert_eq!(site.probe().await, first);
    for changed in [("canary answer to canary two", "length"), ("canary other", "stop")] {
        let answer = (changed.0.to_owned(), changed.1);
        site.played.answers.lock().insert("canary two".to_owned(), answer);
        let other = site.probe().await;
        assert_eq!(other.set_digest, first.set_digest);
        assert_eq!(other.answers.len(), 24);
        assert_eq!(
            (&other.answers[..8], &other.answers[16..]),
            (&first.answers[..8], &first.answers[16..])
        );
        assert_ne!(other.answers[8..16], first.answers[8..16]);
    }
}

#[tokio::test]
async fn a_server_that_is_busy_is_asked_again() {
    let site = Site::new(&FILES).await;
    let first = site.probe().await;
    let busy = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS];
    site.played.statuses.lock().extend(busy);
    assert_eq!(site.probe().await, first);
    assert_eq!(site.played.came.lock().len(), 3 + 5);
    let (output, result) = site.process().await;
    assert_eq!((output.status.code(), result), (Some(0), first));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("\"prompts\":3") && log.contains("\"seconds\":"), "{log}");
}

#[tokio::test]
async fn a_server_that_stays_busy_is_for_another_pod() {
    let site = Site::new(&FILES).await;
    site.played
        .statuses
        .lock()
        .extend(std::iter::repeat_n(StatusCode::SERVICE_UNAVAILABLE, 100));
    let (output, result) = site.process().await;
    assert_eq!(output.status.code(), Some(EXIT_RETRY));
    assert_eq!(result.outcome, Outcome::Retryable);
    assert_eq!(
        result.message,
        "the model server did not answer the prompt in line 1 of a.jsonl in 6 tries: it answered with status 503"
    );
    assert_eq!(site.played.came.lock().len(), 6);
}

#[tokio::test]
async fn whoever_is_told_to_stop_asks_nothing_more() {
    let site = Site::new(&FILES).await;
    let stop = CancellationToken::new();
    stop.cancel();
    assert_eq!(probe::run(site.arguments(), &stop).await, ExitCode::from(75));
    assert!(site.played.came.lock().is_empty());
    let words = std::fs::read_to_string(site.path("words")).expect("words");
    assert!(
        words.contains(r#""schema":"probe/v1","outcome":"Retryable""#),
        "{words}"
    );
}

#[tokio::test]
async fn a_prompt_that_is_refused_is_told_by_its_place() {
    let site = Site::new(&[("golden.jsonl", "\n{\"prompt\":\"canary\"}\n")]).await;
    site.played.statuses.lock().push_back(StatusCode::BAD_REQUEST);
    let (output, result) = site.process().await;
    assert_eq!((output.status.code(), result.outcome), (Some(0), Outcome::DataRejected));
    assert_eq!(
        result.message,
        "the prompt in line 2 of golden.jsonl was refused with status 400"
    );
    assert_eq!(site.played.came.lock().len(), 1, "it is not asked again");
}

#[tokio::test]
async fn prompts_that_are_none_are_a_decision_and_nobody_is_asked() {
    let many = "{\"prompt\":\"canary\"}\n".repeat(129);
    for (files, message) in [
        (
            vec![],
            "there are no prompts: give their ConfigMap a key with one JSON object a line",
        ),
        (
            vec![("empty", "\n")],
            "there are no prompts: give their ConfigMap a key with one JSON object a line",
        ),
        (
            vec![("many", many.as_str())],
            "there are 129 prompts, and at most 128 are asked: leave some out",
        ),
        (
            vec![
                ("good", "{\"prompt\":\"canary\"}"),
                ("wrong", "{\"prompt\":\"canary\"}\n{\"prompt\":[\"canary\"]}"),
            ],
            "line 2 of wrong is no item of gate/v1 (column 10)",
        ),
        (
            vec![("wrong", "{\"answer\":\"canary\"}")],
            "line 1 of wrong asks nothing; give it messages or prompt",
        ),
    ] {
        let site = Site::new(&files).await;
        assert_eq!(site.rejected().await, message);
        let (output, result) = site.process().await;
        assert_eq!(
            (output.status.code(), result.outcome, result.message.as_str()),
            (Some(0), Outcome::DataRejected, message)
        );
        assert!(site.played.came.lock().is_empty());
    }
}

#[tokio::test]
async fn as_many_prompts_as_may_be_fit_into_the_last_words() {
    let most = "{\"prompt\":\"canary\"}\n".repeat(128);
    let site = Site::new(&[("most", &most)]).await;
    let (output, result) = site.process().await;
    assert_eq!((output.status.code(), result.outcome), (Some(0), Outcome::Succeeded));
    assert_eq!(result.fingerprints().map(|found| found.len()), Some(128));
}
