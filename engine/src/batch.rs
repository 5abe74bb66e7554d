//! The device half: a flat batch goes in, logits come out.

/// Tokens per block of the key-value cache.
pub const BLOCK_SIZE: usize = 32;

/// What a runner can do, fixed from its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerSpec {
    /// Most tokens of one sequence.
    pub max_length: usize,
    /// Number of token ids, which is the length of a row of logits.
    pub vocabulary: usize,
    /// Blocks of [`BLOCK_SIZE`] tokens in its key-value cache.
    pub blocks: usize,
    /// Token ids that end an answer.
    pub end_tokens: Vec<u32>,
}

/// One step's work, flat: the tokens of all sequences one after the other, without padding.
///
/// Sequence `i` owns the tokens `query_starts[i]..query_starts[i + 1]` and the blocks
/// `block_tables[block_starts[i]..block_starts[i + 1]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepBatch {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// Position of each token in its sequence.
    pub positions: Vec<u32>,
    /// Where each token's key and value go: block times [`BLOCK_SIZE`] plus offset.
    pub slots: Vec<u32>,
    /// Cumulative token counts, one more than sequences.
    pub query_starts: Vec<u32>,
    /// Tokens of each sequence in the cache after this step.
    pub kv_lengths: Vec<u32>,
    /// Cumulative block counts, one more than sequences.
    pub block_starts: Vec<u32>,
    /// Blocks of each sequence, in order.
    pub block_tables: Vec<u32>,
    /// Tokens whose logits are wanted, as indices into `tokens`.
    pub logits_indices: Vec<u32>,
}

impl StepBatch {
    /// Number of sequences.
    #[must_use]
    pub fn sequences(&self) -> usize {
        self.kv_lengths.len()
    }

    /// The tokens of sequence `index`, as a range into `tokens`.
    #[must_use]
    pub fn query(&self, index: usize) -> std::ops::Range<usize> {
        self.query_starts[index] as usize..self.query_starts[index + 1] as usize
    }

    /// The blocks of sequence `index`.
    #[must_use]
    pub fn blocks(&self, index: usize) -> &[u32] {
        &self.block_tables[self.block_starts[index] as usize..self.block_starts[index + 1] as usize]
    }

    pub(crate) fn clear(&mut self) {
        let Self {
            tokens,
            positions,
            slots,
            query_starts,
            kv_lengths,
            block_starts,
            block_tables,
            logits_indices,
        } = self;
        for list in [
            tokens,
            positions,
            slots,
            query_starts,
            kv_lengths,
            block_starts,
            block_tables,
            logits_indices,
        ] {
            list.clear();
        }
        self.query_starts.push(0);
        self.block_starts.push(0);
    }

    /// Appends the tokens at positions `first..first + tokens.len()` of a sequence; `sample` asks for the logits of
    /// the last.
    pub(crate) fn push(&mut self, tokens: &[u32], first: usize, blocks: &[u32], sample: bool) {
        self.tokens.extend_from_slice(tokens);
        for position in first..first + tokens.len() {
            self.positions.push(position as u32);
            self.slots
                .push(blocks[position / BLOCK_SIZE] * BLOCK_SIZE as u32 + (position % BLOCK_SIZE) as u32);
        }
        let length = first + tokens.len();
        self.query_starts.push(self.tokens.len() as u32);
        self.kv_lengths.push(length as u32);
        self.block_tables
            .extend_from_slice(&blocks[..length.div_ceil(BLOCK_SIZE)]);
        self.block_starts.push(self.block_tables.len() as u32);
        if sample {
            self.logits_indices.push(self.tokens.len() as u32 - 1);
        }
    }
}

/// One step's result; reused from step to step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepOut {
    /// One row of vocabulary length per entry of `logits_indices`, in that order.
    pub logits: Vec<f32>,
}

/// Why a step failed. The engine stops: a device that failed once is not trusted again.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// An operation on the device failed.
    #[error("the device failed while computing a step: {0}")]
    Device(#[from] candle_core::Error),
    /// Logits are not numbers.
    #[error("the model produced logits that are not numbers; its weights may be damaged")]
    NotANumber,
}

/// Computes steps; lives on the engine's thread.
pub trait ModelRunner: Send {
    /// What it can do.
    fn spec(&self) -> &RunnerSpec;
    /// Computes one step: reads and extends the key-value cache, writes `out.logits`.
    ///
    /// # Errors
    /// Any error is final for the engine.
    fn step(&mut self, batch: &StepBatch, out: &mut StepOut) -> Result<(), RunnerError>;
}
