//! The Jobs as processes: environment, signals, exit codes, last words.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that fails is a failed test"
)]

mod cycle;
mod tiny;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use candle_core::quantized::GgmlDType;
use cycle::{digest, item, usual_data, write_suite};
use perennial_crds::retrain::{
    EXIT_RETRY, GateResult, MAX_MESSAGE_BYTES, Outcome, PROGRESS_PATH, RetrainResult, TrainingProgress,
};
use perennial_trainer::contract::suites_digest;
use tempfile::TempDir;
use tiny::{Shape, Tiny};

/// `perennial-trainer train` as its Job runs it.
fn train(path: &Path, epochs: u32) -> Command {
    let base = path.join("tiny.gguf");
    let mut command = Command::new(env!("CARGO_BIN_EXE_perennial-trainer"));
    command
        .arg("train")
        .env("RETRAIN_CONTRACT", "retrain/v1")
        .env("RETRAIN_CYCLE_ID", "cycle-1")
        .env("RETRAIN_CAUSE", "InputDrift")
        .env("RETRAIN_BASE_MODEL_URI", format!("file://{}", base.display()))
        .env("RETRAIN_BASE_MODEL_DIGEST", digest(&base))
        .env("RETRAIN_CHAMPION_URI", format!("file://{}", base.display()))
        .env("RETRAIN_DATA_MANIFEST", path.join("data/manifest.json"))
        .env("RETRAIN_OUTPUT_DIR", path.join("output"))
        .env("RETRAIN_OUTPUT_URI", "file:///mnt/model/p/c/output")
        .env("RETRAIN_DEADLINE_SECONDS", "600")
        .env("RETRAIN_SEED", "3")
        .env("RETRAIN_TERMINATION_PATH", path.join("words"))
        .env("PERENNIAL_SCRATCH_DIRECTORY", path.join("scratch"))
        .env("PERENNIAL_TRAIN_EPOCHS", epochs.to_string())
        .env("PERENNIAL_TRAIN_PATIENCE", "100000")
        .env("PERENNIAL_TRAIN_LEARNING_RATE", "0.01")
        .env("PERENNIAL_TRAIN_THREADS", "2")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn prepared() -> TempDir {
    let directory = TempDir::new().expect("a directory");
    Tiny::new(Shape::Llama).write_gguf(directory.path(), GgmlDType::F32);
    usual_data(&directory.path().join("data"));
    directory
}

fn progress(path: &Path) -> Option<u64> {
    let text = std::fs::read(path.join("output/progress.json")).ok()?;
    let json: serde_json::Value = serde_json::from_slice(&text).expect("whole JSON at any time");
    (json["stage"] == "Training").then(|| json["step"].as_u64()).flatten()
}

/// Tells the process to stop once it has done more than `steps`; returns its exit code.
fn stop_after(path: &Path, child: &mut Child, steps: u64) -> Option<i32> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while progress(path).is_none_or(|step| step <= steps) {
        assert!(Instant::now() < deadline, "no step");
        assert!(child.try_wait().expect("a state").is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(5));
    }
    let told = Command::new("kill").arg(child.id().to_string()).status().expect("kill");
    assert!(told.success());
    child.wait().expect("an end").code()
}

fn words<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    let text = std::fs::read(path.join("words")).expect("last words");
    assert!(text.len() < MAX_MESSAGE_BYTES);
    serde_json::from_slice(&text).expect("JSON")
}

#[test]
fn a_pod_that_is_told_to_stop_leaves_a_checkpoint_and_the_next_goes_on() {
    let directory = prepared();
    let path = directory.path();
    let mut child = train(path, 1000).spawn().expect("a process");
    assert_eq!(stop_after(path, &mut child, 0), Some(EXIT_RETRY));
    assert_eq!(words::<RetrainResult>(path).outcome, Outcome::Retryable);
    assert!(path.join("output/checkpoint.safetensors").exists());
    let reached = progress(path).expect("steps");
    let mut child = train(path, 1000).spawn().expect("a process");
    assert_eq!(stop_after(path, &mut child, reached), Some(EXIT_RETRY));
}

/// What a process answers on this port.
fn told(port: u16) -> Option<TrainingProgress> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    let request = format!("GET {PROGRESS_PATH} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok()
}

