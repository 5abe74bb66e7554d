//! Whether lies about a training run are found, and whether the documentation keeps to the contract.
#![allow(clippy::expect_used, clippy::panic, reason = "a helper that fails is a failed test")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use perennial_crds::retrain::{
    GateResult, Manifest, PrepareResult, RETRAIN_CONTRACT, RetrainResult, SuiteItem, TrainingProgress, TrainingRow,
};
use perennial_trainer::contract::check::{Check, CheckError, State, examine, make, table};
use perennial_trainer::contract::{Sha256Sum, sha256_of_file};
use schemars::JsonSchema;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

fn documents() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

struct Run {
    directory: TempDir,
}

impl Run {
    async fn new() -> Self {
        let run = Self {
            directory: TempDir::new().expect("a directory"),
        };
        let stop = CancellationToken::new();
        let how = make(run.directory.path(), None, &stop).await.expect("a run");
        assert!(how.contains("docker run") && how.contains("/retrain/data:ro"), "{how}");
        run
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn told(&self, file: &str) -> BTreeMap<String, String> {
        let text = fs::read_to_string(self.path(file)).expect("an environment");
        let variables = text.lines().filter_map(|line| line.split_once('='));
        variables
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// A model that was trained, and words that tell the truth about it.
    fn honest(&self) -> Value {
        let model = self.path("output/model");
        fs::create_dir_all(&model).expect("a directory");
        let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 4]);
        fs::write(model.join("model.safetensors"), &bytes).expect("written");
        fs::write(self.path("output/result.json"), "{}").expect("written");
        let (manifest, _) = sha256_of_file(&self.path("data/manifest.json")).expect("a manifest");
        json!({
            "schema": RETRAIN_CONTRACT,
            "outcome": "Succeeded",
            "model": {
                "uri": "file:///mnt/model/model/model.safetensors",
                "digest": format!("sha256:{}", Sha256Sum::of(&bytes)),
                "baseDigest": self.told("env")["RETRAIN_BASE_MODEL_DIGEST"],
                "kind": "Merged",
            },
            "data": {"manifestDigest": format!("sha256:{manifest}")},
            "metrics": {"bestLoss": "0.1"},
            "resultPath": "result.json",
            "message": "done",
        })
    }

    fn say(&self, words: &Value) {
        fs::write(self.path("termination"), words.to_string()).expect("written");
    }

    async fn examine(&self, exit_code: Option<i32>) -> Vec<Check> {
        let stop = CancellationToken::new();
        examine(self.directory.path(), exit_code, &stop).await.expect("a run")
    }

    /// The promises that were not kept.
    async fn broken(&self, exit_code: i32) -> Vec<&'static str> {
        let checks = self.examine(Some(exit_code)).await;
        let broken = checks.iter().filter(|check| check.state == State::Failed);
        broken.map(|check| check.promise).collect()
    }
}

fn with(mut words: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    words.pointer_mut(parent).expect("it is there")[name] = value;
    words
}

fn without(mut words: Value, name: &str) -> Value {
    words.as_object_mut().expect("an object").remove(name);
    words
}

#[tokio::test]
async fn the_truth_passes() {
    let run = Run::new().await;
    run.say(&run.honest());
    let checks = run.examine(Some(0)).await;
    assert!(checks.iter().all(|check| check.state == State::Passed), "{checks:#?}");
    let shown = table(&checks);
    assert!(shown.ends_with("15 passed, 0 failed, 0 not checked\n"), "{shown}");
    let unknown = run.examine(None).await;
    assert_eq!(unknown.iter().filter(|check| check.state == State::Skipped).count(), 1);
}

#[tokio::test]
async fn other_decisions_pass_without_a_model() {
    let run = Run::new().await;
    for (outcome, code) in [("NoImprovement", 0), ("DataRejected", 0), ("Retryable", 75)] {
        run.say(&json!({"schema": RETRAIN_CONTRACT, "outcome": outcome, "message": "no"}));
        assert_eq!(run.broken(code).await, Vec::<&str>::new(), "{outcome}");
        let wrong = if code == 0 { 75 } else { 0 };
        assert_eq!(run.broken(wrong).await, ["the exit code fits the outcome"], "{outcome}");
    }
}

