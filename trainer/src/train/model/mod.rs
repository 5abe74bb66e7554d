//! The decoder in 32 bits, forward and backward, for training and for scoring.
//!
//! Gradients are written out by hand instead of recorded: the weights are frozen, so that half of what a recorder computes
//! would be for nobody; a layer can be computed again instead of kept when memory is short; and what belongs to one token
//! is computed in one pass. Tests compare it with the serving engine, with candle's own gradients and with differences.

mod adapter;
mod attention;
mod backward;
mod batch;
mod elementwise;
mod head;
mod layer;
mod matrix;
mod projection;
mod rotary;
mod tape;
mod weights;

pub use adapter::{Adapter, Layout, Pair, Slot};
pub use batch::{Batch, Target};
pub use projection::Projection;
pub use weights::{Layer, Linear, Weights, bytes as weights_bytes, transfer_bytes};

use perennial_engine::model::ModelConfig;

use backward::Slopes;
use head::HeadScratch;
use layer::Run;
use rotary::Turns;
use tape::{LayerTape, Scratch};

/// What is kept of the forward computation for the backward one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// What went into each layer; the rest is computed again.
    Inputs,
    /// Everything.
    Everything,
}

/// A model to compute with.
#[derive(Debug)]
pub struct Decoder {
    /// Its shape.
    pub config: ModelConfig,
    /// Its weights.
    pub weights: Weights,
}

/// Memory that is used again from batch to batch.
#[derive(Debug, Default)]
pub struct Workspace {
    tapes: Vec<LayerTape>,
    inputs: Vec<Vec<f32>>,
    stream: Vec<f32>,
    d_stream: Vec<f32>,
    scratch: Scratch,
    head: HeadScratch,
}

impl Decoder {
    /// The loss of each target: the negative logarithm of the probability of its token.
    #[must_use]
    pub fn losses(&self, adapter: Option<Adapter>, batch: &Batch, workspace: &mut Workspace) -> Vec<f32> {
        self.stream(adapter, batch, workspace);
        let Workspace { stream, head, .. } = workspace;
        let mut losses = Vec::with_capacity(batch.targets().len());
        head.losses(
            &self.weights,
            self.config.norm_epsilon,
            stream,
            batch.targets(),
            &mut losses,
        );
        losses
    }

    /// The logits behind which the targets come, one row after the other.
    #[must_use]
    pub fn logits(&self, adapter: Option<Adapter>, batch: &Batch, workspace: &mut Workspace) -> Vec<f32> {
        self.stream(adapter, batch, workspace);
        let Workspace { stream, head, .. } = workspace;
        head.logits(&self.weights, self.config.norm_epsilon, stream, batch.targets())
            .to_vec()
    }

    /// The losses of the targets. Adds the gradient of their weighted sum to `gradient`, in the layout of the adapter.
    #[must_use]
    pub fn gradients(
        &self,
        adapter: Adapter,
        batch: &Batch,
        kept: Kept,
        workspace: &mut Workspace,
        gradient: &mut [f32],
    ) -> Vec<f32> {
        let turns = Turns::new(&self.config.rope.frequencies, batch);
        let layers = self.weights.layers.len();
        let tapes = if kept == Kept::Everything { layers } else { 1 };
        workspace.tapes.resize_with(tapes, LayerTape::default);
        workspace.inputs.resize_with(layers, Vec::new);
        let Workspace {
            tapes,
            inputs,
            stream,
            d_stream,
            scratch,
            head,
        } = workspace;
        self.embed(batch, stream);
        for index in 0..layers {
            let tape = if kept == Kept::Everything {
                &mut tapes[index]
            } else {
                inputs[index].clear();
                inputs[index].extend_from_slice(stream);
                &mut tapes[0]
            };
            self.run(index, Some(adapter), batch, &turns)
                .forward(stream, tape, scratch);
        }
        let mut losses = Vec::with_capacity(batch.targets().len());
        let epsilon = self.config.norm_epsilon;
        head.gradients(&self.weights, epsilon, stream, batch.targets(), &mut losses, d_stream);
        let mut slopes = Slopes {
            layout: adapter.layout,
            values: gradient,
        };
        for index in (0..layers).rev() {
            let run = self.run(index, Some(adapter), batch, &turns);
            let tape = if kept == Kept::Everything {
                &mut tapes[index]
            } else {
                run.forward(&mut inputs[index], &mut tapes[0], scratch);
                &mut tapes[0]
            };
            run.back(d_stream, tape, scratch, &mut slopes);
        }
        losses
    }

    fn run<'a>(&'a self, index: usize, adapter: Option<Adapter<'a>>, batch: &'a Batch, turns: &'a Turns) -> Run<'a> {
        Run {
            config: &self.config,
            layer: &self.weights.layers[index],
            index,
            adapter,
            batch,
            turns,
        }
    }

    fn embed(&self, batch: &Batch, stream: &mut Vec<f32>) {
        let hidden = self.config.hidden;
        stream.clear();
        for &token in batch.tokens() {
            stream.extend_from_slice(&self.weights.embedding[token as usize * hidden..][..hidden]);
        }
    }

    /// What leaves the last layer, in the workspace.
    fn stream(&self, adapter: Option<Adapter>, batch: &Batch, workspace: &mut Workspace) {
        let turns = Turns::new(&self.config.rope.frequencies, batch);
        if workspace.tapes.is_empty() {
            workspace.tapes.push(LayerTape::default());
        }
        let Workspace {
            tapes, stream, scratch, ..
        } = workspace;
        self.embed(batch, stream);
        for index in 0..self.weights.layers.len() {
            self.run(index, adapter, batch, &turns)
                .forward(stream, &mut tapes[0], scratch);
        }
    }
}

/// Bytes that a batch of `tokens` takes, with room for gradients.
#[must_use]
pub fn batch_bytes(config: &ModelConfig, adapter: &Layout, head_norms: bool, kept: Kept, tokens: usize) -> u64 {
    let targets = adapter.slots().iter().filter(|slot| slot.layer == 0).count();
    let tape = tape::kept_of_token(config, head_norms, adapter.rank(), targets);
    let kept = match kept {
        Kept::Everything => tape * config.layers,
        Kept::Inputs => tape + config.hidden * config.layers,
    };
    let stream = 2 * config.hidden + config.head_width;
    let of_token = kept + stream + tape::scratch_of_token(config, adapter.rank());
    let at_a_time = head::targets_at_a_time(config.vocabulary);
    let head = at_a_time * (config.vocabulary + 4 * config.hidden);
    ((of_token * tokens + head) * size_of::<f32>()) as u64
}

#[cfg(test)]
mod tests;
