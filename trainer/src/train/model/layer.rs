//! One layer, forward.

use perennial_engine::model::ModelConfig;

use super::adapter::{Adapter, Pair};
use super::attention::{self, Heads, Operands};
use super::batch::Batch;
use super::elementwise::{add_bias, gate, norm};
use super::matrix::{Before, Matrix, MatrixMut, Threads, multiply};
use super::projection::Projection;
use super::rotary::Turns;
use super::tape::{LayerTape, Scratch};
use super::weights::{Layer, Linear};

/// What a layer computes with.
pub(super) struct Run<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) layer: &'a Layer,
    pub(super) index: usize,
    pub(super) adapter: Option<Adapter<'a>>,
    pub(super) batch: &'a Batch,
    pub(super) turns: &'a Turns,
}

impl Run<'_> {
    pub(super) fn tokens(&self) -> usize {
        self.batch.tokens().len()
    }

    pub(super) fn heads(&self) -> Heads {
        Heads {
            queries: self.config.heads,
            keys: self.config.kv_heads,
            width: self.config.head_width,
        }
    }

    /// Extends `stream` by what the layer adds to it.
    pub(super) fn forward(&self, stream: &mut [f32], tape: &mut LayerTape, scratch: &mut Scratch) {
        let epsilon = self.config.norm_epsilon;
        let LayerTape {
            input,
            queries,
            keys,
            values,
            ..
        } = tape;
        copy(stream, input);
        norm(
            stream,
            &self.layer.attention_norm,
            epsilon,
            &mut tape.input_scales,
            &mut scratch.normed,
        );
        let normed = &scratch.normed;
        let [low_query, low_key, low_value, low_output, low_gate, low_up, low_down] = &mut tape.low;
        self.project(Projection::Query, normed, low_query, queries);
        self.project(Projection::Key, normed, low_key, keys);
        self.project(Projection::Value, normed, low_value, values);
        if let Some(weight) = &self.layer.query_norm {
            std::mem::swap(queries, &mut tape.query_heads);
            norm(&tape.query_heads, weight, epsilon, &mut tape.query_scales, queries);
        }
        if let Some(weight) = &self.layer.key_norm {
            std::mem::swap(keys, &mut tape.key_heads);
            norm(&tape.key_heads, weight, epsilon, &mut tape.key_scales, keys);
        }
        self.turns.forward(queries, self.config.heads);
        self.turns.forward(keys, self.config.kv_heads);
        let operands = Operands { queries, keys, values };
        attention::forward(
            self.batch,
            self.heads(),
            operands,
            &mut tape.log_sums,
            &mut tape.attended,
        );
        self.add_projected(Projection::Output, &tape.attended, low_output, stream);
        copy(stream, &mut tape.middle);
        norm(
            stream,
            &self.layer.feed_norm,
            epsilon,
            &mut tape.middle_scales,
            &mut scratch.normed,
        );
        self.project(Projection::Gate, &scratch.normed, low_gate, &mut tape.gate);
        self.project(Projection::Up, &scratch.normed, low_up, &mut tape.up);
        gate(&tape.gate, &tape.up, &mut scratch.hidden);
        self.add_projected(Projection::Down, &scratch.hidden, low_down, stream);
    }

    fn project(&self, projection: Projection, input: &[f32], low: &mut Vec<f32>, out: &mut Vec<f32>) {
        out.resize(self.tokens() * self.layer.projection(projection).outputs, 0.0);
        self.product(projection, input, low, out, Before::Forgotten);
    }

    fn add_projected(&self, projection: Projection, input: &[f32], low: &mut Vec<f32>, stream: &mut [f32]) {
        self.product(projection, input, low, stream, Before::Kept);
    }

    fn product(&self, projection: Projection, input: &[f32], low: &mut Vec<f32>, out: &mut [f32], before: Before) {
        let (tokens, linear) = (self.tokens(), self.layer.projection(projection));
        let Linear {
            weight,
            bias,
            outputs,
            inputs,
        } = linear;
        let rows = Matrix::new(input, tokens, *inputs);
        let weight = Matrix::new(weight, *outputs, *inputs).transposed();
        multiply(
            MatrixMut::new(out, tokens, *outputs),
            before,
            1.0,
            rows,
            weight,
            Threads::Pool,
        );
        if let Some(bias) = bias {
            add_bias(out, bias);
        }
        let Some(Pair { a, b, rank, scale }) = self.adapter.and_then(|adapter| adapter.pair(self.index, projection))
        else {
            return;
        };
        low.resize(tokens * rank, 0.0);
        let a = Matrix::new(a, rank, *inputs).transposed();
        multiply(
            MatrixMut::new(low, tokens, rank),
            Before::Forgotten,
            1.0,
            rows,
            a,
            Threads::Pool,
        );
        let (low, b) = (
            Matrix::new(low, tokens, rank),
            Matrix::new(b, *outputs, rank).transposed(),
        );
        multiply(
            MatrixMut::new(out, tokens, *outputs),
            Before::Kept,
            scale,
            low,
            b,
            Threads::Pool,
        );
    }
}

fn copy(from: &[f32], to: &mut Vec<f32>) {
    to.clear();
    to.extend_from_slice(from);
}