#[tokio::test]
async fn every_lie_is_found() {
    const DATA: &str = "the data that was used is the data that was given";
    const FIELDS: &str = "their fields are those of the contract";
    const BELOW: &str = "it lies below RETRAIN_OUTPUT_URI";
    const FILES: &str = "its files are whole, and none could run code";
    let lies: Vec<(Value, &[&str])> = {
        let run = Run::new().await;
        let honest = run.honest();
        let other = format!("sha256:{}", Sha256Sum::of(b"other"));
        let change = |pointer: &str, value: Value| with(honest.clone(), pointer, value);
        vec![
            (
                change("/schema", json!("retrain/v2")),
                &["they say which contract they keep to"],
            ),
            (
                without(honest.clone(), "schema"),
                &["they say which contract they keep to", FIELDS],
            ),
            (
                change("/outcome", json!("Done")),
                &["their outcome is known", "the exit code fits the outcome", FIELDS],
            ),
            (
                change("/outcome", json!("Untrusted")),
                &["their outcome is known", "the exit code fits the outcome"],
            ),
            (change("/metrics", json!({"bestLoss": 0.1})), &[FIELDS]),
            (without(honest.clone(), "model"), &["a model was made"]),
            (without(honest.clone(), "data"), &[DATA]),
            (change("/data/manifestDigest", json!(other)), &[DATA]),
            (
                change("/model/baseDigest", json!(other)),
                &["it was trained from the model that was given"],
            ),
            (change("/model/kind", json!("Adapter")), &["it can be served"]),
            (
                change("/model/digest", json!(other)),
                &["its digest is that of its bytes"],
            ),
            (change("/model/uri", json!("file:///mnt/model")), &[BELOW]),
            (change("/model/uri", json!("file:///mnt/model/../secret")), &[BELOW]),
            (
                change("/model/uri", json!("file:///elsewhere/model.safetensors")),
                &[BELOW],
            ),
            (change("/model/uri", json!("file:///mnt/model/nothing")), &[FILES]),
            (
                change("/resultPath", json!("nothing.json")),
                &["the full record is there"],
            ),
            (change("/resultPath", json!("../env")), &["the full record is there"]),
            (change("/message", json!("a".repeat(4096))), &["they are not too long"]),
            (
                change(
                    "/message",
                    json!("bad: what  colour is the flag on pier number 3 of\nthe old harbour?"),
                ),
                &["they hold no text of a row"],
            ),
            (
                change("/metrics", json!({"The flag on pier number 3 is dark olive.": "1"})),
                &["they hold no text of a row"],
            ),
        ]
    };
    for (words, expected) in lies {
        let run = Run::new().await;
        run.honest();
        run.say(&words);
        assert_eq!(run.broken(0).await, expected, "{words}");
    }
}

#[tokio::test]
async fn lies_that_are_no_words_are_found_too() {
    let run = Run::new().await;
    let nothing = run.broken(0).await;
    assert!(nothing.contains(&"there are last words") && nothing.contains(&"the exit code fits the outcome"));
    fs::write(run.path("termination"), "Traceback (most recent call last)").expect("written");
    assert!(run.broken(1).await.contains(&"their fields are those of the contract"));

    type Tamper = fn(&Run);
    let files: [(Tamper, &str); 6] = [
        (
            |run| fs::write(run.path("output/model/model.safetensors"), "x").expect("written"),
            "its files are whole, and none could run code",
        ),
        (
            |run| {
                fs::remove_file(run.path("output/model/model.safetensors")).expect("removed");
                symlink(
                    run.path("model/model.safetensors"),
                    run.path("output/model/model.safetensors"),
                )
                .expect("a link");
            },
            "its files are whole, and none could run code",
        ),
        (
            |run| {
                fs::write(run.path("output/model/optimizer.pt"), "x").expect("written");
                let words = with(run.honest(), "/model/uri", json!("file:///mnt/model/model"));
                run.say(&words);
            },
            "its files are whole, and none could run code",
        ),
        (
            |run| {
                fs::copy(
                    run.path("model/model.safetensors"),
                    run.path("output/model/model.safetensors"),
                )
                .map(|_| ())
                .expect("copied")
            },
            "its digest is that of its bytes",
        ),
        (
            |run| fs::write(run.path("data/train.jsonl"), "{}\n").expect("written"),
            "the data is as it was",
        ),
        (
            |run| {
                let text = fs::read_to_string(run.path("data/manifest.json")).expect("a manifest");
                fs::write(run.path("data/manifest.json"), text + "\n").expect("written");
            },
            "the data that was used is the data that was given",
        ),
    ];
    for (tamper, expected) in files {
        let run = Run::new().await;
        run.say(&run.honest());
        tamper(&run);
        assert_eq!(run.broken(0).await, [expected]);
    }
}

