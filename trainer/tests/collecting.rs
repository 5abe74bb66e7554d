//! The collector as serving pods know it.
#![allow(clippy::expect_used, clippy::panic, reason = "a helper that fails is a failed test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use clap::Parser;
use perennial_crds::capture::{BATCH_VERSION, Batch, ExchangeRecord, Finish, Record};
use perennial_trainer::collect::http::{MOST_BODY_BYTES, Shared, is_writable, router};
use perennial_trainer::collect::segment::{Content, State};
use perennial_trainer::collect::store::{Limits, Room, Store};
use perennial_trainer::collect::{self, Keep, Metrics, list};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const SECRET: &str = "what only the user knows";

fn record(boot: &str, number: u64) -> Record {
    Record::Exchange(ExchangeRecord {
        request_id: format!("{boot}-{number}"),
        time: 1,
        revision: None,
        requester: None,
        messages: Vec::new(),
        prompt: Some(SECRET.to_owned()),
        answer: SECRET.to_owned(),
        finish: Finish::Stop,
        prompt_tokens: 1,
        output_tokens: 1,
        sampling_weight: 1.0,
        redactions: BTreeMap::new(),
        truncated: false,
    })
}

fn batch(boot: &str, first: u64, records: u64) -> Batch {
    Batch {
        version: BATCH_VERSION,
        boot_id: boot.to_owned(),
        first,
        dropped: 0,
        records: (first..first + records).map(|number| record(boot, number)).collect(),
    }
}

struct Site {
    directory: TempDir,
    room: Arc<AtomicU64>,
    shared: Arc<Shared>,
}

impl Site {
    fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        let room = Arc::new(AtomicU64::new(u64::MAX));
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let (path, seen) = (directory.path().to_path_buf(), Arc::clone(&room));
        let writable = move || is_writable(&path, seen.load(Ordering::Relaxed));
        let shared = Arc::new(Shared::new(
            "token".to_owned(),
            Arc::clone(&metrics),
            Box::new(writable),
        ));
        let limits = Limits {
            segment_seconds: 60,
            segment_bytes: 1 << 20,
            keep: Keep {
                seconds: 86_400,
                bytes: 1 << 30,
            },
            spool: None,
        };
        let seen = Arc::clone(&room);
        let free: Room = Box::new(move |_| Ok(seen.load(Ordering::Relaxed)));
        let store = Store::open(directory.path(), limits, free, metrics).expect("a store");
        *shared.store.lock() = Some(store);
        Self {
            directory,
            room,
            shared,
        }
    }

    fn router(&self) -> Router {
        router(Arc::clone(&self.shared))
    }

    async fn bring(&self, batch: &Batch) -> (StatusCode, String) {
        self.post("Bearer token", serde_json::to_vec(batch).expect("JSON"))
            .await
    }

    async fn post(&self, authorization: &str, body: impl Into<Body>) -> (StatusCode, String) {
        let request = Request::post("/records").header("authorization", authorization);
        answer(self.router(), request.body(body.into()).expect("a request")).await
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        answer(self.router(), request).await
    }
}

async fn answer(router: Router, request: Request<Body>) -> (StatusCode, String) {
    let response = router.oneshot(request).await.expect("an answer");
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    (status, String::from_utf8_lossy(&body).into_owned())
}

fn kept(directory: &Path) -> Vec<String> {
    let mut kept = Vec::new();
    for (name, state) in list(directory).expect("a listing") {
        let bytes = std::fs::read(directory.join(name.day()).join(name.file(state))).expect("a segment");
        let content = Content::read(&bytes);
        assert_eq!(content.whole, bytes.len());
        kept.extend(content.records.into_iter().map(|record| match record {
            Record::Exchange(record) => record.request_id,
            Record::Feedback(record) => record.request_id,
        }));
    }
    kept.sort_unstable();
    kept
}

#[tokio::test]
async fn a_batch_is_on_the_disk_when_it_is_acknowledged() {
    let site = Site::new();
    assert_eq!(site.bring(&batch("a", 0, 2)).await.0, StatusCode::NO_CONTENT);
    assert_eq!(kept(site.directory.path()), ["a-0", "a-1"]);
    assert_eq!(site.bring(&batch("a", 0, 2)).await.0, StatusCode::NO_CONTENT);
    assert_eq!(kept(site.directory.path()), ["a-0", "a-1"]);
    let (_, metrics) = site.get("/metrics").await;
    assert!(metrics.contains("perennial_collector_duplicates_total 2"), "{metrics}");
}

