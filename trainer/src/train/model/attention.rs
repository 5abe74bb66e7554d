//! Causal attention with shared key-value heads, forward and backward.
//!
//! Probabilities are computed in blocks of queries and never kept: backward computes them again from the logarithms of the
//! sums. One task is one head of one sequence; tasks share nothing, and their parts are put together in order, so that the
//! same numbers come out on any number of threads.

use std::ops::Range;

use rayon::prelude::*;

use super::batch::Batch;
use super::elementwise::{dot, exp};
use super::matrix::{Before, Matrix, MatrixMut, Threads, multiply};

/// Queries whose scores are computed together.
const BLOCK: usize = 64;

/// How a token is divided into heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Heads of queries.
    pub queries: usize,
    /// Heads of keys and values; a divisor of `queries`.
    pub keys: usize,
    /// Numbers in a head.
    pub width: usize,
}

/// Queries, keys and values of all tokens, laid out `[token, head, dimension]`.
#[derive(Clone, Copy, Debug)]
pub struct Operands<'a> {
    /// Queries, turned.
    pub queries: &'a [f32],
    /// Keys, turned.
    pub keys: &'a [f32],
    /// Values.
    pub values: &'a [f32],
}

/// The gradients of [`Operands`].
#[derive(Debug)]
pub struct Gradients<'a> {
    /// Of the queries.
    pub queries: &'a mut Vec<f32>,
    /// Of the keys.
    pub keys: &'a mut Vec<f32>,
    /// Of the values.
    pub values: &'a mut Vec<f32>,
}

/// One head of one sequence.
#[derive(Clone, Debug)]
struct Task {
    tokens: Range<usize>,
    head: usize,
}

fn tasks(batch: &Batch, heads: Heads) -> Vec<Task> {
    let of = |tokens: Range<usize>| {
        (0..heads.queries).map(move |head| Task {
            tokens: tokens.clone(),
            head,
        })
    };
    batch.sequences().flat_map(of).collect()
}

impl Heads {
    fn shared(self, head: usize) -> usize {
        head / (self.queries / self.keys)
    }

    fn scale(self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    /// A head's rows of some tokens.
    fn rows(self, values: &[f32], count: usize, head: usize, tokens: Range<usize>) -> Matrix<'_> {
        let stride = count * self.width;
        let from = tokens.start * stride + head * self.width;
        Matrix::strided(&values[from..], tokens.len(), self.width, stride)
    }

    fn row(self, values: &[f32], head: usize, token: usize) -> &[f32] {
        &values[(token * self.queries + head) * self.width..][..self.width]
    }
}

impl Task {
    /// Blocks of queries, with the tokens that they see.
    fn blocks(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> + use<> {
        let Range { start, end } = self.tokens;
        (start..end).step_by(BLOCK).map(move |from| {
            let to = end.min(from + BLOCK);
            (from..to, start..to)
        })
    }
}

impl Operands<'_> {
    /// Products of queries and keys; what lies ahead of a query is not yet left out.
    fn scores(&self, heads: Heads, head: usize, asking: &Range<usize>, seen: &Range<usize>, scores: &mut Vec<f32>) {
        scores.resize(asking.len() * seen.len(), 0.0);
        let queries = heads.rows(self.queries, heads.queries, head, asking.clone());
        let keys = heads.rows(self.keys, heads.keys, heads.shared(head), seen.clone());
        let out = MatrixMut::new(scores, asking.len(), seen.len());
        multiply(
            out,
            Before::Forgotten,
            heads.scale(),
            queries,
            keys.transposed(),
            Threads::One,
        );
    }
}

/// Attends every query to its sequence up to its own position. `log_sums`, `[token, head]`, is what [`back`] needs.
pub fn forward(batch: &Batch, heads: Heads, operands: Operands, log_sums: &mut Vec<f32>, out: &mut Vec<f32>) {
    let tasks = tasks(batch, heads);
    let parts: Vec<(Vec<f32>, Vec<f32>)> = tasks
        .par_iter()
        .map(|task| {
            let mut part = vec![0.0; task.tokens.len() * heads.width];
            let (mut sums, mut scores) = (Vec::with_capacity(task.tokens.len()), Vec::new());
            for (asking, seen) in task.blocks() {
                operands.scores(heads, task.head, &asking, &seen, &mut scores);
                for (row, token) in scores.chunks_exact_mut(seen.len()).zip(asking.clone()) {
                    sums.push(probabilities(row, token + 1 - seen.start));
                }
                let values = heads.rows(operands.values, heads.keys, heads.shared(task.head), seen.clone());
                let scores = Matrix::new(&scores, asking.len(), seen.len());
                let rows = &mut part[(asking.start - seen.start) * heads.width..];
                let rows = MatrixMut::new(rows, asking.len(), heads.width);
                multiply(rows, Before::Forgotten, 1.0, scores, values, Threads::One);
            }
            (part, sums)
        })
        .collect();
    out.resize(operands.queries.len(), 0.0);
    log_sums.resize(batch.tokens().len() * heads.queries, 0.0);
    for (Task { tokens, head }, (part, sums)) in tasks.iter().zip(parts) {
        for ((token, row), sum) in tokens.clone().zip(part.chunks_exact(heads.width)).zip(sums) {
            out[(token * heads.queries + head) * heads.width..][..heads.width].copy_from_slice(row);
            log_sums[token * heads.queries + head] = sum;
        }
    }
}

