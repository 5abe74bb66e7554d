//! The decoder as a [`ModelRunner`].

use candle_core::Device;

use super::config::ModelConfig;
use super::decoder::{Decoder, Weights};
use crate::batch::{ModelRunner, RunnerError, RunnerSpec, StepBatch, StepOut};
use crate::plan::Plan;

/// Computes a Llama-family model with candle.
pub struct CandleRunner {
    spec: RunnerSpec,
    decoder: Decoder,
    device: Device,
}

impl CandleRunner {
    pub(super) fn new(
        config: ModelConfig,
        weights: Weights,
        plan: &Plan,
        end_tokens: Vec<u32>,
        device: Device,
    ) -> Self {
        let spec = RunnerSpec {
            max_length: plan.context_tokens,
            vocabulary: config.vocabulary,
            blocks: plan.cache_blocks,
            end_tokens,
        };
        let decoder = Decoder::new(config, weights, plan.cache_blocks, device.clone());
        Self { spec, decoder, device }
    }
}

impl ModelRunner for CandleRunner {
    fn spec(&self) -> &RunnerSpec {
        &self.spec
    }

    fn step(&mut self, batch: &StepBatch, out: &mut StepOut) -> Result<(), RunnerError> {
        let Self { decoder, device, .. } = self;
        device.with_context(|| decoder.forward(batch, &mut out.logits))?;
        Ok(())
    }
}
