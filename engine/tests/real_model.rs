//! The real model, if it is on this machine: `PERENNIAL_TEST_MODEL=/path/to/SmolLM2-135M-Instruct.Q4_1.gguf`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that fails is a failed test"
)]

use std::path::PathBuf;

use perennial_engine::model::{self, LoadOptions};
use perennial_engine::tokenizer::TokenStream;
use perennial_engine::{Confidence, Engine, EngineHandle, Limits, Queued, RequestId, Sampling};

fn model_path() -> Option<PathBuf> {
    let path = std::env::var_os("PERENNIAL_TEST_MODEL").map(PathBuf::from);
    if path.is_none() {
        eprintln!("skipped: PERENNIAL_TEST_MODEL does not name the GGUF file of SmolLM2-135M-Instruct");
    }
    path
}

#[test]
fn the_real_model_knows_two_plus_two() {
    let Some(path) = model_path() else { return };
    let options = LoadOptions {
        max_running: 1,
        ..LoadOptions::default()
    };
    let loaded = model::load(&[path], &options).expect("the model");
    let text = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
                <|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n";
    let prompt = loaded.tokenizer.encode_rendered(text).expect("tokens");
    // Ids of the published tokenizer; a prefix space before words would give 817 in place of 9690.
    assert_eq!(prompt[..5], [1, 9690, 198, 2683, 359]);
    let mut stream = TokenStream::new(loaded.tokenizer.clone());
    let (engine, mut updates) = EngineHandle::start(Box::new(loaded.runner), Limits::default()).expect("a thread");
    let sampling = Sampling::default();
    let _control = engine
        .submit(Queued {
            id: RequestId(0),
            prompt,
            max_tokens: 40,
            sampling,
            measured: true,
        })
        .expect("accepted");
    let mut answer = String::new();
    let mut sure = Vec::new();
    'reading: while let Some(step) = updates.blocking_recv() {
        for update in step.sequences {
            if let Some(token) = update.token {
                answer.push_str(&stream.push(token).expect("text"));
            }
            sure.extend(update.confidence);
            if update.finished.is_some() {
                break 'reading;
            }
        }
    }
    assert!(answer.contains('4'), "{answer}");
    assert!(!sure.is_empty());
    for Confidence { logprob, entropy } in sure {
        // It takes the likeliest token each time, and knows well what to say.
        assert!(
            (-2.0..=0.0).contains(&logprob) && (0.0..4.0).contains(&entropy),
            "{logprob} {entropy}"
        );
    }
}
