//! Training from a manifest to a model that is served.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that fails is a failed test"
)]

mod cycle;
mod tiny;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Content;
use candle_core::{DType, Device, Tensor};
use cycle::{QUICK, ROWS, answer, digest, question, row, train, train_arguments, usual_data, write_data};
use perennial_crds::retrain::{Include, ModelKind, Outcome, RetrainResult, TrainingRow};
use perennial_engine::model::{self as engine, LoadOptions};
use perennial_engine::{Engine as _, EngineHandle, Limits, Queued, RequestId, Sampling};
use perennial_trainer::train::{Base, Encoder, TrainError, execute};
use tempfile::TempDir;
use tiny::{Shape, Tiny};
use tokio_util::sync::CancellationToken;

fn metric(result: &RetrainResult, name: &str) -> f32 {
    result.metrics[name].parse().expect("a number")
}

/// The likeliest answer of a stored model.
fn ask(path: &Path, number: usize) -> String {
    let files: Vec<PathBuf> = if path.is_dir() {
        let entries = std::fs::read_dir(path).expect("a directory");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    } else {
        vec![path.to_path_buf()]
    };
    let options = LoadOptions {
        max_length: None,
        max_running: 1,
        memory: Some(1 << 30),
    };
    let encoder = Encoder::new(&Base::open(files.clone()).expect("a model").description);
    let loaded = engine::load(&files, &options).expect("a model");
    let (engine, mut updates) = EngineHandle::start(Box::new(loaded.runner), Limits::default()).expect("a thread");
    let request = Queued {
        id: RequestId(0),
        prompt: encoder.prompt(&question(number), None).expect("a prompt"),
        max_tokens: 12,
        sampling: Sampling::default(),
        measured: false,
    };
    let _control = engine.submit(request).expect("accepted");
    let mut tokens = Vec::new();
    loop {
        for update in updates.blocking_recv().expect("the engine is alive").sequences {
            tokens.extend(update.token);
            if update.finished.is_some() {
                return encoder.text(&tokens).expect("text");
            }
        }
    }
}

fn learns(base: &Path, name: &str) -> (TempDir, RetrainResult) {
    let directory = TempDir::new().expect("a directory");
    let manifest = usual_data(&directory.path().join("data"));
    let output = directory.path().join("output");
    assert_ne!(ask(base, 0), answer(0), "the random model knows nothing");
    let result = train(&train_arguments(base, &manifest, &output, QUICK));
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    assert!(
        metric(&result, "startLoss") > 3.0 && metric(&result, "mergedLoss") < 0.2,
        "{result:?}"
    );
    let model = result.model.clone().expect("a model");
    assert_eq!(model.uri, format!("file:///mnt/model/p/c/output/{name}"));
    assert_eq!((model.kind, &model.base_digest), (ModelKind::Merged, &digest(base)));
    assert_eq!(model.digest, digest(&output.join(name)));
    for number in 0..5 {
        assert_eq!(ask(&output.join(name), number), answer(number), "question {number}");
    }
    assert!(serde_json::to_string(&result).expect("JSON").len() < 4096);
    assert!(!output.join("checkpoint.safetensors").exists());
    (directory, result)
}

#[test]
fn a_gguf_model_learns_answers_and_serves_them() {
    let directory = TempDir::new().expect("a directory");
    let base = Tiny::new(Shape::Llama).write_gguf(directory.path(), GgmlDType::F32);
    let (work, _) = learns(&base, "model.gguf");
    let read = |path: &Path| {
        let mut file = std::fs::File::open(path).expect("a file");
        Content::read(&mut file).expect("a header")
    };
    let (old, new) = (read(&base), read(&work.path().join("output/model.gguf")));
    let texts = |content: &Content| -> BTreeMap<String, String> {
        let metadata = content.metadata.iter();
        metadata
            .map(|(name, value)| (name.clone(), format!("{value:?}")))
            .collect()
    };
    assert_eq!(texts(&old), texts(&new));
    let types = |content: &Content| -> BTreeMap<String, GgmlDType> {
        let infos = content.tensor_infos.iter();
        infos.map(|(name, info)| (name.clone(), info.ggml_dtype)).collect()
    };
    for (name, dtype) in types(&new) {
        let changed = name.starts_with("blk.") && !name.contains("norm");
        let expected = if changed { GgmlDType::Q8_0 } else { types(&old)[&name] };
        assert_eq!(dtype, expected, "{name}");
    }
}

