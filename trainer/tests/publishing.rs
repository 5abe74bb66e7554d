//! Trained models in a registry: pushed, tagged, and found again.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that fails is a failed test"
)]

mod cycle;
#[path = "../../loader/tests/support/pushed.rs"]
mod pushed;
mod tiny;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use candle_core::DType;
use candle_core::quantized::GgmlDType;
use clap::Parser;
use cycle::{digest, train, train_arguments, usual_data};
use perennial_crds::publish::{LINEAGE_ANNOTATION, MAX_LINEAGE_BYTES, PublishResult, RestoreResult};
use perennial_crds::retrain::{MAX_MESSAGE_BYTES, Outcome};
use perennial_loader::{Loader, ModelFile, PushRequest, PushedModel, Repository, RetryPolicy, Settings, TagRequest};
use perennial_trainer::publish::{self, PublishError};
use perennial_trainer::train::{Arguments, TrainError, execute};
use perennial_trainer::verify;
use pushed::{Registry, refusal};
use serde_json::json;
use tempfile::TempDir;
use tiny::{Shape, Tiny};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const SHORT: &str = "--learning-rate 0.01 --epochs 4 --step-rows 6 --rank 4";

/// A tiny model, data, and what a Job is told that trains it and pushes to this registry.
struct Prepared {
    directory: TempDir,
    base: PathBuf,
    arguments: Arguments,
}

fn prepared(registry: &Registry, hub: bool) -> Prepared {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path();
    let base = path.join("base");
    let base = if hub {
        Tiny::new(Shape::Qwen3).write_safetensors(&base, DType::F32);
        base
    } else {
        Tiny::new(Shape::Llama).write_gguf(&base, GgmlDType::F32)
    };
    let manifest = usual_data(&path.join("data"));
    let mut arguments = train_arguments(&base, &manifest, &path.join("output"), SHORT);
    arguments.output_uri = registry.repository();
    Prepared {
        directory,
        base,
        arguments,
    }
}

#[derive(Debug, Parser)]
struct VerifyLine {
    #[command(flatten)]
    arguments: verify::Arguments,
}

#[test]
fn a_trained_model_is_pushed_and_is_what_it_claims_to_be() {
    let runtime = Runtime::new().expect("a runtime");
    for hub in [false, true] {
        let registry = runtime.block_on(Registry::start());
        let prepared = prepared(&registry, hub);
        let result = train(&prepared.arguments);
        assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
        let model = result.model.clone().expect("a model");
        assert_eq!(model.uri, format!("{}@{}", registry.repository(), model.digest));
        let (manifest, tagged) = registry.tagged("cycle-cycle-1");
        assert_eq!(tagged, model.digest);
        let said = &manifest["annotations"];
        assert_eq!(said["dev.perennial.cycle-id"], "cycle-1");
        assert_eq!(said["dev.perennial.base-digest"], digest(&prepared.base));
        let data = result.data.as_ref().expect("data");
        assert_eq!(said["dev.perennial.data-manifest-digest"], data.manifest_digest);
        let titles: Vec<&str> = manifest["layers"]
            .as_array()
            .expect("layers")
            .iter()
            .map(|layer| {
                layer["annotations"]["org.opencontainers.image.title"]
                    .as_str()
                    .expect("a title")
            })
            .collect();
        let expected: &[&str] = match hub {
            true => &[
                "config.json",
                "model.safetensors",
                "tokenizer.json",
                "tokenizer_config.json",
            ],
            false => &["model.gguf"],
        };
        assert_eq!(titles, expected);
        let line = format!(
            "verify --uri {} --digest {} --base-digest {base} --claimed-base-digest {base} --max-bytes 10000000 --directory {}",
            model.uri,
            model.digest,
            prepared.directory.path().join("scratch").display(),
            base = model.base_digest,
        );
        let line = VerifyLine::try_parse_from(line.split_whitespace()).expect("arguments");
        let verified = runtime.block_on(verify::execute(&line.arguments, &CancellationToken::new()));
        assert_eq!(verified.expect("it is right").digest, Some(model.digest));
        // A pod that comes once more does nothing again.
        registry.forget();
        let again = execute(&prepared.arguments, &CancellationToken::new(), &|_| panic!("no step"));
        assert_eq!(again.expect("a decision"), result);
        assert_eq!((registry.count("PUT", ""), registry.count("POST", "")), (0, 0));
        let record = std::fs::read_to_string(prepared.arguments.output_dir.join("result.json")).expect("a record");
        assert!(record.contains(&model.uri), "{record}");
    }
}

