//! One file from a web server, under everything that web servers and networks do.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use perennial_loader::{Digest, FailureReason, Loader, LoadingStage, Progress, Settings};
use tokio::sync::{Barrier, Notify};
use tokio_util::sync::CancellationToken;

use crate::support::{Reply, Server, content, fetch, files_below, request, resolve, settings};

mod support;

const SIZE: usize = 600_000;

#[tokio::test]
async fn a_file_arrives_in_parallel_ranges_and_is_not_downloaded_twice() {
    let file = content(SIZE);
    let digest = Digest::of(&file);
    let barrier = Arc::new(Barrier::new(3));
    let server = Server::start(move |seen| {
        let reply = Reply::file(&file, seen);
        // The first range tells the size; the next three must come together.
        if (1..4).contains(&seen.before) {
            Reply {
                barrier: Some(Arc::clone(&barrier)),
                ..reply
            }
        } else {
            reply
        }
    })
    .await;
    let scratch = tempfile::tempdir().unwrap();
    let (url, progress) = (server.url("/m.gguf?signature=s3cret"), Progress::new());
    let wanted = request(&url, Some(digest), scratch.path());
    let loader = Loader::new(settings());
    let model = loader
        .fetch(&wanted, &progress, &CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(model.files, [model.directory.join("m.gguf")]);
    assert_eq!(std::fs::read(&model.files[0]).unwrap(), content(SIZE));
    assert_eq!(
        (model.resolved.digest.as_str(), model.resolved.size_bytes),
        (digest.to_string().as_str(), SIZE as u64)
    );
    assert_eq!(server.bytes("m.gguf"), SIZE);
    assert_eq!(server.requests().len(), SIZE.div_ceil(64 << 10));
    let snapshot = progress.snapshot();
    assert_eq!(
        (snapshot.downloaded_bytes, snapshot.total_bytes),
        (SIZE as u64, Some(SIZE as u64))
    );
    assert_eq!(snapshot.stage, LoadingStage::Verifying);
    server.forget();
    assert_eq!(
        fetch(settings(), &url, Some(digest), scratch.path()).await.unwrap(),
        model
    );
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn broken_connections_continue_where_they_broke() {
    let file = content(SIZE);
    let digest = Digest::of(&file);
    let server = Server::start(move |seen| {
        let reply = Reply::file(&file, seen);
        if seen.before % 2 == 0 { reply.cut(1000) } else { reply }
    })
    .await;
    let scratch = tempfile::tempdir().unwrap();
    fetch(settings(), &server.url("/m.gguf"), Some(digest), scratch.path())
        .await
        .unwrap();
    assert_eq!(server.bytes("m.gguf"), SIZE, "no byte twice");
}

#[tokio::test]
async fn a_restarted_container_continues() {
    let file = content(SIZE);
    let digest = Digest::of(&file);
    let broken = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&broken);
    let server = Server::start(move |seen| match seen.range() {
        Some((first, _)) if first >= 200_000 && state.load(Ordering::SeqCst) => Reply::status(503),
        _ => Reply::file(&file, seen),
    })
    .await;
    let (scratch, url) = (tempfile::tempdir().unwrap(), server.url("/m.gguf"));
    // One after the other: what a range has got and not yet written when another gives up is fetched again.
    let one_by_one = Settings {
        connections: 1,
        ..settings()
    };
    let error = fetch(one_by_one, &url, Some(digest), scratch.path()).await.unwrap_err();
    assert_eq!(error.reason(), FailureReason::SourceUnreachable, "{error}");
    assert!(
        error
            .to_string()
            .contains("503 Service Unavailable (given up after 4 attempts"),
        "{error}"
    );
    let first = server.bytes("m.gguf");
    assert!(first >= 64 << 10);
    broken.store(false, Ordering::SeqCst);
    fetch(settings(), &url, Some(digest), scratch.path()).await.unwrap();
    assert_eq!(server.bytes("m.gguf"), SIZE);
    // Without a digest the ETag says whether the parts belong together.
    assert!(first < SIZE);
}

#[tokio::test]
async fn a_server_without_ranges_is_read_from_the_front() {
    let file = content(SIZE);
    let digest = Digest::of(&file);
    let server = Server::start(move |seen| {
        let reply = Reply::ok(file.clone());
        if seen.before < 2 { reply.cut(SIZE / 2) } else { reply }
    })
    .await;
    let scratch = tempfile::tempdir().unwrap();
    let model = fetch(settings(), &server.url("/m.gguf"), Some(digest), scratch.path())
        .await
        .unwrap();
    assert_eq!(std::fs::read(&model.files[0]).unwrap(), content(SIZE));
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_server_that_always_breaks_off_is_given_up() {
    let server = Server::start(move |_| Reply::ok(content(SIZE)).cut(1000)).await;
    let scratch = tempfile::tempdir().unwrap();
    let error = fetch(settings(), &server.url("/m.gguf"), None, scratch.path())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), FailureReason::SourceUnreachable, "{error}");
    assert!(error.to_string().contains("given up after 4 attempts"), "{error}");
    let nothing = files_below(scratch.path())
        .into_keys()
        .all(|path| !path.contains("/files/"));
    assert!(nothing, "nothing partial is served");
}

