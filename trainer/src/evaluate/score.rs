//! The scores of one model.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use perennial_crds::retrain::SuiteItem;
use perennial_engine::memory::display;
use perennial_engine::model::{self as engine, LoadOptions, ModelConfig};
use perennial_engine::{Engine as _, EngineHandle, FinishReason, Limits, Queued, RequestId, Sampling, Updates};

use crate::train::model::{Batch, Decoder, Kept, Layout, Workspace, batch_bytes, transfer_bytes, weights_bytes};
use crate::train::{Base, Encoder, Example, TrainError, together};

/// Tokens of an answer where an item says nothing.
const DEFAULT_MAX_TOKENS: u32 = 256;
/// Answers that are made at the same time.
const TOGETHER: usize = 8;
/// Program, tokenizer, threads and allocator.
const RESERVE_BYTES: u64 = 160 << 20;
/// Between lines in the log.
const INTERVAL: Duration = Duration::from_secs(5);

/// How much may be computed at a time.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes; the container's when absent.
    pub memory: Option<u64>,
    /// Tokens at a time.
    pub batch_tokens: usize,
    /// Tokens of one sequence.
    pub sequence_tokens: usize,
}

/// Scores of items in their order; none for an item on which the model cannot be judged.
pub type Scores = Vec<Option<f64>>;

/// Scores one model on `items`. `go_on` is asked again and again whether there is still time.
///
/// # Errors
/// When the model cannot be used or the time is up.
pub fn score(
    files: Vec<PathBuf>,
    items: &[&SuiteItem],
    bounds: Bounds,
    go_on: &dyn Fn() -> Result<(), TrainError>,
) -> Result<Scores, TrainError> {
    let base = Base::open(files)?;
    let encoder = Encoder::new(&base.description);
    let most = bounds.sequence_tokens.min(base.description.config.context);
    let mut scores = vec![None; items.len()];
    let mut meter = Meter::new(items.len());
    let mut learned = Vec::new();
    let mut asked = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let prompt = item.prompt.as_deref();
        if let Some(answer) = &item.answer {
            learned.extend(
                encoder
                    .pair(&item.messages, prompt, answer, most)
                    .ok()
                    .map(|pair| (index, pair)),
            );
        } else {
            let room = most.saturating_sub(item.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS) as usize);
            let tokens = encoder.prompt(&item.messages, prompt).ok();
            asked.extend(
                tokens
                    .filter(|tokens| !tokens.is_empty() && tokens.len() <= room)
                    .map(|tokens| (index, tokens)),
            );
        }
    }
    meter.add(items.len() - learned.len() - asked.len());
    // One after the other: both forms of the weights need not fit at the same time.
    if !learned.is_empty() {
        likelihoods(&base, &learned, bounds, &mut scores, &mut meter, go_on)?;
    }
    if !asked.is_empty() {
        let answers = Answers::start(&base, &asked, items, bounds)?;
        answers.judge(&encoder, asked, items, &mut scores, &mut meter, go_on)?;
    }
    Ok(scores)
}

/// The geometric mean of the probabilities of each answer's tokens.
fn likelihoods(
    base: &Base,
    examples: &[(usize, Example)],
    bounds: Bounds,
    scores: &mut Scores,
    meter: &mut Meter,
    go_on: &dyn Fn() -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let lengths: Vec<usize> = examples.iter().map(|(_, example)| example.computed()).collect();
    let (config, tied) = (&base.description.config, base.description.tied);
    let tokens = affordable(config, tied, bounds, lengths.iter().copied().max().unwrap_or(0))?;
    let decoder = Decoder {
        config: config.clone(),
        weights: base.weights()?,
    };
    let mut workspace = Workspace::default();
    for group in together(&lengths, tokens) {
        go_on()?;
        let examples = &examples[group];
        let mut batch = Batch::default();
        examples.iter().for_each(|(_, example)| example.add_to(&mut batch, 1.0));
        let losses = decoder.losses(None, &batch, &mut workspace);
        let mut losses = losses.iter();
        for (index, example) in examples {
            let count = example.learned();
            let total: f64 = losses.by_ref().take(count).map(|loss| f64::from(*loss)).sum();
            let score = (-total / count as f64).exp();
            scores[*index] = score.is_finite().then_some(score);
        }
        meter.add(examples.len());
    }
    Ok(())
}