#[tokio::test]
async fn a_run_needs_a_directory_of_its_own_and_a_model_may_be_given() {
    let stop = CancellationToken::new();
    let run = Run::new().await;
    let again = make(run.directory.path(), None, &stop).await.expect_err("not empty");
    assert!(again.to_string().contains("not empty"), "{again}");
    let none = TempDir::new().expect("a directory");
    let error = examine(none.path(), None, &stop).await.expect_err("no run");
    assert!(
        matches!(&error, CheckError::Directory(why) if why.contains("--make")),
        "{error}"
    );

    // A model of several files.
    let model = TempDir::new().expect("a directory");
    fs::copy(
        run.path("model/model.safetensors"),
        model.path().join("model.safetensors"),
    )
    .expect("copied");
    fs::write(model.path().join("config.json"), "{}").expect("written");
    let second = TempDir::new().expect("a directory");
    let how = make(second.path(), Some(model.path()), &stop).await.expect("a run");
    assert!(
        how.contains(&format!("-v {}:/mnt/model:ro", model.path().display())),
        "{how}"
    );
    let text = fs::read_to_string(second.path().join("env")).expect("an environment");
    assert!(text.contains("RETRAIN_BASE_MODEL_URI=file:///mnt/model\n"), "{text}");
    let wrong = TempDir::new().expect("a directory");
    let empty = make(&wrong.path().join("run"), Some(none.path()), &stop).await;
    assert!(matches!(empty, Err(CheckError::Model(_))));
}

#[tokio::test]
async fn a_pod_and_a_program_on_this_machine_are_told_the_same_variables() {
    let run = Run::new().await;
    let (pod, here) = (run.told("env"), run.told("env.local"));
    assert_eq!(pod.keys().collect::<Vec<_>>(), here.keys().collect::<Vec<_>>());
    assert_eq!(
        (pod.len(), pod["RETRAIN_DATA_MANIFEST"].as_str()),
        (12, "/retrain/data/manifest.json")
    );
    assert!(Path::new(&here["RETRAIN_DATA_MANIFEST"]).exists());
    assert_eq!(pod["RETRAIN_OUTPUT_URI"], here["RETRAIN_OUTPUT_URI"]);
}

#[tokio::test]
async fn the_example_in_python_keeps_to_the_contract() {
    let run = Run::new().await;
    let trainer = || {
        let mut command = Command::new("python3");
        command
            .arg(documents().join("examples/trainer.py"))
            .envs(run.told("env.local"));
        let ended = command.output().expect("python3");
        (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
    };
    let (code, errors) = trainer();
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let checks = run.examine(code).await;
    assert!(
        checks.iter().all(|check| check.state != State::Failed),
        "{}",
        table(&checks)
    );
    // It says of itself that it learns nothing.
    let notes: Vec<&Check> = checks.iter().filter(|check| check.state == State::Note).collect();
    assert!(notes.len() == 1 && notes[0].said.contains("NoImprovement"), "{notes:?}");
    fs::write(run.path("data/train.jsonl"), "{}\n").expect("written");
    assert_eq!(trainer().0, Some(0));
    let words = fs::read_to_string(run.path("termination")).expect("words");
    assert!(words.contains("DataRejected"), "{words}");
    fs::remove_file(run.path("data/train.jsonl")).expect("removed");
    assert_eq!(trainer().0, Some(75));
    let words = fs::read_to_string(run.path("termination")).expect("words");
    assert!(words.contains("Retryable"), "{words}");
}

/// Outcomes that a contract knows.
const PREPARE: &[&str] = &["Succeeded", "DataRejected", "Retryable"];
const RETRAIN: &[&str] = &["Succeeded", "NoImprovement", "DataRejected", "Retryable"];
const GATE: &[&str] = &["Succeeded", "DataRejected", "Untrusted", "Retryable"];

/// The schema of a type, as it is documented.
fn schema<T: JsonSchema>(file: &str, contract: &str, outcomes: &[&str]) -> Value {
    let mut schema = schemars::schema_for!(T).to_value();
    plain_words(&mut schema);
    schema["$id"] = json!(format!("https://perennial.dev/schemas/{file}.schema.json"));
    if let Some(field) = schema.pointer_mut("/properties/schema") {
        *field = json!({"const": contract, "description": "The contract that this keeps to."});
    }
    if let Some(variants) = schema.pointer_mut("/$defs/Outcome/oneOf").and_then(Value::as_array_mut) {
        variants.retain(|variant| variant["const"].as_str().is_some_and(|word| outcomes.contains(&word)));
        assert_eq!(variants.len(), outcomes.len());
    }
    schema
}

/// Links of the sources mean nothing in a schema.
fn plain_words(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(text)) = fields.get_mut("description") {
                let names = [("[`DATA_DIRECTORY`]", "/retrain/data")];
                for (name, plain) in names {
                    *text = text.replace(name, plain);
                }
            }
            fields.values_mut().for_each(plain_words);
        }
        Value::Array(values) => values.iter_mut().for_each(plain_words),
        _ => {}
    }
}

