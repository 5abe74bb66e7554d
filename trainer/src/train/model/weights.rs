//! The frozen weights, in 32 bits and in the order of safetensors.

use perennial_engine::model::ModelConfig;

use super::projection::Projection;

/// A frozen matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// `[outputs, inputs]`.
    pub weight: Vec<f32>,
    /// Added to what comes out.
    pub bias: Option<Vec<f32>>,
    /// Numbers that go out.
    pub outputs: usize,
    /// Numbers that come in.
    pub inputs: usize,
}

/// A layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Before attention.
    pub attention_norm: Vec<f32>,
    /// In the order of [`Projection::ALL`].
    pub projections: Vec<Linear>,
    /// Of each head's queries (Qwen3).
    pub query_norm: Option<Vec<f32>>,
    /// Of each head's keys (Qwen3).
    pub key_norm: Option<Vec<f32>>,
    /// Before the feed-forward network.
    pub feed_norm: Vec<f32>,
}

impl Layer {
    /// One of its matrices.
    #[must_use]
    pub fn projection(&self, projection: Projection) -> &Linear {
        &self.projections[projection as usize]
    }
}

/// A whole model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights {
    /// `[vocabulary, hidden]`.
    pub embedding: Vec<f32>,
    /// The layers.
    pub layers: Vec<Layer>,
    /// Before the head.
    pub norm: Vec<f32>,
    /// `[vocabulary, hidden]`; absent if the embedding is used again.
    pub head: Option<Vec<f32>>,
    /// Added to the logits.
    pub head_bias: Option<Vec<f32>>,
}

impl Weights {
    /// The matrix that makes logits.
    #[must_use]
    pub fn head(&self) -> &[f32] {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Adds `scale * b * a` to the matrices that have a pair beside them.
    pub fn merge(&mut self, adapter: super::Adapter) {
        use super::matrix::{Before, Matrix, MatrixMut, Threads, multiply};
        for slot in adapter.layout.slots() {
            let pair = adapter.layout.pair(adapter.values, slot);
            let linear = &mut self.layers[slot.layer].projections[slot.projection as usize];
            let out = MatrixMut::new(&mut linear.weight, slot.outputs, slot.inputs);
            let (b, a) = (
                Matrix::new(pair.b, slot.outputs, pair.rank),
                Matrix::new(pair.a, pair.rank, slot.inputs),
            );
            multiply(out, Before::Kept, pair.scale, b, a, Threads::Pool);
        }
    }
}

/// Bytes of a model in 32 bits, before it is read.
#[must_use]
pub fn bytes(config: &ModelConfig, tied: bool) -> u64 {
    let projections: usize = Projection::ALL
        .iter()
        .map(|projection| {
            let (outputs, inputs) = projection.shape(config);
            outputs * inputs + outputs
        })
        .sum();
    let layer = projections + 2 * config.hidden + 2 * config.head_width;
    let tables = if tied { 1 } else { 2 } * config.vocabulary * config.hidden;
    ((config.layers * layer + tables + config.hidden) * size_of::<f32>()) as u64
}

/// Bytes that reading or writing a model takes beside its weights: two copies of its largest tensor in 32 bits, or what is stored of
/// it and one.
#[must_use]
pub fn transfer_bytes(config: &ModelConfig) -> u64 {
    let matrices = Projection::ALL.iter().map(|projection| projection.shape(config));
    let tables = std::iter::once((config.vocabulary, config.hidden));
    let largest = matrices.chain(tables).map(|(rows, columns)| rows * columns).max();
    (2 * largest.unwrap_or(0) * size_of::<f32>()) as u64
}