/// Tokens that can be computed at a time.
fn affordable(config: &ModelConfig, tied: bool, bounds: Bounds, longest: usize) -> Result<usize, TrainError> {
    let none = Layout::new(config, &[], 1, 1.0);
    let weights = weights_bytes(config, tied);
    let limit = bounds.memory.or_else(perennial_engine::memory::limit);
    let mut tokens = bounds.batch_tokens.max(longest);
    loop {
        // Batches begin when all is read.
        let batch = batch_bytes(config, &none, true, Kept::Inputs, tokens).max(transfer_bytes(config));
        let total = weights + batch + RESERVE_BYTES;
        if limit.is_none_or(|limit| total <= limit) {
            return Ok(tokens);
        }
        if tokens == longest {
            return Err(TrainError::Memory(format!(
                "judging needs {} (weights in 32 bits {}, {} for one sequence of {longest} tokens or the largest tensor while \
                 it is read, reserve {}) and the memory limit is {}; raise the limit, lower --max-sequence-tokens or choose a \
                 smaller model",
                display(total),
                display(weights),
                display(batch),
                display(RESERVE_BYTES),
                display(limit.unwrap_or(0)),
            )));
        }
        tokens = (tokens / 2).max(longest);
    }
}

/// Answers from the engine that serves.
struct Answers {
    engine: EngineHandle,
    updates: Updates,
}

impl Answers {
    fn start(
        base: &Base,
        asked: &[(usize, Vec<u32>)],
        items: &[&SuiteItem],
        bounds: Bounds,
    ) -> Result<Self, TrainError> {
        let length = |(index, tokens): &(usize, Vec<u32>)| tokens.len() + max_tokens(items[*index]);
        let options = LoadOptions {
            max_length: asked.iter().map(length).max(),
            max_running: TOGETHER,
            memory: bounds.memory,
        };
        let loaded = engine::load(&base.files, &options)?;
        let started = EngineHandle::start(Box::new(loaded.runner), Limits::default());
        let (engine, updates) = started.map_err(TrainError::io("start the engine of", "the model"))?;
        Ok(Self { engine, updates })
    }

    /// Likeliest answers, compared with the right ones: 0 or 1.
    fn judge(
        mut self,
        encoder: &Encoder,
        asked: Vec<(usize, Vec<u32>)>,
        items: &[&SuiteItem],
        scores: &mut Scores,
        meter: &mut Meter,
        go_on: &dyn Fn() -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        for some in asked.chunks(TOGETHER) {
            go_on()?;
            for (index, answer) in self.answers(some, items)? {
                let text = encoder.text(&answer).ok();
                scores[index] = text.map(|text| f64::from(u8::from(is_right(items[index], &text))));
            }
            meter.add(some.len());
        }
        Ok(())
    }

    fn answers(
        &mut self,
        asked: &[(usize, Vec<u32>)],
        items: &[&SuiteItem],
    ) -> Result<HashMap<usize, Vec<u32>>, TrainError> {
        let mut controls = Vec::new();
        let mut answers: HashMap<usize, Vec<u32>> = HashMap::new();
        let failed = |why: String| TrainError::Arguments(format!("the engine failed: {why}"));
        for (index, prompt) in asked {
            let request = Queued {
                id: RequestId(*index as u64),
                prompt: prompt.clone(),
                max_tokens: max_tokens(items[*index]),
                sampling: Sampling::default(),
                measured: false,
            };
            controls.push(
                self.engine
                    .submit(request)
                    .map_err(|rejected| failed(rejected.to_string()))?,
            );
            answers.insert(*index, Vec::new());
        }
        let mut left = asked.len();
        while left > 0 {
            let Some(update) = self.updates.blocking_recv() else {
                return Err(failed("it has stopped".to_owned()));
            };
            for sequence in update.sequences {
                if let Some(FinishReason::Failed(why)) = &sequence.finished {
                    return Err(failed(why.to_string()));
                }
                answers
                    .entry(sequence.id.0 as usize)
                    .or_default()
                    .extend(sequence.token);
                left -= usize::from(sequence.finished.is_some());
            }
        }
        drop(controls);
        Ok(answers)
    }
}