#[test]
fn whoever_asks_is_told_how_far_training_is() {
    let directory = prepared();
    let path = directory.path();
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|free| free.local_addr())
        .expect("a port");
    let mut child = train(path, 1000)
        .env("RETRAIN_PROGRESS_PORT", free.port().to_string())
        .spawn()
        .expect("a process");
    let deadline = Instant::now() + Duration::from_secs(60);
    let progress = loop {
        assert!(Instant::now() < deadline, "it does not tell");
        match told(free.port()) {
            Some(progress) if progress.step > 0 => break progress,
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    assert!(
        progress.total_steps > progress.step && progress.loss.is_some(),
        "{progress:?}"
    );
    assert!(progress.remaining_seconds.is_some(), "{progress:?}");
    // A port that is taken does not keep anybody from training.
    let taken = train(path, 1000)
        .env("RETRAIN_PROGRESS_PORT", free.port().to_string())
        .env("RETRAIN_OUTPUT_DIR", path.join("second"))
        .spawn();
    let mut taken = taken.expect("a process");
    while !path.join("second/progress.json").exists() {
        assert!(
            Instant::now() < deadline && taken.try_wait().expect("a state").is_none(),
            "it does not train"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    for child in [&mut child, &mut taken] {
        child.kill().expect("it runs");
        child.wait().expect("an end");
    }
}

#[test]
fn both_jobs_decide_and_say_so() {
    let directory = prepared();
    let path = directory.path();
    let status = train(path, 4).status().expect("a process");
    assert_eq!(status.code(), Some(0));
    let trained: RetrainResult = words(path);
    assert_eq!(trained.outcome, Outcome::Succeeded, "{trained:?}");
    let suites = path.join("suites");
    write_suite(&suites, "recent", &[item(0), item(1)]);
    let (champion, candidate) = (path.join("tiny.gguf"), path.join("output/model.gguf"));
    let judged = Command::new(env!("CARGO_BIN_EXE_perennial-trainer"))
        .arg("evaluate")
        .env("GATE_CONTRACT", "gate/v1")
        .env("GATE_CYCLE_ID", "cycle-1")
        .env("GATE_CHAMPION_URI", format!("file://{}", champion.display()))
        .env("GATE_CHAMPION_DIGEST", digest(&champion))
        .env("GATE_CANDIDATE_URI", format!("file://{}", candidate.display()))
        .env("GATE_CANDIDATE_DIGEST", trained.model.expect("a model").digest)
        .env("GATE_SUITES_DIR", &suites)
        .env("GATE_SUITES_DIGEST", suites_digest(&suites).expect("a digest"))
        .env("GATE_OUTPUT_DIR", path.join("scores"))
        .env("GATE_DEADLINE_SECONDS", "600")
        .env("GATE_TERMINATION_PATH", path.join("words"))
        .env("PERENNIAL_SCRATCH_DIRECTORY", path.join("scratch"))
        .env("PERENNIAL_EVALUATE_THREADS", "2")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("a process");
    assert_eq!(judged.code(), Some(0));
    let judged: GateResult = words(path);
    assert_eq!(judged.outcome, Outcome::Succeeded, "{judged:?}");
    assert!(
        judged.suites[0].items == 2 && judged.suites[0].difference_mean > 0.0,
        "{judged:?}"
    );
    assert!(path.join("scores/scores.jsonl").exists());
}

#[test]
fn failures_say_in_a_sentence_what_to_do_and_whether_to_try_again() {
    let directory = prepared();
    let path = directory.path();
    let failed = train(path, 4)
        .env("PERENNIAL_MEMORY", "10Mi")
        .status()
        .expect("a process");
    assert_eq!(failed.code(), Some(1));
    let said = std::fs::read_to_string(path.join("words")).expect("last words");
    assert!(said.contains("raise the limit"), "{said}");
    let missing = train(path, 4)
        .env("RETRAIN_DATA_MANIFEST", path.join("none.json"))
        .status();
    assert_eq!(missing.expect("a process").code(), Some(EXIT_RETRY));
    assert_eq!(words::<RetrainResult>(path).outcome, Outcome::Retryable);
}