/// With `PERENNIAL_WRITE_SCHEMAS` set, they are written anew.
#[test]
fn the_schemas_in_the_documentation_are_those_of_the_types() {
    let schemas = [
        ("manifest", schema::<Manifest>("manifest", RETRAIN_CONTRACT, &[])),
        ("training-row", schema::<TrainingRow>("training-row", "", &[])),
        (
            "retrain-result",
            schema::<RetrainResult>("retrain-result", RETRAIN_CONTRACT, RETRAIN),
        ),
        (
            "training-progress",
            schema::<TrainingProgress>("training-progress", "", &[]),
        ),
        ("gate-result", schema::<GateResult>("gate-result", "gate/v1", GATE)),
        ("suite-item", schema::<SuiteItem>("suite-item", "", &[])),
        (
            "prepare-result",
            schema::<PrepareResult>("prepare-result", "prepare/v1", PREPARE),
        ),
    ];
    for (name, schema) in schemas {
        let path = documents().join(format!("reference/schemas/{name}.schema.json"));
        let text = serde_json::to_string_pretty(&schema).expect("JSON") + "\n";
        assert!(!text.contains("[`"), "{text}");
        if std::env::var_os("PERENNIAL_WRITE_SCHEMAS").is_some() {
            fs::write(&path, &text).expect("written");
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            found,
            text,
            "{} is out of date: run this test with PERENNIAL_WRITE_SCHEMAS=1",
            path.display()
        );
    }
}

#[test]
fn every_variable_of_a_job_is_documented() {
    let text = fs::read_to_string(documents().join("reference/contracts.md")).expect("the reference");
    let program = env!("CARGO_BIN_EXE_perennial-trainer");
    let commands = [
        "collect", "prepare", "train", "verify", "evaluate", "probe", "publish", "restore",
    ];
    for command in commands {
        let help = Command::new(program).args([command, "--help"]).output().expect("help");
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        let variables = help
            .split("[env: ")
            .skip(1)
            .filter_map(|rest| rest.split(['=', ']']).next());
        let mut count = 0;
        for variable in variables {
            assert!(
                text.contains(&format!("`{variable}`")),
                "{variable} of {command} is not in contracts.md"
            );
            count += 1;
        }
        assert!(count > 2, "{help}");
    }
}

#[tokio::test]
async fn a_model_in_a_registry_is_named_by_its_digest() {
    let run = Run::new().await;
    let repository = "oci://registry.example.com/models/support";
    let told = fs::read_to_string(run.path("env")).expect("an environment");
    let told = told.replace(
        "RETRAIN_OUTPUT_URI=file:///mnt/model",
        &format!("RETRAIN_OUTPUT_URI={repository}"),
    );
    fs::write(run.path("env"), told).expect("written");
    let digest = format!("sha256:{}", Sha256Sum::of(b"manifest"));
    let honest = with(run.honest(), "/model/digest", json!(digest));
    let pushed = with(honest, "/model/uri", json!(format!("{repository}@{digest}")));
    run.say(&pushed);
    let checks = run.examine(Some(0)).await;
    assert!(
        checks.iter().all(|check| check.state != State::Failed),
        "{}",
        table(&checks)
    );
    assert!(
        table(&checks).contains("registries are not asked"),
        "{}",
        table(&checks)
    );
    let other = format!("sha256:{}", Sha256Sum::of(b"other"));
    for (pointer, wrong) in [
        ("/model/uri", format!("{repository}:cycle-1")),
        ("/model/uri", format!("{repository}@{other}")),
        (
            "/model/uri",
            format!("oci://registry.example.com/models/other@{digest}"),
        ),
        ("/model/uri", "file:///mnt/model/model/model.safetensors".to_owned()),
        ("/model/digest", other.clone()),
        ("/model/digest", "sha256:00".to_owned()),
    ] {
        run.say(&with(pushed.clone(), pointer, json!(wrong)));
        assert_eq!(run.broken(0).await, ["it is pinned in RETRAIN_OUTPUT_URI"], "{wrong}");
    }
}
