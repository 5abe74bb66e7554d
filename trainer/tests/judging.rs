//! Judging models on the same items.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that fails is a failed test"
)]

mod cycle;
mod tiny;

use std::path::{Path, PathBuf};

use candle_core::DType;
use candle_core::quantized::GgmlDType;
use cycle::{QUICK, answer, evaluate_arguments, item, train, train_arguments, usual_data, write_suite};
use perennial_crds::retrain::{GATE_CONTRACT, GateResult, Outcome, SuiteItem};
use perennial_loader::Digest;
use perennial_trainer::evaluate::{Arguments, Line, execute};
use perennial_trainer::train::TrainError;
use tempfile::TempDir;
use tiny::{Shape, Tiny};
use tokio_util::sync::CancellationToken;

fn judge(arguments: &Arguments) -> GateResult {
    execute(arguments, &CancellationToken::new()).expect("a judgement")
}

fn base(directory: &Path) -> PathBuf {
    Tiny::new(Shape::Llama).write_gguf(directory, GgmlDType::F32)
}

/// An item whose answer the model must make itself.
fn made(number: usize, exact: Option<String>, regex: Option<&str>) -> SuiteItem {
    SuiteItem {
        answer: None,
        exact,
        regex: regex.map(str::to_owned),
        max_tokens: Some(12),
        ..item(number)
    }
}

fn lines(output: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(output.join("scores.jsonl")).expect("scores");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a line"))
        .collect()
}

#[test]
fn a_model_is_exactly_as_good_as_itself() {
    let directory = TempDir::new().expect("a directory");
    let (path, suites) = (directory.path(), directory.path().join("suites"));
    let items: Vec<SuiteItem> = (0..6).map(item).chain([made(0, Some(answer(0)), None)]).collect();
    write_suite(&suites, "recent", &items);
    let base = base(path);
    let result = judge(&evaluate_arguments(&base, &base, &suites, &path.join("output")));
    assert_eq!(
        (result.outcome, result.schema.as_str()),
        (Outcome::Succeeded, GATE_CONTRACT)
    );
    let suite = &result.suites[0];
    assert_eq!((suite.name.as_str(), suite.items), ("recent", 7));
    assert_eq!((suite.difference_mean, suite.difference_squares_mean), (0.0, 0.0));
    assert!(suite.champion_mean > 0.0 && suite.champion_mean < 0.1, "{suite:?}");
}

#[test]
fn a_model_that_learned_is_better_on_what_it_learned() {
    let directory = TempDir::new().expect("a directory");
    let (path, suites) = (directory.path(), directory.path().join("suites"));
    let base = base(path);
    let manifest = usual_data(&path.join("data"));
    let trained = train(&train_arguments(&base, &manifest, &path.join("trained"), QUICK));
    assert_eq!(trained.outcome, Outcome::Succeeded);
    write_suite(&suites, "likely", &(0..5).map(item).collect::<Vec<_>>());
    let said: Vec<SuiteItem> = (0..5)
        .map(|number| made(number, Some(format!(" {}\n", answer(number))), None))
        .chain([
            made(0, None, Some("^(north|east|south|west|up)$")),
            made(1, None, Some("^never$")),
        ])
        .collect();
    write_suite(&suites, "said", &said);
    let candidate = path.join("trained/model.gguf");
    let output = path.join("output");
    let result = judge(&evaluate_arguments(&base, &candidate, &suites, &output));
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    assert_eq!(result.candidate_digest, trained.model.expect("a model").digest);
    let [likely, said] = &result.suites[..] else {
        panic!("{result:?}")
    };
    assert!(
        likely.candidate_mean > 0.8 && likely.difference_mean > 0.7,
        "{likely:?}"
    );
    assert_eq!((said.items, said.champion_mean), (7, 0.0));
    assert!((said.candidate_mean - 6.0 / 7.0).abs() < 1e-12, "{said:?}");
    let lines = lines(&output);
    assert_eq!(lines.len(), 12);
    assert_eq!(
        lines[11],
        Line {
            suite: "said".to_owned(),
            item: 6,
            champion: 0.0,
            candidate: 0.0
        }
    );
    let bytes = std::fs::read(output.join("scores.jsonl")).expect("scores");
    assert_eq!(result.scores_digest, Some(Digest::of(&bytes).to_string()));
    assert!(!String::from_utf8_lossy(&bytes).contains("What is"));
    assert!(serde_json::to_string(&result).expect("JSON").len() < 4096);
}

#[test]
fn an_item_that_is_too_long_counts_for_neither() {
    let directory = TempDir::new().expect("a directory");
    let (path, suites) = (directory.path(), directory.path().join("suites"));
    let base = base(path);
    let long = SuiteItem {
        answer: Some("long ".repeat(100)),
        ..item(1)
    };
    write_suite(
        &suites,
        "a",
        &[item(0), long.clone(), made(2, Some("x".repeat(9)), None)],
    );
    let output = path.join("output");
    let result = judge(&evaluate_arguments(&base, &base, &suites, &output));
    assert_eq!((result.outcome, result.suites[0].items), (Outcome::Succeeded, 2));
    assert!(result.message.starts_with("1 items are left out"), "{}", result.message);
    assert_eq!(lines(&output).iter().map(|line| line.item).collect::<Vec<_>>(), [0, 2]);
    write_suite(&suites, "a", &[long]);
    let none = judge(&evaluate_arguments(&base, &base, &suites, &output));
    assert_eq!((none.outcome, none.suites[0].items), (Outcome::DataRejected, 0));
}