#[test]
fn a_safetensors_model_learns_answers_and_serves_them() {
    let directory = TempDir::new().expect("a directory");
    let base = directory.path().join("base");
    Tiny::new(Shape::Qwen3).write_safetensors(&base, DType::F32);
    let (work, _) = learns(&base, "model");
    let read = |path: &Path| candle_core::safetensors::load(path, &Device::Cpu).expect("tensors");
    let (old, new) = (
        read(&base.join("model.safetensors")),
        read(&work.path().join("output/model/model.safetensors")),
    );
    assert_eq!(
        old.keys().collect::<std::collections::BTreeSet<_>>(),
        new.keys().collect()
    );
    for (name, tensor) in &new {
        assert_eq!(
            (tensor.dims(), tensor.dtype()),
            (old[name].dims(), DType::F32),
            "{name}"
        );
        let same = flat(tensor) == flat(&old[name]);
        assert_eq!(same, !name.contains("_proj"), "{name}");
    }
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor.to_dtype(DType::F32).and_then(|tensor| tensor.flatten_all());
    flat.and_then(|tensor| tensor.to_vec1::<f32>()).expect("numbers")
}

fn distance(one: &Tensor, other: &Tensor) -> f32 {
    let both = flat(one).into_iter().zip(flat(other));
    both.map(|(one, other)| (one - other).abs()).fold(0.0, f32::max)
}

#[test]
fn the_adapter_is_what_peft_reads_and_merges_to_the_stored_model() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path();
    let manifest = usual_data(&path.join("data"));
    let hub = path.join("hub");
    Tiny::new(Shape::Llama).write_safetensors(&hub, DType::F32);
    let gguf = Tiny::new(Shape::Llama).write_gguf(&path.join("gguf"), GgmlDType::F32);
    let more = "--learning-rate 0.01 --epochs 1 --step-rows 10 --rank 4 --targets q,k,down";
    for (base, output) in [(&hub, "one"), (&gguf, "other")] {
        let result = train(&train_arguments(base, &manifest, &path.join(output), more));
        assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    }
    let load = |file: &str| candle_core::safetensors::load(path.join(file), &Device::Cpu).expect("tensors");
    let (one, other) = (
        load("one/adapter/adapter_model.safetensors"),
        load("other/adapter/adapter_model.safetensors"),
    );
    let prefix = "base_model.model.model.layers.1";
    let shapes = |name: &str| one[&format!("{prefix}.{name}.weight")].dims().to_vec();
    assert_eq!(one.len(), 12);
    assert_eq!(shapes("self_attn.q_proj.lora_A"), [4, 64]);
    assert_eq!(shapes("self_attn.k_proj.lora_B"), [32, 4]);
    assert_eq!(shapes("mlp.down_proj.lora_A"), [4, 96]);
    // The same model in both formats learns the same: rows that GGUF has in another order come back in the hub's.
    for (name, tensor) in &one {
        let furthest = distance(tensor, &other[name]);
        assert!(furthest < 5e-3, "{name}: {furthest}");
        assert!(flat(tensor).iter().any(|value| value.abs() > 1e-2), "{name}");
    }
    let (old, new) = (load("hub/model.safetensors"), load("one/model/model.safetensors"));
    let name = "model.layers.1.self_attn.k_proj.weight";
    let pair = |part: &str| one[&format!("{prefix}.self_attn.k_proj.{part}.weight")].clone();
    let added = pair("lora_B")
        .matmul(&pair("lora_A"))
        .and_then(|product| product * 4.0)
        .expect("a product");
    let merged = (&old[name] + added).expect("a sum");
    let furthest = distance(&merged, &new[name]);
    assert!(furthest < 1e-5, "{furthest}");
    let config = std::fs::read(path.join("one/adapter/adapter_config.json")).expect("a file");
    let config: serde_json::Value = serde_json::from_slice(&config).expect("JSON");
    assert_eq!(config["peft_type"], "LORA");
    assert_eq!(
        (config["r"].as_u64(), config["lora_alpha"].as_f64()),
        (Some(4), Some(16.0))
    );
    assert_eq!(
        config["target_modules"],
        serde_json::json!(["q_proj", "k_proj", "down_proj"])
    );
}

