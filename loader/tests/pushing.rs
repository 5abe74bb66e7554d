//! Models on their way into a registry, and the tags by which they are found.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use perennial_loader::{
    Digest, FailureReason, LoadError, Loader, ModelFile, PushRequest, PushedModel, Repository, Settings, TagRequest,
    TaggedModel,
};
use serde_json::json;
use support::pushed::{Asked, Instead, Registry, refusal};
use support::{content, fetch, settings};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

mod support;

const WEIGHTS: usize = 3_000_000;

/// A model in several files.
fn model() -> (TempDir, Vec<ModelFile>) {
    let directory = tempfile::tempdir().unwrap();
    let files = [
        ("tokenizer.json", b"{\"model\": {}}".to_vec()),
        ("model.safetensors", content(WEIGHTS)),
        ("config.json", b"{}".to_vec()),
    ]
    .map(|(title, bytes)| {
        let path = directory.path().join(title);
        std::fs::write(&path, bytes).unwrap();
        ModelFile {
            title: title.to_owned(),
            path,
        }
    });
    (directory, files.into())
}

fn annotations(text: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("dev.perennial.cycle-id".to_owned(), text.to_owned())])
}

async fn push(registry: &Registry, settings: Settings, files: &[ModelFile]) -> Result<PushedModel, LoadError> {
    push_as(registry, settings, files, "cycle-1").await
}

async fn push_as(
    registry: &Registry,
    settings: Settings,
    files: &[ModelFile],
    tag: &str,
) -> Result<PushedModel, LoadError> {
    let request = PushRequest {
        repository: Repository::parse(&registry.repository()).unwrap(),
        tag: tag.to_owned(),
        files: files.to_vec(),
        annotations: annotations("1"),
    };
    let pushed = Loader::new(settings).push(&request, &CancellationToken::new()).await;
    explained(&pushed);
    pushed
}

fn explained<T>(result: &Result<T, LoadError>) {
    if let Err(error) = result {
        let said = error.to_string();
        assert!(!said.contains('\n') && !said.contains("s3cret"), "{said}");
    }
}

async fn tag(settings: Settings, model: &str, name: &str, said: &str) -> Result<String, LoadError> {
    let request = TagRequest {
        model: model.to_owned(),
        tag: name.to_owned(),
        annotations: annotations(said),
    };
    let tagged = Loader::new(settings).tag(&request, &CancellationToken::new()).await;
    explained(&tagged);
    tagged
}

async fn find(registry: &Registry, name: &str) -> Result<Option<TaggedModel>, LoadError> {
    let address = format!("{}:{name}", registry.repository());
    Loader::new(settings()).find(&address, &CancellationToken::new()).await
}

fn uploads(registry: &Registry) -> usize {
    registry.count("PUT", "/blobs/uploads/")
}

#[tokio::test]
async fn what_was_pushed_is_what_is_fetched() {
    let (registry, (_directory, files)) = (Registry::start().await, model());
    let pushed = push(&registry, settings(), &files).await.unwrap();
    assert_eq!(pushed.uri, format!("{}@{}", registry.repository(), pushed.digest));
    assert_eq!(pushed.size_bytes, (WEIGHTS + 2 + 13) as u64);
    let (manifest, digest) = registry.tagged("cycle-1");
    assert_eq!(digest, pushed.digest);
    assert_eq!(manifest["artifactType"], "application/vnd.perennial.model.v1");
    assert_eq!(manifest["annotations"], json!({"dev.perennial.cycle-id": "1"}));
    let scratch = tempfile::tempdir().unwrap();
    let expected: Digest = pushed.digest.parse().unwrap();
    let local = fetch(settings(), &pushed.uri, Some(expected), scratch.path())
        .await
        .unwrap();
    let names: Vec<&Path> = local
        .files
        .iter()
        .map(|path| path.strip_prefix(&local.directory).unwrap())
        .collect();
    assert_eq!(
        names,
        ["config.json", "model.safetensors", "tokenizer.json"].map(Path::new)
    );
    for file in &files {
        let (here, there) = (&file.path, local.directory.join(&file.title));
        assert!(
            std::fs::read(here).unwrap() == std::fs::read(there).unwrap(),
            "{}",
            file.title
        );
    }
}

