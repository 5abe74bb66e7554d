//! One GET, with what every source needs of it: redirects that never carry a credential to another host, and answers
//! sorted into "use it", "try again" and "tell the user".

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION, RANGE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url, redirect};

use crate::digest::Digest;
use crate::error::{LoadError, one_line, root_cause};
use crate::registry::Session;
use crate::settings::Secret;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence of a server, before and within an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const REDIRECTS: usize = 10;
const LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");

/// What a request shows to prove who asks. Sent to the host of the target's own URL and to no other.
#[derive(Clone, Debug)]
pub(crate) enum Credential {
    None,
    Bearer(Secret),
    Registry(Arc<Session>),
}

impl Credential {
    async fn header(&self, renew: bool) -> Result<Option<HeaderValue>, Failure> {
        let text = match self {
            Self::None => return Ok(None),
            Self::Bearer(token) => Some(format!("Bearer {}", token.expose())),
            Self::Registry(session) => session.authorization(renew).await?,
        };
        let Some(text) = text else { return Ok(None) };
        let mut value = HeaderValue::from_str(&text).map_err(|_| LoadError::InvalidArguments {
            subject: "The access token".to_owned(),
            problem: "it holds characters that no token has, such as a line break: store it anew".to_owned(),
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// Something that can be downloaded.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) url: Url,
    pub(crate) credential: Credential,
    /// What messages call it; no secret.
    pub(crate) subject: String,
    /// What to do when access is refused, and when it is not there.
    pub(crate) advice: Arc<Advice>,
}

/// Advice that only the kind of source knows.
#[derive(Debug)]
pub(crate) struct Advice {
    pub(crate) unauthorized: String,
    pub(crate) not_found: String,
}

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another attempt may succeed.
    Again { problem: String, after: Option<Duration> },
    /// The content is no longer what the bytes on disk are a part of.
    Changed,
    /// No attempt will succeed.
    Final(LoadError),
}

impl Failure {
    pub(crate) fn again(problem: impl Into<String>) -> Self {
        Self::Again {
            problem: problem.into(),
            after: None,
        }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self::Final(error)
    }
}

/// A response with status 200, 206 or 416.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response,
    /// The sha256 that a hub names for a large file before it redirects to its storage.
    pub(crate) linked: Option<Digest>,
}

/// A client with the timeouts and the trust of all sources.
#[derive(Clone, Debug)]
pub(crate) struct Http(Client);

impl Http {
    pub(crate) fn new() -> Result<Self, LoadError> {
        Client::builder()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .user_agent(concat!("perennial/", env!("CARGO_PKG_VERSION")))
            // Ranges in parallel are several connections, not several streams of one.
            .http1_only()
            .build()
            .map(Self)
            .map_err(|error| LoadError::internal(format!("The HTTP client cannot start: {}", root_cause(&error))))
    }

    /// Asks for `range` (first byte and, inclusive, last) of the target, or for all of it.
    pub(crate) async fn get(&self, target: &Target, range: Option<(u64, Option<u64>)>) -> Result<Answer, Failure> {
        match self.follow(target, range, false).await {
            // A token that expired during a long download.
            Err(Failure::Final(LoadError::Unauthorized { .. }))
                if matches!(target.credential, Credential::Registry(_)) =>
            {
                self.follow(target, range, true).await
            }
            other => other,
        }
    }

    async fn follow(&self, target: &Target, range: Option<(u64, Option<u64>)>, renew: bool) -> Result<Answer, Failure> {
        let mut credential = target.credential.header(renew).await?;
        let mut url = target.url.clone();
        let mut linked = None;
        for _ in 0..=REDIRECTS {
            let mut request = self.0.get(url.clone());
            if let Some(value) = &credential {
                request = request.header(AUTHORIZATION, value.clone());
            }
            if let Some((first, last)) = range {
                let last = last.map(|last| last.to_string()).unwrap_or_default();
                request = request.header(RANGE, format!("bytes={first}-{last}"));
            }
            let response = request
                .send()
                .await
                .map_err(|error| Failure::again(root_cause(&error)))?;
            if url.origin() == target.url.origin() {
                linked = linked.or_else(|| linked_digest(response.headers()));
            }
            if !is_redirect(response.status()) {
                return judge(target, &url, response).map(|response| Answer { response, linked });
            }
            let next = redirect_target(&url, response.headers())
                .ok_or_else(|| Failure::again("it redirects to no usable address"))?;
            if next.origin() != url.origin() {
                credential = None;
            }
            if url.scheme() == "https" && next.scheme() != "https" {
                return Err(Failure::Final(LoadError::Unreachable {
                    subject: target.subject.clone(),
                    problem: "it redirects from https to plain http, which is refused".to_owned(),
                }));
            }
            url = next;
        }
        Err(Failure::again(format!("it redirects more than {REDIRECTS} times")))
    }
}

/// How long a server asks to be left alone.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

pub(crate) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn redirect_target(from: &Url, headers: &HeaderMap) -> Option<Url> {
    let next = from.join(headers.get(LOCATION)?.to_str().ok()?).ok()?;
    matches!(next.scheme(), "http" | "https").then_some(next)
}

fn linked_digest(headers: &HeaderMap) -> Option<Digest> {
    Digest::from_hex(headers.get(LINKED_ETAG)?.to_str().ok()?.trim_matches('"'))
}

/// Sorts an answer by its status.
fn judge(target: &Target, url: &Url, response: Response) -> Result<Response, Failure> {
    let status = response.status();
    let subject = target.subject.clone();
    match status.as_u16() {
        200 | 206 | 416 => Ok(response),
        401 | 403 if url.origin() == target.url.origin() => Err(Failure::Final(LoadError::Unauthorized {
            subject,
            advice: target.advice.unauthorized.clone(),
        })),
        401 | 403 => Err(Failure::again(format!(
            "the storage that it redirects to answered {status}"
        ))),
        404 | 410 => Err(Failure::Final(LoadError::NotFound {
            subject,
            advice: target.advice.not_found.clone(),
        })),
        408 | 425 | 429 | 500.. => Err(Failure::Again {
            problem: format!("it answered {status}"),
            after: retry_after(response.headers()),
        }),
        _ => Err(Failure::Final(LoadError::Unreachable {
            subject,
            problem: one_line(&format!("it answered {status}, and asking again would not help")),
        })),
    }
}
