//! The decoder for training against the engine that serves.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that fails is a failed test"
)]

mod tiny;

use std::path::{Path, PathBuf};

use candle_core::DType;
use candle_core::quantized::GgmlDType;
use perennial_crds::capture::Message;
use perennial_crds::retrain::{Include, TrainingRow};
use perennial_engine::model::{self as engine, LoadOptions};
use perennial_engine::{ModelRunner as _, StepBatch, StepOut};
use perennial_trainer::train::model::{Batch, Decoder, Target, Workspace};
use perennial_trainer::train::{Base, Encoder, Unusable};
use tempfile::TempDir;
use tiny::{END, Shape, Tiny, VOCABULARY};

fn base(path: &Path) -> Base {
    let directory = path.parent().expect("a directory");
    let entries = std::fs::read_dir(directory).expect("a directory");
    let files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    Base::open(files).expect("a model")
}

/// Logits behind every token, as the serving engine computes them.
fn served(path: &Path, tokens: &[u32]) -> Vec<f32> {
    let options = LoadOptions {
        max_length: None,
        max_running: 1,
        memory: Some(1 << 30),
    };
    let mut loaded = engine::load(&[path.to_path_buf()], &options).expect("a model");
    let count = tokens.len() as u32;
    let blocks = count.div_ceil(32);
    let batch = StepBatch {
        tokens: tokens.to_vec(),
        positions: (0..count).collect(),
        slots: (0..count).collect(),
        query_starts: vec![0, count],
        kv_lengths: vec![count],
        block_starts: vec![0, blocks],
        block_tables: (0..blocks).collect(),
        logits_indices: (0..count).collect(),
    };
    let mut out = StepOut::default();
    loaded.runner.step(&batch, &mut out).expect("a step");
    out.logits
}

/// The same in training, with another sequence before it.
fn trained(path: &Path, tokens: &[u32]) -> Vec<f32> {
    let base = base(path);
    let decoder = Decoder {
        config: base.description.config.clone(),
        weights: base.weights().expect("weights"),
    };
    let targets: Vec<Target> = (0..tokens.len())
        .map(|row| Target {
            row,
            token: 0,
            weight: 1.0,
        })
        .collect();
    let mut batch = Batch::default();
    batch.push(&[9, 8, 7], &[]);
    batch.push(tokens, &targets);
    decoder.logits(None, &batch, &mut Workspace::default())
}

fn agree(path: &Path, allowed: f32) {
    let tokens: Vec<u32> = (0..100).map(|at| (at * 37 + 11) % VOCABULARY as u32).collect();
    let (ours, theirs) = (trained(path, &tokens), served(path, &tokens));
    assert_eq!(ours.len(), tokens.len() * VOCABULARY);
    for (at, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        assert!(
            (ours - theirs).abs() < allowed,
            "{} at {at}: {ours} {theirs}",
            path.display()
        );
    }
    let spread = theirs.iter().fold(0.0_f32, |spread, logit| spread.max(logit.abs()));
    assert!(spread > 1.0, "the random model says something");
}

#[test]
fn logits_agree_with_the_engine_for_safetensors() {
    for shape in [Shape::Llama, Shape::Qwen2, Shape::Qwen3] {
        let directory = TempDir::new().expect("a directory");
        agree(&Tiny::new(shape).write_safetensors(directory.path(), DType::F32), 2e-4);
    }
}

#[test]
fn logits_agree_with_the_engine_for_gguf() {
    for shape in [Shape::Llama, Shape::Qwen2, Shape::Qwen3] {
        let directory = TempDir::new().expect("a directory");
        agree(&Tiny::new(shape).write_gguf(directory.path(), GgmlDType::F32), 2e-4);
    }
}

#[test]
fn logits_agree_with_the_engine_for_quantized_weights() {
    let directory = TempDir::new().expect("a directory");
    // The engine rounds what goes into its products to eight bits, too.
    agree(
        &Tiny::new(Shape::Llama).write_gguf(directory.path(), GgmlDType::Q8_0),
        0.2,
    );
}

fn row(messages: &[(&str, &str)], prompt: Option<&str>, answer: Option<&str>) -> TrainingRow {
    let message = |(role, content): &(&str, &str)| Message {
        role: (*role).to_owned(),
        content: (*content).to_owned(),
    };
    TrainingRow {
        messages: messages.iter().map(message).collect(),
        prompt: prompt.map(str::to_owned),
        answer: answer.map(str::to_owned),
        label: Include::CorrectedOutputs,
        sampling_weight: 1.0,
        served_revision: None,
    }
}

#[test]
fn a_chat_teaches_its_answer_and_the_end_of_the_turn_and_a_text_all_of_it() {
    let directory = TempDir::new().expect("a directory");
    for path in [
        Tiny::new(Shape::Llama).write_gguf(&directory.path().join("a"), GgmlDType::F32),
        Tiny::new(Shape::Llama).write_safetensors(&directory.path().join("b"), DType::F32),
    ] {
        let encoder = Encoder::new(&base(&path).description);
        let chat = row(&[("user", "Hi")], None, Some("Yo"));
        let example = encoder.row(&chat, 100).expect("an example");
        let prompt = encoder.prompt(&chat.messages, None).expect("a prompt");
        // "<s>user:Hi</s><s>assistant:" in bytes and two kinds of marks.
        assert_eq!((prompt.len(), prompt[0], prompt[8]), (20, 256, END));
        assert_eq!((example.learned_from, example.learned()), (prompt.len(), 3));
        assert_eq!(example.tokens.last(), Some(&END));
        assert_eq!(encoder.row(&chat, example.computed()), Ok(example.clone()));
        assert_eq!(encoder.row(&chat, example.computed() - 1), Err(Unusable::TooLong));

        let text = encoder
            .row(&row(&[], Some("Hello there"), None), 6)
            .expect("an example");
        assert_eq!((text.tokens.len(), text.learned_from), (7, 1));
        let completion = encoder
            .row(&row(&[], Some("1+1="), Some("2")), 100)
            .expect("an example");
        assert_eq!((completion.learned_from, completion.tokens.last()), (4, Some(&END)));
        assert_eq!(encoder.row(&row(&[], None, Some("2")), 100), Err(Unusable::Empty));
        assert_eq!(encoder.row(&row(&[], Some("a"), None), 100), Err(Unusable::Empty));
    }
}

#[test]
fn without_a_template_there_is_no_chat() {
    let directory = TempDir::new().expect("a directory");
    let path = Tiny::new(Shape::Llama).write_safetensors(directory.path(), DType::F32);
    std::fs::remove_file(directory.path().join("tokenizer_config.json")).expect("removed");
    let encoder = Encoder::new(&base(&path).description);
    assert_eq!(
        encoder.row(&row(&[("user", "Hi")], None, Some("Yo")), 100),
        Err(Unusable::Refused)
    );
    assert!(encoder.row(&row(&[], Some("1+1="), Some("2")), 100).is_ok());
}
