//! A server that answers as a test says, and remembers what it was asked.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, Response, StatusCode, Uri};
use perennial_loader::{
    Digest, LoadError, LoadRequest, Loader, LocalModel, Progress, ResolvedModel, RetryPolicy, Settings, Source,
};
use tokio::net::TcpListener;
use tokio::sync::Barrier;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub mod pushed;

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    /// How many requests for this path came before.
    pub before: usize,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// First and, if given, last byte of the range asked for.
    pub fn range(&self) -> Option<(usize, Option<usize>)> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().unwrap(), last.parse().ok()))
    }
}

/// An answer.
#[derive(Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Break the connection after so many bytes of the body.
    pub cut: Option<usize>,
    /// Do not say how long the body is.
    pub chunked: bool,
    /// Answer only when others wait, too.
    pub barrier: Option<Arc<Barrier>>,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            body: body.into(),
            ..Self::default()
        }
    }

    pub fn redirect(to: String) -> Self {
        Self::status(302).with("location", to)
    }

    /// `content`, or the range of it that was asked for.
    pub fn file(content: &[u8], seen: &Seen) -> Self {
        let Some((first, last)) = seen.range() else {
            return Self::ok(content);
        };
        if first >= content.len() {
            return Self::status(416).with("content-range", format!("bytes */{}", content.len()));
        }
        let last = last.unwrap_or(usize::MAX).min(content.len() - 1);
        let range = format!("bytes {first}-{last}/{}", content.len());
        Self {
            status: 206,
            body: content[first..=last].to_vec(),
            ..Self::default()
        }
        .with("content-range", range)
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn cut(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self
    }

    fn sent(&self) -> usize {
        self.cut.unwrap_or(usize::MAX).min(self.body.len())
    }
}

type Script = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

#[derive(Default)]
struct Log {
    requests: Vec<Seen>,
    bytes: BTreeMap<String, usize>,
}

/// A running server; gone when dropped.
pub struct Server {
    pub address: String,
    log: Arc<Mutex<Log>>,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    pub async fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let log = Arc::new(Mutex::new(Log::default()));
        let (script, shared): (Script, _) = (Arc::new(script), Arc::clone(&log));
        let router = Router::new().fallback(move |request: Request<Body>| {
            let (script, log) = (Arc::clone(&script), Arc::clone(&shared));
            async move { answer(&script, &log, request.uri(), request.headers()).await }
        });
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            log,
            _task: AbortOnDropHandle::new(task),
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn requests(&self) -> Vec<Seen> {
        self.log.lock().unwrap().requests.clone()
    }

    /// Bytes of bodies that were sent for paths that end like this.
    pub fn bytes(&self, end: &str) -> usize {
        self.log
            .lock()
            .unwrap()
            .bytes
            .iter()
            .filter(|(path, _)| path.ends_with(end))
            .map(|(_, bytes)| bytes)
            .sum()
    }

    pub fn forget(&self) {
        *self.log.lock().unwrap() = Log::default();
    }
}

async fn answer(script: &Script, log: &Mutex<Log>, uri: &Uri, headers: &HeaderMap) -> Response<Body> {
    let path = uri.path().to_owned();
    let seen = {
        let log = log.lock().unwrap();
        let before = log.requests.iter().filter(|request| request.path == path).count();
        Seen {
            path: path.clone(),
            query: uri.query().unwrap_or_default().to_owned(),
            headers: headers.clone(),
            before,
        }
    };
    log.lock().unwrap().requests.push(seen.clone());
    let reply = script(&seen);
    *log.lock().unwrap().bytes.entry(path).or_default() += reply.sent();
    if let Some(barrier) = &reply.barrier {
        // Nobody else came: the test must fail, not hang.
        if tokio::time::timeout(Duration::from_secs(20), barrier.wait())
            .await
            .is_err()
        {
            return Response::builder().status(418).body(Body::empty()).unwrap();
        }
    }
    let mut response = Response::builder().status(StatusCode::from_u16(reply.status).unwrap());
    for (name, value) in &reply.headers {
        response = response.header(*name, value);
    }
    let length = reply.body.len();
    let body = Bytes::from(reply.body[..reply.sent()].to_vec());
    if reply.cut.is_none() && !reply.chunked {
        return response.body(Body::from(body)).unwrap();
    }
    if !reply.chunked {
        response = response.header("content-length", length);
    }
    let cut = reply.cut.is_some();
    let stream = futures::stream::unfold(Some(body), move |body| async move {
        match body {
            Some(body) => Some((Ok(body), None)),
            None if cut => {
                // Lets the server flush what it has, so that exactly these bytes arrive.
                tokio::task::yield_now().await;
                Some((Err(std::io::Error::other("cut")), None))
            }
            None => None,
        }
    });
    response.body(Body::from_stream(stream)).unwrap()
}

/// Bytes that differ everywhere, so that a misplaced range is noticed.
pub fn content(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

/// A loader that tries four times without waiting, in ranges of 64 KiB.
pub fn settings() -> Settings {
    Settings {
        retry: RetryPolicy {
            attempts: 4,
            first: Duration::ZERO,
            longest: Duration::ZERO,
        },
        connections: 4,
        range_bytes: 64 << 10,
        registry_auth_directory: "/nonexistent".into(),
        ..Settings::default()
    }
}

pub fn request(source: &str, digest: Option<Digest>, scratch: &Path) -> LoadRequest {
    LoadRequest {
        source: Source::parse(source).unwrap(),
        digest: digest.map(|digest| digest.to_string()),
        scratch: scratch.to_owned(),
    }
}

pub async fn fetch(
    settings: Settings,
    source: &str,
    digest: Option<Digest>,
    scratch: &Path,
) -> Result<LocalModel, LoadError> {
    let request = request(source, digest, scratch);
    let result = Loader::new(settings)
        .fetch(&request, &Progress::new(), &CancellationToken::new())
        .await;
    if let Err(error) = &result {
        assert!(!error.to_string().contains('\n'), "one line: {error}");
        assert!(!error.to_string().contains("s3cret"), "no secret: {error}");
    }
    result
}

pub async fn resolve(settings: Settings, source: &str, digest: Option<Digest>) -> Result<ResolvedModel, LoadError> {
    let request = request(source, digest, Path::new("/nonexistent"));
    Loader::new(settings).resolve(&request, &CancellationToken::new()).await
}

/// All files below a directory, with their content.
pub fn files_below(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&next) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().to_string_lossy().into_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}
