//! Asks pods for the panes of their traffic.

use std::net::IpAddr;
use std::time::Duration;

use perennial_crds::serving::{METRICS_PORT, Observation, PANES_PATH, PANES_VERSION, PanesPage};
use thiserror::Error;

use crate::pod_http;

const TIMEOUT: Duration = Duration::from_secs(3);
/// 64 panes of 32 KiB in base64, with room to spare; whatever is longer comes from something else than our server.
const LONGEST_ANSWER: usize = 4 * 1024 * 1024;

/// Why a pod told no panes.
#[derive(Debug, Error)]
pub enum ReadError {
    /// No connection, or no answer in time.
    #[error("cannot be reached on port {METRICS_PORT}: {0}")]
    Connection(#[from] reqwest::Error),
    /// It has no such path, or refuses.
    #[error("answers {PANES_PATH} with {0}: its server is older than this operator")]
    Status(reqwest::StatusCode),
    /// Not ours.
    #[error("answers {PANES_PATH} with something that is no list of panes: {0}")]
    Unreadable(String),
}

impl ReadError {
    /// Word for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Connection(_) => "connection",
            Self::Status(_) => "status",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

/// Reads and sets what pods observe.
#[derive(Clone, Debug)]
pub struct PaneReader {
    http: reqwest::Client,
}

impl PaneReader {
    /// A reader that follows no redirect and no proxy, and waits three seconds at most.
    ///
    /// # Errors
    /// If the TLS library cannot be set up.
    pub fn new() -> reqwest::Result<Self> {
        let http = pod_http::client(TIMEOUT)?;
        Ok(Self { http })
    }

    /// The panes of a pod behind this sequence.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read(&self, address: IpAddr, after: Option<u64>) -> Result<PanesPage, ReadError> {
        let mut url = pod_http::url(address, PANES_PATH);
        if let Some(after) = after {
            url.push_str(&format!("?after={after}"));
        }
        let mut answer = self.http.get(url).send().await?;
        if !answer.status().is_success() {
            return Err(ReadError::Status(answer.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > LONGEST_ANSWER {
                return Err(ReadError::Unreadable("it does not end".to_owned()));
            }
        }
        let page: PanesPage =
            serde_json::from_slice(&body).map_err(|error| ReadError::Unreadable(error.to_string()))?;
        if page.version == PANES_VERSION {
            Ok(page)
        } else {
            Err(ReadError::Unreadable(format!("it is of version {}", page.version)))
        }
    }

    /// Tells a pod how to observe.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn observe(&self, address: IpAddr, observation: Observation) -> Result<(), ReadError> {
        let answer = self
            .http
            .put(pod_http::url(address, PANES_PATH))
            .json(&observation)
            .send()
            .await?;
        if answer.status().is_success() {
            Ok(())
        } else {
            Err(ReadError::Status(answer.status()))
        }
    }
}
