//! Repositories of a hub, played by a server that speaks its API.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use perennial_loader::{Digest, FailureReason, Secret, Settings, digest_of_files};

use crate::support::{Reply, Seen, Server, content, fetch, files_below, resolve, settings};

mod support;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const CONFIG: &[u8] = b"{\"architectures\": []}";
const TOKENIZER: &[u8] = b"{\"model\": {}}";
const WEIGHTS: usize = 300_000;

fn info(files: &[(&str, &[u8], bool)]) -> Reply {
    let siblings: Vec<serde_json::Value> = files
        .iter()
        .map(|(name, bytes, large)| {
            let sha256 = Digest::of(bytes).hex();
            let lfs = large.then(|| serde_json::json!({"sha256": sha256, "size": bytes.len(), "pointerSize": 1}));
            serde_json::json!({"rfilename": name, "size": bytes.len(), "blobId": "0", "lfs": lfs})
        })
        .collect();
    let body = serde_json::json!({"id": "org/name", "sha": COMMIT, "private": false, "siblings": siblings});
    Reply::ok(body.to_string()).with("content-type", "application/json")
}

/// The repository `org/name` with a model in safetensors; weights come from `weights_at`, another host, if given.
fn hub(seen: &Seen, weights_at: Option<&str>) -> Reply {
    let weights = content(WEIGHTS);
    let resolve = format!("/org/name/resolve/{COMMIT}");
    match seen.path.strip_prefix(&resolve) {
        Some("/config.json") => Reply::file(CONFIG, seen).with("etag", "\"git\""),
        Some("/tokenizer.json") => Reply::file(TOKENIZER, seen),
        Some("/model.safetensors") => match weights_at {
            Some(host) => Reply::redirect(format!("{host}/signed?signature=x"))
                .with("x-linked-etag", format!("\"{}\"", Digest::of(&weights).hex())),
            None => Reply::file(&weights, seen),
        },
        _ if seen.path == "/api/models/org/name/revision/main"
            || seen.path == "/api/models/org/name/revision/refs%2Fpr%2F1"
            || seen.path == format!("/api/models/org/name/revision/{COMMIT}") =>
        {
            info(&[
                ("config.json", CONFIG, false),
                ("model.safetensors", &weights, true),
                ("README.md", b"x", false),
                ("pytorch_model.bin", &weights, true),
                ("tokenizer.json", TOKENIZER, false),
            ])
        }
        _ => Reply::status(404),
    }
}

fn expected() -> Digest {
    digest_of_files([
        ("config.json", Digest::of(CONFIG)),
        ("model.safetensors", Digest::of(&content(WEIGHTS))),
        ("tokenizer.json", Digest::of(TOKENIZER)),
    ])
}

fn at(server: &Server) -> Settings {
    Settings {
        hub_endpoint: server.url(""),
        ..settings()
    }
}

fn with_token(server: &Server) -> Settings {
    Settings {
        hub_token: Some(Secret::new("hf_s3cret")),
        ..at(server)
    }
}

#[tokio::test]
async fn a_branch_is_pinned_and_its_model_fetched_once() {
    let server = Server::start(|seen| hub(seen, None)).await;
    let pinned = format!("hf://org/name@{COMMIT}");
    let resolved = resolve(at(&server), "hf://org/name@main", None).await.unwrap();
    assert_eq!(
        (resolved.uri.as_str(), resolved.digest),
        (pinned.as_str(), expected().to_string())
    );
    assert_eq!(
        (resolved.files, resolved.size_bytes),
        (3, (WEIGHTS + CONFIG.len() + TOKENIZER.len()) as u64)
    );
    assert_eq!(
        server.bytes("model.safetensors"),
        0,
        "large files are not read to resolve"
    );
    assert_eq!(
        resolve(at(&server), "hf://org/name@refs/pr/1", Some(expected()))
            .await
            .unwrap()
            .uri,
        pinned
    );
    let scratch = tempfile::tempdir().unwrap();
    let model = fetch(at(&server), &pinned, Some(expected()), scratch.path())
        .await
        .unwrap();
    let names = ["config.json", "model.safetensors", "tokenizer.json"];
    assert_eq!(model.files, names.map(|name| model.directory.join(name)));
    assert_eq!(model.resolved.digest, expected().to_string());
    assert_eq!(std::fs::read(&model.files[1]).unwrap(), content(WEIGHTS));
    assert_eq!(server.bytes("model.safetensors"), WEIGHTS);
    server.forget();
    assert_eq!(
        fetch(at(&server), &pinned, Some(expected()), scratch.path())
            .await
            .unwrap(),
        model
    );
    assert!(server.requests().is_empty(), "a restarted container needs no hub");
}

