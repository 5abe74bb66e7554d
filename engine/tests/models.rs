//! Models on candle: a tiny random Llama as GGUF and as safetensors.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that fails is a failed test"
)]

mod tiny;

use std::collections::HashMap;
use std::path::PathBuf;

use perennial_engine::model::{self, LoadOptions};
use perennial_engine::{Engine, EngineHandle, Limits, ModelError, ModelRunner, Queued, RequestId, Sampling, Updates};
use tempfile::TempDir;
use tiny::{CONTEXT, Shape, Tiny, VOCABULARY};

const OPTIONS: LoadOptions = LoadOptions {
    max_length: None,
    max_running: 4,
    memory: Some(2 << 30),
};

fn generate(engine: &EngineHandle, updates: &mut Updates, prompts: &[Vec<u32>]) -> HashMap<u64, Vec<u32>> {
    let controls: Vec<_> = prompts
        .iter()
        .enumerate()
        .map(|(id, prompt)| {
            let sampling = Sampling {
                ignore_end: true,
                ..Sampling::default()
            };
            let id = RequestId(id as u64);
            engine
                .submit(Queued {
                    id,
                    prompt: prompt.clone(),
                    max_tokens: 24,
                    sampling,
                    measured: true,
                })
                .expect("accepted")
        })
        .collect();
    let mut answers: HashMap<u64, Vec<u32>> = HashMap::new();
    let mut left = prompts.len();
    while left > 0 {
        for update in updates.blocking_recv().expect("the engine is alive").sequences {
            answers.entry(update.id.0).or_default().extend(update.token);
            left -= usize::from(update.finished.is_some());
        }
    }
    drop(controls);
    answers
}

fn start(path: PathBuf, limits: Limits) -> (EngineHandle, Updates) {
    let loaded = model::load(&[path], &OPTIONS).expect("a model");
    EngineHandle::start(Box::new(loaded.runner), limits).expect("a thread")
}

fn prompts() -> Vec<Vec<u32>> {
    (0..9_u32)
        .map(|id| {
            (0..5 + id * 13)
                .map(|at| (at * 7 + id * 31) % VOCABULARY as u32)
                .collect()
        })
        .collect()
}

#[test]
fn greedy_tokens_are_the_same_alone_and_among_others() {
    let directory = TempDir::new().expect("a directory");
    let path = Tiny::new(Shape::Llama).write_gguf(directory.path());
    let limits = Limits {
        max_running: 9,
        max_step_tokens: 48,
        ..Limits::default()
    };
    let (engine, mut updates) = start(path, limits);
    let prompts = prompts();
    let together = generate(&engine, &mut updates, &prompts);
    for (id, prompt) in prompts.iter().enumerate() {
        let alone = generate(&engine, &mut updates, std::slice::from_ref(prompt));
        assert_eq!(together[&(id as u64)], alone[&0], "prompt {id}");
        assert_eq!(alone[&0].len(), 24);
    }
}

#[test]
fn gguf_and_safetensors_give_the_same_tokens() {
    for shape in [Shape::Llama, Shape::Qwen3] {
        let directory = TempDir::new().expect("a directory");
        let tiny = Tiny::new(shape);
        let gguf = tiny.write_gguf(directory.path());
        let safetensors = tiny.write_safetensors(directory.path());
        let (one, mut one_updates) = start(gguf, Limits::default());
        let (other, mut other_updates) = start(safetensors, Limits::default());
        let one = generate(&one, &mut one_updates, &prompts());
        let other = generate(&other, &mut other_updates, &prompts());
        assert_eq!(one, other, "{shape:?}");
        let distinct: std::collections::HashSet<_> = one.values().flatten().collect();
        assert!(distinct.len() > 10, "the random model says something");
    }
}

#[test]
fn the_hand_computed_reference_agrees() {
    let directory = TempDir::new().expect("a directory");
    let tiny = Tiny::new(Shape::Llama);
    let (engine, mut updates) = start(tiny.write_gguf(directory.path()), Limits::default());
    let prompt: Vec<u32> = vec![3, 1, 4, 1, 5, 9, 2, 6];
    let ours = generate(&engine, &mut updates, std::slice::from_ref(&prompt))
        .remove(&0)
        .expect("an answer");
    let mut tokens = prompt;
    for (at, &token) in ours.iter().enumerate() {
        assert_eq!(token, tiny.next_token(&tokens), "token {at}");
        tokens.push(token);
    }
}

#[test]
fn the_plan_is_the_same_before_and_after_loading() {
    let directory = TempDir::new().expect("a directory");
    let path = Tiny::new(Shape::Llama).write_gguf(directory.path());
    let loaded = model::load(std::slice::from_ref(&path), &OPTIONS).expect("a model");
    assert_eq!(model::plan(&path, &OPTIONS).expect("a plan"), loaded.plan);
    assert_eq!(loaded.runner.spec().max_length, CONTEXT);
    let small = LoadOptions {
        memory: Some(1 << 20),
        ..OPTIONS
    };
    assert!(matches!(
        model::load(&[path], &small),
        Err(ModelError::InsufficientMemory(_))
    ));
}

#[test]
fn a_file_cut_anywhere_is_invalid_and_says_where_it_ends() {
    let directory = TempDir::new().expect("a directory");
    let tiny = Tiny::new(Shape::Llama);
    for path in [
        tiny.write_gguf(directory.path()),
        tiny.write_safetensors(directory.path()),
    ] {
        let whole = std::fs::read(&path).expect("the file");
        for length in [0, 3, 9, 100, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).expect("written");
            match model::load(std::slice::from_ref(&path), &OPTIONS).err() {
                Some(error @ ModelError::Invalid { .. }) => {
                    assert!(error.to_string().contains(&length.to_string()), "{length}: {error}");
                }
                other => panic!("{} cut at {length}: {other:?}", path.display()),
            }
        }
        std::fs::write(&path, &whole).expect("written");
    }
}

#[test]
fn damage_in_a_header_never_panics() {
    let directory = TempDir::new().expect("a directory");
    let path = Tiny::new(Shape::Llama).write_gguf(directory.path());
    let whole = std::fs::read(&path).expect("the file");
    for at in (0..2000.min(whole.len())).step_by(3) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        std::fs::write(&path, damaged).expect("written");
        let _ = model::plan(&path, &OPTIONS);
    }
}

#[test]
fn an_unknown_architecture_and_missing_files_are_unsupported() {
    let directory = TempDir::new().expect("a directory");
    let tiny = Tiny::new(Shape::Llama);
    let path = tiny.write_safetensors(directory.path());
    let config = directory.path().join("config.json");
    let text = std::fs::read_to_string(&config).expect("config");
    std::fs::write(&config, text.replace("LlamaForCausalLM", "GPT2LMHeadModel")).expect("written");
    let message = match model::load(std::slice::from_ref(&path), &OPTIONS).err() {
        Some(ModelError::Unsupported(message)) => message,
        other => panic!("{other:?}"),
    };
    assert!(
        message.contains("GPT2LMHeadModel") && message.contains("Qwen2ForCausalLM"),
        "{message}"
    );
    std::fs::remove_file(config).expect("removed");
    assert!(matches!(
        model::load(&[path], &OPTIONS),
        Err(ModelError::Unsupported(_))
    ));
    assert!(matches!(model::load(&[], &OPTIONS), Err(ModelError::Unsupported(_))));
}
