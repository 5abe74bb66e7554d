//! Counts and exact moments of one number.

use serde::{Deserialize, Serialize};

use crate::features::ONE;
use crate::pane::layout::BINS;
use crate::signal::{Scale, Transform};

/// Bins and moments that add exactly. Values are clipped to the scale, so that no single one can weigh more than its bin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// Below the scale, its [`BINS`] bins, above it.
    pub(crate) bins: Vec<u64>,
    /// Requests for which the number is not known.
    pub(crate) missing: u64,
    /// Sum of the transformed values, 2^24 is one.
    pub(crate) sum: i64,
    /// Sum of their squares, 2^48 is one.
    pub(crate) squares: u128,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            bins: vec![0; BINS + 2],
            missing: 0,
            sum: 0,
            squares: 0,
        }
    }
}

impl Scale {
    /// A value on the scale, clipped to it. `None` for what is no number or cannot be transformed.
    #[must_use]
    pub fn transformed(&self, value: f64) -> Option<f64> {
        let transformed = match self.transform {
            Transform::Identity => value,
            Transform::Log => libm::log(value),
            Transform::Log1p => libm::log1p(value),
        };
        // The logarithm of zero is below every scale; that of a negative number is none.
        (!transformed.is_nan()).then_some(transformed)
    }

    /// Width of a bin.
    #[must_use]
    pub fn width(&self) -> f64 {
        (self.high - self.low) / BINS as f64
    }

    /// Index of the bin of a transformed value: 0 is below, `BINS + 1` above.
    pub(crate) fn bin(&self, transformed: f64) -> usize {
        if transformed < self.low {
            0
        } else if transformed >= self.high {
            BINS + 1
        } else {
            // Not negative and below BINS by the two branches before.
            1 + (((transformed - self.low) / self.width()) as usize).min(BINS - 1)
        }
    }

    /// Middle of a bin on the transformed scale; the ends for what is outside.
    pub(crate) fn middle(&self, bin: usize) -> f64 {
        match bin {
            0 => self.low,
            bin if bin > BINS => self.high,
            bin => self.low + (bin as f64 - 0.5) * self.width(),
        }
    }

    /// The value, before the transform, at which a bin begins.
    #[must_use]
    pub fn raw(&self, transformed: f64) -> f64 {
        match self.transform {
            Transform::Identity => transformed,
            Transform::Log => libm::exp(transformed),
            Transform::Log1p => libm::expm1(transformed),
        }
    }
}

impl Histogram {
    /// Counts one value.
    pub(crate) fn add(&mut self, scale: &Scale, value: Option<f64>) {
        let Some(transformed) = value.and_then(|value| scale.transformed(value)) else {
            self.missing += 1;
            return;
        };
        self.bins[scale.bin(transformed)] += 1;
        let fixed = libm::round(transformed.clamp(scale.low, scale.high) * ONE) as i64;
        self.sum += fixed;
        self.squares += u128::from(fixed.unsigned_abs()) * u128::from(fixed.unsigned_abs());
    }

    /// Values that are known.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.bins.iter().sum()
    }

    /// Sum of the transformed values.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sum as f64 / ONE
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        add(&mut self.bins, &other.bins);
        self.missing += other.missing;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    /// What cannot be, if anything.
    pub(crate) fn contradiction(&self, scale: &Scale, requests: u64) -> Option<&'static str> {
        if self.bins.len() != BINS + 2 {
            return Some("a histogram has another number of bins");
        }
        let counted = self
            .bins
            .iter()
            .try_fold(self.missing, |total, bin| total.checked_add(*bin));
        if counted != Some(requests) {
            return Some("a histogram does not count each request once");
        }
        let largest = scale.low.abs().max(scale.high.abs()) * ONE + 1.0;
        let known = requests - self.missing;
        if self.sum.unsigned_abs() as f64 > largest * known as f64 {
            return Some("a sum is larger than its values can be");
        }
        if self.squares as f64 > largest * largest * known as f64 * 1.000_001 {
            return Some("a sum of squares is larger than its values can be");
        }
        None
    }
}

/// Adds counts, bin by bin.
pub(crate) fn add(into: &mut [u64], from: &[u64]) {
    for (into, from) in into.iter_mut().zip(from) {
        *into += from;
    }
}
