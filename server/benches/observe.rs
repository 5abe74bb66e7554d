//! What it costs to count a request in drift panes, and to keep it for retraining: on the request's own path, and on the
//! threads that do the rest.
//!
//! The path of a request is all that is done for it besides answering: keeping its prompt and token ids, its answer of a
//! hundred pieces, and handing them over to threads that sleep. Times are of the clock, so upper bounds of the
//! processor's; the median of many. Writes target/bench/observe.json, or the file after `--out`.
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use perennial_crds::capture::Level;
use perennial_engine::{Sampling, confidence, sample};
use perennial_server::capture::{BUFFER_BYTES, Capture, Draft, Rules, Texts};
use perennial_server::metrics::{Metrics, Outcome};
use perennial_server::observation::{End, Extraction, Observer, Panes, Question, Record, Recording, StaticEncoder};
use safetensors::tensor::{Dtype, TensorView};

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

    /// All of it for one request, until it is handed over: counted always, kept if `capture` says so.
    fn record(&self, capture: &Capture, number: usize) -> (Record, Option<Draft>) {
        let characters = self.prompt.chars().count();
        let (id, requester) = (format!("req-{number:032x}"), Some("team".to_owned()));
        assert!(capture.level() > Level::None, "else nothing is counted");
        let mut draft = capture.draft(&id, requester.as_deref(), Texts::Prompt(&self.prompt));
        let question = Question::new(id, requester, Some(&self.prompt), Some(characters));
        let mut recording = Recording::new(question, &self.ids);
        let mut rest = self.answer.as_str();
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rest.len().min(self.answer.len().div_ceil(PIECES)));
            recording.push(piece);
            if let Some(draft) = &mut draft {
                draft.push(piece);
            }
            rest = behind;
        }
        let record = recording.end(End {
            outcome: Outcome::Stop,
            output_tokens: self.ids.len(),
            first_token: Some(Duration::from_millis(80)),
            between_tokens: Some(Duration::from_millis(20)),
            logprob: Some(-0.7),
            entropy: Some(1.1),
        });
        (record, draft)
    }
}

/// Terms under which every request is kept, with all rules.
const PAYLOAD: &str = r#"{"level": "Payload", "samplePerMille": 1000, "collector": "http://c:9091", "token": "t",
    "redact": ["Email", "PhoneNumber", "CreditCard"], "patterns": [{"name": "TICKET", "regex": "\\bT-\\d+\\b"}]}"#;

fn rules(capture: bool) -> Rules {
    let terms = if capture { PAYLOAD } else { "" };
    Rules::parse(terms.as_bytes()).unwrap()
}

/// Microseconds: the median and the 99th of a hundred.
fn quantiles(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort();
    let at = |share: f64| times[(share * (times.len() - 1) as f64) as usize].as_secs_f64() * 1e6;
    (at(0.5), at(0.99))
}

/// Each request finds the threads asleep, which is the dearest case: they have to be woken.
fn path(sample: &Sample, keep: bool, encoder: Option<StaticEncoder>) -> (f64, f64) {
    let metrics = Metrics::new("m", false).unwrap();
    let (counters, kept) = (metrics.observation.clone(), metrics.capture.clone());
    let observer = Observer::start(counters.clone(), encoder).unwrap();
    // Nobody takes the records; the oldest make room, as when a collector is away.
    let capture = Capture::start(kept.clone(), BUFFER_BYTES).unwrap();
    capture.apply(rules(keep));
    let times = (0..ROUNDS).map(|number| {
        while counters.observed.get() < number as u64 {
            std::thread::sleep(Duration::from_micros(20));
        }
        std::thread::sleep(Duration::from_micros(100));
        let began = Instant::now();
        let (record, draft) = black_box(sample).record(&capture, number);
        observer.hand_over(record);
        if let Some(draft) = draft {
            capture.hand_over(draft.end(Outcome::Stop, sample.ids.len(), sample.ids.len(), 1_764_547_200));
        }
        began.elapsed()
    });
    let times = quantiles(times.collect());
    let handed_over = (counters.dropped.get(), kept.sampled.get());
    assert_eq!(
        handed_over,
        (0, if keep { ROUNDS as u64 } else { 0 }),
        "nothing is measured where nothing is handed over"
    );
    times
}

