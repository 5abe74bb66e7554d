//! What it costs to count a request in drift panes: on the request's own path, and on the thread of the observer.
//!
//! The path of a request is all that is done for it besides answering: keeping its prompt and token ids, its answer of a
//! hundred pieces, and handing both over to a thread that sleeps. Times are of the clock, so upper bounds of the
//! processor's; the median of many. Writes target/bench/observe.json, or the file after `--out`.
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use perennial_drift::features::{Encoder, Extractor};
use perennial_drift::pane::layout::Layout;
use perennial_server::metrics::{Metrics, Outcome};
use perennial_server::observation::{End, Observer, Panes, Question, Record, Recording};

/// Source code with its comments, about four characters a token: rather dearer than prose.
const TEXT: &str = include_str!("../src/observation/record.rs");
const CHARACTERS_PER_TOKEN: usize = 4;
const PIECES: usize = 100;
const ROUNDS: usize = 3000;

struct Sample {
    prompt: String,
    ids: Vec<u32>,
    answer: String,
}

impl Sample {
    /// A prompt of so many tokens, and an answer of as many.
    fn new(tokens: usize) -> Self {
        let text: String = TEXT
            .chars()
            .filter(char::is_ascii)
            .cycle()
            .skip(7)
            .take(8 * tokens)
            .collect();
        let (prompt, answer) = text.split_at(CHARACTERS_PER_TOKEN * tokens);
        Self {
            prompt: prompt.to_owned(),
            ids: (0..tokens as u32).collect(),
            answer: answer.to_owned(),
        }
    }

    fn record(&self, number: usize) -> Record {
        let characters = self.prompt.chars().count();
        let (id, requester) = (format!("req-{number:032x}"), Some("team".to_owned()));
        let question = Question::new(id, requester, Some(&self.prompt), Some(characters));
        let mut recording = Recording::new(question, &self.ids);
        let mut rest = self.answer.as_str();
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rest.len().min(self.answer.len().div_ceil(PIECES)));
            recording.push(piece);
            rest = behind;
        }
        recording.end(End {
            outcome: Outcome::Stop,
            output_tokens: self.ids.len(),
            first_token: Some(Duration::from_millis(80)),
            between_tokens: Some(Duration::from_millis(20)),
        })
    }
}

/// Microseconds: the median and the 99th of a hundred.
fn quantiles(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort();
    let at = |share: f64| times[(share * (times.len() - 1) as f64) as usize].as_secs_f64() * 1e6;
    (at(0.5), at(0.99))
}

/// Each request finds the thread asleep, which is the dearest case: it has to be woken.
fn path(sample: &Sample) -> (f64, f64) {
    let counters = Metrics::new("m", false).unwrap().observation;
    let observer = Observer::start(counters.clone()).unwrap();
    let times = (0..ROUNDS).map(|number| {
        while counters.observed.get() < number as u64 {
            std::thread::sleep(Duration::from_micros(20));
        }
        std::thread::sleep(Duration::from_micros(100));
        let began = Instant::now();
        observer.hand_over(black_box(sample).record(number));
        began.elapsed()
    });
    let times = quantiles(times.collect());
    assert_eq!(
        counters.dropped.get(),
        0,
        "nothing is measured where nothing is handed over"
    );
    times
}

fn count(sample: &Sample) -> (f64, f64) {
    let extractor = Extractor::new(Encoder::Ngrams).unwrap();
    let mut panes = Panes::new(Layout::of(extractor.recipe()), 1);
    let times = (0..ROUNDS).map(|number| {
        let record = sample.record(number);
        let began = Instant::now();
        let features = extractor.features(&black_box(&record).exchange());
        panes.record(1_764_547_200 + number as i64 / 100, &features);
        began.elapsed()
    });
    quantiles(times.collect())
}

fn figure(id: &str, what: &str, value: f64, goal: Option<f64>) -> serde_json::Value {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let machine = format!("{cores} cores, {}", std::env::consts::ARCH);
    let value = (value * 100.0).round() / 100.0;
    let mut figure = serde_json::json!({"id": id, "what": what, "value": value, "unit": "µs", "better": "lower", "machine": machine});
    if let Some(goal) = goal {
        figure["goal"] = goal.into();
    }
    figure
}

fn main() {
    let out = std::env::args().skip_while(|word| word != "--out").nth(1);
    let out = out.map_or_else(
        || {
            let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
            let target = target.unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")));
            target.join("bench/observe.json")
        },
        PathBuf::from,
    );
    let mut figures = Vec::new();
    for tokens in [100, 1000] {
        let sample = Sample::new(tokens);
        let ((path, path_99), (count, count_99)) = (path(&sample), count(&sample));
        println!(
            "{tokens} tokens of prompt and answer: {path:.2} µs ({path_99:.2} µs in 1 of 100) on the request's path,"
        );
        println!("    {count:.1} µs ({count_99:.1} µs) on the observer's thread");
        figures.push(figure(
            &format!("observe.path.{tokens}"),
            &format!("Counting a request of {tokens} tokens: on its own path"),
            path,
            Some(20.0),
        ));
        figures.push(figure(
            &format!("observe.thread.{tokens}"),
            &format!("Counting a request of {tokens} tokens: on the observer's thread"),
            count,
            None,
        ));
    }
    std::fs::create_dir_all(out.parent().unwrap()).unwrap();
    std::fs::write(out, format!("{}\n", serde_json::to_string_pretty(&figures).unwrap())).unwrap();
}
