//! Disks that are too small.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use perennial_loader::{Digest, FailureReason};

use crate::support::{Reply, Server, content, fetch, files_below, settings};

mod support;

/// A file system of 8 MiB, gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this process may not mount one.
    fn mount(directory: &Path) -> Option<Self> {
        let arguments = ["-t", "tmpfs", "-o", "size=8m", "perennial-test"];
        let status = Command::new("mount").args(arguments).arg(directory).status();
        status
            .is_ok_and(|status| status.success())
            .then(|| Self(directory.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[tokio::test]
async fn a_full_disk_is_told_before_and_during_a_download() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(directory.path()) else {
        println!("skipped: mounting a small tmpfs needs root");
        return;
    };
    let file = content(12 << 20);
    let digest = Digest::of(&file);
    let server = Server::start(move |seen| match seen.path.as_str() {
        "/told.gguf" => Reply::file(&file, seen),
        _ => Reply {
            chunked: true,
            ..Reply::ok(file.clone())
        },
    })
    .await;
    let error = fetch(settings(), &server.url("/told.gguf"), Some(digest), &disk.0)
        .await
        .unwrap_err();
    assert_eq!(error.reason(), FailureReason::NoSpaceLeft, "{error}");
    assert!(
        error
            .to_string()
            .contains("12.0 MiB more are needed, and 8.0 MiB are free"),
        "{error}"
    );
    assert!(server.bytes("told.gguf") <= 64 << 10, "found out by the first answer");
    let error = fetch(settings(), &server.url("/untold.gguf"), Some(digest), &disk.0)
        .await
        .unwrap_err();
    assert_eq!(error.reason(), FailureReason::NoSpaceLeft, "{error}");
    assert!(error.to_string().contains("filled up"), "{error}");
    assert!(
        files_below(&disk.0).keys().all(|path| !path.contains("/files/")),
        "nothing partial is served"
    );
}
