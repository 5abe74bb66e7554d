//! The pushing half of a conversation with a registry: blobs that stream from the disk, and manifests.
//!
//! A blob goes in one request, which every registry takes. What breaks off begins anew, but for what is there already.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::TryStreamExt as _;
use oci_client::Reference;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use reqwest::{Body, Client, RequestBuilder, Response, StatusCode, Url, redirect};
use tokio_util::io::ReaderStream;

use crate::digest::{Digest, Hasher};
use crate::error::{LoadError, one_line, root_cause};
use crate::http::{Failure, is_redirect, retry_after};
use crate::refusal::{Said, Verdict, verdict};
use crate::registry::Session;
use crate::settings::Settings;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for an answer to a short request.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time in which a registry takes no byte, or checks what it took.
const STALLED: Duration = Duration::from_secs(300);
const BUFFER_BYTES: usize = 1 << 20;
/// As much of a refusal is read.
const MOST_REFUSAL_BYTES: usize = 16 << 10;
const CONTENT_DIGEST: &str = "docker-content-digest";

/// Bytes that go into a repository.
#[derive(Clone, Debug)]
pub(crate) struct Blob<'a> {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) content: Content<'a>,
}

/// Where the bytes are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content<'a> {
    File(&'a Path),
    Bytes(&'static [u8]),
}

/// Pushes to one repository.
#[derive(Debug)]
pub(crate) struct Uploader {
    client: Client,
    session: Session,
}

impl Uploader {
    /// For the repository of a reference, which messages name.
    pub(crate) fn new(reference: &Reference, settings: &Settings) -> Result<Self, LoadError> {
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("perennial/", env!("CARGO_PKG_VERSION")))
            .http1_only()
            .build();
        Ok(Self {
            client: client.map_err(|error| {
                LoadError::internal(format!("The HTTP client cannot start: {}", root_cause(&error)))
            })?,
            session: Session::pushing(reference, settings)?,
        })
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// Whether the repository has a blob. One that may not be looked into seems empty: the upload tells why.
    pub(crate) async fn has(&self, digest: Digest) -> Result<bool, Failure> {
        let url = self.url(&self.session.blob_address(&digest.to_string()))?;
        let found = self
            .renewing(async || {
                let response = self.send(&url, self.client.head(url.clone()).timeout(TIMEOUT)).await?;
                match response.status() {
                    StatusCode::NOT_FOUND => Ok(false),
                    // A registry knows that it has a blob before it sends others to its storage.
                    status if status.is_success() || is_redirect(status) => Ok(true),
                    _ => Err(self.refused(response).await),
                }
            })
            .await;
        match found {
            Err(Failure::Final(LoadError::Unauthorized { .. })) => Ok(false),
            found => found,
        }
    }

    /// Uploads a blob.
    pub(crate) async fn put_blob(&self, blob: &Blob<'_>) -> Result<(), Failure> {
        self.renewing(async || {
            let url = self.begin().await?;
            tracing::info!(digest = %blob.digest, bytes = blob.size, "pushing");
            self.complete(url, blob).await
        })
        .await
    }

    /// Stores a manifest or an index under a tag.
    pub(crate) async fn put_manifest(&self, tag: &str, media_type: &'static str, bytes: &[u8]) -> Result<(), Failure> {
        let url = self.url(&self.session.manifest_address(tag))?;
        self.renewing(async || {
            let request = self.client.put(url.clone()).timeout(TIMEOUT);
            let request = request.header(CONTENT_TYPE, media_type).body(bytes.to_vec());
            let response = self.send(&url, request).await?;
            if !response.status().is_success() {
                return Err(self.refused(response).await);
            }
            let stored = response.headers().get(CONTENT_DIGEST);
            let (stored, sent) = (stored.and_then(|value| value.to_str().ok()), Digest::of(bytes));
            match stored.and_then(|digest| digest.parse::<Digest>().ok()) {
                Some(stored) if stored != sent => Err(Failure::Final(LoadError::DigestMismatch {
                    subject: self.session.subject(),
                    expected: sent.to_string(),
                    actual: stored.to_string(),
                })),
                _ => Ok(()),
            }
        })
        .await
    }

    /// Asks where to upload to.
    async fn begin(&self) -> Result<Url, Failure> {
        let url = self.url(&self.session.uploads_address())?;
        let request = self.client.post(url.clone()).timeout(TIMEOUT);
        let response = self.send(&url, request.header(CONTENT_LENGTH, 0)).await?;
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        location
            .and_then(|location| upload_target(&url, location))
            .ok_or_else(|| Failure::again("it names no usable address to upload to"))
    }

    /// Sends the bytes, and looks at them once more while they pass.
    async fn complete(&self, mut url: Url, blob: &Blob<'_>) -> Result<(), Failure> {
        url.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
        let passed = Arc::new(Mutex::new(Passed::default()));
        let request = self.client.put(url.clone()).header(CONTENT_LENGTH, blob.size);
        let request = request.header(CONTENT_TYPE, "application/octet-stream");
        let request = request.body(body(blob, &passed).await?);
        let response = tokio::select! {
            response = self.send(&url, request) => response,
            () = stalled(&passed) => Err(Failure::again(format!("it took no byte for {} s", STALLED.as_secs()))),
        };
        if let Content::File(path) = blob.content {
            let mut passed = passed.lock().unwrap_or_else(PoisonError::into_inner);
            if passed.bytes >= blob.size && std::mem::take(&mut passed.hasher).finish() != blob.digest {
                return Err(changed(path).into());
            }
        }
        let response = response?;
        match response.status().is_success() {
            true => Ok(()),
            false => Err(self.refused(response).await),
        }
    }

    /// Tries once more with a new token: the old one may have expired.
    async fn renewing<T>(&self, attempt: impl AsyncFn() -> Result<T, Failure>) -> Result<T, Failure> {
        match attempt().await {
            Err(Failure::Final(LoadError::Unauthorized { .. })) => {
                self.session.authorize().await?;
                attempt().await
            }
            other => other,
        }
    }

    /// Sends a request, with the credential if it goes to the registry itself.
    async fn send(&self, url: &Url, request: RequestBuilder) -> Result<Response, Failure> {
        let own = self.url(&self.session.uploads_address())?;
        let credential = match url.origin() == own.origin() {
            true => self.session.authorization(false).await?,
            false => None,
        };
        let request = match credential {
            Some(text) => {
                let value = HeaderValue::from_str(&text).map_err(|_| LoadError::InvalidArguments {
                    subject: "The access token".to_owned(),
                    problem: "it holds characters that no token has, such as a line break: store it anew".to_owned(),
                });
                let mut value = value?;
                value.set_sensitive(true);
                request.header(AUTHORIZATION, value)
            }
            None => request,
        };
        let sent = request.send().await;
        sent.map_err(|error| Failure::again(root_cause(&error)))
    }

    fn url(&self, address: &str) -> Result<Url, LoadError> {
        let url = address.parse();
        url.map_err(|_| LoadError::internal(format!("{} makes no address", self.session.subject())))
    }

    /// Why the registry refused, and whether another attempt may go better.
    async fn refused(&self, mut response: Response) -> Failure {
        let (status, after) = (response.status(), retry_after(response.headers()));
        let mut body = Vec::new();
        // A request's own time limit holds for this, too, where it has one.
        let reading = async {
            while let Ok(Some(chunk)) = response.chunk().await {
                body.extend_from_slice(&chunk);
                if body.len() > MOST_REFUSAL_BYTES {
                    break;
                }
            }
        };
        // What was read until then is told.
        let _ = tokio::time::timeout(TIMEOUT, reading).await;
        let said = Said::read(&body);
        let problem = one_line(&format!("it answered {status}{}", said.text()));
        let (subject, advice) = (self.session.subject(), self.session.advice());
        match verdict(status.as_u16(), &said.code) {
            Verdict::Again => Failure::Again { problem, after },
            Verdict::Unauthorized => Failure::Final(LoadError::Unauthorized {
                subject,
                advice: format!("{} ({problem})", advice.unauthorized),
            }),
            Verdict::NotFound => Failure::Final(LoadError::NotFound {
                subject,
                advice: format!("{} ({problem})", advice.not_found),
            }),
            Verdict::Refused => Failure::Final(LoadError::Unsupported {
                subject,
                problem: format!("{problem}, and asking again would not help"),
            }),
        }
    }
}

/// What went by on its way to the registry.
#[derive(Default)]
struct Passed {
    hasher: Hasher,
    bytes: u64,
}

async fn body(blob: &Blob<'_>, passed: &Arc<Mutex<Passed>>) -> Result<Body, LoadError> {
    let path = match blob.content {
        Content::Bytes(bytes) => return Ok(Body::from(bytes)),
        Content::File(path) => path,
    };
    let file = tokio::fs::File::open(path).await;
    let file = file.map_err(|error| LoadError::io("open", path, error))?;
    let size = file
        .metadata()
        .await
        .map_err(|error| LoadError::io("read", path, error))?
        .len();
    if size != blob.size {
        return Err(changed(path));
    }
    let passed = Arc::clone(passed);
    let stream = ReaderStream::with_capacity(file, BUFFER_BYTES).inspect_ok(move |chunk| {
        let mut passed = passed.lock().unwrap_or_else(PoisonError::into_inner);
        passed.hasher.update(chunk);
        passed.bytes += chunk.len() as u64;
    });
    Ok(Body::wrap_stream(stream))
}

/// Returns once nothing has passed for long.
async fn stalled(passed: &Mutex<Passed>) {
    let mut before = None;
    loop {
        let now = Some(passed.lock().unwrap_or_else(PoisonError::into_inner).bytes);
        if now == before {
            return;
        }
        before = now;
        tokio::time::sleep(STALLED).await;
    }
}

pub(crate) fn changed(path: &Path) -> LoadError {
    LoadError::InvalidModel {
        subject: path.display().to_string(),
        problem:
            "it changed while it was pushed: let nothing write to it until it is there as a whole, and push it again"
                .to_owned(),
    }
}

/// The address that a registry names for an upload. One behind a proxy may say http where it is spoken to with https.
fn upload_target(asked: &Url, location: &str) -> Option<Url> {
    let next = asked.join(location).ok()?;
    match (asked.scheme(), next.scheme()) {
        ("https", "http") if next.host() == asked.host() => {
            let mut own = asked.clone();
            own.set_path(next.path());
            own.set_query(next.query());
            Some(own)
        }
        ("http", "http") | (_, "https") => Some(next),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_go_where_the_registry_says_but_never_from_https_to_http() {
        let asked: Url = "https://registry.example.com/v2/a/blobs/uploads/".parse().unwrap();
        let target = |location: &str| upload_target(&asked, location).map(String::from);
        for (location, expected) in [
            (
                "/v2/a/blobs/uploads/1?state=x",
                Some("https://registry.example.com/v2/a/blobs/uploads/1?state=x"),
            ),
            ("https://storage.example.com/1", Some("https://storage.example.com/1")),
            (
                "http://registry.example.com/v2/a/blobs/uploads/1?state=x",
                Some("https://registry.example.com/v2/a/blobs/uploads/1?state=x"),
            ),
            ("http://storage.example.com/1", None),
            ("ftp://registry.example.com/1", None),
        ] {
            assert_eq!(target(location).as_deref(), expected, "{location}");
        }
    }
}