#[tokio::test]
async fn answers_become_reasons() {
    for (status, reason, requests) in [
        (401, FailureReason::Unauthorized, 1),
        (403, FailureReason::Unauthorized, 1),
        (404, FailureReason::ModelNotFound, 1),
        (410, FailureReason::ModelNotFound, 1),
        (400, FailureReason::SourceUnreachable, 1),
        (429, FailureReason::SourceUnreachable, 4),
        (500, FailureReason::SourceUnreachable, 4),
        (502, FailureReason::SourceUnreachable, 4),
    ] {
        let server = Server::start(move |_| Reply::status(status).with("retry-after", "1")).await;
        let scratch = tempfile::tempdir().unwrap();
        let url = server.url("/m.gguf?token=s3cret");
        let error = fetch(settings(), &url, Some(Digest::of(b"")), scratch.path())
            .await
            .unwrap_err();
        assert_eq!(
            (error.reason(), server.requests().len()),
            (reason, requests),
            "{status}: {error}"
        );
        assert!(error.to_string().contains(&server.url("/m.gguf")), "{error}");
        assert_eq!(
            resolve(settings(), &url, None).await.unwrap_err().reason(),
            reason,
            "{status}"
        );
    }
    let scratch = tempfile::tempdir().unwrap();
    let error = fetch(settings(), "http://127.0.0.1:1/m.gguf", None, scratch.path())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), FailureReason::SourceUnreachable, "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn wrong_bytes_are_removed_and_never_served() {
    let server = Server::start(move |seen| Reply::file(&content(SIZE), seen)).await;
    let (scratch, url) = (tempfile::tempdir().unwrap(), server.url("/m.gguf"));
    let wanted = Digest::of(b"other");
    for _ in 0..2 {
        let error = fetch(settings(), &url, Some(wanted), scratch.path()).await.unwrap_err();
        assert_eq!(error.reason(), FailureReason::DigestMismatch, "{error}");
        let message = error.to_string();
        assert!(message.contains(&wanted.to_string()) && message.contains(&Digest::of(&content(SIZE)).to_string()));
        assert!(files_below(scratch.path()).values().all(|bytes| bytes.len() < 1000));
    }
    let error = resolve(settings(), &url, Some(wanted)).await.unwrap_err();
    assert_eq!(error.reason(), FailureReason::DigestMismatch);
}

#[tokio::test]
async fn damaged_parts_of_an_earlier_start_are_downloaded_again() {
    let file = content(SIZE);
    let digest = Digest::of(&file);
    let broken = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&broken);
    let server = Server::start(move |seen| match seen.range() {
        Some((first, _)) if first >= 200_000 && state.load(Ordering::SeqCst) => Reply::status(404),
        _ => Reply::file(&file, seen),
    })
    .await;
    let (scratch, url) = (tempfile::tempdir().unwrap(), server.url("/m.gguf"));
    fetch(settings(), &url, Some(digest), scratch.path()).await.unwrap_err();
    let parts = files_below(scratch.path());
    let part = parts.keys().find(|path| path.ends_with(".part")).unwrap();
    let mut bytes = parts[part].clone();
    bytes[10] ^= 1;
    std::fs::write(scratch.path().join(part), bytes).unwrap();
    broken.store(false, Ordering::SeqCst);
    let model = fetch(settings(), &url, Some(digest), scratch.path()).await.unwrap();
    assert_eq!(std::fs::read(&model.files[0]).unwrap(), content(SIZE));
}

#[tokio::test]
async fn a_file_that_changes_meanwhile_is_never_mixed() {
    let (old, new) = (content(SIZE), content(SIZE + 7).split_off(7));
    let digest = Digest::of(&new);
    // No digest is given: only the ETag can tell.
    let server = Server::start(move |seen| {
        let (file, tag) = if seen.before < 4 {
            (&old, "\"old\"")
        } else {
            (&new, "\"new\"")
        };
        Reply::file(file, seen).with("etag", tag)
    })
    .await;
    let scratch = tempfile::tempdir().unwrap();
    let model = fetch(settings(), &server.url("/m.gguf"), None, scratch.path())
        .await
        .unwrap();
    assert_eq!(model.resolved.digest, digest.to_string());
    assert_eq!(Digest::of(&std::fs::read(&model.files[0]).unwrap()), digest);
}