#[tokio::test]
async fn nothing_is_pushed_twice() {
    let (registry, (_directory, mut files)) = (Registry::start().await, model());
    let first = push(&registry, settings(), &files).await.unwrap();
    // Three files, of which none holds the same, and {} is config.json.
    assert_eq!(uploads(&registry), 3);
    registry.forget();
    files.reverse();
    assert_eq!(push(&registry, settings(), &files).await.unwrap(), first);
    assert_eq!((uploads(&registry), registry.count("PUT", "")), (0, 0));
    // Under another tag, only that is written.
    assert_eq!(push_as(&registry, settings(), &files, "other").await.unwrap(), first);
    assert_eq!((uploads(&registry), registry.count("PUT", "/manifests/other")), (0, 1));
    // A Job that was killed before its last request.
    registry.content.lock().unwrap().tags.clear();
    registry.content.lock().unwrap().manifests.clear();
    registry.forget();
    assert_eq!(push(&registry, settings(), &files).await.unwrap(), first);
    assert_eq!((uploads(&registry), registry.count("PUT", "/manifests/")), (0, 1));
}

#[tokio::test]
async fn a_registry_that_stumbles_is_asked_again() {
    let registry = Registry::meddled(|asked| match asked.before {
        _ if asked.path == "/v2/" => None,
        0 if asked.is("HEAD", "") || asked.is("POST", "") => refusal(503, "UNAVAILABLE", ""),
        0 if asked.is("PUT", "/manifests/") => refusal(429, "TOOMANYREQUESTS", ""),
        // The upload is lost: another replica of the registry does not know it.
        0 if asked.is("PUT", "/blobs/uploads/2") => refusal(404, "BLOB_UPLOAD_UNKNOWN", ""),
        _ => None,
    })
    .await;
    let (_directory, files) = model();
    let pushed = push(&registry, settings(), &files).await.unwrap();
    assert_eq!(registry.tagged("cycle-1").1, pushed.digest);
    assert_eq!(uploads(&registry), 4);
}

#[tokio::test]
async fn a_registry_that_stays_away_is_told_from_one_that_refuses() {
    let (_directory, files) = model();
    let registry = Registry::meddled(|asked| {
        let begins = asked.is("POST", "");
        begins.then(|| refusal(503, "", "")).flatten()
    })
    .await;
    let error = push(&registry, settings(), &files).await.unwrap_err();
    assert_eq!(error.reason(), FailureReason::SourceUnreachable, "{error}");
    assert!(
        error.to_string().contains("503") && error.to_string().contains("4 attempts"),
        "{error}"
    );
    let registry = Registry::meddled(|asked| {
        let begins = asked.is("POST", "");
        begins
            .then(|| refusal(403, "DENIED", "the quota is\nused up"))
            .flatten()
    })
    .await;
    let error = push(&registry, settings(), &files).await.unwrap_err();
    assert_eq!(error.reason(), FailureReason::Unauthorized, "{error}");
    let said = error.to_string();
    assert!(
        said.contains("nobody may push without credentials") && said.contains("pushSecretRef"),
        "{said}"
    );
    assert!(said.contains("DENIED: the quota is used up"), "{said}");
    for (status, reason) in [
        (404, FailureReason::ModelNotFound),
        (413, FailureReason::UnsupportedModel),
    ] {
        let registry = Registry::meddled(move |asked| {
            let begins = asked.is("POST", "");
            begins.then(|| refusal(status, "", "")).flatten()
        })
        .await;
        let error = push(&registry, settings(), &files).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
        assert_eq!(registry.count("POST", ""), 1, "no second try");
    }
}