#[test]
fn when_the_push_fails_only_that_is_done_again() {
    let runtime = Runtime::new().expect("a runtime");
    let (denied, stopped) = (Arc::new(AtomicBool::new(true)), CancellationToken::new());
    let (refuses, stops) = (Arc::clone(&denied), stopped.clone());
    let registry = runtime.block_on(Registry::meddled(move |asked| {
        if !asked.is("POST", "") || !refuses.load(Ordering::SeqCst) {
            return None;
        }
        if asked.before == 0 {
            // The pod is stopped while it waits for a registry that is away.
            stops.cancel();
            return refusal(503, "UNAVAILABLE", "");
        }
        refusal(403, "DENIED", "no")
    }));
    let prepared = prepared(&registry, false);
    let never = &|_| false;
    let away = execute(&prepared.arguments, &stopped, never).expect_err("stopped");
    assert!(away.is_retryable(), "{away}");
    let nothing_learned = &|_| panic!("no step");
    let refused = execute(&prepared.arguments, &CancellationToken::new(), nothing_learned).expect_err("denied");
    assert!(
        matches!(refused, TrainError::Load(_)) && !refused.is_retryable(),
        "{refused}"
    );
    assert!(refused.to_string().contains("pushSecretRef"), "{refused}");
    denied.store(false, Ordering::SeqCst);
    let result = execute(&prepared.arguments, &CancellationToken::new(), nothing_learned).expect("a decision");
    assert_eq!(result.outcome, Outcome::Succeeded);
    assert_eq!(
        registry.tagged("cycle-cycle-1").1,
        result.model.expect("a model").digest
    );
}

#[test]
fn where_nothing_can_be_pushed_is_said_before_training() {
    let runtime = Runtime::new().expect("a runtime");
    let registry = runtime.block_on(Registry::start());
    let prepared = prepared(&registry, false);
    for (uri, cycle) in [
        ("oci://registry.example.com/a:v1", "cycle-1"),
        ("oci://registry.example.com", "cycle-1"),
        ("oci://registry.example.com/a", "no tag"),
    ] {
        let mut arguments = prepared.arguments.clone();
        (arguments.output_uri, arguments.cycle_id) = (uri.to_owned(), cycle.to_owned());
        let error = execute(&arguments, &CancellationToken::new(), &|_| panic!("no step")).expect_err("refused");
        assert!(error.to_string().contains("RETRAIN_OUTPUT_URI"), "{error}");
    }
}

/// A loader that tries twice without waiting.
fn loader() -> Loader {
    Loader::new(Settings {
        retry: RetryPolicy {
            attempts: 2,
            first: Duration::ZERO,
            longest: Duration::ZERO,
        },
        registry_auth_directory: "/nonexistent".into(),
        ..Settings::default()
    })
}

fn push(runtime: &Runtime, registry: &Registry, directory: &Path) -> PushedModel {
    let path = directory.join("model.gguf");
    std::fs::write(&path, "weights").expect("written");
    let request = PushRequest {
        repository: Repository::parse(&registry.repository()).expect("a repository"),
        tag: "cycle-1".to_owned(),
        files: vec![ModelFile {
            title: "model.gguf".to_owned(),
            path,
        }],
        annotations: std::collections::BTreeMap::new(),
    };
    let pushed = runtime.block_on(loader().push(&request, &CancellationToken::new()));
    pushed.expect("pushed")
}

/// Runs a Job; returns its exit code and last words.
fn job<T: serde::de::DeserializeOwned>(directory: &Path, command: &str, told: &[(&str, &str)]) -> (Option<i32>, T) {
    let (words, name) = (directory.join("words"), command.to_uppercase());
    let status = Command::new(env!("CARGO_BIN_EXE_perennial-trainer"))
        .arg(command)
        .envs(
            told.iter()
                .map(|(variable, value)| (format!("{name}_{variable}"), value)),
        )
        .env(format!("{name}_TERMINATION_PATH"), &words)
        .output()
        .expect("a process")
        .status;
    let said = std::fs::read(&words).expect("last words");
    assert!(said.len() <= MAX_MESSAGE_BYTES);
    (status.code(), serde_json::from_slice(&said).expect("JSON"))
}

#[test]
fn what_was_published_is_restored() {
    let (runtime, directory) = (Runtime::new().expect("a runtime"), TempDir::new().expect("a directory"));
    let path = directory.path();
    let registry = runtime.block_on(Registry::start());
    let tag = format!("{}:live", registry.repository());
    let (code, none) = job::<RestoreResult>(path, "restore", &[("URI", &tag)]);
    assert_eq!(
        (code, none.outcome, none.digest, none.lineage),
        (Some(0), Outcome::Succeeded, None, None)
    );
    assert!(none.message.contains("nothing was published"), "{}", none.message);
    let model = push(&runtime, &registry, path);
    let lineage = json!({"cycle": "c1", "gate": "g".repeat(2900)});
    let told = [
        ("URI", model.uri.as_str()),
        ("TAG", "live"),
        ("LINEAGE", &lineage.to_string()),
    ];
    let (code, published) = job::<PublishResult>(path, "publish", &told);
    assert_eq!(
        (code, published.outcome),
        (Some(0), Outcome::Succeeded),
        "{published:?}"
    );
    assert_eq!(published.digest, Some(registry.tagged("live").1));
    let again = job::<PublishResult>(path, "publish", &told);
    assert_eq!(again, (Some(0), published));
    let (code, restored) = job::<RestoreResult>(path, "restore", &[("URI", &tag)]);
    assert_eq!((code, restored.outcome), (Some(0), Outcome::Succeeded), "{restored:?}");
    assert_eq!((restored.digest, restored.lineage), (Some(model.digest), Some(lineage)));
}

