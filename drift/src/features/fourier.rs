//! Random Fourier features: an embedding as a vector whose mean over requests tells distributions apart.
//!
//! For a Gaussian kernel of bandwidth s, frequencies w drawn from N(0, 1/s^2) give features (cos wx, sin wx) whose inner
//! products approximate the kernel (Rahimi and Recht 2007); the squared distance of two means is then the maximum mean
//! discrepancy of the two samples. The features are integers, so that sums over replicas are exact in any order, and
//! every step from the seed to the integer gives the same bits on every machine: the generator is SplitMix64, normal
//! deviates are Box and Muller's by libm, sums run in a fixed order, and sine and cosine are polynomials of this file.

use super::hash::{GOLDEN, mix};
use super::{FOURIER, FREQUENCIES, ONE};

/// Version of the way from a seed to features.
pub const VERSION: u32 = 1;

/// The frequencies for embeddings of one dimension.
#[derive(Clone, Debug)]
pub struct Projection {
    /// For each coordinate of the embedding, its factor in every frequency.
    rows: Vec<[f32; FREQUENCIES]>,
}

impl Projection {
    /// Draws frequencies for embeddings of `dimension` numbers; the same seed and bandwidth give the same frequencies.
    /// A bandwidth that is not positive is taken as 1.
    #[must_use]
    pub fn new(dimension: usize, bandwidth: f64, seed: u64) -> Self {
        let bandwidth = if bandwidth > 0.0 && bandwidth.is_finite() {
            bandwidth
        } else {
            1.0
        };
        let mut normal = Normal { state: seed };
        let mut rows = vec![[0.0; FREQUENCIES]; dimension];
        for row in &mut rows {
            for pair in row.chunks_exact_mut(2) {
                let (first, second) = normal.pair();
                pair.copy_from_slice(&[(first / bandwidth) as f32, (second / bandwidth) as f32]);
            }
        }
        Self { rows }
    }

    /// Numbers in an embedding that it takes.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.rows.len()
    }

    /// Features of an embedding, brought to length 1 first: the cosines, then the sines, each over sqrt([`FREQUENCIES`])
    /// in units of 1/[`ONE`]. `None` for another dimension, a zero vector, or numbers that are not finite.
    #[must_use]
    pub fn features(&self, embedding: &[f32]) -> Option<Box<[i32; FOURIER]>> {
        if embedding.len() != self.rows.len() {
            return None;
        }
        let length = libm::sqrt(embedding.iter().map(|&x| f64::from(x) * f64::from(x)).sum());
        if !(length.is_finite() && length > 0.0) {
            return None;
        }
        let mut angles = [0.0f32; FREQUENCIES];
        for (row, &coordinate) in self.rows.iter().zip(embedding) {
            let coordinate = (f64::from(coordinate) / length) as f32;
            if coordinate != 0.0 {
                for (angle, factor) in angles.iter_mut().zip(row) {
                    *angle += factor * coordinate;
                }
            }
        }
        let scale = ONE / libm::sqrt(FREQUENCIES as f64);
        let mut features = Box::new([0i32; FOURIER]);
        let (cosines, sines) = features.split_at_mut(FREQUENCIES);
        for ((cosine, sine), angle) in cosines.iter_mut().zip(sines).zip(angles) {
            let (sine_value, cosine_value) = sine_and_cosine(f64::from(angle));
            *cosine = (cosine_value * scale).round_ties_even() as i32;
            *sine = (sine_value * scale).round_ties_even() as i32;
        }
        Some(features)
    }
}

/// Independent standard normal deviates.
struct Normal {
    state: u64,
}

impl Normal {
    /// Uniform in (0, 1], 53 bits.
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(GOLDEN);
        ((mix(self.state) >> 11) + 1) as f64 / 9_007_199_254_740_992.0
    }

    /// Box and Muller.
    fn pair(&mut self) -> (f64, f64) {
        let radius = libm::sqrt(-2.0 * libm::log(self.uniform()));
        let angle = std::f64::consts::TAU * self.uniform();
        (radius * libm::cos(angle), radius * libm::sin(angle))
    }
}

