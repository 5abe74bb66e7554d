//! Artifacts and images in a registry, played by a server that speaks the distribution API.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use perennial_loader::{Digest, FailureReason, Settings};
use serde_json::{Value, json};

use crate::support::{Reply, Seen, Server, content, fetch, files_below, resolve, settings};

mod support;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &[u8] = b"{}";
const WEIGHTS: usize = 300_000;

/// What the repository `team/model` holds.
#[derive(Clone, Default)]
struct Repository {
    tags: BTreeMap<&'static str, Digest>,
    manifests: BTreeMap<String, (&'static str, Vec<u8>)>,
    blobs: BTreeMap<String, Vec<u8>>,
}

impl Repository {
    fn blob(&mut self, media_type: &str, title: Option<&str>, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes).to_string();
        self.blobs.insert(digest.clone(), bytes.to_vec());
        let annotations = title.map(|title| json!({"org.opencontainers.image.title": title}));
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len(), "annotations": annotations.unwrap_or(json!({}))})
    }

    fn manifest(&mut self, tag: &'static str, layers: &[Value]) -> Digest {
        let config = self.blob("application/vnd.oci.empty.v1+json", None, b"{}");
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        self.put(tag, MANIFEST, manifest.to_string().into_bytes())
    }

    fn put(&mut self, tag: &'static str, media_type: &'static str, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        self.manifests.insert(digest.to_string(), (media_type, bytes));
        self.tags.insert(tag, digest);
        digest
    }

    fn reply(&self, seen: &Seen) -> Reply {
        if seen.path == "/v2/" {
            return Reply::ok("{}");
        }
        if let Some(reference) = seen.path.strip_prefix("/v2/team/model/manifests/") {
            let digest = self
                .tags
                .get(reference)
                .map_or_else(|| reference.to_owned(), Digest::to_string);
            return match self.manifests.get(&digest) {
                Some((media_type, bytes)) => Reply::ok(bytes.clone()).with("content-type", *media_type),
                None => Reply {
                    body: br#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#.into(),
                    ..Reply::status(404)
                },
            };
        }
        let blob = seen
            .path
            .strip_prefix("/v2/team/model/blobs/")
            .and_then(|digest| self.blobs.get(digest));
        blob.map_or(Reply::status(404), |bytes| Reply::file(bytes, seen))
    }
}

fn artifact() -> (Repository, Digest) {
    let mut repository = Repository::default();
    let layers = [
        repository.blob(TAR, Some("config.json"), CONFIG),
        repository.blob(TAR, Some("model.safetensors"), &content(WEIGHTS)),
        repository.blob("text/markdown", Some("README.md"), b"read me"),
    ];
    let digest = repository.manifest("v1", &layers);
    (repository, digest)
}

fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn source(server: &Server, reference: &str) -> String {
    format!("oci://{}/team/model{reference}", server.address)
}

#[tokio::test]
async fn an_artifact_is_pinned_and_fetched_once() {
    let (repository, digest) = artifact();
    let server = Server::start(move |seen| repository.reply(seen)).await;
    let resolved = resolve(settings(), &source(&server, ":v1"), None).await.unwrap();
    assert_eq!(resolved.uri, source(&server, &format!("@{digest}")));
    assert_eq!(resolved.digest, digest.to_string());
    assert_eq!(
        (resolved.files, resolved.size_bytes),
        (2, (WEIGHTS + CONFIG.len()) as u64)
    );
    let scratch = tempfile::tempdir().unwrap();
    let model = fetch(settings(), &resolved.uri, Some(digest), scratch.path())
        .await
        .unwrap();
    assert_eq!(model.resolved, resolved);
    assert_eq!(
        model.files,
        ["config.json", "model.safetensors"].map(|name| model.directory.join(name))
    );
    assert_eq!(std::fs::read(&model.files[1]).unwrap(), content(WEIGHTS));
    server.forget();
    assert_eq!(
        fetch(settings(), &resolved.uri, None, scratch.path()).await.unwrap(),
        model
    );
    assert!(server.requests().is_empty(), "a restarted container needs no registry");
    // A tag must be asked for, but its bytes are here.
    let by_tag = fetch(settings(), &source(&server, ":v1"), None, scratch.path())
        .await
        .unwrap();
    assert_eq!((by_tag, server.bytes("model.safetensors")), (model, 0));
}