/// A registry that wants a token for pushing, which `/token` gives for the right password.
fn guarded(asked: &Asked, password: &str, token: &str) -> Option<Instead> {
    use base64::Engine as _;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("user:{password}"));
    let host = asked.header("host").unwrap_or_default();
    if asked.path == "/token" {
        if asked.header("authorization") != Some(&format!("Basic {pair}")) {
            return refusal(401, "UNAUTHORIZED", "authentication required");
        }
        let pushes = asked.query.contains("scope=repository%3Ateam%2Fmodel%3Apull%2Cpush");
        let kind = if pushes { "push" } else { "pull" };
        return Some((200, None, json!({"token": format!("{token}-{kind}")}).to_string()));
    }
    let shown = asked.header("authorization").unwrap_or_default();
    let reads = asked.method == "GET" && shown == format!("Bearer {token}-pull");
    if shown == format!("Bearer {token}-push") || reads {
        return None;
    }
    let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"registry\"");
    Some((401, Some(("www-authenticate", challenge)), String::new()))
}

fn with_password(registry: &Registry, directory: &Path, password: &str) -> Settings {
    let config = json!({"auths": {&registry.address: {"username": "user", "password": password}}});
    std::fs::write(directory.join("config.json"), config.to_string()).unwrap();
    Settings {
        registry_auth_directory: PathBuf::from(directory),
        ..settings()
    }
}

#[tokio::test]
async fn a_token_is_fetched_for_pushing_and_renewed_when_it_expired() {
    let ((_directory, files), secrets) = (model(), tempfile::tempdir().unwrap());
    let puts = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&puts);
    let registry = Registry::meddled(move |asked| {
        // After the first blob, only the second token counts.
        let token = if seen.load(Ordering::SeqCst) > 0 {
            "second"
        } else {
            "first"
        };
        let answer = guarded(asked, "s3cret", token);
        if answer.is_none() && asked.is("PUT", "/uploads/") {
            seen.fetch_add(1, Ordering::SeqCst);
        }
        answer
    })
    .await;
    let settings = with_password(&registry, secrets.path(), "s3cret");
    let pushed = push(&registry, settings.clone(), &files).await.unwrap();
    assert_eq!(registry.tagged("cycle-1").1, pushed.digest);
    assert_eq!(puts.load(Ordering::SeqCst), 3);
    tag(settings, &pushed.uri, "live", "x").await.unwrap();
}

#[tokio::test]
async fn wrong_and_missing_credentials_are_explained() {
    let ((_directory, files), secrets) = (model(), tempfile::tempdir().unwrap());
    let registry = Registry::meddled(|asked| guarded(asked, "s3cret", "token")).await;
    let error = push(&registry, settings(), &files).await.unwrap_err();
    assert_eq!(error.reason(), FailureReason::Unauthorized, "{error}");
    assert!(
        error
            .to_string()
            .contains("create a docker-registry Secret for 127.0.0.1"),
        "{error}"
    );
    let wrong = with_password(&registry, secrets.path(), "wrong-s3cret");
    let error = push(&registry, wrong, &files).await.unwrap_err();
    assert_eq!(error.reason(), FailureReason::Unauthorized, "{error}");
    assert!(error.to_string().contains("the credentials may not push"), "{error}");
    // Who may pull need not be allowed to push.
    let registry = Registry::meddled(|asked| {
        let writes = asked.is("POST", "") || asked.is("PUT", "");
        writes.then(|| refusal(403, "DENIED", "insufficient scope")).flatten()
    })
    .await;
    let puller = with_password(&registry, secrets.path(), "s3cret");
    let error = push(&registry, puller, &files).await.unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("the credentials may not push") && said.contains("insufficient scope"),
        "{said}"
    );
}

#[tokio::test]
async fn a_repository_that_nobody_may_look_into_is_pushed_to() {
    let registry = Registry::meddled(|asked| {
        let looks = asked.is("GET", "/manifests/") || asked.is("HEAD", "");
        looks.then(|| refusal(401, "UNAUTHORIZED", "")).flatten()
    })
    .await;
    let (_directory, files) = model();
    let pushed = push(&registry, settings(), &files).await.unwrap();
    assert_eq!(registry.tagged("cycle-1").1, pushed.digest);
}

