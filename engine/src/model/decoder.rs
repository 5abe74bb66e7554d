//! The decoder: one step over a flat batch.

use std::sync::Arc;

use candle_core::quantized::{QMatMul, QTensor};
use candle_core::{Device, Module, Result, Tensor};
use candle_nn::ops::{rms_norm, silu};

use super::attention::{LayerCache, Turns};
use super::config::ModelConfig;
use crate::batch::StepBatch;

/// A matrix with an optional bias; products are quantized if the weights are.
pub(super) struct Linear {
    weight: QMatMul,
    bias: Option<Tensor>,
}

impl Linear {
    pub(super) fn new(weight: QMatMul, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let out = self.weight.forward(input)?;
        match &self.bias {
            Some(bias) => out.broadcast_add(bias),
            None => Ok(out),
        }
    }
}

pub(super) struct Layer {
    pub(super) attention_norm: Tensor,
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    pub(super) query_norm: Option<Tensor>,
    pub(super) key_norm: Option<Tensor>,
    pub(super) output: Linear,
    pub(super) feed_norm: Tensor,
    pub(super) gate: Linear,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

pub(super) struct Weights {
    pub(super) embedding: Embedding,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: Tensor,
    pub(super) head: Linear,
}

/// The token embedding, quantized rows being widened one by one.
pub(super) enum Embedding {
    Quantized(Arc<QTensor>),
    Dense(Tensor),
}

impl Embedding {
    fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        match self {
            Self::Quantized(rows) => rows.embedding(tokens),
            Self::Dense(rows) => rows.index_select(tokens, 0),
        }
    }
}

pub(super) struct Decoder {
    config: ModelConfig,
    weights: Weights,
    cache: Vec<LayerCache>,
    device: Device,
}

impl Decoder {
    pub(super) fn new(config: ModelConfig, weights: Weights, blocks: usize, device: Device) -> Self {
        let cache = weights
            .layers
            .iter()
            .map(|_| LayerCache::new(&config, blocks))
            .collect();
        Self {
            config,
            weights,
            cache,
            device,
        }
    }

    /// Extends the cache by the batch's tokens; appends the wanted rows of logits to `logits`.
    pub(super) fn forward(&mut self, batch: &StepBatch, logits: &mut Vec<f32>) -> Result<()> {
        let Self {
            config,
            weights,
            cache,
            device,
        } = self;
        let epsilon = config.norm_epsilon;
        let turns = Turns::new(&config.rope, &batch.positions);
        let tokens = Tensor::new(batch.tokens.as_slice(), device)?;
        let mut stream = weights.embedding.forward(&tokens)?;
        for (layer, cache) in weights.layers.iter().zip(cache) {
            let normed = rms_norm(&stream, &layer.attention_norm, epsilon)?;
            let attended = layer.attend(&normed, batch, &turns, cache, config)?;
            stream = (stream + layer.output.forward(&attended)?)?;
            let normed = rms_norm(&stream, &layer.feed_norm, epsilon)?;
            let gated = (silu(&layer.gate.forward(&normed)?)? * layer.up.forward(&normed)?)?;
            stream = (stream + layer.down.forward(&gated)?)?;
        }
        if batch.logits_indices.is_empty() {
            return Ok(());
        }
        let wanted = Tensor::new(batch.logits_indices.as_slice(), device)?;
        let last = rms_norm(&stream.index_select(&wanted, 0)?, &weights.norm, epsilon)?;
        logits.extend(weights.head.forward(&last)?.flatten_all()?.to_vec1::<f32>()?);
        Ok(())
    }
}

impl Layer {
    fn attend(
        &self,
        normed: &Tensor,
        batch: &StepBatch,
        turns: &Turns,
        cache: &mut LayerCache,
        config: &ModelConfig,
    ) -> Result<Tensor> {
        let mut queries = self.heads(&self.query, self.query_norm.as_ref(), normed, config)?;
        let mut keys = self.heads(&self.key, self.key_norm.as_ref(), normed, config)?;
        let values = self.value.forward(normed)?.flatten_all()?.to_vec1::<f32>()?;
        turns.apply(&mut queries, config.heads);
        turns.apply(&mut keys, config.kv_heads);
        cache.store(&batch.slots, &keys, &values);
        let attended = cache.attend(batch, &queries);
        let shape = (batch.tokens.len(), config.heads * config.head_width);
        Tensor::from_vec(attended, shape, normed.device())
    }

    fn heads(&self, linear: &Linear, norm: Option<&Tensor>, input: &Tensor, config: &ModelConfig) -> Result<Vec<f32>> {
        let mut heads = linear.forward(input)?;
        if let Some(norm) = norm {
            let rows = heads.elem_count() / config.head_width;
            heads = rms_norm(&heads.reshape((rows, config.head_width))?, norm, config.norm_epsilon)?;
        }
        heads.flatten_all()?.to_vec1::<f32>()
    }
}