/// Makes probabilities of the first `visible` scores and nothing of the others. Returns the logarithm of their sum.
fn probabilities(scores: &mut [f32], visible: usize) -> f32 {
    let (visible, hidden) = scores.split_at_mut(visible);
    let highest = visible
        .iter()
        .fold(f32::NEG_INFINITY, |highest, &score| highest.max(score));
    visible.iter_mut().for_each(|score| *score = exp(*score - highest));
    let total: f32 = visible.iter().sum();
    let inverse = 1.0 / total;
    visible.iter_mut().for_each(|score| *score *= inverse);
    hidden.fill(0.0);
    highest + total.ln()
}

/// What one task hands back.
struct Part {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// What [`forward`] hands back of `d_out`; `out` and `log_sums` are its results.
pub fn back(
    batch: &Batch,
    heads: Heads,
    operands: Operands,
    out: &[f32],
    log_sums: &[f32],
    d_out: &[f32],
    gradients: Gradients,
) {
    let tasks = tasks(batch, heads);
    let parts: Vec<Part> = tasks
        .par_iter()
        .map(|task| back_of(task, heads, operands, out, log_sums, d_out))
        .collect();
    let Gradients { queries, keys, values } = gradients;
    queries.resize(operands.queries.len(), 0.0);
    for (gradient, operand) in [(&mut *keys, operands.keys), (&mut *values, operands.values)] {
        gradient.clear();
        gradient.resize(operand.len(), 0.0);
    }
    let width = heads.width;
    for (Task { tokens, head }, part) in tasks.iter().zip(parts) {
        for (token, row) in tokens.clone().zip(part.queries.chunks_exact(width)) {
            queries[(token * heads.queries + head) * width..][..width].copy_from_slice(row);
        }
        for (gradient, part) in [(&mut *keys, &part.keys), (&mut *values, &part.values)] {
            for (token, row) in tokens.clone().zip(part.chunks_exact(width)) {
                let gradient = &mut gradient[(token * heads.keys + heads.shared(*head)) * width..][..width];
                gradient.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
        }
    }
}

fn back_of(task: &Task, heads: Heads, operands: Operands, out: &[f32], log_sums: &[f32], d_out: &[f32]) -> Part {
    let (width, head, shared) = (heads.width, task.head, heads.shared(task.head));
    let size = task.tokens.len() * width;
    let mut part = Part {
        queries: vec![0.0; size],
        keys: vec![0.0; size],
        values: vec![0.0; size],
    };
    let (mut scores, mut d_scores) = (Vec::new(), Vec::new());
    for (asking, seen) in task.blocks() {
        let (rows, columns) = (asking.len(), seen.len());
        operands.scores(heads, head, &asking, &seen, &mut scores);
        for (row, token) in scores.chunks_exact_mut(columns).zip(asking.clone()) {
            let sum = log_sums[token * heads.queries + head];
            let (visible, hidden) = row.split_at_mut(token + 1 - seen.start);
            visible.iter_mut().for_each(|score| *score = exp(*score - sum));
            hidden.fill(0.0);
        }
        d_scores.resize(rows * columns, 0.0);
        let d_rows = heads.rows(d_out, heads.queries, head, asking.clone());
        let values = heads.rows(operands.values, heads.keys, shared, seen.clone());
        let product = MatrixMut::new(&mut d_scores, rows, columns);
        multiply(
            product,
            Before::Forgotten,
            1.0,
            d_rows,
            values.transposed(),
            Threads::One,
        );
        let both = d_scores.chunks_exact_mut(columns).zip(scores.chunks_exact(columns));
        for ((d_row, row), token) in both.zip(asking.clone()) {
            let mean = dot(heads.row(d_out, head, token), heads.row(out, head, token));
            for (d_score, probability) in d_row.iter_mut().zip(row) {
                *d_score = probability * (*d_score - mean);
            }
        }
        let d_scores = Matrix::new(&d_scores, rows, columns);
        let keys = heads.rows(operands.keys, heads.keys, shared, seen.clone());
        let queries = heads.rows(operands.queries, heads.queries, head, asking.clone());
        let to = &mut part.queries[(asking.start - seen.start) * width..];
        let to = MatrixMut::new(to, rows, width);
        multiply(to, Before::Forgotten, heads.scale(), d_scores, keys, Threads::One);
        let to = MatrixMut::new(&mut part.keys, columns, width);
        multiply(
            to,
            Before::Kept,
            heads.scale(),
            d_scores.transposed(),
            queries,
            Threads::One,
        );
        let scores = Matrix::new(&scores, rows, columns);
        let to = MatrixMut::new(&mut part.values, columns, width);
        multiply(to, Before::Kept, 1.0, scores.transposed(), d_rows, Threads::One);
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: Heads = Heads {
        queries: 4,
        keys: 2,
        width: 6,
    };

    fn wave(count: usize, speed: f32) -> Vec<f32> {
        (0..count).map(|at| (at as f32 * speed + speed).sin()).collect()
    }

    /// Two sequences, of which one is longer than a block of queries.
    fn batch() -> Batch {
        let mut batch = Batch::default();
        batch.push(&[0; 5], &[]);
        batch.push(&[0; BLOCK + 9], &[]);
        batch
    }

    fn run(batch: &Batch, queries: &[f32], keys: &[f32], values: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (mut sums, mut out) = (Vec::new(), Vec::new());
        let operands = Operands { queries, keys, values };
        forward(batch, HEADS, operands, &mut sums, &mut out);
        (sums, out)
    }

    fn naive(batch: &Batch, queries: &[f32], keys: &[f32], values: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; queries.len()];
        for tokens in batch.sequences() {
            for token in tokens.clone() {
                for head in 0..HEADS.queries {
                    let at = (token * HEADS.queries + head) * HEADS.width;
                    let row = |values: &'_ [f32], token: usize| {
                        values[(token * HEADS.keys + head / 2) * HEADS.width..][..HEADS.width].to_vec()
                    };
                    let score = |seen| dot(&queries[at..at + HEADS.width], &row(keys, seen)) * HEADS.scale();
                    let weights: Vec<f32> = (tokens.start..=token).map(|seen| score(seen).exp()).collect();
                    let total: f32 = weights.iter().sum();
                    for (weight, seen) in weights.iter().zip(tokens.start..) {
                        let value = row(values, seen);
                        for dimension in 0..HEADS.width {
                            out[at + dimension] += weight / total * value[dimension];
                        }
                    }
                }
            }
        }
        out
    }

    #[test]
    fn attention_is_what_loops_say() {
        let batch = batch();
        let tokens = batch.tokens().len();
        let (queries, keys) = (wave(tokens * 24, 1.7), wave(tokens * 12, 0.9));
        let values = wave(tokens * 12, 0.31);
        let (_, out) = run(&batch, &queries, &keys, &values);
        for (found, expected) in out.iter().zip(naive(&batch, &queries, &keys, &values)) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }

    #[test]
    fn attention_hands_back_its_slopes() {
        const STEP: f32 = 1.0 / 64.0;
        let batch = batch();
        let tokens = batch.tokens().len();
        let operands = [wave(tokens * 24, 1.7), wave(tokens * 12, 0.9), wave(tokens * 12, 0.31)];
        let d_out = wave(tokens * 24, 2.3);
        let [queries, keys, values] = &operands;
        let (sums, out) = run(&batch, queries, keys, values);
        let (mut d_queries, mut d_keys, mut d_values) = (Vec::new(), vec![9.0; 3], Vec::new());
        let gradients = Gradients {
            queries: &mut d_queries,
            keys: &mut d_keys,
            values: &mut d_values,
        };
        back(
            &batch,
            HEADS,
            Operands { queries, keys, values },
            &out,
            &sums,
            &d_out,
            gradients,
        );
        for (which, gradient) in [d_queries, d_keys, d_values].iter().enumerate() {
            for at in (0..gradient.len()).step_by(37) {
                let value = |step: f32| {
                    let mut moved = operands.clone();
                    moved[which][at] += step;
                    let (_, out) = run(&batch, &moved[0], &moved[1], &moved[2]);
                    let weighed = out.iter().zip(&d_out);
                    weighed
                        .map(|(out, weight)| f64::from(*out) * f64::from(*weight))
                        .sum::<f64>()
                };
                let slope = (value(STEP) - value(-STEP)) / f64::from(2.0 * STEP);
                let found = f64::from(gradient[at]);
                assert!(
                    (found - slope).abs() < 2e-3,
                    "operand {which} at {at}: {found}, not {slope}"
                );
            }
        }
    }
}