#[test]
fn a_candidate_that_takes_no_chat_gets_nothing_for_what_the_champion_can_do() {
    let directory = TempDir::new().expect("a directory");
    let (path, suites) = (directory.path(), directory.path().join("suites"));
    let (whole, mute) = (path.join("whole"), path.join("mute"));
    for model in [&whole, &mute] {
        Tiny::new(Shape::Llama).write_safetensors(model, DType::F32);
    }
    let text = r#"{"bos_token":"<s>","eos_token":"</s>"}"#;
    std::fs::write(mute.join("tokenizer_config.json"), text).expect("written");
    let plain = |number: usize| SuiteItem {
        messages: Vec::new(),
        prompt: Some(format!("{number} is ")),
        ..item(number)
    };
    write_suite(
        &suites,
        "a",
        &[item(0), plain(1), item(2), made(3, Some(answer(3)), None)],
    );
    let output = path.join("output");
    let result = judge(&evaluate_arguments(&whole, &mute, &suites, &output));
    assert_eq!((result.outcome, result.suites[0].items), (Outcome::Succeeded, 4));
    assert!(result.suites[0].difference_mean < 0.0, "{result:?}");
    assert!(
        result.message.starts_with("3 items count 0 for the candidate"),
        "{}",
        result.message
    );
    let lines = lines(&output);
    for line in &lines {
        // Only the plain prompt is one that it takes, and it is the same model.
        let expected = if line.item == 1 { line.champion } else { 0.0 };
        assert!((line.candidate - expected).abs() < 1e-6, "{line:?}");
    }
    assert!(lines.iter().filter(|line| line.champion > 0.0).count() >= 3);
    // What the model that serves cannot do is no measure.
    let turned = judge(&evaluate_arguments(&mute, &whole, &suites, &output));
    assert_eq!((turned.outcome, turned.suites[0].items), (Outcome::Succeeded, 1));
    assert!(turned.message.starts_with("3 items are left out"), "{}", turned.message);
}

#[test]
fn other_bytes_than_were_named_are_not_judged() {
    let directory = TempDir::new().expect("a directory");
    let (path, suites) = (directory.path(), directory.path().join("suites"));
    let base = base(path);
    write_suite(&suites, "a", &[item(0)]);
    let output = path.join("output");
    let untrusted = |change: &dyn Fn(&mut Arguments)| {
        let mut arguments = evaluate_arguments(&base, &base, &suites, &output);
        change(&mut arguments);
        let result = judge(&arguments);
        assert_eq!((result.outcome, result.suites.len()), (Outcome::Untrusted, 0));
        result.message
    };
    let wrong = format!("sha256:{}", "0".repeat(64));
    assert!(untrusted(&|arguments| arguments.champion_digest = wrong.clone()).starts_with("the champion:"));
    assert!(untrusted(&|arguments| arguments.candidate_digest = wrong.clone()).starts_with("the candidate:"));
    assert!(untrusted(&|arguments| arguments.suites_digest = wrong.clone()).contains("suites have digest"));
    assert!(!output.join("scores.jsonl").exists());
}

#[test]
fn without_items_there_is_nothing_to_judge() {
    let directory = TempDir::new().expect("a directory");
    let (path, suites) = (directory.path(), directory.path().join("suites"));
    let base = base(path);
    write_suite(&suites, "a", &[]);
    let rejected = judge(&evaluate_arguments(&base, &base, &suites, &path.join("output")));
    assert_eq!(rejected.outcome, Outcome::DataRejected);
    let nothing_right = SuiteItem {
        answer: None,
        ..item(0)
    };
    write_suite(&suites, "a", &[nothing_right]);
    let rejected = judge(&evaluate_arguments(&base, &base, &suites, &path.join("output")));
    assert_eq!(rejected.outcome, Outcome::DataRejected);
    assert!(rejected.message.contains("line 1 of suite a"), "{}", rejected.message);
}

#[test]
fn no_time_no_memory_and_a_missing_model_are_failures() {
    let directory = TempDir::new().expect("a directory");
    let (path, suites) = (directory.path(), directory.path().join("suites"));
    let base = base(path);
    write_suite(&suites, "a", &[item(0)]);
    let failed = |change: &dyn Fn(&mut Arguments), cancel: &CancellationToken| {
        let mut arguments = evaluate_arguments(&base, &base, &suites, &path.join("output"));
        change(&mut arguments);
        execute(&arguments, cancel).expect_err("no judgement")
    };
    let (go, stop) = (CancellationToken::new(), CancellationToken::new());
    stop.cancel();
    let late = failed(&|arguments| arguments.deadline_seconds = Some(0), &go);
    assert!(matches!(late, TrainError::Deadline(_)) && !late.is_retryable());
    let large = failed(&|arguments| arguments.memory = Some(10 << 20), &go);
    assert!(
        matches!(&large, TrainError::Memory(said) if said.contains("10.0 MiB")),
        "{large}"
    );
    let stopped = failed(&|_| {}, &stop);
    assert!(
        stopped.is_retryable() && stopped.to_string().ends_with("begins anew"),
        "{stopped}"
    );
    let last = failed(&|arguments| arguments.deadline_seconds = Some(0), &stop);
    assert!(matches!(last, TrainError::Deadline(_)), "{last}");
    let missing = failed(
        &|arguments| arguments.candidate_uri = "file:///does/not/exist.gguf".to_owned(),
        &go,
    );
    assert!(
        missing.to_string().contains("was not found") && !missing.is_retryable(),
        "{missing}"
    );
}
