//! One prompt and its answer, by the OpenAI API.

use std::time::Duration;

use perennial_crds::capture::Message;
use reqwest::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url, redirect};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::arguments::Arguments;
use super::error::ProbeError;
use super::prompts::Prompt;
use crate::contract::Sha256Sum;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Tries of a prompt.
const TRIES: u32 = 6;
/// Longest pause that a server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Longest answer, bytes of JSON.
const MOST_ANSWER_BYTES: usize = 4 << 20;
/// Hex digits of a fingerprint.
const DIGITS: usize = 8;
/// Says that this is no traffic of users: it is neither counted nor kept.
const MARKS: [(HeaderName, HeaderValue); 3] = [
    (
        HeaderName::from_static("x-perennial-traffic"),
        HeaderValue::from_static("probe"),
    ),
    (
        HeaderName::from_static("x-perennial-observe"),
        HeaderValue::from_static("off"),
    ),
    // A connection for each prompt: a Service chooses a replica for each connection.
    (CONNECTION, HeaderValue::from_static("close")),
];

/// What is asked: greedy, and the same whenever it is asked.
#[derive(Serialize)]
struct Question<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "<[Message]>::is_empty")]
    messages: &'a [Message],
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<&'a str>,
    max_tokens: u32,
    temperature: u8,
    seed: u8,
    stream: bool,
}

#[derive(Deserialize)]
struct Reply {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    /// Of a chat.
    message: Option<Said>,
    /// Of a completion.
    text: Option<String>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Said {
    content: Option<String>,
}

/// Why a try failed. Holds no text of an answer.
enum Failure {
    /// Another try may go better.
    Again { problem: String, after: Option<Duration> },
    /// This prompt will never be answered.
    Refused(StatusCode),
}

impl Failure {
    fn again(problem: impl Into<String>) -> Self {
        Self::Again {
            problem: problem.into(),
            after: None,
        }
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        Self::again(cause.to_string())
    }
}

/// Asks one server.
#[derive(Debug)]
pub struct Asker {
    http: Client,
    base: String,
    model: String,
    pause: Duration,
}

impl Asker {
    /// For the server and the model that the arguments name.
    ///
    /// # Errors
    /// When there is no HTTP client.
    pub fn new(arguments: &Arguments) -> Result<Self, ProbeError> {
        // Without a provider the client panics, also when all it is asked for is plain HTTP.
        perennial_loader::install_crypto_provider();
        let http = Client::builder()
            .http1_only()
            .pool_max_idle_per_host(0)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(Duration::from_secs(arguments.timeout_seconds))
            .default_headers(HeaderMap::from_iter(MARKS))
            .user_agent(concat!("perennial/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(ProbeError::Client)?;
        Ok(Self {
            http,
            base: base(&arguments.url),
            model: arguments.model.clone(),
            pause: Duration::from_millis(arguments.pause_milliseconds),
        })
    }

    /// Asks, again after growing pauses if it has to be, and tells the fingerprint of the answer.
    ///
    /// # Errors
    /// [`ProbeError::Rejected`] when the server refuses the prompt, others when it does not answer.
    pub async fn fingerprint(&self, prompt: &Prompt, stop: &CancellationToken) -> Result<String, ProbeError> {
        let mut pause = self.pause;
        let mut tried = 1;
        loop {
            let answer = tokio::select! {
                biased;
                () = stop.cancelled() => return Err(ProbeError::Interrupted),
                answer = self.attempt(prompt) => answer,
            };
            let (problem, after) = match answer {
                Ok(fingerprint) => return Ok(fingerprint),
                Err(Failure::Refused(status)) => {
                    return Err(ProbeError::Rejected(format!(
                        "the prompt in {} was refused with status {}",
                        prompt.place(),
                        status.as_u16()
                    )));
                }
                Err(Failure::Again { problem, after }) => (problem, after),
            };
            if tried == TRIES {
                return Err(ProbeError::Unanswered(format!(
                    "the model server did not answer the prompt in {} in {TRIES} tries: {problem}",
                    prompt.place()
                )));
            }
            tracing::warn!(file = prompt.file, line = prompt.line, tried, problem, "not answered");
            let wait = after.map_or(pause, |after| after.min(LONGEST_PAUSE).max(pause));
            tokio::select! {
                () = stop.cancelled() => return Err(ProbeError::Interrupted),
                () = tokio::time::sleep(wait) => {}
            }
            pause *= 2;
            tried += 1;
        }
    }

    async fn attempt(&self, prompt: &Prompt) -> Result<String, Failure> {
        let messages = prompt.item.messages.as_slice();
        let chat = !messages.is_empty();
        let path = if chat { "chat/completions" } else { "completions" };
        let question = Question {
            model: &self.model,
            messages,
            prompt: prompt.item.prompt.as_deref().filter(|_| !chat),
            max_tokens: prompt.max_tokens,
            temperature: 0,
            seed: 0,
            stream: false,
        };
        let url = format!("{}/v1/{path}", self.base);
        let mut answer = self.http.post(url).json(&question).send().await?;
        judge(answer.status(), answer.headers())?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > MOST_ANSWER_BYTES {
                return Err(Failure::again("its answer is too long"));
            }
        }
        read(&body, chat)
    }
}

/// The address, below which the API is.
fn base(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

/// Sorts an answer by its status.
fn judge(status: StatusCode, headers: &HeaderMap) -> Result<(), Failure> {
    match status.as_u16() {
        200 => Ok(()),
        // It is busy, or has not come that far yet.
        408 | 425 | 429 => Err(later(status, headers)),
        400..=499 => Err(Failure::Refused(status)),
        _ => Err(later(status, headers)),
    }
}

fn later(status: StatusCode, headers: &HeaderMap) -> Failure {
    let after = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Failure::Again {
        problem: format!("it answered with status {}", status.as_u16()),
        after: after.map(Duration::from_secs),
    }
}

/// The fingerprint of an answer. What the parser says of one that is none is not told: it may quote it.
fn read(body: &[u8], chat: bool) -> Result<String, Failure> {
    let none = || Failure::again("what it answered is no answer of the OpenAI API");
    let reply: Reply = serde_json::from_slice(body).map_err(|_| none())?;
    let choice = reply.choices.into_iter().next().ok_or_else(none)?;
    let text = if chat {
        // A message without content is an empty one.
        choice.message.map(|said| said.content.unwrap_or_default())
    } else {
        choice.text
    };
    let text = text.ok_or_else(none)?;
    Ok(fingerprint(&text, choice.finish_reason.as_deref().unwrap_or_default()))
}

/// The first digits of the sha256 of a text, a zero byte, and why it ended.
fn fingerprint(text: &str, finish_reason: &str) -> String {
    let mut sum = Sha256Sum::default();
    sum.update(text.as_bytes());
    sum.update(&[0]);
    sum.update(finish_reason.as_bytes());
    let mut digits = sum.hex();
    digits.truncate(DIGITS);
    digits
}

#[cfg(test)]
#[path = "ask_tests.rs"]
mod tests;