const SHORT: &str = "--learning-rate 0.01 --epochs 4 --step-rows 6 --checkpoint-steps 3 --rank 4";

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path();
    let manifest = usual_data(&path.join("data"));
    let base = Tiny::new(Shape::Qwen2).write_gguf(path, GgmlDType::F32);
    let adapter = |output: &str, seed: u64| {
        let output = path.join(output);
        let mut arguments = train_arguments(&base, &manifest, &output, SHORT);
        arguments.seed = seed;
        assert_eq!(train(&arguments).outcome, Outcome::Succeeded);
        std::fs::read(output.join("adapter/adapter_model.safetensors")).expect("an adapter")
    };
    let first = adapter("one", 7);
    assert!(adapter("two", 7) == first);
    assert!(adapter("three", 8) != first);
}

#[test]
fn an_interrupted_training_ends_as_an_uninterrupted_one() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path();
    let manifest = usual_data(&path.join("data"));
    let base = Tiny::new(Shape::Llama).write_gguf(path, GgmlDType::F32);
    let whole = train(&train_arguments(&base, &manifest, &path.join("whole"), SHORT));
    let output = path.join("parts");
    let arguments = train_arguments(&base, &manifest, &output, SHORT);
    let go = |stop_at: u64| execute(&arguments, &CancellationToken::new(), &|step| step == stop_at);
    for stop_at in [5, 8] {
        let stopped = go(stop_at).expect_err("interrupted");
        assert!(matches!(stopped, TrainError::Interrupted) && stopped.is_retryable());
        assert!(output.join("checkpoint.safetensors").exists());
        assert!(!output.join("result.json").exists());
    }
    let parts = go(u64::MAX).expect("a decision");
    assert_eq!((&parts.model, parts.outcome), (&whole.model, Outcome::Succeeded));
    assert_eq!(parts.metrics["steps"], "16");
    let record = |output: &Path| {
        let text = std::fs::read(output.join("result.json")).expect("a file");
        let json: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        let record = &json["record"];
        (
            record["curve"].clone(),
            record["measurements"].clone(),
            record["tokens"].clone(),
        )
    };
    assert_eq!(record(&output), record(&path.join("whole")));
    // A pod that comes once more finds the result, and nothing is done again.
    let again = execute(&arguments, &CancellationToken::new(), &|_| panic!("no step")).expect("a decision");
    assert_eq!(again, parts);
}

#[test]
fn without_a_gain_there_is_no_model() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path();
    // To say always the same is not what is measured.
    let same = |_| TrainingRow {
        messages: Vec::new(),
        prompt: Some("a".repeat(30)),
        answer: None,
        label: Include::UserPrompts,
        ..row(0)
    };
    let other = TrainingRow {
        answer: Some("QQQQ".to_owned()),
        ..row(0)
    };
    let base = Tiny::new(Shape::Llama).write_gguf(path, GgmlDType::F32);
    let rows: Vec<TrainingRow> = (0..10).map(same).collect();
    let manifest = write_data(&path.join("data"), &rows, &[other]);
    let more = "--learning-rate 0.03 --epochs 20 --step-rows 2 --warmup 0 --patience 3";
    let output = path.join("output");
    let result = train(&train_arguments(&base, &manifest, &output, more));
    assert_eq!(
        (result.outcome, &result.model),
        (Outcome::NoImprovement, &None),
        "{result:?}"
    );
    let metrics = ["ended", "bestStep", "steps"].map(|name| result.metrics[name].as_str());
    assert_eq!(metrics, ["Patience", "0", "15"]);
    assert!(!output.join("model.gguf").exists() && output.join("result.json").exists());
}

#[test]
fn data_that_was_changed_is_rejected() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path();
    let manifest = usual_data(&path.join("data"));
    let file = path.join("data/train.jsonl");
    let text = std::fs::read_to_string(&file).expect("rows");
    std::fs::write(&file, text.replacen("north", "earth", 1)).expect("written");
    let base = Tiny::new(Shape::Llama).write_gguf(path, GgmlDType::F32);
    let result = train(&train_arguments(&base, &manifest, &path.join("output"), QUICK));
    assert_eq!(result.outcome, Outcome::DataRejected);
    assert!(result.message.contains("train.jsonl has sha256") && !result.message.contains("earth"));
}