#[tokio::test]
async fn the_token_goes_to_the_hub_and_nowhere_else() {
    let storage = Server::start(|seen| Reply::file(&content(WEIGHTS), seen)).await;
    let host = storage.url("");
    let server = Server::start(move |seen| match seen.header("authorization") {
        Some("Bearer hf_s3cret") => hub(seen, Some(&host)),
        _ => Reply::status(401),
    })
    .await;
    let scratch = tempfile::tempdir().unwrap();
    fetch(with_token(&server), "hf://org/name", None, scratch.path())
        .await
        .unwrap();
    assert!(!storage.requests().is_empty());
    for request in storage.requests() {
        assert_eq!(request.header("authorization"), None);
        assert!(!format!("{request:?}").contains("s3cret"));
    }
}

#[tokio::test]
async fn refusals_say_which_secret_to_set() {
    for status in [401, 403] {
        let server = Server::start(move |_| Reply::status(status)).await;
        let error = resolve(at(&server), "hf://org/name", None).await.unwrap_err();
        assert_eq!(error.reason(), FailureReason::Unauthorized);
        assert!(error.to_string().contains("huggingFace.tokenSecretRef"), "{error}");
        assert!(error.to_string().contains("accept its terms"), "{error}");
        let error = resolve(with_token(&server), "hf://org/name", None).await.unwrap_err();
        assert!(
            error.to_string().contains("renew it") && !error.to_string().contains("s3cret"),
            "{error}"
        );
    }
    // Gated: the listing is public, the files are not.
    let server = Server::start(|seen| {
        if seen.path.starts_with("/api") {
            hub(seen, None)
        } else {
            Reply::status(403)
        }
    });
    let server = server.await;
    let scratch = tempfile::tempdir().unwrap();
    let error = fetch(at(&server), "hf://org/name", None, scratch.path())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), FailureReason::Unauthorized, "{error}");
    assert!(error.to_string().contains("tokenizer.json of hf://org/name") || error.to_string().contains("config.json"));
}

#[tokio::test]
async fn what_does_not_exist_is_named() {
    let server = Server::start(|seen| hub(seen, None)).await;
    let error = resolve(at(&server), "hf://org/other@v9", None).await.unwrap_err();
    assert_eq!(error.reason(), FailureReason::ModelNotFound);
    assert!(
        error.to_string().contains("repository org/other and revision v9"),
        "{error}"
    );
    let error = resolve(at(&server), "hf://org/name#m.gguf", None).await.unwrap_err();
    assert_eq!(error.reason(), FailureReason::ModelNotFound);
    assert!(error.to_string().contains("it has model.safetensors"), "{error}");
}

#[tokio::test]
async fn one_of_several_gguf_files_must_be_chosen() {
    let server = Server::start(|seen| {
        let (small, large) = (content(1000), content(2000));
        match seen.path.rsplit('/').next() {
            Some("m.Q4_K_M.gguf") => Reply::file(&small, seen),
            _ if seen.path.starts_with("/api/") => info(&[
                ("m.Q4_K_M.gguf", &small, true),
                ("m.Q8_0.gguf", &large, true),
                ("config.json", CONFIG, false),
            ]),
            _ => Reply::status(404),
        }
    })
    .await;
    let error = resolve(at(&server), "hf://org/name", None).await.unwrap_err();
    assert_eq!(error.reason(), FailureReason::ModelNotFound);
    assert!(
        error.to_string().contains("spec.model.source.huggingFace.file"),
        "{error}"
    );
    assert!(
        error.to_string().contains("it has m.Q4_K_M.gguf, m.Q8_0.gguf"),
        "{error}"
    );
    let source = "hf://org/name#m.Q4_K_M.gguf";
    let resolved = resolve(at(&server), source, None).await.unwrap();
    assert_eq!(resolved.digest, Digest::of(&content(1000)).to_string());
    assert_eq!(resolved.uri, format!("hf://org/name@{COMMIT}#m.Q4_K_M.gguf"));
    let scratch = tempfile::tempdir().unwrap();
    let model = fetch(
        at(&server),
        &resolved.uri,
        Some(Digest::of(&content(1000))),
        scratch.path(),
    )
    .await
    .unwrap();
    assert_eq!(model.files, [model.directory.join("m.Q4_K_M.gguf")]);
}

