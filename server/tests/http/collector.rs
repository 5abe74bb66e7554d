//! A collector that can be told to misbehave, and a server that brings it records.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use parking_lot::Mutex;
use perennial_crds::capture::{BATCH_VERSION, Batch, ExchangeRecord, FeedbackRecord, RECORDS_PATH, Record};
use perennial_server::capture::{self, Courier, Follower, Pace};
use perennial_server::shared::Shared;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{eventually, server};

const TOKEN: &str = "collectors-own";

/// What a collector does with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Takes it.
    Take,
    /// Says that it failed.
    Fail,
    /// Does not answer.
    Hang,
    /// Takes it, but does not answer.
    Lose,
}

pub struct Held {
    pub manner: Manner,
    /// Batches that were brought, taken or not.
    pub attempts: usize,
    /// Records that were taken, with their numbers.
    pub records: Vec<(u64, Record)>,
    /// What the last batch said of records that were dropped.
    pub dropped: u64,
    boot_id: Option<String>,
    next: u64,
}

impl Held {
    /// Batches that are here already, because an answer was lost, are known by their first number.
    fn take(&mut self, batch: Batch) {
        assert_eq!(batch.version, BATCH_VERSION);
        assert_eq!(
            *self.boot_id.get_or_insert_with(|| batch.boot_id.clone()),
            batch.boot_id
        );
        if batch.first >= self.next {
            self.next = batch.first + batch.records.len() as u64;
            self.dropped = batch.dropped;
            self.records.extend((batch.first..).zip(batch.records));
        }
    }
}

#[derive(Clone)]
pub struct Collector {
    held: Arc<Mutex<Held>>,
    address: SocketAddr,
}

impl Collector {
    pub async fn start(manner: Manner) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let held = Held {
            manner,
            attempts: 0,
            records: Vec::new(),
            dropped: 0,
            boot_id: None,
            next: 0,
        };
        let collector = Self {
            held: Arc::new(Mutex::new(held)),
            address: listener.local_addr().expect("an address"),
        };
        let router = Router::new()
            .route(RECORDS_PATH, post(receive))
            .with_state(Arc::clone(&collector.held));
        tokio::spawn(async move { axum::serve(listener, router).await });
        collector
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut Held) -> T) -> T {
        look(&mut self.held.lock())
    }

    pub fn behave(&self, manner: Manner) {
        self.with(|held| held.manner = manner);
    }

    /// Waits until so many records were taken.
    pub async fn has(&self, records: usize) {
        eventually("records arrive", || self.with(|held| held.records.len() >= records)).await;
        assert_eq!(self.with(|held| held.records.len()), records);
    }

    /// Waits until another batch was brought, and that one was not one on its way already.
    pub async fn is_tried(&self) {
        let before = self.with(|held| held.attempts);
        eventually("it is tried", || self.with(|held| held.attempts >= before + 2)).await;
    }

    pub fn numbers(&self) -> Vec<u64> {
        self.with(|held| held.records.iter().map(|(number, _)| *number).collect())
    }

    pub fn exchanges(&self) -> Vec<ExchangeRecord> {
        let exchange = |(_, record): &(u64, Record)| match record {
            Record::Exchange(exchange) => Some(exchange.clone()),
            Record::Feedback(_) => None,
        };
        self.with(|held| held.records.iter().filter_map(exchange).collect())
    }

    pub fn feedback(&self) -> Vec<FeedbackRecord> {
        let feedback = |(_, record): &(u64, Record)| match record {
            Record::Feedback(feedback) => Some(feedback.clone()),
            Record::Exchange(_) => None,
        };
        self.with(|held| held.records.iter().filter_map(feedback).collect())
    }

    /// Terms under which everything is kept and brought here.
    pub fn terms(&self) -> Value {
        json!({
            "level": "Payload", "samplePerMille": 1000, "redact": ["Email", "PhoneNumber", "CreditCard"],
            "collector": format!("http://{}", self.address), "token": TOKEN, "revision": "r1",
        })
    }
}

async fn receive(State(held): State<Arc<Mutex<Held>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if headers
        .get("authorization")
        .is_none_or(|value| *value != format!("Bearer {TOKEN}"))
    {
        return StatusCode::UNAUTHORIZED;
    }
    assert!(body.len() <= 1 << 20);
    let manner = {
        let mut held = held.lock();
        held.attempts += 1;
        if matches!(held.manner, Manner::Take | Manner::Lose) {
            held.take(serde_json::from_slice(&body).expect("a batch"));
        }
        held.manner
    };
    match manner {
        Manner::Take => StatusCode::NO_CONTENT,
        Manner::Fail => StatusCode::INTERNAL_SERVER_ERROR,
        Manner::Hang | Manner::Lose => std::future::pending().await,
    }
}

/// Patience for tests, in which nothing has to be waited for.
pub fn hasty() -> Pace {
    Pace {
        gather: Duration::from_millis(3),
        answer: Duration::from_millis(150),
        first_wait: Duration::from_millis(2),
        longest_wait: Duration::from_millis(10),
        last: Duration::from_secs(20),
    }
}

/// A server that follows terms.
pub struct Keeping {
    pub shared: Arc<Shared>,
    directory: TempDir,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Keeping {
    pub async fn start(flags: &str, pace: Pace) -> Self {
        let shared = server(flags).await;
        let directory = TempDir::new().expect("a directory");
        let stop = CancellationToken::new();
        let mut follower = Follower::new(directory.path().join("capture"), Duration::from_millis(2));
        follower.look(&shared.capture).await;
        let courier = Courier::new(pace).expect("a client");
        let (state, stopped) = (Arc::clone(&shared), stop.clone());
        let task = tokio::spawn(async move { capture::run(&state.capture, follower, courier, &stopped).await });
        Self {
            shared,
            directory,
            stop,
            task,
        }
    }

    /// With these terms in force.
    pub async fn under(flags: &str, terms: Value) -> Self {
        let keeping = Self::start(flags, hasty()).await;
        keeping.terms(Some(terms)).await;
        keeping
    }

    /// Writes terms as the kubelet does, at once, and waits until they are in force.
    pub async fn terms(&self, terms: Option<Value>) {
        let path = self.directory.path().join("capture");
        let before = self.shared.capture.rules();
        match terms {
            Some(terms) => {
                let new = self.directory.path().join("new");
                std::fs::write(&new, terms.to_string()).expect("written");
                std::fs::rename(&new, &path).expect("renamed");
            }
            None => std::fs::remove_file(&path).expect("removed"),
        }
        let shared = &self.shared;
        eventually("the terms are in force", || {
            !Arc::ptr_eq(&before, &shared.capture.rules())
        })
        .await;
    }

    /// As when the process ends.
    pub async fn end(self) {
        self.stop.cancel();
        self.task.await.expect("no panic");
    }
}
