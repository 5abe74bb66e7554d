//! Adds to recorded requests the vectors that a server with `--encoder` would make of their prompts, so that `drift` can
//! replay them; says how far apart two prompts are, and what a prompt costs.
//!
//! ```sh
//! cargo run --release -p perennial-server --example embed -- DIRECTORY < requests.jsonl > embedded.jsonl
//! drift replay --embeddings DIMENSION,BANDWIDTH embedded.jsonl
//! ```
//!
//! Lines are OpenAI's requests and responses, as `drift/reference/texts.py` writes them.
#![allow(clippy::expect_used, reason = "a measurement, not a program")]

use std::io::{BufRead, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use perennial_server::observation::StaticEncoder;
use serde_json::{Value, json};

/// Prompts whose distances are measured, each to each.
const PAIRED: usize = 2000;

fn main() {
    let directory = std::env::args().nth(1).expect("the directory of an encoder");
    let encoder = StaticEncoder::load(Path::new(&directory), None).expect("an encoder");
    let mut out = BufWriter::new(std::io::stdout().lock());
    let (mut vectors, mut spent, mut prompts) = (Vec::new(), Duration::ZERO, 0);
    for line in std::io::stdin().lock().lines() {
        let line: Value = serde_json::from_str(&line.expect("text")).expect("JSON");
        let messages = line["request"]["messages"].as_array().expect("messages");
        let prompt = messages
            .last()
            .and_then(|message| message["content"].as_str())
            .expect("text");
        let began = Instant::now();
        let vector = encoder.embed(prompt);
        spent += began.elapsed();
        prompts += 1;
        let (choice, usage) = (&line["response"]["choices"][0], &line["response"]["usage"]);
        let record = json!({
            "id": line["id"], "time": line["created"], "prompt": prompt, "embedding": vector,
            "promptTokens": usage["prompt_tokens"], "output": choice["message"]["content"],
            "outputTokens": usage["completion_tokens"], "finishReason": choice["finish_reason"],
        });
        writeln!(out, "{record}").expect("written");
        if vectors.len() < PAIRED {
            vectors.extend(vector);
        }
    }
    out.flush().expect("written");
    eprintln!(
        "{prompts} prompts, {} numbers each; the median distance of two is {:.3}; {:.1} µs a prompt",
        encoder.dimension(),
        median_distance(&vectors),
        spent.as_secs_f64() * 1e6 / f64::from(prompts.max(1))
    );
}

fn median_distance(vectors: &[Vec<f32>]) -> f32 {
    let mut distances = Vec::new();
    for (position, one) in vectors.iter().enumerate() {
        for other in &vectors[..position] {
            let square: f32 = one.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum();
            distances.push(square.sqrt());
        }
    }
    let middle = distances.len() / 2;
    if distances.is_empty() {
        return f32::NAN;
    }
    *distances.select_nth_unstable_by(middle, f32::total_cmp).1
}
