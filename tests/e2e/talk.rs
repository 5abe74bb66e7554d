//! Clients that talk all the time, in English or in part in German, and count what was answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use perennial_tests::seed::Random;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const CLIENTS: u64 = 10;

/// What a client says.
pub struct Turn {
    pub path: &'static str,
    pub body: Value,
    /// How the answer should have been: it is given back as feedback.
    pub corrected: Option<String>,
}

/// What the client of a number says next, in German or not.
pub type Speaker = fn(u64, bool, &mut Random) -> Turn;

#[derive(Default)]
struct Count {
    answered: AtomicU64,
    corrected: AtomicU64,
    failures: std::sync::Mutex<Vec<String>>,
}

/// Clients of which a part, in percent, writes German.
pub struct Talk {
    german: Arc<AtomicU64>,
    count: Arc<Count>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Talk {
    /// So many requests a second, without retries: what is lost is lost.
    pub fn start(url: &str, rate: u64, speaker: Speaker) -> Self {
        let talk = Self {
            german: Arc::default(),
            count: Arc::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        for client in 0..CLIENTS {
            let (german, count, stop) = (Arc::clone(&talk.german), Arc::clone(&talk.count), talk.stop.clone());
            let url = url.to_owned();
            talk.tasks.spawn(async move {
                let http = reqwest::Client::builder().no_proxy().build().expect("a client");
                let mut random = Random::named(&format!("talk-{client}"));
                let mut ticks = tokio::time::interval(Duration::from_millis(1_000 * CLIENTS / rate));
                while !stop.is_cancelled() {
                    ticks.tick().await;
                    let german = random.below(100) < german.load(Ordering::Relaxed);
                    let turn = speaker(client, german, &mut random);
                    if let Err(failure) = take(&http, &url, turn, &count).await {
                        count.failures.lock().expect("not poisoned").push(failure);
                    }
                }
            });
        }
        talk.tasks.close();
        talk
    }

    pub fn speak_german(&self, percent: u64) {
        self.german.store(percent, Ordering::Relaxed);
    }

    /// How many were answered so far.
    pub fn answered(&self) -> u64 {
        self.count.answered.load(Ordering::Relaxed)
    }

    /// How many answers were corrected so far.
    pub fn corrected(&self) -> u64 {
        self.count.corrected.load(Ordering::Relaxed)
    }

    /// How many were answered, whatever became of the others.
    pub async fn end_anyhow(self) -> u64 {
        self.stop.cancel();
        self.tasks.wait().await;
        self.answered()
    }

    /// How many were answered. Panics if one was not.
    pub async fn end(self) -> u64 {
        self.stop.cancel();
        self.tasks.wait().await;
        let failures = self.count.failures.lock().expect("not poisoned").clone();
        let first: Vec<&String> = failures.iter().take(5).collect();
        assert!(failures.is_empty(), "{} requests failed: {first:?}", failures.len());
        self.answered()
    }
}

async fn take(http: &reqwest::Client, url: &str, turn: Turn, count: &Count) -> Result<(), String> {
    let post = async |path: &str, body: &Value| {
        let answer = http.post(format!("{url}{path}")).json(body).send().await;
        let answer = answer.map_err(|error| format!("{path}: {error:?}"))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let text = answer.text().await.map_err(|error| format!("{path}: {error:?}"))?;
        let fine = status.is_success().then_some(headers);
        fine.ok_or_else(|| format!("{path}: {status}: {text}"))
    };
    let headers = post(turn.path, &turn.body).await?;
    count.answered.fetch_add(1, Ordering::Relaxed);
    if let Some(corrected) = turn.corrected {
        let id = headers.get("x-request-id").and_then(|id| id.to_str().ok());
        let id = id.ok_or("an answer without x-request-id")?;
        let feedback = json!({"request_id": id, "corrected_output": corrected});
        post("/v1/feedback", &feedback).await?;
        count.corrected.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