#[test]
fn rows_that_the_model_cannot_take_are_rejected_or_left_out() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path();
    let long = |number: usize| {
        let mut row = row(number);
        row.answer = Some("long ".repeat(100));
        row
    };
    let base = Tiny::new(Shape::Llama).write_gguf(path, GgmlDType::F32);
    let all: Vec<_> = (0..3).map(long).collect();
    let manifest = write_data(&path.join("all"), &all, &[row(0)]);
    let result = train(&train_arguments(&base, &manifest, &path.join("one"), QUICK));
    assert_eq!(result.outcome, Outcome::DataRejected);
    assert!(result.message.contains("3 are too long"), "{}", result.message);
    let some: Vec<_> = (0..3).map(long).chain((0..5).map(row)).collect();
    let manifest = write_data(&path.join("some"), &some, &[row(0)]);
    let result = train(&train_arguments(&base, &manifest, &path.join("other"), SHORT));
    assert_eq!(
        (result.outcome, result.metrics["rowsTooLong"].as_str()),
        (Outcome::Succeeded, "3")
    );
}

#[test]
fn without_a_usable_row_to_measure_with_some_are_held_out_of_the_others() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path();
    let long = TrainingRow {
        answer: Some("long ".repeat(100)),
        ..row(0)
    };
    let base = Tiny::new(Shape::Llama).write_gguf(path, GgmlDType::F32);
    let rows: Vec<_> = (0..ROWS).map(row).collect();
    let manifest = write_data(&path.join("data"), &rows, std::slice::from_ref(&long));
    let result = train(&train_arguments(&base, &manifest, &path.join("output"), SHORT));
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    let metrics = ["trainRows", "validationRows", "rowsTooLong"].map(|name| result.metrics[name].as_str());
    assert_eq!(metrics, ["19", "1", "1"]);
    // The only row is one to learn from, and then there is none to measure with.
    let manifest = write_data(&path.join("one"), &rows[..1], &[long]);
    let rejected = train(&train_arguments(&base, &manifest, &path.join("other"), SHORT));
    assert_eq!(rejected.outcome, Outcome::DataRejected);
    assert!(
        rejected.message.contains("split validation") && rejected.message.contains("1 are too long"),
        "{}",
        rejected.message
    );
}

#[test]
fn what_cannot_work_is_refused_before_it_begins() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path();
    let manifest = usual_data(&path.join("data"));
    let base = Tiny::new(Shape::Llama).write_gguf(path, GgmlDType::F32);
    let refused = |change: &dyn Fn(&mut perennial_trainer::train::Arguments)| {
        let mut arguments = train_arguments(&base, &manifest, &path.join("output"), QUICK);
        change(&mut arguments);
        execute(&arguments, &CancellationToken::new(), &|_| panic!("no step")).expect_err("refused")
    };
    let memory = refused(&|arguments| arguments.memory = Some(100 << 20));
    assert!(
        matches!(&memory, TrainError::Memory(said) if said.contains("100.0 MiB")),
        "{memory}"
    );
    assert!(!memory.is_retryable());
    let digest = refused(&|arguments| arguments.base_model_digest = format!("sha256:{}", "0".repeat(64)));
    assert!(
        digest.to_string().contains("was asked for") && !digest.is_retryable(),
        "{digest}"
    );
    let contract = refused(&|arguments| arguments.contract = "retrain/v2".to_owned());
    assert!(contract.to_string().contains("retrain/v2"), "{contract}");
}

#[test]
fn at_the_deadline_the_best_so_far_is_taken() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path();
    let manifest = usual_data(&path.join("data"));
    let base = Tiny::new(Shape::Llama).write_gguf(path, GgmlDType::F32);
    let mut arguments = train_arguments(&base, &manifest, &path.join("output"), SHORT);
    let stopped = execute(&arguments, &CancellationToken::new(), &|step| step == 10);
    assert!(matches!(stopped, Err(TrainError::Interrupted)));
    arguments.deadline_seconds = Some(1);
    let result = train(&arguments);
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    let metrics = ["ended", "steps"].map(|name| result.metrics[name].as_str());
    assert_eq!(metrics, ["Deadline", "10"]);
}