/// What the thread of capture does with a request: it redacts it and writes it as it is sent.
fn redact(sample: &Sample) -> (f64, f64) {
    let capture = Capture::start(Metrics::new("m", false).unwrap().capture, BUFFER_BYTES).unwrap();
    capture.apply(rules(true));
    let rules = rules(true);
    let times = (0..ROUNDS).map(|number| {
        let (_, draft) = sample.record(&capture, number);
        let ended = draft.unwrap().end(Outcome::Stop, 1, 1, 1_764_547_200);
        let began = Instant::now();
        let record = black_box(ended).record(&rules);
        black_box(serde_json::to_string(&record).unwrap());
        began.elapsed()
    });
    quantiles(times.collect())
}

/// An encoder that is made up but of a usual size: 256 numbers for each of 32,000 tokens. It knows every second word of the
/// text as a whole, and the others by pieces of at most three letters. The one in `PERENNIAL_ENCODER` is taken instead, if
/// that is set.
struct Files(tempfile::TempDir);

impl Files {
    const TOKENS: usize = 32_000;
    const DIMENSION: usize = 256;

    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        let words: BTreeSet<String> = TEXT
            .split(|character: char| !character.is_ascii_alphanumeric())
            .map(str::to_ascii_lowercase)
            .collect();
        let letters = || ('!'..='~').filter(|character| !character.is_ascii_uppercase());
        let singles = letters().map(String::from);
        let pairs = letters().flat_map(|first| letters().map(move |second| format!("{first}{second}")));
        let triples = ('a'..='z').flat_map(|first| {
            ('a'..='z').flat_map(move |second| ('a'..='z').map(move |third| format!("{first}{second}{third}")))
        });
        let pieces = singles.chain(pairs).chain(triples);
        let mut vocabulary = serde_json::Map::new();
        let tokens = std::iter::once("[UNK]".to_owned())
            .chain(words.into_iter().step_by(2))
            .chain(pieces.flat_map(|piece| [format!("##{piece}"), piece]));
        for token in tokens.take(Self::TOKENS) {
            let id = vocabulary.len();
            vocabulary.entry(token).or_insert(id.into());
        }
        let tokenizer = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
            "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": null, "decoder": null,
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": vocabulary},
        });
        let numbers: Vec<u8> = (0..Self::TOKENS * Self::DIMENSION)
            .flat_map(|position| ((position * 7919 % 2003) as f32 / 1000.0 - 1.0).to_le_bytes())
            .collect();
        let shape = vec![Self::TOKENS, Self::DIMENSION];
        let view = TensorView::new(Dtype::F32, shape, &numbers).unwrap();
        let weights = safetensors::serialize([("embeddings", view)], None).unwrap();
        std::fs::write(files.0.path().join("model.safetensors"), weights).unwrap();
        std::fs::write(files.0.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        files
    }

    fn encoder(&self) -> StaticEncoder {
        let own = std::env::var_os("PERENNIAL_ENCODER").map(PathBuf::from);
        StaticEncoder::load(own.as_deref().unwrap_or(self.0.path()), None).unwrap()
    }
}

/// What the encoder alone does with a prompt.
fn embed(sample: &Sample, encoder: &StaticEncoder) -> (f64, f64) {
    let times = (0..ROUNDS).map(|_| {
        let began = Instant::now();
        black_box(encoder.embed(black_box(&sample.prompt))).unwrap();
        began.elapsed()
    });
    quantiles(times.collect())
}

fn count(sample: &Sample, encoder: Option<StaticEncoder>) -> (f64, f64) {
    let extraction = Extraction::new(encoder).unwrap();
    let capture = Capture::start(Metrics::new("m", false).unwrap().capture, BUFFER_BYTES).unwrap();
    let mut panes = Panes::new(extraction.layout(), 1);
    let times = (0..ROUNDS).map(|number| {
        let (record, _) = sample.record(&capture, number);
        let began = Instant::now();
        let features = extraction.features(black_box(&record));
        panes.record(1_764_547_200 + number as i64 / 100, &features);
        began.elapsed()
    });
    quantiles(times.collect())
}

