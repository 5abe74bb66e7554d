//! One layer, backward.

use super::adapter::{Layout, Pair};
use super::attention::{self, Gradients, Operands};
use super::elementwise::{gate, gate_back, norm, norm_back};
use super::layer::Run;
use super::matrix::{Before, Matrix, MatrixMut, Threads, multiply};
use super::projection::Projection;
use super::tape::{LayerTape, Scratch};

/// Gradients of an adapter, in its layout.
pub(super) struct Slopes<'a> {
    pub(super) layout: &'a Layout,
    pub(super) values: &'a mut [f32],
}

impl Run<'_> {
    /// Turns the gradient of what came out of the layer in `d_stream` into that of what went in, and adds the gradients of
    /// the adapter's pairs to `slopes`.
    pub(super) fn back(&self, d_stream: &mut [f32], tape: &LayerTape, scratch: &mut Scratch, slopes: &mut Slopes) {
        self.feed_back(d_stream, tape, scratch, slopes);
        self.attend_back(d_stream, tape, scratch, slopes);
    }

    fn feed_back(&self, d_stream: &mut [f32], tape: &LayerTape, scratch: &mut Scratch, slopes: &mut Slopes) {
        let epsilon = self.config.norm_epsilon;
        let Scratch {
            normed,
            hidden,
            d_normed,
            d_hidden,
            d_gate,
            d_low,
            ..
        } = scratch;
        gate(&tape.gate, &tape.up, hidden);
        self.project_back(
            Projection::Down,
            d_stream,
            hidden,
            tape,
            d_low,
            slopes,
            (d_hidden, Before::Forgotten),
        );
        gate_back(&tape.gate, &tape.up, d_hidden, d_gate);
        norm(&tape.middle, &self.layer.feed_norm, epsilon, &mut Vec::new(), normed);
        self.project_back(
            Projection::Gate,
            d_gate,
            normed,
            tape,
            d_low,
            slopes,
            (d_normed, Before::Forgotten),
        );
        self.project_back(
            Projection::Up,
            d_hidden,
            normed,
            tape,
            d_low,
            slopes,
            (d_normed, Before::Kept),
        );
        norm_back(
            d_normed,
            &tape.middle,
            &self.layer.feed_norm,
            &tape.middle_scales,
            d_stream,
        );
    }

    fn attend_back(&self, d_stream: &mut [f32], tape: &LayerTape, scratch: &mut Scratch, slopes: &mut Slopes) {
        let epsilon = self.config.norm_epsilon;
        let Scratch {
            normed,
            d_normed,
            d_attended,
            d_queries,
            d_keys,
            d_values,
            d_heads,
            d_low,
            ..
        } = scratch;
        let to = (&mut *d_attended, Before::Forgotten);
        self.project_back(Projection::Output, d_stream, &tape.attended, tape, d_low, slopes, to);
        let operands = Operands {
            queries: &tape.queries,
            keys: &tape.keys,
            values: &tape.values,
        };
        let gradients = Gradients {
            queries: d_queries,
            keys: d_keys,
            values: d_values,
        };
        attention::back(
            self.batch,
            self.heads(),
            operands,
            &tape.attended,
            &tape.log_sums,
            d_attended,
            gradients,
        );
        self.turns.back(d_queries, self.config.heads);
        self.turns.back(d_keys, self.config.kv_heads);
        if let Some(weight) = &self.layer.query_norm {
            head_norm_back(d_queries, &tape.query_heads, weight, &tape.query_scales, d_heads);
        }
        if let Some(weight) = &self.layer.key_norm {
            head_norm_back(d_keys, &tape.key_heads, weight, &tape.key_scales, d_heads);
        }
        norm(
            &tape.input,
            &self.layer.attention_norm,
            epsilon,
            &mut Vec::new(),
            normed,
        );
        self.project_back(
            Projection::Query,
            d_queries,
            normed,
            tape,
            d_low,
            slopes,
            (d_normed, Before::Forgotten),
        );
        self.project_back(
            Projection::Key,
            d_keys,
            normed,
            tape,
            d_low,
            slopes,
            (d_normed, Before::Kept),
        );
        self.project_back(
            Projection::Value,
            d_values,
            normed,
            tape,
            d_low,
            slopes,
            (d_normed, Before::Kept),
        );
        // Nobody asks for the gradient of the embedding.
        if self.index > 0 {
            norm_back(
                d_normed,
                &tape.input,
                &self.layer.attention_norm,
                &tape.input_scales,
                d_stream,
            );
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what goes in, what comes out, and the memory between, each once"
    )]
    fn project_back(
        &self,
        projection: Projection,
        d_out: &[f32],
        input: &[f32],
        tape: &LayerTape,
        d_low: &mut Vec<f32>,
        slopes: &mut Slopes,
        (d_input, before): (&mut Vec<f32>, Before),
    ) {
        let (tokens, linear) = (self.tokens(), self.layer.projection(projection));
        let (outputs, inputs) = (linear.outputs, linear.inputs);
        // The first layer's norm hands on nothing, so these products would be for nobody.
        let wanted = self.index > 0 || !matches!(projection, Projection::Query | Projection::Key | Projection::Value);
        let d_rows = Matrix::new(d_out, tokens, outputs);
        d_input.resize(tokens * inputs, 0.0);
        if wanted {
            let weight = Matrix::new(&linear.weight, outputs, inputs);
            multiply(
                MatrixMut::new(d_input, tokens, inputs),
                before,
                1.0,
                d_rows,
                weight,
                Threads::Pool,
            );
        }
        let Some(slot) = slopes.layout.slot(self.index, projection).copied() else {
            return;
        };
        let Some(Pair { a, b, rank, scale }) = self.adapter.and_then(|adapter| adapter.pair(self.index, projection))
        else {
            return;
        };
        let (d_a, d_b) = slopes.layout.pair_mut(slopes.values, &slot);
        let low = Matrix::new(&tape.low[projection as usize], tokens, rank);
        multiply(
            MatrixMut::new(d_b, outputs, rank),
            Before::Kept,
            scale,
            d_rows.transposed(),
            low,
            Threads::Pool,
        );
        d_low.resize(tokens * rank, 0.0);
        let b = Matrix::new(b, outputs, rank);
        multiply(
            MatrixMut::new(d_low, tokens, rank),
            Before::Forgotten,
            scale,
            d_rows,
            b,
            Threads::Pool,
        );
        let (d_low, rows) = (Matrix::new(d_low, tokens, rank), Matrix::new(input, tokens, inputs));
        multiply(
            MatrixMut::new(d_a, rank, inputs),
            Before::Kept,
            1.0,
            d_low.transposed(),
            rows,
            Threads::Pool,
        );
        if wanted {
            let a = Matrix::new(a, rank, inputs);
            multiply(
                MatrixMut::new(d_input, tokens, inputs),
                Before::Kept,
                1.0,
                d_low,
                a,
                Threads::Pool,
            );
        }
    }
}

/// Turns the gradient behind the norm of each head into the one before it.
fn head_norm_back(d_out: &mut Vec<f32>, heads: &[f32], weight: &[f32], scales: &[f32], d_heads: &mut Vec<f32>) {
    d_heads.clear();
    d_heads.resize(d_out.len(), 0.0);
    norm_back(d_out, heads, weight, scales, d_heads);
    std::mem::swap(d_out, d_heads);
}
