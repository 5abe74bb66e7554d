//! Models that are not what they claim to be.
#![allow(clippy::expect_used, clippy::panic, reason = "a helper that fails is a failed test")]

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use clap::Parser;
use perennial_crds::retrain::Outcome;
use perennial_loader::Digest;
use perennial_trainer::verify::{self, VerifyError};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const BASE: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn tensors(value: u8) -> Vec<u8> {
    let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend([value; 8]);
    bytes
}

struct Site {
    directory: TempDir,
}

impl Site {
    /// With a good model of two files in `model`.
    fn new() -> Self {
        let site = Self {
            directory: TempDir::new().expect("a directory"),
        };
        std::fs::create_dir_all(site.path("candidate/model")).expect("a directory");
        std::fs::write(site.path("candidate/model/model.safetensors"), tensors(1)).expect("written");
        std::fs::write(site.path("candidate/model/config.json"), "{}").expect("written");
        site
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn digest(&self) -> String {
        let of = |name: &str| Digest::of(&std::fs::read(self.path("candidate/model").join(name)).expect("a file"));
        let files = ["config.json", "model.safetensors"].map(|name| (name, of(name)));
        perennial_loader::digest_of_files(files).to_string()
    }

    fn arguments(&self) -> verify::Arguments {
        #[derive(Parser)]
        struct Cli {
            #[command(flatten)]
            arguments: verify::Arguments,
        }
        let candidates = self.path("candidate");
        let line = format!(
            "verify --uri file://{0}/model --digest {1} --base-digest {BASE} --claimed-base-digest {BASE} --max-bytes 1000 \
             --candidate-directory {0} --directory {2} --termination-path {3}",
            candidates.display(),
            self.digest(),
            self.path("scratch").display(),
            self.path("words").display(),
        );
        Cli::parse_from(line.split_whitespace()).arguments
    }

    async fn refused(&self, arguments: &verify::Arguments, part: &str) {
        match verify::execute(arguments, &CancellationToken::new()).await {
            Err(VerifyError::Untrusted(problem)) => assert!(problem.contains(part), "{problem}"),
            other => panic!("{part}: {other:?}"),
        }
    }

    /// That the good model is refused after a change.
    async fn bad_after(change: impl FnOnce(&Path), part: &str) {
        let site = Self::new();
        let arguments = site.arguments();
        change(&site.path("candidate/model"));
        site.refused(&arguments, part).await;
    }
}

#[tokio::test]
async fn a_model_that_is_what_it_claims_to_be_is_taken() {
    let site = Site::new();
    let arguments = site.arguments();
    let result = verify::execute(&arguments, &CancellationToken::new())
        .await
        .expect("good");
    assert_eq!(
        (result.outcome, result.digest),
        (Outcome::Succeeded, Some(site.digest()))
    );
    assert_eq!(result.size_bytes, tensors(1).len() as u64 + 2);
    assert_eq!(
        verify::run(arguments, &CancellationToken::new()).await,
        std::process::ExitCode::SUCCESS
    );
    let words = std::fs::read_to_string(site.path("words")).expect("words");
    assert!(
        words.contains(r#""schema":"verify/v1","outcome":"Succeeded""#),
        "{words}"
    );
}

#[tokio::test]
async fn a_single_file_is_a_model_too() {
    let site = Site::new();
    let mut arguments = site.arguments();
    arguments.uri += "/model.safetensors";
    arguments.digest = Digest::of(&tensors(1)).to_string();
    let result = verify::execute(&arguments, &CancellationToken::new())
        .await
        .expect("good");
    assert_eq!(result.digest, Some(arguments.digest));
}

#[tokio::test]
async fn other_bytes_are_found_whatever_else_they_are() {
    Site::bad_after(
        |model| std::fs::write(model.join("model.safetensors"), tensors(2)).expect("written"),
        "have digest",
    )
    .await;
    Site::bad_after(
        |model| std::fs::write(model.join("config.json"), "[]").expect("written"),
        "have digest",
    )
    .await;
    Site::bad_after(
        |model| std::fs::write(model.join("model.safetensors"), &tensors(1)[..69]).expect("written"),
        "ends behind the end",
    )
    .await;
    Site::bad_after(
        |model| std::fs::write(model.join("other.gguf"), "GGML").expect("written"),
        "does not begin with GGUF",
    )
    .await;
    Site::bad_after(
        |model| std::fs::write(model.join("model.safetensors"), "").expect("written"),
        "ends too early",
    )
    .await;
}

#[tokio::test]
async fn nothing_that_could_run_is_taken() {
    for pickle in ["optimizer.pt", "pytorch_model.bin", "a.pkl", "a.ckpt"] {
        Site::bad_after(
            |model| std::fs::write(model.join(pickle), "x").expect("written"),
            "may run code",
        )
        .await;
    }
    Site::bad_after(
        |model| {
            std::fs::create_dir(model.join("deep")).expect("a directory");
            std::fs::write(model.join("deep/a.pth"), "x").expect("written");
        },
        "may run code",
    )
    .await;
    Site::bad_after(
        |model| std::fs::write(model.join("modeling.py"), "x").expect("written"),
        "no file of a model",
    )
    .await;
}

#[tokio::test]
async fn nothing_outside_the_directory_is_read() {
    let outside = TempDir::new().expect("a directory");
    let secret = outside.path().join("secret.json");
    std::fs::write(&secret, "{}").expect("written");
    Site::bad_after(
        |model| symlink(&secret, model.join("tokenizer.json")).expect("a link"),
        "leads out",
    )
    .await;
    Site::bad_after(
        |model| symlink(outside.path(), model.join("more")).expect("a link"),
        "leads out",
    )
    .await;
    Site::bad_after(
        |model| {
            std::fs::remove_dir_all(model).expect("removed");
            symlink(outside.path(), model).expect("a link");
        },
        "leads out",
    )
    .await;
    // Neither is a harmless name for something else.
    Site::bad_after(
        |model| {
            std::fs::write(model.join("../evil.pt"), "x").expect("written");
            symlink("../evil.pt", model.join("tokenizer.json")).expect("a link");
        },
        "may run code",
    )
    .await;
    let site = Site::new();
    let mut arguments = site.arguments();
    arguments.uri = format!("file://{}/candidate/../words", site.directory.path().display());
    site.refused(&arguments, "does not lie below").await;
}

#[tokio::test]
async fn a_link_within_the_directory_is_fine() {
    let site = Site::new();
    let model = site.path("candidate/model");
    std::fs::rename(model.join("config.json"), model.join("../shared.json")).expect("moved");
    symlink("../shared.json", model.join("config.json")).expect("a link");
    let arguments = site.arguments();
    verify::execute(&arguments, &CancellationToken::new())
        .await
        .expect("good");
}

#[tokio::test]
async fn another_base_a_large_model_and_a_missing_one_are_found() {
    let site = Site::new();
    let good = site.arguments();
    let other = verify::Arguments {
        claimed_base_digest: site.digest(),
        ..good.clone()
    };
    site.refused(&other, "train from RETRAIN_BASE_MODEL_URI").await;
    let small = verify::Arguments {
        max_bytes: 10,
        ..good.clone()
    };
    site.refused(&small, "at most 10").await;
    let missing = verify::Arguments {
        uri: good.uri.clone() + "s",
        ..good.clone()
    };
    site.refused(&missing, "there is no models").await;
    let unnamed = verify::Arguments {
        digest: String::new(),
        ..good.clone()
    };
    site.refused(&unnamed, "VERIFY_DIGEST is no digest").await;
    let tag = verify::Arguments {
        uri: "oci://registry.local/a:latest".to_owned(),
        ..good
    };
    site.refused(&tag, "by a tag").await;
}

#[tokio::test]
async fn what_cannot_be_read_is_tried_again() {
    let site = Site::new();
    let mut arguments = site.arguments();
    // Nobody listens there.
    arguments.uri = format!("oci://127.0.0.1:1/a@{BASE}");
    let stop = CancellationToken::new();
    stop.cancel();
    assert_eq!(
        verify::run(arguments.clone(), &stop).await,
        std::process::ExitCode::from(75)
    );
    let words = std::fs::read_to_string(site.path("words")).expect("words");
    assert!(words.contains("\"Retryable\""), "{words}");
    arguments.uri = "file:///elsewhere".to_owned();
    assert_eq!(verify::run(arguments, &stop).await, std::process::ExitCode::FAILURE);
}
