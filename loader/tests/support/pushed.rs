//! A registry that is pushed to: blobs by POST and PUT, manifests, tags, and whatever a test lets go wrong.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::expect_used, reason = "a helper that fails is a failed test")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, Method, Request, Response};
use perennial_loader::Digest;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// A request as the registry saw it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    /// Bytes of its body.
    pub bytes: usize,
    /// How many requests with this method and path came before.
    pub before: usize,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether it is one of this method whose path holds this.
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.path.contains(part)
    }
}

/// An answer in place of the registry's own: status, one header, body.
pub type Instead = (u16, Option<(&'static str, String)>, String);

/// An answer that refuses with a code of the specification.
pub fn refusal(status: u16, code: &str, message: &str) -> Option<Instead> {
    let errors = json!({"errors": [{"code": code, "message": message, "detail": {}}]});
    Some((status, None, errors.to_string()))
}

type Meddle = Box<dyn Fn(&Asked) -> Option<Instead> + Send + Sync>;

#[derive(Default)]
pub struct Content {
    pub tags: BTreeMap<String, String>,
    /// Media type and bytes by `REPOSITORY@DIGEST`.
    pub manifests: BTreeMap<String, (String, Bytes)>,
    /// Bytes by `REPOSITORY@DIGEST`.
    pub blobs: BTreeMap<String, Bytes>,
    asked: Vec<Asked>,
    uploads: usize,
}

/// A running registry; gone when dropped.
pub struct Registry {
    pub address: String,
    pub content: Arc<Mutex<Content>>,
    _task: AbortOnDropHandle<()>,
}

impl Registry {
    /// One in which nothing goes wrong.
    pub async fn start() -> Self {
        Self::meddled(|_| None).await
    }

    /// One that answers some requests otherwise.
    pub async fn meddled(meddle: impl Fn(&Asked) -> Option<Instead> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let content = Arc::new(Mutex::new(Content::default()));
        let (shared, meddle): (_, Arc<Meddle>) = (Arc::clone(&content), Arc::new(Box::new(meddle)));
        let router = Router::new().fallback(move |request: Request<Body>| {
            let (content, meddle) = (Arc::clone(&shared), Arc::clone(&meddle));
            async move { answer(&content, &meddle, request).await }
        });
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self {
            address,
            content,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// `oci://HOST/team/model`.
    pub fn repository(&self) -> String {
        format!("oci://{}/team/model", self.address)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.content.lock().expect("no panic").asked.clone()
    }

    pub fn count(&self, method: &str, part: &str) -> usize {
        self.asked().iter().filter(|asked| asked.is(method, part)).count()
    }

    pub fn forget(&self) {
        self.content.lock().expect("no panic").asked.clear();
    }

    /// What a tag of `team/model` names, as JSON, and its digest.
    pub fn tagged(&self, tag: &str) -> (serde_json::Value, String) {
        let content = self.content.lock().expect("no panic");
        let digest = content.tags[&format!("team/model:{tag}")].clone();
        let (_, bytes) = &content.manifests[&format!("team/model@{digest}")];
        (serde_json::from_slice(bytes).expect("JSON"), digest)
    }
}

async fn answer(content: &Mutex<Content>, meddle: &Meddle, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let length = parts
        .headers
        .get("content-length")
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let mut asked = Asked {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        bytes: length.unwrap_or(0),
        before: 0,
    };
    {
        let mut content = content.lock().expect("no panic");
        let same = content
            .asked
            .iter()
            .filter(|one| one.method == asked.method && one.path == asked.path);
        asked.before = same.count();
        content.asked.push(asked.clone());
    }
    let instead = meddle(&asked);
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        return respond(400, &[], Bytes::new());
    };
    if let Some((status, header, body)) = instead {
        let headers: Vec<(&str, String)> = header.into_iter().collect();
        return respond(status, &headers, body.into());
    }
    content.lock().expect("no panic").reply(&asked, body)
}

fn respond(status: u16, headers: &[(&str, String)], body: Bytes) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response.body(Body::from(body)).expect("a response")
}

fn refuse(status: u16, code: &str) -> Response<Body> {
    let (_, _, body) = refusal(status, code, "").expect("one");
    respond(status, &[], body.into())
}

impl Content {
    fn reply(&mut self, asked: &Asked, body: Bytes) -> Response<Body> {
        let path = asked.path.strip_prefix("/v2/").unwrap_or_default();
        if path.is_empty() {
            return respond(200, &[], "{}".into());
        }
        if let Some((repository, reference)) = path.split_once("/manifests/") {
            return self.manifest(asked, repository, reference, body);
        }
        if let Some((repository, upload)) = path.split_once("/blobs/uploads/") {
            return self.upload(asked, repository, upload, body);
        }
        let blob = path
            .split_once("/blobs/")
            .and_then(|(repository, digest)| self.blobs.get(&format!("{repository}@{digest}")));
        match blob {
            Some(bytes) => part(asked, bytes),
            None => refuse(404, "BLOB_UNKNOWN"),
        }
    }

    fn upload(&mut self, asked: &Asked, repository: &str, upload: &str, body: Bytes) -> Response<Body> {
        if asked.method == "POST" && upload.is_empty() {
            self.uploads += 1;
            let location = format!("/v2/{repository}/blobs/uploads/{}?state=a%2Fb", self.uploads);
            return respond(202, &[("location", location)], Bytes::new());
        }
        let digest = Digest::of(&body).to_string();
        let wanted = asked
            .query
            .strip_prefix("state=a%2Fb&digest=")
            .map(|digest| digest.replace("%3A", ":"));
        if asked.method != "PUT" || wanted != Some(digest.clone()) {
            return refuse(400, "DIGEST_INVALID");
        }
        self.blobs.insert(format!("{repository}@{digest}"), body);
        respond(201, &[("docker-content-digest", digest)], Bytes::new())
    }

    fn manifest(&mut self, asked: &Asked, repository: &str, reference: &str, body: Bytes) -> Response<Body> {
        if asked.method == "PUT" {
            let value: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            let missing = |parts: &serde_json::Value, of: &dyn Fn(&str) -> bool| {
                let parts = parts.as_array().into_iter().flatten();
                parts
                    .filter_map(|part| part["digest"].as_str())
                    .any(|digest| !of(digest))
            };
            let name = |digest: &str| format!("{repository}@{digest}");
            if missing(&value["layers"], &|digest| self.blobs.contains_key(&name(digest)))
                || missing(&json!([value["config"]]), &|digest| {
                    self.blobs.contains_key(&name(digest))
                })
                || missing(&value["manifests"], &|digest| {
                    self.manifests.contains_key(&name(digest))
                })
            {
                return refuse(400, "MANIFEST_BLOB_UNKNOWN");
            }
            let digest = Digest::of(&body).to_string();
            let media_type = asked.header("content-type").unwrap_or_default().to_owned();
            self.manifests.insert(name(&digest), (media_type, body));
            self.tags.insert(format!("{repository}:{reference}"), digest.clone());
            return respond(201, &[("docker-content-digest", digest)], Bytes::new());
        }
        let tagged = self.tags.get(&format!("{repository}:{reference}"));
        let digest = tagged.map_or(reference, String::as_str);
        match self.manifests.get(&format!("{repository}@{digest}")) {
            Some((media_type, bytes)) => respond(200, &[("content-type", media_type.clone())], bytes.clone()),
            None => refuse(404, "MANIFEST_UNKNOWN"),
        }
    }
}

/// The bytes, or the range of them that was asked for.
fn part(asked: &Asked, bytes: &Bytes) -> Response<Body> {
    let range = asked.header("range").and_then(|range| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        let first: usize = first.parse().ok()?;
        let last = last.parse().unwrap_or(usize::MAX).min(bytes.len().saturating_sub(1));
        (first <= last).then_some((first, last))
    });
    match range {
        Some((first, last)) => {
            let header = format!("bytes {first}-{last}/{}", bytes.len());
            respond(206, &[("content-range", header)], bytes.slice(first..=last))
        }
        None => respond(200, &[], bytes.clone()),
    }
}
