//! The adapter: a pair of thin matrices beside each chosen projection, all in one list of numbers.

use perennial_engine::model::ModelConfig;

use super::projection::Projection;
use crate::train::random::Random;

/// Where a pair lies. `a` is `[rank, inputs]`, `b` behind it `[outputs, rank]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Layer.
    pub layer: usize,
    /// Projection.
    pub projection: Projection,
    /// Numbers that come in.
    pub inputs: usize,
    /// Numbers that go out.
    pub outputs: usize,
    offset: usize,
}

/// The order of an adapter's numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    slots: Vec<Slot>,
    /// Slot of a layer and a projection, by `layer * 7 + projection`.
    index: Vec<Option<usize>>,
    rank: usize,
    scale: f32,
    length: usize,
}

/// A pair to read.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// `[rank, inputs]`.
    pub a: &'a [f32],
    /// `[outputs, rank]`.
    pub b: &'a [f32],
    /// Rows of `a`.
    pub rank: usize,
    /// What the product of both is multiplied with.
    pub scale: f32,
}

impl Layout {
    /// Pairs of `rank` beside `targets` in every layer, scaled by `alpha / rank`.
    #[must_use]
    pub fn new(config: &ModelConfig, targets: &[Projection], rank: usize, alpha: f32) -> Self {
        let mut layout = Self {
            slots: Vec::new(),
            index: vec![None; config.layers * Projection::ALL.len()],
            rank,
            scale: alpha / rank as f32,
            length: 0,
        };
        for layer in 0..config.layers {
            for projection in Projection::ALL {
                if !targets.contains(&projection) {
                    continue;
                }
                let (outputs, inputs) = projection.shape(config);
                layout.index[layer * Projection::ALL.len() + projection as usize] = Some(layout.slots.len());
                layout.slots.push(Slot {
                    layer,
                    projection,
                    inputs,
                    outputs,
                    offset: layout.length,
                });
                layout.length += rank * (inputs + outputs);
            }
        }
        layout
    }

    /// How many numbers there are.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// The pairs.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Rows of each `a`.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The pair beside a projection, if there is one.
    #[must_use]
    pub fn slot(&self, layer: usize, projection: Projection) -> Option<&Slot> {
        let index = self.index[layer * Projection::ALL.len() + projection as usize]?;
        self.slots.get(index)
    }

    /// A pair among `values`.
    #[must_use]
    pub fn pair<'a>(&self, values: &'a [f32], slot: &Slot) -> Pair<'a> {
        let (a, rest) = values[slot.offset..].split_at(self.rank * slot.inputs);
        Pair {
            a,
            b: &rest[..slot.outputs * self.rank],
            rank: self.rank,
            scale: self.scale,
        }
    }

    /// A pair among `values`, to write: `a` and `b`.
    pub fn pair_mut<'a>(&self, values: &'a mut [f32], slot: &Slot) -> (&'a mut [f32], &'a mut [f32]) {
        let (a, rest) = values[slot.offset..].split_at_mut(self.rank * slot.inputs);
        (a, &mut rest[..slot.outputs * self.rank])
    }

    /// The numbers to begin with: `a` uniform within one over the root of its inputs, `b` zero, so that the adapter changes
    /// nothing yet.
    #[must_use]
    pub fn start(&self, seed: u64) -> Vec<f32> {
        let mut values = vec![0.0; self.length];
        for (number, slot) in self.slots.iter().enumerate() {
            let mut random = Random::new(seed, number as u64);
            let bound = 1.0 / (slot.inputs as f32).sqrt();
            let (a, _) = self.pair_mut(&mut values, slot);
            a.iter_mut().for_each(|value| *value = random.symmetric() * bound);
        }
        values
    }
}

/// An adapter to compute with.
#[derive(Clone, Copy, Debug)]
pub struct Adapter<'a> {
    /// The order of its numbers.
    pub layout: &'a Layout,
    /// Its numbers.
    pub values: &'a [f32],
}

impl<'a> Adapter<'a> {
    /// The pair beside a projection, if there is one.
    #[must_use]
    pub fn pair(&self, layer: usize, projection: Projection) -> Option<Pair<'a>> {
        let slot = self.layout.slot(layer, projection)?;
        Some(self.layout.pair(self.values, slot))
    }
}
