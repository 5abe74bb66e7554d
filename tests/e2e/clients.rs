//! Clients that stream answers all the time and count which of them came to their end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What became of the requests.
#[derive(Debug, Default)]
pub struct Count {
    pub complete: AtomicU64,
    pub lost: AtomicU64,
    failures: std::sync::Mutex<Vec<String>>,
}

/// Running clients.
pub struct Clients {
    pub count: Arc<Count>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Clients {
    /// Starts clients that ask without pause. No retries: what is lost is lost.
    pub fn start(number: usize, url: &str, model: &str) -> Self {
        let (count, stop, tasks) = (Arc::new(Count::default()), CancellationToken::new(), TaskTracker::new());
        for client in 0..number {
            // Half of them keep their connection, half make a new one each time, as both are met in the field.
            let pool = if client % 2 == 0 { 1 } else { 0 };
            let http = reqwest::Client::builder()
                .pool_max_idle_per_host(pool)
                .no_proxy()
                .timeout(Duration::from_secs(180))
                .build()
                .expect("a client");
            let (count, stop, url, model) = (Arc::clone(&count), stop.clone(), url.to_owned(), model.to_owned());
            tasks.spawn(async move {
                while !stop.is_cancelled() {
                    match stream(&http, &url, &model, 20).await {
                        Ok(_) => {
                            count.complete.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => {
                            count.lost.fetch_add(1, Ordering::Relaxed);
                            count.failures.lock().expect("not poisoned").push(error);
                        }
                    }
                }
            });
        }
        tasks.close();
        Self { count, stop, tasks }
    }

    /// Answers so far.
    pub fn complete(&self) -> u64 {
        self.count.complete.load(Ordering::Relaxed)
    }

    /// Waits until this many more answers are complete.
    pub async fn further(&self, answers: u64) {
        let goal = self.complete() + answers;
        let reached = super::cluster::eventually(Duration::from_secs(60), || async {
            (self.complete() >= goal).then_some(())
        });
        reached
            .await
            .unwrap_or_else(|| panic!("no further answers: {:?}", self.count));
    }

    /// Lets the last answers finish; how many were complete. Panics if one was lost.
    pub async fn stop(self) -> u64 {
        self.stop.cancel();
        self.tasks.wait().await;
        let failures = self.count.failures.lock().expect("not poisoned");
        assert!(
            failures.is_empty(),
            "{} of {} requests were lost: {failures:?}",
            failures.len(),
            self.complete()
        );
        self.complete()
    }
}

/// Streams one answer to its end and gives back its text.
pub async fn stream(http: &reqwest::Client, url: &str, model: &str, tokens: u32) -> Result<String, String> {
    let body = json!({
        "model": model, "stream": true, "temperature": 0, "max_tokens": tokens,
        "messages": [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}],
    });
    let answer = http
        .post(format!("{url}/v1/chat/completions"))
        .json(&body)
        .send()
        .await
        .map_err(|e| causes(&e))?;
    if !answer.status().is_success() {
        return Err(format!(
            "{}: {}",
            answer.status(),
            answer.text().await.unwrap_or_default()
        ));
    }
    let (mut text, mut pending, mut finished, mut done) = (String::new(), String::new(), false, false);
    let mut chunks = answer.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        pending.push_str(&String::from_utf8_lossy(&chunk.map_err(|e| causes(&e))?));
        while let Some(end) = pending.find('\n') {
            let line: String = pending.drain(..=end).collect();
            let Some(data) = line.trim().strip_prefix("data: ") else {
                continue;
            };
            if data == "[DONE]" {
                done = true;
                continue;
            }
            let event: Value = serde_json::from_str(data).map_err(|error| format!("{error}: {data}"))?;
            if !event["error"].is_null() {
                return Err(event["error"].to_string());
            }
            text.push_str(event["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
            finished |= event["choices"][0]["finish_reason"].is_string();
        }
    }
    if finished && done {
        Ok(text)
    } else {
        Err(format!("the stream broke off after {text:?}"))
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
