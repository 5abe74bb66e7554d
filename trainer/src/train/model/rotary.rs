//! Rotary positions: pairs are halves of a head. GGUF's llama pairs neighbours; its rows are put in this order when they are
//! read, so that there is one way to turn.

use rayon::prelude::*;

use super::batch::Batch;

/// Sines and cosines for the tokens of one batch.
#[derive(Clone, Debug)]
pub struct Turns {
    sines: Vec<f32>,
    cosines: Vec<f32>,
    pairs: usize,
}

impl Turns {
    /// For the positions of a batch and the angle of each pair per position.
    #[must_use]
    pub fn new(frequencies: &[f32], batch: &Batch) -> Self {
        let angles = batch
            .sequences()
            .flat_map(|sequence| 0..sequence.len())
            .flat_map(|position| {
                frequencies
                    .iter()
                    .map(move |frequency| (position as f32 * frequency).sin_cos())
            });
        let (sines, cosines) = angles.unzip();
        Self {
            sines,
            cosines,
            pairs: frequencies.len(),
        }
    }

    /// Turns every head of every token, laid out `[token, head, dimension]`, to its position.
    pub fn forward(&self, values: &mut [f32], heads: usize) {
        self.turn(values, heads, 1.0);
    }

    /// Turns back: what [`Turns::forward`] hands back of a gradient.
    pub fn back(&self, values: &mut [f32], heads: usize) {
        self.turn(values, heads, -1.0);
    }

    fn turn(&self, values: &mut [f32], heads: usize, direction: f32) {
        let pairs = self.pairs;
        let tokens = values
            .par_chunks_mut(heads * pairs * 2)
            .zip(self.sines.par_chunks(pairs))
            .zip(self.cosines.par_chunks(pairs))
            .with_min_len(16);
        tokens.for_each(|((token, sines), cosines)| {
            for head in token.chunks_exact_mut(pairs * 2) {
                let (left, right) = head.split_at_mut(pairs);
                for (((left, right), sine), cosine) in left.iter_mut().zip(right).zip(sines).zip(cosines) {
                    let (first, second, sine) = (*left, *right, sine * direction);
                    *left = first * cosine - second * sine;
                    *right = first * sine + second * cosine;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_begin_anew_with_each_sequence_and_turning_back_undoes_turning() {
        let mut batch = Batch::default();
        batch.push(&[1, 2, 3], &[]);
        batch.push(&[4, 5], &[]);
        let turns = Turns::new(&[1.0, 0.1], &batch);
        let before: Vec<f32> = (0..5 * 2 * 4).map(|at| at as f32).collect();
        let mut values = before.clone();
        turns.forward(&mut values, 2);
        assert_eq!(values[..8], before[..8]);
        assert_eq!(values[24..32], before[24..32]);
        let (sine, cosine) = 1.0_f32.sin_cos();
        assert!((values[8] - (8.0 * cosine - 10.0 * sine)).abs() < 1e-5);
        turns.back(&mut values, 2);
        assert!(values.iter().zip(before).all(|(one, other)| (one - other).abs() < 1e-4));
    }
}