/// Sine and cosine, within 2^-40 for angles up to 2^20: Taylor's polynomials on [-pi/4, pi/4] (the first term left out
/// is below (pi/4)^17/17! = 2^-54 for the sine, (pi/4)^16/16! = 2^-49 for the cosine), after taking off a multiple of
/// pi/2 in two parts. Without branches, so that the loop over angles becomes vector code.
fn sine_and_cosine(angle: f64) -> (f64, f64) {
    // The first 33 bits of pi/2, and the rest: products with integers below 2^20 are exact.
    const HIGH: f64 = 1.570_796_326_734_125_6;
    const LOW: f64 = 6.077_100_506_506_192e-11;
    let turns = (angle * std::f64::consts::FRAC_2_PI).round_ties_even();
    let x = (angle - turns * HIGH) - turns * LOW;
    let square = x * x;
    let mut sine = -7.647_163_731_819_816e-13;
    for coefficient in [
        1.605_904_383_682_161_3e-10,
        -2.505_210_838_544_172e-8,
        2.755_731_922_398_589_3e-6,
        -1.984_126_984_126_984e-4,
        8.333_333_333_333_333e-3,
        -0.166_666_666_666_666_66,
    ] {
        sine = sine * square + coefficient;
    }
    let sine = x + x * square * sine;
    let mut cosine = -1.147_074_559_772_972_5e-11;
    for coefficient in [
        2.087_675_698_786_81e-9,
        -2.755_731_922_398_589e-7,
        2.480_158_730_158_73e-5,
        -1.388_888_888_888_889e-3,
        0.041_666_666_666_666_664,
        -0.5,
    ] {
        cosine = cosine * square + coefficient;
    }
    let cosine = 1.0 + square * cosine;
    let quadrant = turns as i64 & 3;
    let (first, second) = if quadrant & 1 == 0 {
        (sine, cosine)
    } else {
        (cosine, sine)
    };
    (
        if quadrant & 2 == 0 { first } else { -first },
        if (quadrant + 1) & 2 == 0 { second } else { -second },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sine_and_cosine_are_close() {
        let mut worst = 0.0f64;
        for step in -400_000..400_000 {
            let angle = f64::from(step) * 0.002_345_67;
            let (sine, cosine) = sine_and_cosine(angle);
            worst = worst
                .max((sine - libm::sin(angle)).abs())
                .max((cosine - libm::cos(angle)).abs());
        }
        assert!(worst < 2f64.powi(-40), "{worst:e}");
    }

    #[test]
    fn frequencies_are_normal_and_pinned() {
        let projection = Projection::new(400, 0.5, 1);
        let all: Vec<f64> = projection.rows.iter().flatten().map(|&x| f64::from(x) * 0.5).collect();
        let count = all.len() as f64;
        let moment = |power: i32| all.iter().map(|x| x.powi(power)).sum::<f64>() / count;
        assert!(moment(1).abs() < 0.02 && (moment(2) - 1.0).abs() < 0.03);
        assert!(moment(3).abs() < 0.06 && (moment(4) - 3.0).abs() < 0.2);
        let features = Projection::new(3, 1.0, 42).features(&[3.0, -4.0, 12.0]).unwrap();
        assert_eq!(features[..4], PINNED);
    }

    #[test]
    fn what_cannot_be_projected() {
        let projection = Projection::new(2, 1.0, 1);
        for embedding in [
            &[][..],
            &[1.0],
            &[0.0, 0.0],
            &[f32::NAN, 1.0],
            &[f32::INFINITY, 0.0],
            &[1.0, 2.0, 3.0],
        ] {
            assert!(projection.features(embedding).is_none(), "{embedding:?}");
        }
        assert!(Projection::new(0, 1.0, 1).features(&[]).is_none());
        assert!(Projection::new(2, f64::NAN, 1).features(&[1.0, 0.0]).is_some());
    }

    #[test]
    fn inner_products_are_the_kernel() {
        // Of 128 frequencies the standard error is below 1/sqrt(2 * 128).
        let projection = Projection::new(2, 0.7, 9);
        for degrees in [5.0f32, 20.0, 60.0, 120.0] {
            let other = [degrees.to_radians().cos(), degrees.to_radians().sin()];
            let (one, two) = (
                projection.features(&[1.0, 0.0]).unwrap(),
                projection.features(&other).unwrap(),
            );
            let product: f64 = one
                .iter()
                .zip(two.iter())
                .map(|(&a, &b)| f64::from(a) * f64::from(b))
                .sum();
            let distance = 2.0 - 2.0 * f64::from(other[0]);
            let kernel = (-distance / (2.0 * 0.49)).exp();
            assert!(
                (product / ONE / ONE - kernel).abs() < 0.25,
                "{degrees}: {} {kernel}",
                product / ONE / ONE
            );
        }
    }

    proptest! {
        #[test]
        fn norm_is_one(embedding in proptest::collection::vec(-1e6f32..1e6, 5)) {
            prop_assume!(embedding.iter().any(|x| *x != 0.0));
            let features = Projection::new(5, 0.3, 7).features(&embedding).unwrap();
            let norm: f64 = features.iter().map(|&x| (f64::from(x) / ONE).powi(2)).sum();
            prop_assert!((norm.sqrt() - 1.0).abs() < 1e-6);
        }

        #[test]
        fn length_does_not_matter(embedding in proptest::collection::vec(-1.0f32..1.0, 4)) {
            let projection = Projection::new(4, 1.0, 3);
            let doubled: Vec<f32> = embedding.iter().map(|x| 2.0 * x).collect();
            prop_assert_eq!(projection.features(&embedding), projection.features(&doubled));
        }
    }

    const PINNED: [i32; 4] = [186_497, 1_440_172, 1_467_569, 1_086_352];
}