#[tokio::test]
async fn another_digest_fails_before_the_weights() {
    let server = Server::start(|seen| hub(seen, None)).await;
    let scratch = tempfile::tempdir().unwrap();
    let error = fetch(at(&server), "hf://org/name", Some(Digest::of(b"x")), scratch.path())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), FailureReason::DigestMismatch);
    assert!(error.to_string().contains(&expected().to_string()), "{error}");
    assert_eq!(server.bytes("model.safetensors"), 0);
    assert!(files_below(scratch.path()).is_empty());
}

fn nothing_served(scratch: &Path) {
    assert!(
        files_below(scratch)
            .keys()
            .all(|path| !path.ends_with("model.safetensors"))
    );
}

#[tokio::test]
async fn wrong_weights_are_removed() {
    let server = Server::start(|seen| match seen.path.ends_with("/model.safetensors") {
        true => Reply::file(&content(WEIGHTS + 1)[1..], seen),
        false => hub(seen, None),
    })
    .await;
    let scratch = tempfile::tempdir().unwrap();
    let error = fetch(at(&server), "hf://org/name", None, scratch.path())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), FailureReason::DigestMismatch, "{error}");
    assert!(
        error.to_string().contains(&Digest::of(&content(WEIGHTS)).to_string()),
        "{error}"
    );
    nothing_served(scratch.path());
}

#[tokio::test]
async fn a_mirror_without_listed_digests_is_held_to_its_linked_etag() {
    let wrong = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&wrong);
    let storage = Server::start(move |seen| {
        let offset = usize::from(state.load(Ordering::SeqCst));
        Reply::file(&content(WEIGHTS + offset)[offset..], seen)
    })
    .await;
    let host = storage.url("");
    let server = Server::start(move |seen| {
        if seen.path.starts_with("/api/") {
            let body = serde_json::json!({"sha": COMMIT, "siblings": [
                {"rfilename": "config.json"}, {"rfilename": "model.safetensors"}, {"rfilename": "tokenizer.json"}]});
            return Reply::ok(body.to_string());
        }
        hub(seen, Some(&host))
    })
    .await;
    let scratch = tempfile::tempdir().unwrap();
    let error = fetch(at(&server), "hf://org/name", None, scratch.path())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), FailureReason::DigestMismatch, "{error}");
    nothing_served(scratch.path());
    wrong.store(false, Ordering::SeqCst);
    let model = fetch(at(&server), "hf://org/name", Some(expected()), scratch.path())
        .await
        .unwrap();
    assert_eq!(model.resolved.digest, expected().to_string());
    assert_eq!(
        resolve(at(&server), "hf://org/name", None).await.unwrap().digest,
        expected().to_string()
    );
}

#[tokio::test]
async fn a_hub_that_stumbles_is_asked_again() {
    let server = Server::start(|seen| match seen.before {
        0 => Reply::status(503),
        1 if seen.path.starts_with("/api/") => Reply::ok("<html>maintenance</html>"),
        _ => hub(seen, None),
    })
    .await;
    let scratch = tempfile::tempdir().unwrap();
    fetch(at(&server), "hf://org/name", Some(expected()), scratch.path())
        .await
        .unwrap();
    let server = Server::start(|_| Reply::status(500)).await;
    let error = resolve(at(&server), "hf://org/name", None).await.unwrap_err();
    assert_eq!(
        (error.reason(), server.requests().len()),
        (FailureReason::SourceUnreachable, 4),
        "{error}"
    );
}

#[tokio::test]
async fn names_from_the_hub_cannot_leave_the_directory() {
    let server = Server::start(|seen| match seen.path.starts_with("/api/") {
        true => info(&[
            ("../../evil.safetensors", b"x", true),
            ("/evil.safetensors", b"x", true),
        ]),
        false => Reply::file(b"x", seen),
    })
    .await;
    let scratch = tempfile::tempdir().unwrap();
    let error = fetch(at(&server), "hf://org/name", None, scratch.path())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), FailureReason::ModelNotFound, "{error}");
}