#[tokio::test]
async fn without_a_digest_the_etag_saves_the_download() {
    let changed = Arc::new(AtomicBool::new(false));
    let state = Arc::clone(&changed);
    let server = Server::start(move |seen| {
        let (length, tag) = if state.load(Ordering::SeqCst) {
            (SIZE - 1, "\"b\"")
        } else {
            (SIZE, "\"a\"")
        };
        Reply::file(&content(length), seen).with("etag", tag)
    })
    .await;
    let (scratch, url) = (tempfile::tempdir().unwrap(), server.url("/m.gguf"));
    let first = fetch(settings(), &url, None, scratch.path()).await.unwrap();
    server.forget();
    assert_eq!(fetch(settings(), &url, None, scratch.path()).await.unwrap(), first);
    assert_eq!(server.bytes("m.gguf"), 1);
    changed.store(true, Ordering::SeqCst);
    let second = fetch(settings(), &url, None, scratch.path()).await.unwrap();
    assert_eq!(second.resolved.digest, Digest::of(&content(SIZE - 1)).to_string());
}

#[tokio::test]
async fn resolve_reads_on_where_it_broke_off() {
    let server = Server::start(move |seen| {
        let reply = Reply::file(&content(SIZE), seen).with("etag", "\"a\"");
        if seen.before < 3 { reply.cut(100_000) } else { reply }
    })
    .await;
    let url = server.url("/m.gguf");
    let resolved = resolve(settings(), &url, None).await.unwrap();
    assert_eq!(resolved.digest, Digest::of(&content(SIZE)).to_string());
    assert_eq!(
        (resolved.uri, resolved.size_bytes, resolved.files),
        (url, SIZE as u64, 1)
    );
    assert_eq!(server.bytes("m.gguf"), SIZE);
}

#[tokio::test]
async fn an_empty_file_and_a_body_of_unknown_length() {
    let server = Server::start(|seen| match seen.path.as_str() {
        "/empty.gguf" => Reply::file(b"", seen),
        _ => Reply {
            chunked: true,
            ..Reply::ok(content(SIZE))
        },
    })
    .await;
    let scratch = tempfile::tempdir().unwrap();
    let empty = fetch(
        settings(),
        &server.url("/empty.gguf"),
        Some(Digest::of(b"")),
        scratch.path(),
    )
    .await
    .unwrap();
    assert_eq!(empty.resolved.size_bytes, 0);
    let chunked = fetch(settings(), &server.url("/m.gguf"), None, scratch.path())
        .await
        .unwrap();
    assert_eq!(std::fs::read(&chunked.files[0]).unwrap(), content(SIZE));
}

#[tokio::test]
async fn redirects_are_followed_but_not_for_ever() {
    let target = Server::start(|seen| Reply::file(&content(SIZE), seen)).await;
    let to = target.url("/storage/m");
    let server = Server::start(move |seen| match seen.path.as_str() {
        "/m.gguf" => Reply::redirect("/second.gguf".to_owned()),
        "/second.gguf" => Reply::redirect(to.clone()),
        _ => Reply::redirect("/loop.gguf".to_owned()),
    })
    .await;
    let scratch = tempfile::tempdir().unwrap();
    let model = fetch(settings(), &server.url("/m.gguf"), None, scratch.path())
        .await
        .unwrap();
    assert_eq!(model.files, [model.directory.join("m.gguf")]);
    let error = fetch(settings(), &server.url("/loop.gguf"), None, scratch.path())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("redirects more than 10 times"), "{error}");
}

#[tokio::test]
async fn stopping_stops_and_keeps_what_is_there() {
    let reached = Arc::new(Notify::new());
    let (notify, silent) = (Arc::clone(&reached), Arc::new(AtomicBool::new(true)));
    let state = Arc::clone(&silent);
    let server = Server::start(move |seen| {
        let reply = Reply::file(&content(SIZE), seen);
        if seen.range().is_some_and(|(first, _)| first >= 400_000) && state.load(Ordering::SeqCst) {
            notify.notify_one();
            // Never complete: two are waited for, and one connection at a time asks.
            return Reply {
                barrier: Some(Arc::new(Barrier::new(2))),
                ..reply
            };
        }
        reply
    })
    .await;
    let (scratch, url, cancel) = (
        tempfile::tempdir().unwrap(),
        server.url("/m.gguf"),
        CancellationToken::new(),
    );
    let digest = Digest::of(&content(SIZE));
    let (wanted, progress) = (request(&url, Some(digest), scratch.path()), Progress::new());
    let one_connection = perennial_loader::Settings {
        connections: 1,
        ..settings()
    };
    let loader = Loader::new(one_connection.clone());
    let stop = async {
        reached.notified().await;
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(loader.fetch(&wanted, &progress, &cancel), stop);
    assert!(matches!(result, Err(perennial_loader::LoadError::Cancelled)));
    silent.store(false, Ordering::SeqCst);
    server.forget();
    fetch(one_connection, &url, Some(digest), scratch.path()).await.unwrap();
    let ranges_before = 400_000_usize.div_ceil(64 << 10);
    assert_eq!(server.bytes("m.gguf"), SIZE - (ranges_before << 16));
}
