//! AdamW with a cosine schedule and a bound on the length of the gradient. Its whole state is two lists and a count, so that
//! it can be stored and taken up again to the bit.

use rayon::prelude::*;

const FIRST_DECAY: f64 = 0.9;
const SECOND_DECAY: f64 = 0.999;
const EPSILON: f32 = 1e-8;
const CHUNK: usize = 1 << 14;

/// Running means of the gradient and of its square.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Of the gradient.
    pub first: Vec<f32>,
    /// Of its square.
    pub second: Vec<f32>,
}

impl Moments {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(length: usize) -> Self {
        Self {
            first: vec![0.0; length],
            second: vec![0.0; length],
        }
    }

    /// Moves `values` against the gradient. `step` is the number of this step, counted from 1.
    pub fn step(&mut self, values: &mut [f32], gradient: &[f32], rate: f64, weight_decay: f64, step: u64) {
        let corrected = |decay: f64| 1.0 - decay.powf(step as f64);
        let step_size = (rate / corrected(FIRST_DECAY)) as f32;
        let square_scale = (1.0 / corrected(SECOND_DECAY)) as f32;
        let keep = (1.0 - rate * weight_decay) as f32;
        let (first_decay, second_decay) = (FIRST_DECAY as f32, SECOND_DECAY as f32);
        let parts = values
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(self.first.par_chunks_mut(CHUNK))
            .zip(self.second.par_chunks_mut(CHUNK));
        parts.for_each(|(((values, gradient), first), second)| {
            for (((value, slope), first), second) in values.iter_mut().zip(gradient).zip(first).zip(second) {
                *first = first_decay * *first + (1.0 - first_decay) * slope;
                *second = second_decay * *second + (1.0 - second_decay) * slope * slope;
                let length = (*second * square_scale).sqrt() + EPSILON;
                *value = *value * keep - step_size * *first / length;
            }
        });
    }
}

/// The length of the gradient, before it is shortened to `most` if it is longer.
pub fn clip(gradient: &mut [f32], most: f64) -> f64 {
    let squares: Vec<f64> = gradient
        .par_chunks(CHUNK)
        .map(|chunk| {
            chunk
                .iter()
                .map(|slope| f64::from(*slope) * f64::from(*slope))
                .sum::<f64>()
        })
        .collect();
    let length = squares.iter().sum::<f64>().sqrt();
    if length > most {
        let factor = (most / length) as f32;
        gradient
            .par_chunks_mut(CHUNK)
            .for_each(|chunk| chunk.iter_mut().for_each(|slope| *slope *= factor));
    }
    length
}

/// The learning rate of step `step` of `total`, counted from 0: up in a line for the first `warmup` share, then down along
/// half a cosine to nothing.
#[must_use]
pub fn rate(highest: f64, warmup: f64, step: u64, total: u64) -> f64 {
    let rising = (total as f64 * warmup).ceil();
    let step = step as f64;
    if step < rising {
        return highest * (step + 1.0) / rising;
    }
    let done = (step - rising) / (total as f64 - rising).max(1.0);
    highest * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_is_as_long_as_the_rate_whatever_the_slope() {
        let mut moments = Moments::new(3);
        let mut values = [1.0, 1.0, 1.0];
        moments.step(&mut values, &[1e-3, -50.0, 0.0], 0.1, 0.0, 1);
        for (value, expected) in values.iter().zip([0.9, 1.1, 1.0]) {
            assert!((value - expected).abs() < 1e-4, "{values:?}");
        }
        moments.step(&mut values, &[0.0; 3], 0.0, 0.5, 2);
        assert!((values[2] - 1.0).abs() < 1e-6, "decay goes with the rate");
        moments.step(&mut values, &[0.0; 3], 0.1, 0.5, 3);
        assert!((values[2] - 0.95).abs() < 1e-6, "{values:?}");
    }

    #[test]
    fn a_valley_is_found() {
        let (mut moments, mut values) = (Moments::new(2), [3.0_f32, -2.0]);
        for step in 1..=400 {
            let gradient = [2.0 * (values[0] - 1.0), 20.0 * (values[1] - 0.5)];
            moments.step(&mut values, &gradient, rate(0.1, 0.1, step - 1, 400), 0.0, step);
        }
        assert!(
            (values[0] - 1.0).abs() < 1e-2 && (values[1] - 0.5).abs() < 1e-2,
            "{values:?}"
        );
    }

    #[test]
    fn long_gradients_are_shortened() {
        let mut gradient = vec![3.0, 4.0];
        assert_eq!(clip(&mut gradient, 10.0), 5.0);
        assert_eq!(gradient, [3.0, 4.0]);
        assert_eq!(clip(&mut gradient, 1.0), 5.0);
        assert!((gradient[0] - 0.6).abs() < 1e-6 && (gradient[1] - 0.8).abs() < 1e-6);
        assert!(clip(&mut [f32::NAN], 1.0).is_nan());
    }

    #[test]
    fn the_rate_rises_and_falls() {
        let rates: Vec<f64> = (0..100).map(|step| rate(1.0, 0.1, step, 100)).collect();
        assert_eq!((rates[0], rates[9], rates[10]), (0.1, 1.0, 1.0));
        assert!(rates[10..].windows(2).all(|pair| pair[0] > pair[1]) && rates[99] < 0.01);
        assert_eq!(rate(1.0, 0.0, 0, 1), 1.0);
        assert!(rate(1.0, 1.0, 4, 5).is_finite());
    }
}