/// What is done for one token in four, and choosing a token at random beside it: the same row of logits, one pass each.
fn confidence_and_choice(vocabulary: usize) -> (f64, f64) {
    let logits: Vec<f32> = (0..vocabulary)
        .map(|token| ((token * 7919) % 2003) as f32 / 100.0)
        .collect();
    let sampling = Sampling {
        temperature: 1.0,
        ..Sampling::default()
    };
    let median = |pass: &dyn Fn(usize)| {
        let times = (0..ROUNDS).map(|index| {
            let began = Instant::now();
            pass(index);
            began.elapsed()
        });
        quantiles(times.collect()).0
    };
    (
        median(&|_| assert!(black_box(confidence(black_box(&logits), 77)).is_some())),
        median(&|index| assert!(black_box(sample(black_box(&logits), &sampling, index)).is_some())),
    )
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
    let files = Files::new();
    let mut figures = Vec::new();
    for tokens in [100, 1000] {
        let sample = Sample::new(tokens);
        let ((off, off_99), (n_grams, n_grams_99)) = (path(&sample, false, None), count(&sample, None));
        let ((on, on_99), (redact, redact_99)) = (path(&sample, true, None), redact(&sample));
        let ((with, with_99), (encoded, encoded_99), (embed, embed_99)) = (
            path(&sample, false, Some(files.encoder())),
            count(&sample, Some(files.encoder())),
            embed(&sample, &files.encoder()),
        );
        println!("{tokens} tokens of prompt and answer: on the request's path");
        println!(
            "    {off:.2} µs ({off_99:.2} µs in 1 of 100) with capture off, {on:.2} µs ({on_99:.2} µs) with it on;"
        );
        println!("    {n_grams:.1} µs ({n_grams_99:.1} µs) on the observer's thread,");
        println!(
            "    {with:.2} µs ({with_99:.2} µs) on the path and {encoded:.1} µs ({encoded_99:.1} µs) on the thread with an"
        );
        println!("    encoder, of which {embed:.1} µs ({embed_99:.1} µs) to embed the prompt;");
        println!("    {redact:.1} µs ({redact_99:.1} µs) on the thread of capture");
        figures.push(figure(
            &format!("observe.path.{tokens}"),
            &format!("Counting a request of {tokens} tokens: on its own path"),
            off,
            Some(20.0),
        ));
        figures.push(figure(
            &format!("capture.path.{tokens}"),
            &format!("Counting and keeping a request of {tokens} tokens: on its own path"),
            on,
            Some(20.0),
        ));
        figures.push(figure(
            &format!("observe.thread.{tokens}"),
            &format!("Counting a request of {tokens} tokens: on the observer's thread"),
            n_grams,
            None,
        ));
        figures.push(figure(
            &format!("observe.encoder.path.{tokens}"),
            &format!("Counting a request of {tokens} tokens with an encoder: on its own path"),
            with,
            Some(20.0),
        ));
        figures.push(figure(
            &format!("observe.encoder.thread.{tokens}"),
            &format!("Counting a request of {tokens} tokens with an encoder: on the observer's thread"),
            encoded,
            None,
        ));
        figures.push(figure(
            &format!("capture.thread.{tokens}"),
            &format!("Keeping a request of {tokens} tokens: on the thread of capture"),
            redact,
            None,
        ));
    }
    for vocabulary in [49_152, 128_256] {
        let (measured, chosen) = confidence_and_choice(vocabulary);
        println!(
            "{measured:.1} µs to tell how sure a model of {vocabulary} tokens is, {chosen:.1} µs to choose its token at random"
        );
        let mut figure = figure(
            &format!("observe.confidence.{vocabulary}"),
            &format!("How sure a model of {vocabulary} tokens is, told of one token in four"),
            measured,
            None,
        );
        let round = |value: f64| (value * 100.0).round() / 100.0;
        figure["baseline"] = serde_json::json!({"name": "choosing the token at random", "value": round(chosen)});
        figure["ratio"] = round(chosen / measured).into();
        figures.push(figure);
    }
    std::fs::create_dir_all(out.parent().unwrap()).unwrap();
    std::fs::write(out, format!("{}\n", serde_json::to_string_pretty(&figures).unwrap())).unwrap();
}
