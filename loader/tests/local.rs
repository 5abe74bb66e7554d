//! Files and directories that are already there.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use perennial_loader::{Digest, FailureReason, digest_of_files};

use crate::support::{fetch, resolve, settings};

mod support;

#[tokio::test]
async fn a_directory_is_used_where_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &str| std::fs::write(directory.path().join(name), bytes).unwrap();
    write("config.json", "{}");
    write("model.safetensors", "weights");
    write("README.md", "not served");
    let source = format!("file://{}", directory.path().display());
    let expected = digest_of_files([
        ("config.json", Digest::of(b"{}")),
        ("model.safetensors", Digest::of(b"weights")),
    ]);
    let resolved = resolve(settings(), &source, None).await.unwrap();
    assert_eq!(
        (resolved.digest.as_str(), resolved.files, resolved.size_bytes),
        (&*expected.to_string(), 2, 9)
    );
    assert_eq!(resolved.uri, source);
    let model = fetch(settings(), &source, Some(expected), "/nonexistent".as_ref())
        .await
        .unwrap();
    assert_eq!(model.resolved, resolved);
    assert_eq!(
        model.files,
        ["config.json", "model.safetensors"].map(|name| directory.path().join(name))
    );
    let error = fetch(settings(), &source, Some(Digest::of(b"")), "/nonexistent".as_ref())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), FailureReason::DigestMismatch);
    assert!(error.to_string().contains(&expected.to_string()), "{error}");
    assert!(
        directory.path().join("model.safetensors").exists(),
        "a volume is never written to"
    );
}

#[tokio::test]
async fn a_file_and_a_link_are_read() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("blob"), "weights").unwrap();
    let link = directory.path().join("m.gguf");
    std::os::unix::fs::symlink("blob", &link).unwrap();
    let source = format!("file://{}", link.display());
    let model = fetch(
        settings(),
        &source,
        Some(Digest::of(b"weights")),
        "/nonexistent".as_ref(),
    )
    .await
    .unwrap();
    assert_eq!((model.files, model.directory.as_path()), (vec![link], directory.path()));
    let unhashed = fetch(settings(), &source, None, "/nonexistent".as_ref()).await.unwrap();
    assert_eq!(
        (unhashed.resolved.digest.as_str(), unhashed.resolved.size_bytes),
        ("", 7)
    );
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("llama")).unwrap();
    let source = |name: &str| format!("file://{}{name}", directory.path().display());
    let error = fetch(settings(), &source("/missing.gguf"), None, "/nonexistent".as_ref())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), FailureReason::ModelNotFound);
    assert!(error.to_string().contains("missing.gguf"), "{error}");
    let error = resolve(settings(), &source(""), None).await.unwrap_err();
    assert_eq!(error.reason(), FailureReason::ModelNotFound);
    assert!(
        error
            .to_string()
            .ends_with("or give the path of one of its folders: llama"),
        "{error}"
    );
    let error = resolve(settings(), "file:///mnt/model/a/m.gguf", None)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("\"a/m.gguf\" in the volume of the claim"),
        "{error}"
    );
}