/// Lets a checkpoint say that earlier pods took so long.
fn spend(checkpoint: &Path, seconds: f64) {
    let bytes = std::fs::read(checkpoint).expect("a checkpoint");
    let (length, rest) = bytes.split_first_chunk::<8>().expect("a length");
    let (header, numbers) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: serde_json::Value = serde_json::from_slice(header).expect("a header");
    let state = &mut header["__metadata__"]["state"];
    let mut stored: serde_json::Value = serde_json::from_str(state.as_str().expect("a text")).expect("JSON");
    stored["record"]["seconds"] = seconds.into();
    *state = stored.to_string().into();
    let header = header.to_string();
    let length = (header.len() as u64).to_le_bytes();
    std::fs::write(checkpoint, [&length[..], header.as_bytes(), numbers].concat()).expect("written");
}

#[test]
fn what_earlier_pods_took_does_not_count_against_the_deadline_of_this_one() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path();
    let manifest = usual_data(&path.join("data"));
    let base = Tiny::new(Shape::Llama).write_gguf(path, GgmlDType::F32);
    let output = path.join("output");
    let mut arguments = train_arguments(&base, &manifest, &output, SHORT);
    let stopped = execute(&arguments, &CancellationToken::new(), &|step| step == 5);
    assert!(matches!(stopped, Err(TrainError::Interrupted)));
    spend(&output.join("checkpoint.safetensors"), 100_000.0);
    arguments.deadline_seconds = Some(600);
    let result = train(&arguments);
    let metrics = ["ended", "steps"].map(|name| result.metrics[name].as_str());
    assert_eq!(metrics, ["AllSteps", "16"]);
    assert!(metric(&result, "seconds") >= 100_000.0, "{result:?}");
}

#[test]
fn losses_that_are_no_numbers_end_it_and_what_is_left_can_be_read_again() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path();
    let manifest = usual_data(&path.join("data"));
    let base = path.join("base");
    let file = Tiny::new(Shape::Llama).write_safetensors(&base, DType::F32);
    let mut tensors = candle_core::safetensors::load(&file, &Device::Cpu).expect("tensors");
    let norm = tensors.get_mut("model.norm.weight").expect("a tensor");
    *norm = Tensor::full(f32::NAN, norm.dims(), &Device::Cpu).expect("a tensor");
    candle_core::safetensors::save(&tensors, &file).expect("written");
    let arguments = train_arguments(&base, &manifest, &path.join("output"), SHORT);
    let result = train(&arguments);
    assert_eq!((result.outcome, &result.model), (Outcome::NoImprovement, &None));
    let metrics = ["ended", "steps"].map(|name| result.metrics[name].as_str());
    assert_eq!(metrics, ["Diverged", "0"]);
    let again = execute(&arguments, &CancellationToken::new(), &|_| panic!("no step")).expect("a decision");
    assert_eq!(again, result);
}

#[test]
fn what_is_lost_in_narrow_numbers_is_stored_in_wide_ones() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path();
    let manifest = usual_data(&path.join("data"));
    let base = Tiny::new(Shape::Llama).write_gguf(path, GgmlDType::Q8_0);
    // Steps shorter than half the distance of two neighbouring numbers of eight bits, but not of sixteen.
    let more = "--learning-rate 0.0001 --epochs 4 --step-rows 10 --warmup 0";
    let result = train(&train_arguments(&base, &manifest, &path.join("output"), more));
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    let mut file = std::fs::File::open(path.join("output/model.gguf")).expect("a model");
    let content = Content::read(&mut file).expect("a header");
    let dtype = |name: &str| content.tensor_infos[name].ggml_dtype;
    assert_eq!(dtype("blk.0.attn_q.weight"), GgmlDType::F16);
    assert_eq!(dtype("token_embd.weight"), GgmlDType::Q8_0);
    let lost = metric(&result, "mergedLoss") - metric(&result, "bestLoss");
    let gained = metric(&result, "startLoss") - metric(&result, "bestLoss");
    assert!(gained > 0.0 && lost <= 0.2 * gained, "{result:?}");
}
