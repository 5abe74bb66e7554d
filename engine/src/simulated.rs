//! A runner without a model: the same contract, chosen speeds, deterministic tokens.
//!
//! For tests and load tests of everything above the runner: scheduling, streaming, drain, autoscaling.

use std::time::Duration;

use crate::batch::{BLOCK_SIZE, ModelRunner, RunnerError, RunnerSpec, StepBatch, StepOut};
use crate::sampler::mix;

/// What is simulated.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulatedSettings {
    /// Prompt tokens computed per second; 0 is without limit.
    pub prefill_tokens_per_second: f64,
    /// Tokens per second of one answer, whatever the batch; 0 is without limit.
    pub decode_tokens_per_second: f64,
    /// Most tokens of prompt and answer together.
    pub max_length: usize,
    /// Tokens in the key-value cache.
    pub cache_tokens: usize,
    /// Length of a typical answer: how rarely the end token comes.
    pub answer_tokens: u32,
}

impl Default for SimulatedSettings {
    fn default() -> Self {
        Self {
            prefill_tokens_per_second: 0.0,
            decode_tokens_per_second: 0.0,
            max_length: 4096,
            cache_tokens: 65_536,
            answer_tokens: 128,
        }
    }
}

/// Token ids: the 256 bytes, then the begin and end of a message, and the end of the text.
pub const VOCABULARY: usize = 259;
/// Begins a message.
pub const MESSAGE_START: u32 = 256;
/// Ends a message, and an answer.
pub const MESSAGE_END: u32 = 257;
/// Ends a text, and an answer.
pub const TEXT_END: u32 = 258;

/// Takes as long as a model would and produces letters that depend on nothing but the token before and its position.
pub struct SimulatedRunner {
    settings: SimulatedSettings,
    spec: RunnerSpec,
}

impl SimulatedRunner {
    /// A runner.
    #[must_use]
    pub fn new(settings: SimulatedSettings) -> Self {
        let spec = RunnerSpec {
            max_length: settings.max_length,
            vocabulary: VOCABULARY,
            blocks: settings.cache_tokens.div_ceil(BLOCK_SIZE).max(1),
            end_tokens: vec![MESSAGE_END, TEXT_END],
        };
        Self { settings, spec }
    }

    fn duration(&self, batch: &StepBatch) -> Duration {
        let prefill = (0..batch.sequences())
            .map(|index| batch.query(index).len())
            .filter(|&length| length > 1);
        let prefill: usize = prefill.sum();
        let decodes = batch.tokens.len() > prefill;
        let per = |rate: f64, tokens: usize| if rate > 0.0 { tokens as f64 / rate } else { 0.0 };
        Duration::from_secs_f64(
            per(self.settings.prefill_tokens_per_second, prefill)
                + per(self.settings.decode_tokens_per_second, usize::from(decodes)),
        )
    }

    fn next(&self, token: u32, position: u32) -> u32 {
        let drawn = mix(u64::from(token) << 32 | u64::from(position));
        if drawn.is_multiple_of(u64::from(self.settings.answer_tokens.max(1))) {
            return MESSAGE_END;
        }
        const LETTERS: &[u8] = b"etaoin shrdlu cmfwyp vbgkjqxz";
        u32::from(LETTERS[(drawn >> 32) as usize % LETTERS.len()])
    }
}

impl ModelRunner for SimulatedRunner {
    fn spec(&self) -> &RunnerSpec {
        &self.spec
    }

    fn step(&mut self, batch: &StepBatch, out: &mut StepOut) -> Result<(), RunnerError> {
        let duration = self.duration(batch);
        if !duration.is_zero() {
            std::thread::sleep(duration);
        }
        for &index in &batch.logits_indices {
            let row = out.logits.len();
            out.logits.resize(row + VOCABULARY, 0.0);
            let (token, position) = (batch.tokens[index as usize], batch.positions[index as usize]);
            out.logits[row + self.next(token, position) as usize] = 20.0;
        }
        Ok(())
    }
}