#[tokio::test]
async fn a_restart_continues_blobs() {
    let (repository, digest) = artifact();
    let broken = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&broken);
    let server = Server::start(move |seen| match seen.range() {
        Some((first, _)) if first > 100_000 && state.load(Ordering::SeqCst) => Reply::status(500),
        _ => repository.reply(seen),
    })
    .await;
    let (scratch, source) = (tempfile::tempdir().unwrap(), source(&server, &format!("@{digest}")));
    let error = fetch(settings(), &source, None, scratch.path()).await.unwrap_err();
    assert_eq!(error.reason(), FailureReason::SourceUnreachable, "{error}");
    broken.store(false, Ordering::SeqCst);
    fetch(settings(), &source, None, scratch.path()).await.unwrap();
    assert_eq!(
        server.bytes(&Digest::of(&content(WEIGHTS)).to_string()),
        WEIGHTS,
        "no byte twice"
    );
}

/// A registry that wants a token, which its `/token` gives for the right password.
fn guarded(repository: &Repository, seen: &Seen, address: &str, password: Option<&str>, token: &str) -> Reply {
    let wanted = password.map(|password| {
        use base64::Engine as _;
        format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(format!("user:{password}"))
        )
    });
    if seen.path == "/token" {
        assert!(
            seen.query.contains("scope=repository%3Ateam%2Fmodel%3Apull"),
            "{}",
            seen.query
        );
        return if seen.header("authorization") == wanted.as_deref() {
            Reply::ok(json!({ "token": token }).to_string())
        } else {
            Reply {
                body: br#"{"errors":[{"code":"UNAUTHORIZED"}]}"#.to_vec(),
                ..Reply::status(401)
            }
        };
    }
    if seen.header("authorization") == Some(&format!("Bearer {token}")) {
        return repository.reply(seen);
    }
    let challenge = format!("Bearer realm=\"http://{address}/token\",service=\"registry\"");
    Reply::status(401).with("www-authenticate", challenge)
}

fn with_password(password: &str) -> (tempfile::TempDir, impl Fn(&Server) -> Settings) {
    let directory = tempfile::tempdir().unwrap();
    let (path, password) = (directory.path().to_owned(), password.to_owned());
    let settings = move |server: &Server| {
        let config = json!({"auths": {&server.address: {"username": "user", "password": &password}}});
        std::fs::write(path.join("config.json"), config.to_string()).unwrap();
        Settings {
            registry_auth_directory: path.clone(),
            ..settings()
        }
    };
    (directory, settings)
}

async fn guarded_server(repository: Repository, password: Option<&'static str>) -> Server {
    Server::start(move |seen| {
        let address = seen.header("host").unwrap_or_default().to_owned();
        guarded(&repository, seen, &address, password, "t0ken")
    })
    .await
}

