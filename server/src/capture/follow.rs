//! Follows the terms in the pod's annotation, which the kubelet writes as a file into the pod.
//!
//! The file is read again and again: it is small, and the kubelet replaces it by renaming a directory, which watches of files
//! miss.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use super::recorder::Capture;
use super::rules::Rules;

/// How often the file is read.
pub const EVERY: Duration = Duration::from_secs(1);
/// More than all annotations of an object can be together, bytes.
const LARGEST: u64 = 1 << 20;

/// What was there when it was looked at.
#[derive(PartialEq, Eq)]
enum Found {
    Nothing,
    Terms(Vec<u8>),
    Unreadable(ErrorKind),
}

/// Follows a file of terms.
pub struct Follower {
    path: PathBuf,
    every: Duration,
    last: Option<Found>,
}

impl Follower {
    /// Will follow this file, looking at it `every` so often.
    #[must_use]
    pub fn new(path: PathBuf, every: Duration) -> Self {
        Self {
            path,
            every,
            last: None,
        }
    }

    /// Looks at the file once, and puts into force what is new in it. What is not understood changes nothing.
    pub async fn look(&mut self, capture: &Capture) {
        let found = self.read().await;
        if self.last.as_ref() == Some(&found) {
            return;
        }
        match &found {
            Found::Nothing => put_into_force(capture, Rules::default()),
            Found::Terms(terms) => match Rules::parse(terms) {
                Ok(rules) => put_into_force(capture, rules),
                Err(error) => {
                    capture.refused();
                    tracing::warn!(%error, "the terms of capture are refused; those before stay in force");
                }
            },
            Found::Unreadable(kind) => {
                capture.refused();
                tracing::warn!(%kind, "the terms of capture cannot be read; those before stay in force");
            }
        }
        self.last = Some(found);
    }

    async fn read(&self) -> Found {
        let mut terms = Vec::new();
        let read = async {
            let file = tokio::fs::File::open(&self.path).await?;
            file.take(LARGEST).read_to_end(&mut terms).await
        };
        match read.await {
            Ok(_) => Found::Terms(terms),
            Err(error) if error.kind() == ErrorKind::NotFound => Found::Nothing,
            Err(error) => Found::Unreadable(error.kind()),
        }
    }

    /// Follows the file until `stop`.
    pub async fn follow(mut self, capture: &Capture, stop: &CancellationToken) {
        loop {
            self.look(capture).await;
            tokio::select! {
                () = tokio::time::sleep(self.every) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

fn put_into_force(capture: &Capture, rules: Rules) {
    let level = rules.level();
    if level != capture.level() {
        tracing::info!(?level, "what is kept of requests has changed");
    }
    capture.apply(rules);
}

#[cfg(test)]
mod tests {
    use perennial_crds::capture::Level;

    use super::*;
    use crate::metrics::Metrics;

    const PAYLOAD: &str =
        r#"{"level": "Payload", "samplePerMille": 500, "collector": "http://c:9091", "token": "t", "revision": "1"}"#;

    #[tokio::test]
    async fn the_file_decides_and_what_is_wrong_with_it_changes_nothing() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let path = directory.path().join("capture");
        let metrics = Metrics::new("m", false).expect("metrics");
        let capture = Capture::start(metrics.capture.clone(), 1 << 20).expect("a thread");
        let mut follower = Follower::new(path.clone(), EVERY);
        let refused = || metrics.capture.refused_terms.get();
        // What is written, what is then in force, and how often something was refused so far.
        for (content, level, revision, refusals) in [
            (None, Level::Features, None, 0),
            (Some(PAYLOAD.to_owned()), Level::Payload, Some("1"), 0),
            (Some(PAYLOAD.replace("\"1\"", "\"2\"")), Level::Payload, Some("2"), 0),
            (Some("{".to_owned()), Level::Payload, Some("2"), 1),
            (Some(PAYLOAD.replace("500", "5000")), Level::Payload, Some("2"), 2),
            (Some(r#"{"level": "None"}"#.to_owned()), Level::None, None, 2),
            (Some(PAYLOAD.replace("Payload", "Everything")), Level::None, None, 3),
            (Some(String::new()), Level::Features, None, 3),
            (Some(PAYLOAD.to_owned()), Level::Payload, Some("1"), 3),
            (None, Level::Features, None, 3),
        ] {
            match &content {
                Some(content) => std::fs::write(&path, content).expect("written"),
                None => {
                    let _ = std::fs::remove_file(&path);
                }
            }
            // Looking again changes nothing, and tells nobody again.
            for _ in 0..3 {
                follower.look(&capture).await;
            }
            assert_eq!(capture.level(), level, "{content:?}");
            assert_eq!(capture.rules().revision.as_deref(), revision, "{content:?}");
            assert_eq!(refused(), refusals, "{content:?}");
        }
        std::fs::create_dir(&path).expect("a directory");
        follower.look(&capture).await;
        assert_eq!((capture.level(), refused()), (Level::Features, 4), "it cannot be read");
        assert!(
            metrics
                .render(None)
                .contains("\nperennial_capture_level{model_name=\"m\"} 1\n")
        );
    }
}