fn max_tokens(item: &SuiteItem) -> usize {
    item.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS).max(1) as usize
}

fn is_right(item: &SuiteItem, answer: &str) -> bool {
    if let Some(exact) = &item.exact {
        return answer.trim() == exact.trim();
    }
    let pattern = item
        .regex
        .as_deref()
        .and_then(|pattern| regex::Regex::new(pattern).ok());
    pattern.is_some_and(|pattern| pattern.is_match(answer))
}

/// Tells how far judging is.
struct Meter {
    done: usize,
    total: usize,
    begun: Instant,
    told: Instant,
}

impl Meter {
    fn new(total: usize) -> Self {
        let now = Instant::now();
        Self {
            done: 0,
            total,
            begun: now,
            told: now,
        }
    }

    fn add(&mut self, items: usize) {
        self.done += items;
        if self.told.elapsed() >= INTERVAL || self.done == self.total {
            self.told = Instant::now();
            let seconds = self.begun.elapsed().as_secs_f64();
            let left = self.total.saturating_sub(self.done) as f64;
            let remaining = (seconds / self.done.max(1) as f64 * left).ceil() as u64;
            tracing::info!(
                done = self.done,
                total = self.total,
                remaining_seconds = remaining,
                "judged"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(exact: Option<&str>, regex: Option<&str>) -> SuiteItem {
        SuiteItem {
            messages: Vec::new(),
            prompt: Some("a".to_owned()),
            answer: None,
            exact: exact.map(str::to_owned),
            regex: regex.map(str::to_owned),
            max_tokens: None,
        }
    }

    #[test]
    fn memory_has_room_for_a_batch_and_before_it_for_the_largest_tensor_twice() {
        let config = ModelConfig {
            architecture: "llama".to_owned(),
            hidden: 64,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_width: 16,
            feed_forward: 96,
            vocabulary: 100_000,
            context: 256,
            norm_epsilon: 1e-5,
            rope: perennial_engine::model::Rope {
                frequencies: vec![1.0; 8],
                interleaved: true,
            },
        };
        let tokens = |memory: u64| {
            let bounds = Bounds {
                memory: Some(memory),
                batch_tokens: 1 << 20,
                sequence_tokens: 256,
            };
            affordable(&config, true, bounds, 8)
        };
        let table = 2 * (config.vocabulary * config.hidden * size_of::<f32>()) as u64;
        let least = weights_bytes(&config, true) + table + RESERVE_BYTES;
        let found = tokens(least).expect("it fits");
        assert!((8..1 << 20).contains(&found), "{found}");
        assert!(matches!(tokens(least - 1), Err(TrainError::Memory(said)) if said.contains("largest tensor")));
        assert!(tokens(least + (64 << 20)).expect("it fits") > found);
    }

    #[test]
    fn answers_are_right_up_to_white_space_or_where_a_pattern_matches() {
        assert!(is_right(&item(Some("42"), None), " 42\n"));
        assert!(!is_right(&item(Some("42"), None), "42."));
        assert!(is_right(&item(None, Some("^4[0-9]$")), "42"));
        assert!(is_right(&item(None, Some("4")), "the answer is 42"));
        assert!(!is_right(&item(None, Some("^4$")), "42"));
    }
}