#[tokio::test]
async fn tokens_are_fetched_with_and_without_a_password() {
    let (repository, digest) = artifact();
    for password in [None, Some("s3cret")] {
        let server = guarded_server(repository.clone(), password).await;
        let (_directory, with) = with_password("s3cret");
        let settings = if password.is_some() { with(&server) } else { settings() };
        let scratch = tempfile::tempdir().unwrap();
        fetch(settings, &source(&server, ":v1"), Some(digest), scratch.path())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn wrong_and_missing_credentials_are_explained() {
    let (repository, _) = artifact();
    let server = guarded_server(repository, Some("s3cret")).await;
    let error = resolve(settings(), &source(&server, ":v1"), None).await.unwrap_err();
    assert_eq!(error.reason(), FailureReason::Unauthorized, "{error}");
    assert!(
        error
            .to_string()
            .contains("create a docker-registry Secret for 127.0.0.1"),
        "{error}"
    );
    let (_directory, with) = with_password("wr0ng-s3cret");
    let error = resolve(with(&server), &source(&server, ":v1"), None).await.unwrap_err();
    assert_eq!(error.reason(), FailureReason::Unauthorized, "{error}");
    assert!(
        error.to_string().contains("renew the Secret") && !error.to_string().contains("s3cret"),
        "{error}"
    );
}

#[tokio::test]
async fn basic_authentication_reaches_blobs() {
    let (repository, digest) = artifact();
    let server = Server::start(move |seen| match seen.header("authorization") {
        Some("Basic dXNlcjpzM2NyZXQ=") => repository.reply(seen),
        _ => Reply::status(401).with("www-authenticate", "Basic realm=\"registry\""),
    })
    .await;
    let ((_directory, with), scratch) = (with_password("s3cret"), tempfile::tempdir().unwrap());
    fetch(with(&server), &source(&server, ":v1"), Some(digest), scratch.path())
        .await
        .unwrap();
}

#[tokio::test]
async fn an_expired_token_is_renewed() {
    let (repository, digest) = artifact();
    let blobs = AtomicUsize::new(0);
    let server = Server::start(move |seen| {
        let address = seen.header("host").unwrap_or_default().to_owned();
        // From the third request for a blob on, only the second token counts.
        let seen_blobs = if seen.path.contains("/blobs/") {
            blobs.fetch_add(1, Ordering::SeqCst)
        } else {
            0
        };
        let token = if blobs.load(Ordering::SeqCst) > 2 || seen_blobs > 2 {
            "second"
        } else {
            "first"
        };
        guarded(&repository, seen, &address, None, token)
    })
    .await;
    let scratch = tempfile::tempdir().unwrap();
    let one = Settings {
        connections: 1,
        ..settings()
    };
    fetch(one, &source(&server, ":v1"), Some(digest), scratch.path())
        .await
        .unwrap();
    let tokens = server
        .requests()
        .iter()
        .filter(|request| request.path == "/token")
        .count();
    assert!(tokens >= 2, "{tokens}");
}

#[tokio::test]
async fn credentials_stay_with_the_registry_when_blobs_are_elsewhere() {
    let (repository, digest) = artifact();
    let blobs = repository.blobs.clone();
    let storage = Server::start(move |seen| Reply::file(&blobs[&seen.path.replace("/storage/", "")], seen)).await;
    let host = storage.url("/storage/");
    let server = Server::start(move |seen| {
        let address = seen.header("host").unwrap_or_default().to_owned();
        match (
            seen.path.strip_prefix("/v2/team/model/blobs/"),
            seen.header("authorization"),
        ) {
            (Some(digest), Some("Bearer t0ken")) => Reply::redirect(format!("{host}{digest}")),
            _ => guarded(&repository, seen, &address, None, "t0ken"),
        }
    })
    .await;
    let scratch = tempfile::tempdir().unwrap();
    fetch(settings(), &source(&server, ":v1"), Some(digest), scratch.path())
        .await
        .unwrap();
    assert!(!storage.requests().is_empty());
    assert!(
        storage
            .requests()
            .iter()
            .all(|request| request.header("authorization").is_none())
    );
}

#[tokio::test]
async fn answers_become_reasons() {
    let (repository, _) = artifact();
    let server = Server::start(move |seen| repository.reply(seen)).await;
    let error = resolve(settings(), &source(&server, ":missing"), None)
        .await
        .unwrap_err();
    assert_eq!(error.reason(), FailureReason::ModelNotFound, "{error}");
    let server = Server::start(|_| Reply::status(503)).await;
    let error = resolve(settings(), &source(&server, ":v1"), None).await.unwrap_err();
    assert_eq!(error.reason(), FailureReason::SourceUnreachable, "{error}");
    let error = resolve(settings(), "oci://127.0.0.1:1/team/model:v1", None)
        .await
        .unwrap_err();
    assert_eq!(error.reason(), FailureReason::SourceUnreachable, "{error}");
}

#[tokio::test]
async fn wrong_bytes_are_refused() {
    let (mut repository, digest) = artifact();
    let server = Server::start({
        let repository = repository.clone();
        move |seen| repository.reply(seen)
    })
    .await;
    let scratch = tempfile::tempdir().unwrap();
    let wanted = Digest::of(b"other");
    let error = fetch(settings(), &source(&server, ":v1"), Some(wanted), scratch.path())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), FailureReason::DigestMismatch);
    assert!(error.to_string().contains(&digest.to_string()) && error.to_string().contains(&wanted.to_string()));
    assert_eq!(server.bytes("blobs"), 0);
    // A manifest that is not what its digest says.
    let manifest = repository.manifests.get_mut(&digest.to_string()).unwrap();
    manifest.1.push(b' ');
    let tampered = repository.clone();
    let server = Server::start(move |seen| tampered.reply(seen)).await;
    let error = resolve(settings(), &source(&server, &format!("@{digest}")), None)
        .await
        .unwrap_err();
    assert_eq!(error.reason(), FailureReason::DigestMismatch, "{error}");
    // A blob that is not.
    let (mut repository, digest) = artifact();
    let weights = Digest::of(&content(WEIGHTS)).to_string();
    repository.blobs.get_mut(&weights).unwrap()[7] ^= 1;
    let server = Server::start(move |seen| repository.reply(seen)).await;
    let error = fetch(settings(), &source(&server, ":v1"), Some(digest), scratch.path())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), FailureReason::DigestMismatch, "{error}");
    assert!(error.to_string().contains("model.safetensors of oci://"), "{error}");
    assert!(files_below(scratch.path()).values().all(|bytes| bytes.len() < WEIGHTS));
}

