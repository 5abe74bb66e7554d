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

/// Numbers that a thread rounds at a time: whole blocks of every type, and so few that its copies of them, half a MiB, are nothing
/// beside a matrix.
const PIECE: usize = 1 << 15;

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
    for (slot, stored) in adapter.layout.slots().iter().zip(types) {
        let linear = &mut weights.layers[slot.layer].projections[slot.projection as usize];
        round(&mut linear.weight, stored)?;
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

/// Rounds in place: beside all the weights there is no room for a second copy of them.
fn round(values: &mut [f32], stored: Stored) -> candle_core::Result<()> {
    values.par_chunks_mut(PIECE).try_for_each(|piece| {
        let tensor = Tensor::from_slice(piece, piece.len(), &Device::Cpu)?;
        let rounded = match stored {
            Stored::Gguf(dtype) => QTensor::quantize(&tensor, dtype)?.dequantize(&Device::Cpu)?,
            Stored::Hub(dtype) => tensor.to_dtype(dtype)?.to_dtype(DType::F32)?,
        };
        piece.copy_from_slice(&rounded.to_vec1::<f32>()?);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::random::Random;

    const TYPES: [Stored; 4] = [
        Stored::Gguf(GgmlDType::Q8_0),
        Stored::Gguf(GgmlDType::F16),
        Stored::Hub(DType::BF16),
        Stored::Hub(DType::F32),
    ];

    fn values(count: usize) -> Vec<f32> {
        let mut random = Random::new(5, 5);
        (0..count).map(|_| random.symmetric() * 0.1).collect()
    }

    fn rounded(mut values: Vec<f32>, stored: Stored) -> Vec<f32> {
        round(&mut values, stored).expect("numbers");
        values
    }

    #[test]
    fn rounding_twice_is_rounding_once() {
        let values = values(64 * 64);
        for stored in TYPES {
            let once = rounded(values.clone(), stored);
            assert_eq!(rounded(once.clone(), stored), once, "{stored:?}");
            let furthest = values
                .iter()
                .zip(&once)
                .map(|(one, other)| (one - other).abs())
                .fold(0.0, f32::max);
            assert!(furthest < 5e-4, "{stored:?}: {furthest}");
        }
    }

    #[test]
    fn piece_by_piece_a_matrix_is_rounded_as_if_it_were_whole() {
        // Two pieces and a part of one.
        let shape = (5, PIECE / 2);
        let values = values(shape.0 * shape.1);
        let tensor = Tensor::from_slice(&values, shape, &Device::Cpu).expect("a matrix");
        for stored in TYPES {
            let whole = match stored {
                Stored::Gguf(dtype) => {
                    QTensor::quantize(&tensor, dtype).and_then(|stored| stored.dequantize(&Device::Cpu))
                }
                Stored::Hub(dtype) => tensor.to_dtype(dtype).and_then(|stored| stored.to_dtype(DType::F32)),
            };
            let whole = whole.and_then(|whole| whole.flatten_all()?.to_vec1::<f32>());
            assert_eq!(rounded(values.clone(), stored), whole.expect("numbers"), "{stored:?}");
        }
    }
}