#[tokio::test]
async fn without_the_token_nothing_is_taken() {
    let site = Site::new();
    let body = serde_json::to_vec(&batch("a", 0, 1)).expect("JSON");
    for wrong in [
        "",
        "token",
        "Bearer",
        "Bearer ",
        "Bearer toke",
        "Bearer token1",
        "Basic token",
    ] {
        let (status, _) = site.post(wrong, body.clone()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{wrong:?}");
    }
    let request = Request::post("/records").body(Body::from(body)).expect("a request");
    assert_eq!(answer(site.router(), request).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(kept(site.directory.path()), Vec::<String>::new());
    let (_, metrics) = site.get("/metrics").await;
    assert!(
        metrics.contains("refused_batches_total{reason=\"unauthorized\"} 8"),
        "{metrics}"
    );
}

#[tokio::test]
async fn what_is_no_batch_is_refused_without_quoting_it() {
    let site = Site::new();
    let mut unknown = batch("a", 0, 1);
    unknown.version = BATCH_VERSION + 1;
    let unknown = serde_json::to_string(&unknown).expect("JSON");
    let typed = unknown.replace("\"Exchange\"", &format!("\"{SECRET}\""));
    for body in [&unknown, &typed, "{", SECRET] {
        let (status, words) = site.post("Bearer token", body.to_owned()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{words}");
        assert!(!words.contains("user"), "{words}");
    }
    let (status, _) = site.post("Bearer token", vec![b' '; MOST_BODY_BYTES + 1]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let (status, _) = site.get("/records").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_full_volume_is_told_and_ends() {
    let site = Site::new();
    assert_eq!(site.bring(&batch("a", 0, 1)).await.0, StatusCode::NO_CONTENT);
    assert_eq!(site.get("/readyz").await.0, StatusCode::OK);
    site.room.store(1000, Ordering::Relaxed);
    let (status, words) = site.bring(&batch("a", 1, 1)).await;
    assert_eq!(status, StatusCode::INSUFFICIENT_STORAGE);
    assert!(words.contains("make it larger"), "{words}");
    let (status, words) = site.get("/readyz").await;
    assert!(
        status == StatusCode::SERVICE_UNAVAILABLE && words.contains("no room"),
        "{words}"
    );
    assert_eq!(site.get("/livez").await.0, StatusCode::OK);
    assert_eq!(kept(site.directory.path()), ["a-0"]);
    site.room.store(u64::MAX, Ordering::Relaxed);
    assert_eq!(site.bring(&batch("a", 1, 1)).await.0, StatusCode::NO_CONTENT);
    assert_eq!(site.get("/readyz").await.0, StatusCode::OK);
    assert_eq!(kept(site.directory.path()), ["a-0", "a-1"]);
}

#[tokio::test]
async fn without_a_store_or_a_directory_it_is_not_ready() {
    let site = Site::new();
    let store = site.shared.store.lock().take();
    assert_eq!(site.bring(&batch("a", 0, 1)).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(site.get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    *site.shared.store.lock() = store;
    assert_eq!(site.get("/readyz").await.0, StatusCode::OK);
    std::fs::remove_dir_all(site.directory.path()).expect("removed");
    let (status, words) = site.get("/readyz").await;
    assert!(
        status == StatusCode::SERVICE_UNAVAILABLE && words.contains("cannot be written"),
        "{words}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_pods_at_once_lose_and_double_nothing() {
    let site = Arc::new(Site::new());
    let pods = (0..8).map(|pod| {
        let site = Arc::clone(&site);
        tokio::spawn(async move {
            let boot = format!("pod{pod}");
            for first in (0..20).step_by(2) {
                let batch = batch(&boot, first, 2);
                // The answer to the first try is lost.
                for _ in 0..2 {
                    assert_eq!(site.bring(&batch).await.0, StatusCode::NO_CONTENT);
                }
            }
        })
    });
    for pod in pods.collect::<Vec<_>>() {
        pod.await.expect("no panic");
    }
    let mut expected: Vec<String> = (0..8)
        .flat_map(|pod| (0..20).map(move |number| format!("pod{pod}-{number}")))
        .collect();
    expected.sort_unstable();
    assert_eq!(kept(site.directory.path()), expected);
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    arguments: collect::Arguments,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_end_the_last_segment_is_finished_and_the_next_collector_takes_over() {
    let directory = TempDir::new().expect("a directory");
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address").port()
    };
    let line = format!(
        "collect --listen 127.0.0.1:{port} --token token --directory {}",
        directory.path().display()
    );
    let arguments = Cli::parse_from(line.split_whitespace()).arguments;
    for first in [0, 1] {
        let stop = CancellationToken::new();
        let (again, stopped) = (arguments.clone(), stop.clone());
        let collector = tokio::spawn(async move { collect::serve(again, &stopped).await });
        ready(port).await;
        assert_eq!(post(port, &batch("a", first, 1)).await, 204);
        stop.cancel();
        collector.await.expect("no panic").expect("no error");
        let states: Vec<State> = list(directory.path())
            .expect("a listing")
            .into_iter()
            .map(|(_, state)| state)
            .collect();
        assert_eq!(states, vec![State::Closed; first as usize + 1]);
    }
    assert_eq!(kept(directory.path()), ["a-0", "a-1"]);
}

async fn ready(port: u16) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while send(port, "GET /readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await != Some(200) {
        assert!(tokio::time::Instant::now() < deadline, "it becomes ready");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn post(port: u16, batch: &Batch) -> u16 {
    let body = serde_json::to_string(batch).expect("JSON");
    let request = format!(
        "POST /records HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer token\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    send(port, &request).await.expect("an answer")
}

/// The status of an answer.
async fn send(port: u16, request: &str) -> Option<u16> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut connection = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    connection.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.ok()?;
    answer.split_whitespace().nth(1)?.parse().ok()
}