#[tokio::test]
async fn a_file_that_changes_meanwhile_is_refused() {
    let (_directory, files) = model();
    let weights = files[1].path.clone();
    for (length, change) in [(WEIGHTS, 1_usize), (WEIGHTS - 1, 0), (WEIGHTS + 1, 0)] {
        std::fs::write(&weights, content(WEIGHTS)).unwrap();
        let path = weights.clone();
        let registry = Registry::meddled(move |asked| {
            // Its digest is known by then.
            if asked.is("POST", "") {
                let mut bytes = content(length);
                bytes[7] ^= change as u8;
                std::fs::write(&path, bytes).unwrap();
            }
            None
        })
        .await;
        let error = push(&registry, settings(), &files).await.unwrap_err();
        assert_eq!(error.reason(), FailureReason::InvalidModel, "{error}");
        assert!(
            error
                .to_string()
                .contains("model.safetensors is not usable: it changed"),
            "{error}"
        );
        assert_eq!(registry.count("PUT", "/manifests/"), 0);
    }
}

#[tokio::test]
async fn a_tag_says_something_of_a_model_and_leaves_its_digest_alone() {
    let (registry, (_directory, files)) = (Registry::start().await, model());
    assert_eq!(
        find(&registry, "live").await.unwrap(),
        None,
        "there is no repository yet"
    );
    let pushed = push(&registry, settings(), &files).await.unwrap();
    assert_eq!(find(&registry, "live").await.unwrap(), None);
    let index = tag(settings(), &pushed.uri, "live", "{\"a\": 1}").await.unwrap();
    let (json, digest) = registry.tagged("live");
    assert_eq!(index, digest);
    assert_eq!(json["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(json["manifests"].as_array().unwrap().len(), 1);
    let found = find(&registry, "live").await.unwrap().unwrap();
    assert_eq!(
        (&found.digest, found.annotations),
        (&pushed.digest, annotations("{\"a\": 1}"))
    );
    // Again: nothing is written. Something else to say: the tag moves.
    registry.forget();
    assert_eq!(tag(settings(), &pushed.uri, "live", "{\"a\": 1}").await.unwrap(), index);
    assert_eq!(registry.count("PUT", ""), 0);
    assert_ne!(tag(settings(), &pushed.uri, "live", "{}").await.unwrap(), index);
    assert_eq!(
        find(&registry, "live").await.unwrap().unwrap().annotations,
        annotations("{}")
    );
    // A tag of a manifest is found, too, and what is tagged can be fetched by the tag.
    let plain = find(&registry, "cycle-1").await.unwrap().unwrap();
    assert_eq!(
        (plain.digest, plain.annotations),
        (pushed.digest.clone(), annotations("1"))
    );
    let (scratch, source) = (tempfile::tempdir().unwrap(), format!("{}:live", registry.repository()));
    let local = fetch(settings(), &source, None, scratch.path()).await.unwrap();
    assert_eq!((local.resolved.digest, local.files.len()), (pushed.digest, 3));
}

#[tokio::test]
async fn what_is_gone_is_neither_tagged_nor_found() {
    let (registry, (_directory, files)) = (Registry::start().await, model());
    let pushed = push(&registry, settings(), &files).await.unwrap();
    tag(settings(), &pushed.uri, "live", "{}").await.unwrap();
    let name = format!("team/model@{}", pushed.digest);
    registry.content.lock().unwrap().manifests.remove(&name);
    let error = find(&registry, "live").await.unwrap_err();
    assert_eq!(error.reason(), FailureReason::ModelNotFound, "{error}");
    assert!(
        error.to_string().contains("the tag names it, but it is gone"),
        "{error}"
    );
    let error = tag(settings(), &pushed.uri, "live", "{}").await.unwrap_err();
    assert_eq!(error.reason(), FailureReason::ModelNotFound, "{error}");
    for (model, name) in [
        (pushed.uri.as_str(), "not a tag"),
        ("oci://127.0.0.1:1/a:v1", "live"),
        ("hf://a/b", "live"),
    ] {
        let error = tag(settings(), model, name, "{}").await.unwrap_err();
        assert_eq!(error.reason(), FailureReason::InvalidArguments, "{error}");
    }
    let away = Loader::new(settings())
        .find("oci://127.0.0.1:1/a:v1", &CancellationToken::new())
        .await;
    assert_eq!(away.unwrap_err().reason(), FailureReason::SourceUnreachable);
}
