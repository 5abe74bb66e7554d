//! Rotary positions and attention over the paged key-value cache, on the processor.
//!
//! Keys and values are read where they lie, block by block; heads that share a key-value head read it once. Nothing is
//! gathered, repeated or padded.

use rayon::prelude::*;

use super::config::{ModelConfig, Rope};
use crate::batch::{BLOCK_SIZE, StepBatch};

/// Below this many multiplications a step's attention stays on one thread.
const PARALLEL_WORK: usize = 1 << 17;

/// Sines and cosines for the tokens of one step.
#[derive(Debug, Default)]
pub(super) struct Turns {
    sines: Vec<f32>,
    cosines: Vec<f32>,
    pairs: usize,
    interleaved: bool,
}

impl Turns {
    pub(super) fn new(rope: &Rope, positions: &[u32]) -> Self {
        let pairs = rope.frequencies.len();
        let mut turns = Self {
            interleaved: rope.interleaved,
            pairs,
            ..Self::default()
        };
        for &position in positions {
            for &frequency in &rope.frequencies {
                let (sine, cosine) = (position as f32 * frequency).sin_cos();
                turns.sines.push(sine);
                turns.cosines.push(cosine);
            }
        }
        turns
    }

    /// Turns the heads of every token in `values`, laid out `[token, head, dimension]`.
    pub(super) fn apply(&self, values: &mut [f32], heads: usize) {
        let width = self.pairs * 2;
        let tokens = self
            .sines
            .chunks_exact(self.pairs)
            .zip(self.cosines.chunks_exact(self.pairs));
        for (token, (sines, cosines)) in values.chunks_exact_mut(heads * width).zip(tokens) {
            for head in token.chunks_exact_mut(width) {
                for (pair, (&sine, &cosine)) in sines.iter().zip(cosines).enumerate() {
                    let (left, right) = if self.interleaved {
                        (2 * pair, 2 * pair + 1)
                    } else {
                        (pair, pair + self.pairs)
                    };
                    let (first, second) = (head[left], head[right]);
                    head[left] = first * cosine - second * sine;
                    head[right] = first * sine + second * cosine;
                }
            }
        }
    }
}

/// Keys and values of one layer: `[block, key-value head, token in block, dimension]`.
#[derive(Debug)]
pub(super) struct LayerCache {
    keys: Vec<f32>,
    values: Vec<f32>,
    heads: usize,
    kv_heads: usize,
    width: usize,
}

impl LayerCache {
    pub(super) fn new(config: &ModelConfig, blocks: usize) -> Self {
        let size = blocks * BLOCK_SIZE * config.kv_heads * config.head_width;
        Self {
            keys: vec![0.0; size],
            values: vec![0.0; size],
            heads: config.heads,
            kv_heads: config.kv_heads,
            width: config.head_width,
        }
    }

    /// Stores keys and values, laid out `[token, key-value head, dimension]`, in the slots of the tokens.
    pub(super) fn store(&mut self, slots: &[u32], keys: &[f32], values: &[f32]) {
        let row = self.kv_heads * self.width;
        for (token, &slot) in slots.iter().enumerate() {
            let (block, offset) = (slot as usize / BLOCK_SIZE, slot as usize % BLOCK_SIZE);
            for head in 0..self.kv_heads {
                let from = token * row + head * self.width;
                let to = ((block * self.kv_heads + head) * BLOCK_SIZE + offset) * self.width;
                self.keys[to..to + self.width].copy_from_slice(&keys[from..from + self.width]);
                self.values[to..to + self.width].copy_from_slice(&values[from..from + self.width]);
            }
        }
    }

    /// Attends every query `[token, head, dimension]` to its sequence up to its own position.
    pub(super) fn attend(&self, batch: &StepBatch, queries: &[f32]) -> Vec<f32> {
        let shared = self.heads / self.kv_heads * self.width;
        let mut out = vec![0.0; queries.len()];
        let owners = owners(batch);
        let work: usize = batch.positions.iter().map(|&position| position as usize + 1).sum();
        let one = |(index, (out, queries)): (usize, (&mut [f32], &[f32]))| {
            let (token, kv_head) = (index / self.kv_heads, index % self.kv_heads);
            let length = batch.positions[token] as usize + 1;
            self.attend_shared(batch.blocks(owners[token]), kv_head, length, queries, out);
        };
        if work * self.heads * self.width < PARALLEL_WORK {
            out.chunks_exact_mut(shared)
                .zip(queries.chunks_exact(shared))
                .enumerate()
                .for_each(one);
        } else {
            out.par_chunks_exact_mut(shared)
                .zip(queries.par_chunks_exact(shared))
                .enumerate()
                .for_each(one);
        }
        out
    }

    /// One token's queries that share a key-value head, `[head, dimension]`, over the first `length` tokens.
    fn attend_shared(&self, blocks: &[u32], kv_head: usize, length: usize, queries: &[f32], out: &mut [f32]) {
        let scale = 1.0 / (self.width as f32).sqrt();
        let mut scores = vec![0.0_f32; queries.len() / self.width * length];
        let area = |block: u32, tokens: usize| {
            let start = (block as usize * self.kv_heads + kv_head) * BLOCK_SIZE * self.width;
            start..start + tokens * self.width
        };
        let tokens_in = |index: usize| (length - index * BLOCK_SIZE).min(BLOCK_SIZE);
        let used = length.div_ceil(BLOCK_SIZE);
        for (index, &block) in blocks[..used].iter().enumerate() {
            let keys = &self.keys[area(block, tokens_in(index))];
            for (query, scores) in queries.chunks_exact(self.width).zip(scores.chunks_exact_mut(length)) {
                let scores = &mut scores[index * BLOCK_SIZE..];
                for (key, score) in keys.chunks_exact(self.width).zip(scores) {
                    *score = dot(query, key) * scale;
                }
            }
        }
        scores.chunks_exact_mut(length).for_each(softmax);
        for (index, &block) in blocks[..used].iter().enumerate() {
            let values = &self.values[area(block, tokens_in(index))];
            for (out, scores) in out.chunks_exact_mut(self.width).zip(scores.chunks_exact(length)) {
                let scores = &scores[index * BLOCK_SIZE..];
                for (value, &score) in values.chunks_exact(self.width).zip(scores) {
                    out.iter_mut().zip(value).for_each(|(out, value)| *out += score * value);
                }
            }
        }
    }
}

/// Which sequence each token of the batch belongs to.
fn owners(batch: &StepBatch) -> Vec<usize> {
    (0..batch.sequences())
        .flat_map(|index| std::iter::repeat_n(index, batch.query(index).len()))
        .collect()
}

fn softmax(scores: &mut [f32]) {
    let highest = scores
        .iter()
        .fold(f32::NEG_INFINITY, |highest, &score| highest.max(score));
    let mut total = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - highest).exp();
        total += *score;
    }
    let inverse = 1.0 / total;
    scores.iter_mut().for_each(|score| *score *= inverse);
}

/// The inner product, in lanes that the compiler keeps in vector registers.
fn dot(left: &[f32], right: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0.0_f32; LANES];
    let (left_lanes, right_lanes) = (left.chunks_exact(LANES), right.chunks_exact(LANES));
    let rest = left_lanes
        .remainder()
        .iter()
        .zip(right_lanes.remainder())
        .map(|(left, right)| left * right);
    let rest: f32 = rest.sum();
    for (left, right) in left_lanes.zip(right_lanes) {
        for lane in 0..LANES {
            lanes[lane] += left[lane] * right[lane];
        }
    }
    lanes.iter().sum::<f32>() + rest
}
