//! The memory of a layer: what is kept for going backward, and what is not.

use perennial_engine::model::ModelConfig;

/// What a layer computed and backward needs. Memory is used again from batch to batch.
#[derive(Debug, Default)]
pub(super) struct LayerTape {
    pub(super) input: Vec<f32>,
    pub(super) input_scales: Vec<f32>,
    /// Before the norm of each head, where there is one.
    pub(super) query_heads: Vec<f32>,
    pub(super) query_scales: Vec<f32>,
    pub(super) key_heads: Vec<f32>,
    pub(super) key_scales: Vec<f32>,
    pub(super) queries: Vec<f32>,
    pub(super) keys: Vec<f32>,
    pub(super) values: Vec<f32>,
    pub(super) log_sums: Vec<f32>,
    pub(super) attended: Vec<f32>,
    pub(super) middle: Vec<f32>,
    pub(super) middle_scales: Vec<f32>,
    pub(super) gate: Vec<f32>,
    pub(super) up: Vec<f32>,
    /// What each pair's `a` made of its input.
    pub(super) low: [Vec<f32>; 7],
}

/// Memory for what is not kept.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) normed: Vec<f32>,
    pub(super) hidden: Vec<f32>,
    pub(super) d_normed: Vec<f32>,
    pub(super) d_hidden: Vec<f32>,
    pub(super) d_gate: Vec<f32>,
    pub(super) d_attended: Vec<f32>,
    pub(super) d_queries: Vec<f32>,
    pub(super) d_keys: Vec<f32>,
    pub(super) d_values: Vec<f32>,
    pub(super) d_heads: Vec<f32>,
    pub(super) d_low: Vec<f32>,
}

/// Numbers that [`LayerTape`] keeps of a token.
pub(super) fn kept_of_token(config: &ModelConfig, head_norms: bool, rank: usize, targets: usize) -> usize {
    let (wide, narrow) = (config.heads * config.head_width, config.kv_heads * config.head_width);
    let norms = if head_norms {
        wide + narrow + config.heads + config.kv_heads
    } else {
        0
    };
    2 * (config.hidden + 1) + 2 * wide + 2 * narrow + config.heads + 2 * config.feed_forward + rank * targets + norms
}

/// Numbers that [`Scratch`] and the tasks of attention hold of a token.
pub(super) fn scratch_of_token(config: &ModelConfig, rank: usize) -> usize {
    let (wide, narrow) = (config.heads * config.head_width, config.kv_heads * config.head_width);
    2 * config.hidden + 3 * config.feed_forward + 3 * wide + 2 * narrow + 3 * wide + rank
}

#[cfg(test)]
impl LayerTape {
    /// Numbers that are kept.
    pub(super) fn length(&self) -> usize {
        let Self {
            input,
            input_scales,
            query_heads,
            query_scales,
            key_heads,
            key_scales,
            queries,
            keys,
            values,
            log_sums,
            attended,
            middle,
            middle_scales,
            gate,
            up,
            low,
        } = self;
        let single = [
            input,
            input_scales,
            query_heads,
            query_scales,
            key_heads,
            key_scales,
            queries,
            keys,
            values,
            log_sums,
            attended,
            middle,
            middle_scales,
            gate,
            up,
        ];
        single
            .iter()
            .map(|part| part.len())
            .chain(low.iter().map(Vec::len))
            .sum()
    }
}
