//! From the stream to losses: logits are made for a few targets at a time and forgotten.

use rayon::prelude::*;

use super::batch::Target;
use super::elementwise::{add_bias, exp, norm, norm_back};
use super::matrix::{Before, Matrix, MatrixMut, Threads, multiply};
use super::weights::Weights;

/// Bytes of logits that are there at a time.
pub(super) const LOGITS_BYTES: usize = 16 << 20;

/// How many targets are computed at a time.
pub(super) fn targets_at_a_time(vocabulary: usize) -> usize {
    (LOGITS_BYTES / size_of::<f32>() / vocabulary.max(1)).clamp(8, 256)
}

/// Memory that is used again.
#[derive(Debug, Default)]
pub(super) struct HeadScratch {
    rows: Vec<f32>,
    scales: Vec<f32>,
    normed: Vec<f32>,
    logits: Vec<f32>,
    d_normed: Vec<f32>,
    d_rows: Vec<f32>,
}

impl HeadScratch {
    /// The logits of `targets`, one row after the other, and the memory that holds them until the next call.
    pub(super) fn logits(&mut self, weights: &Weights, epsilon: f32, stream: &[f32], targets: &[Target]) -> &mut [f32] {
        let hidden = weights.norm.len();
        let vocabulary = weights.head().len() / hidden;
        self.rows.clear();
        for target in targets {
            self.rows.extend_from_slice(&stream[target.row * hidden..][..hidden]);
        }
        norm(&self.rows, &weights.norm, epsilon, &mut self.scales, &mut self.normed);
        self.logits.resize(targets.len() * vocabulary, 0.0);
        let rows = Matrix::new(&self.normed, targets.len(), hidden);
        let head = Matrix::new(weights.head(), vocabulary, hidden).transposed();
        let out = MatrixMut::new(&mut self.logits, targets.len(), vocabulary);
        multiply(out, Before::Forgotten, 1.0, rows, head, Threads::Pool);
        if let Some(bias) = &weights.head_bias {
            add_bias(&mut self.logits, bias);
        }
        &mut self.logits
    }

    /// Appends the loss of each target to `losses`: the negative logarithm of its probability.
    pub(super) fn losses(
        &mut self,
        weights: &Weights,
        epsilon: f32,
        stream: &[f32],
        targets: &[Target],
        losses: &mut Vec<f32>,
    ) {
        let vocabulary = weights.head().len() / weights.norm.len();
        for targets in targets.chunks(targets_at_a_time(vocabulary)) {
            let logits = self.logits(weights, epsilon, stream, targets);
            let rows = logits.par_chunks(vocabulary).zip(targets);
            let found: Vec<f32> = rows
                .map(|(row, target)| {
                    let (highest, total) = sum(row);
                    highest + total.ln() - row[target.token as usize]
                })
                .collect();
            losses.extend(found);
        }
    }

    /// As [`HeadScratch::losses`]; writes the gradient of their weighted sum to `d_stream`.
    pub(super) fn gradients(
        &mut self,
        weights: &Weights,
        epsilon: f32,
        stream: &[f32],
        targets: &[Target],
        losses: &mut Vec<f32>,
        d_stream: &mut Vec<f32>,
    ) {
        let hidden = weights.norm.len();
        let vocabulary = weights.head().len() / hidden;
        d_stream.clear();
        d_stream.resize(stream.len(), 0.0);
        for targets in targets.chunks(targets_at_a_time(vocabulary)) {
            let logits = self.logits(weights, epsilon, stream, targets);
            let rows = logits.par_chunks_mut(vocabulary).zip(targets);
            let found: Vec<f32> = rows.map(|(row, target)| slope(row, target)).collect();
            losses.extend(found);
            self.d_normed.resize(targets.len() * hidden, 0.0);
            let d_logits = Matrix::new(&self.logits, targets.len(), vocabulary);
            let head = Matrix::new(weights.head(), vocabulary, hidden);
            let out = MatrixMut::new(&mut self.d_normed, targets.len(), hidden);
            multiply(out, Before::Forgotten, 1.0, d_logits, head, Threads::Pool);
            self.d_rows.clear();
            self.d_rows.resize(targets.len() * hidden, 0.0);
            norm_back(
                &self.d_normed,
                &self.rows,
                &weights.norm,
                &self.scales,
                &mut self.d_rows,
            );
            for (target, row) in targets.iter().zip(self.d_rows.chunks_exact(hidden)) {
                let stream = &mut d_stream[target.row * hidden..][..hidden];
                stream.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
        }
    }
}

/// The highest logit, and the sum of the exponentials of all, relative to it.
fn sum(row: &[f32]) -> (f32, f32) {
    const LANES: usize = 16;
    let highest = row.iter().fold(f32::NEG_INFINITY, |highest, &logit| highest.max(logit));
    let mut lanes = [0.0_f32; LANES];
    let parts = row.chunks_exact(LANES);
    let rest: f32 = parts.remainder().iter().map(|logit| exp(logit - highest)).sum();
    for part in parts {
        for lane in 0..LANES {
            lanes[lane] += exp(part[lane] - highest);
        }
    }
    (highest, lanes.iter().sum::<f32>() + rest)
}

/// Puts the gradient of the weighted loss in place of the logits. Returns the loss.
fn slope(row: &mut [f32], target: &Target) -> f32 {
    let (highest, total) = sum(row);
    let token = target.token as usize;
    let loss = highest + total.ln() - row[token];
    let factor = target.weight / total;
    row.iter_mut().for_each(|logit| *logit = exp(*logit - highest) * factor);
    row[token] -= target.weight;
    loss
}