#[test]
fn what_may_not_be_published_or_restored_is_explained() {
    let (runtime, directory) = (Runtime::new().expect("a runtime"), TempDir::new().expect("a directory"));
    let path = directory.path();
    let registry = runtime.block_on(Registry::meddled(|asked| {
        let secret = asked.is("PUT", "/manifests/secret");
        secret.then(|| refusal(403, "DENIED", "no")).flatten()
    }));
    let model = push(&runtime, &registry, path);
    let gone = format!("{}@sha256:{}", registry.repository(), "0".repeat(64));
    let long = format!(r#"{{"a": "{}"}}"#, "b".repeat(MAX_LINEAGE_BYTES));
    for (uri, tag, lineage, said) in [
        (gone.as_str(), "live", "{}", "was not found"),
        (&model.uri, "secret", "{}", "may push"),
        (&model.uri, "live", "[]", "PUBLISH_LINEAGE"),
        (&model.uri, "live", &long, "3000"),
        (&model.uri, "no tag", "{}", "a tag has"),
        (
            &registry.repository(),
            "live",
            "{}",
            "use oci://HOST/REPOSITORY@sha256:HEX",
        ),
    ] {
        let told = [("URI", uri), ("TAG", tag), ("LINEAGE", lineage)];
        let (code, result) = job::<PublishResult>(path, "publish", &told);
        assert_eq!(
            (code, result.outcome, result.digest),
            (Some(1), Outcome::Untrusted, None),
            "{said}"
        );
        assert!(result.message.contains(said), "{}", result.message);
    }
    // Anybody who may write to the repository may write such tags.
    for (tag, lineage) in [
        ("none", None),
        ("list", Some("[1]")),
        ("long", Some(long.as_str())),
        ("torn", Some("{")),
    ] {
        let request = TagRequest {
            model: model.uri.clone(),
            tag: tag.to_owned(),
            annotations: lineage
                .map(|text| (LINEAGE_ANNOTATION.to_owned(), text.to_owned()))
                .into_iter()
                .collect(),
        };
        let tagged = runtime.block_on(loader().tag(&request, &CancellationToken::new()));
        tagged.expect("a tag");
        let uri = format!("{}:{tag}", registry.repository());
        let (code, result) = job::<RestoreResult>(path, "restore", &[("URI", &uri)]);
        assert_eq!((code, result.outcome), (Some(1), Outcome::Untrusted), "{tag}");
        assert!(
            result.digest.is_none() && result.message.contains(LINEAGE_ANNOTATION),
            "{}",
            result.message
        );
    }
    // The tag is there, but not the model.
    registry
        .content
        .lock()
        .expect("no panic")
        .manifests
        .remove(&format!("team/model@{}", model.digest));
    let uri = format!("{}:none", registry.repository());
    let (code, result) = job::<RestoreResult>(path, "restore", &[("URI", &uri)]);
    assert_eq!((code, result.outcome), (Some(1), Outcome::Untrusted));
    assert!(result.message.contains("it is gone"), "{}", result.message);
}

#[derive(Debug, Parser)]
struct PublishLine {
    #[command(flatten)]
    arguments: publish::Arguments,
}

#[derive(Debug, Parser)]
struct RestoreLine {
    #[command(flatten)]
    arguments: publish::RestoreArguments,
}

#[tokio::test]
async fn a_registry_that_is_away_is_asked_again_later() {
    let registry = Registry::meddled(|_| refusal(503, "UNAVAILABLE", "")).await;
    let (repository, stop) = (registry.repository(), CancellationToken::new());
    let uri = format!("{repository}@sha256:{}", "0".repeat(64));
    let line = PublishLine::try_parse_from(["publish", "--uri", &uri, "--tag", "live", "--lineage", "{}"]);
    let published = publish::publish(&line.expect("arguments").arguments, &loader(), &stop).await;
    assert!(matches!(published, Err(PublishError::Away(_))), "{published:?}");
    let line = RestoreLine::try_parse_from(["restore", "--uri", &format!("{repository}:live")]);
    let restored = publish::restore(&line.expect("arguments").arguments, &loader(), &stop).await;
    assert!(matches!(restored, Err(PublishError::Away(_))), "{restored:?}");
}