#[tokio::test]
async fn of_an_index_linux_amd64_is_taken() {
    let (mut repository, amd64) = artifact();
    let layers = [repository.blob(TAR, Some("m.gguf"), b"arm")];
    let arm64 = repository.manifest("arm", &layers);
    let entry = |digest: Digest, architecture: &str| {
        json!({"mediaType": MANIFEST, "digest": digest.to_string(), "size": 1,
            "platform": {"os": "linux", "architecture": architecture}})
    };
    let index = |entries: Vec<Value>| json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    let both = index(vec![entry(arm64, "arm64"), entry(amd64, "amd64")])
        .to_string()
        .into_bytes();
    let index_digest = repository.put("both", INDEX, both);
    repository.put(
        "one",
        INDEX,
        index(vec![entry(arm64, "arm64")]).to_string().into_bytes(),
    );
    repository.put(
        "none",
        INDEX,
        index(vec![entry(arm64, "arm64"), entry(arm64, "s390x")])
            .to_string()
            .into_bytes(),
    );
    let server = Server::start(move |seen| repository.reply(seen)).await;
    let resolved = resolve(settings(), &source(&server, ":both"), None).await.unwrap();
    assert_eq!(resolved.digest, amd64.to_string());
    assert_eq!(
        resolve(settings(), &source(&server, ":one"), None)
            .await
            .unwrap()
            .digest,
        arm64.to_string()
    );
    let error = resolve(settings(), &source(&server, ":none"), None).await.unwrap_err();
    assert_eq!(error.reason(), FailureReason::ModelNotFound, "{error}");
    // The digest of the index pins as well as that of the manifest.
    let scratch = tempfile::tempdir().unwrap();
    let pinned = source(&server, &format!("@{index_digest}"));
    let model = fetch(settings(), &pinned, Some(index_digest), scratch.path())
        .await
        .unwrap();
    assert_eq!(model.resolved.digest, index_digest.to_string());
    server.forget();
    assert_eq!(
        fetch(settings(), &pinned, Some(index_digest), scratch.path())
            .await
            .unwrap(),
        model
    );
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn images_are_unpacked() {
    let mut repository = Repository::default();
    let weights = content(WEIGHTS);
    let layers = [
        repository.blob(
            TAR,
            None,
            &tar(&[("models/llama/model.safetensors", b"old"), ("bin/sh", b"x")]),
        ),
        repository.blob(
            &format!("{TAR}+gzip"),
            None,
            &gzip(&tar(&[
                ("models/llama/model.safetensors", &weights),
                ("models/llama/config.json", CONFIG),
            ])),
        ),
    ];
    let digest = repository.manifest("v1", &layers);
    let server = Server::start(move |seen| repository.reply(seen)).await;
    let (scratch, source) = (tempfile::tempdir().unwrap(), source(&server, ":v1"));
    let model = fetch(settings(), &source, Some(digest), scratch.path()).await.unwrap();
    assert!(model.directory.ends_with("files/models/llama"));
    assert_eq!(
        model.files,
        ["config.json", "model.safetensors"].map(|name| model.directory.join(name))
    );
    assert_eq!(std::fs::read(&model.files[1]).unwrap(), weights);
    let large = files_below(scratch.path())
        .into_iter()
        .filter(|(_, bytes)| bytes.len() > 1000)
        .count();
    assert_eq!(large, 1, "archives are gone once unpacked");
    server.forget();
    assert_eq!(
        fetch(settings(), &source, Some(digest), scratch.path()).await.unwrap(),
        model
    );
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn hostile_images_write_nothing_outside() {
    let outside = tempfile::tempdir().unwrap();
    let scratch = outside.path().join("scratch");
    for path in ["../../../../evil.gguf", "/tmp/perennial-evil.gguf"] {
        let mut repository = Repository::default();
        let layers = [repository.blob(TAR, None, &tar(&[(path, b"evil")]))];
        repository.manifest("v1", &layers);
        let server = Server::start(move |seen| repository.reply(seen)).await;
        let error = fetch(settings(), &source(&server, ":v1"), None, &scratch)
            .await
            .unwrap_err();
        assert_eq!(error.reason(), FailureReason::InvalidModel, "{error}");
        assert!(files_below(outside.path()).keys().all(|path| !path.contains("evil")));
        assert!(!std::path::Path::new("/tmp/perennial-evil.gguf").exists());
    }
}
