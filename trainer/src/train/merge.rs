//! The adapter inside the base: a model that is served like any other.
//!
//! What is learned is often smaller than the steps of a narrow type. So weights are rounded first and measured as they will be
//! served; only then are they written.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use perennial_engine::model::Format;
use rayon::prelude::*;

use super::arguments::MergedType;
use super::base::{Base, HubTensors};
use super::error::TrainError;
use super::model::{Adapter, Layout, Slot, Weights};
use super::tensors::float;

/// How wide changed tensors are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// As is asked for.
    Asked,
    /// Wider, so that more of what was learned is kept.
    Wider,
}

/// The type of a changed tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// In GGUF.
    Gguf(GgmlDType),
    /// In safetensors.
    Hub(DType),
}

/// Adds the adapter to the weights and rounds what it changed to the type that it will be stored in.
///
/// # Errors
/// When the base cannot be read or a type cannot be made.
pub fn merge(
    base: &Base,
    weights: &mut Weights,
    adapter: Adapter,
    asked: MergedType,
    width: Width,
) -> Result<(), TrainError> {
    weights.merge(adapter);
    let types = types(base, adapter.layout, asked, width)?;
    let slots = adapter.layout.slots();
    let rounded: Result<Vec<Vec<f32>>, candle_core::Error> = slots
        .par_iter()
        .zip(&types)
        .map(|(slot, stored)| {
            round(
                &weights.layers[slot.layer].projection(slot.projection).weight,
                slot,
                *stored,
            )
        })
        .collect();
    for (slot, values) in slots.iter().zip(rounded?) {
        weights.layers[slot.layer].projections[slot.projection as usize].weight = values;
    }
    Ok(())
}

/// The stored type of each slot's matrix.
///
/// # Errors
/// When the base cannot be read.
pub fn types(base: &Base, layout: &Layout, asked: MergedType, width: Width) -> Result<Vec<Stored>, TrainError> {
    let mut shards = match &base.format {
        Format::Gguf(_) => None,
        Format::Safetensors { directory, shards } => Some(HubTensors::open(directory, shards)?),
    };
    let of = |slot: &Slot| match &mut shards {
        None => {
            let narrow = asked == MergedType::Q8_0 && width == Width::Asked;
            let fits = slot.inputs.is_multiple_of(GgmlDType::Q8_0.block_size());
            Stored::Gguf(if narrow && fits {
                GgmlDType::Q8_0
            } else {
                GgmlDType::F16
            })
        }
        Some(_) if width == Width::Wider => Stored::Hub(DType::F32),
        Some(shards) => {
            let name = format!("{}.weight", base.names().projection(slot.layer, slot.projection));
            let entry = shards.shard(&name).and_then(|shard| shard.entries().get(&name));
            Stored::Hub(entry.and_then(|entry| float(&entry.dtype)).unwrap_or(DType::F32))
        }
    };
    Ok(layout.slots().iter().map(of).collect())
}

/// A matrix of a slot.
///
/// # Errors
/// When candle cannot make it.
pub fn tensor(values: &[f32], slot: &Slot) -> candle_core::Result<Tensor> {
    Tensor::from_slice(values, (slot.outputs, slot.inputs), &Device::Cpu)
}

fn round(values: &[f32], slot: &Slot, stored: Stored) -> candle_core::Result<Vec<f32>> {
    let tensor = tensor(values, slot)?;
    let rounded = match stored {
        Stored::Gguf(dtype) => QTensor::quantize(&tensor, dtype)?.dequantize(&Device::Cpu)?,
        Stored::Hub(dtype) => tensor.to_dtype(dtype)?.to_dtype(DType::F32)?,
    };
    rounded.flatten_all()?.to_vec1::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::model::Projection;

    #[test]
    fn rounding_twice_is_rounding_once() {
        let config = perennial_engine::model::ModelConfig {
            architecture: "llama".to_owned(),
            hidden: 64,
            layers: 1,
            heads: 4,
            kv_heads: 4,
            head_width: 16,
            feed_forward: 64,
            vocabulary: 8,
            context: 8,
            norm_epsilon: 1e-5,
            rope: perennial_engine::model::Rope {
                frequencies: vec![1.0; 8],
                interleaved: true,
            },
        };
        let layout = Layout::new(&config, &[Projection::Query], 1, 1.0);
        let slot = layout.slots()[0];
        let mut random = crate::train::random::Random::new(5, 5);
        let values: Vec<f32> = (0..64 * 64).map(|_| random.symmetric() * 0.1).collect();
        for stored in [
            Stored::Gguf(GgmlDType::Q8_0),
            Stored::Gguf(GgmlDType::F16),
            Stored::Hub(DType::BF16),
            Stored::Hub(DType::F32),
        ] {
            let once = round(&values, &slot, stored).expect("numbers");
            assert_eq!(round(&once, &slot, stored).expect("numbers"), once, "{stored:?}");
            let furthest = values
                .iter()
                .zip(&once)
                .map(|(one, other)| (one - other).abs())
                .fold(0.0, f32::max);
            assert!(furthest < 5e-4, "{stored:?}: {furthest}");
        }
    }
}
