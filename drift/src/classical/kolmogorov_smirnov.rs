//! The two-sample Kolmogorov-Smirnov test.

use super::{ClassicalError, Side, sorted};
use crate::math::one_sample_kolmogorov_sf;

/// The largest sample for which the exact p-value is computed: scipy's limit. It takes up to a second there.
pub const LARGEST_EXACT: usize = 10_000;

/// Result of [`kolmogorov_smirnov`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KolmogorovSmirnov {
    /// `D = sup |F - G|`.
    pub statistic: f64,
    /// Exact p-value for values without ties, conservative with them; `None` beyond [`LARGEST_EXACT`].
    pub exact_p_value: Option<f64>,
    /// The p-value of `D` for one sample of `nm / (n + m)` values, rounded: what scipy calls asymptotic.
    pub asymptotic_p_value: f64,
}

impl KolmogorovSmirnov {
    /// The exact p-value where there is one: the figure of scipy, Evidently, NannyML and alibi-detect.
    #[must_use]
    pub fn p_value(&self) -> f64 {
        self.exact_p_value.unwrap_or(self.asymptotic_p_value)
    }
}

/// The largest difference of two empirical distribution functions, and how likely one at least as large is (Smirnov 1939;
/// exact by counting lattice paths, Hodges 1958).
pub fn kolmogorov_smirnov(reference: &[f64], current: &[f64]) -> Result<KolmogorovSmirnov, ClassicalError> {
    let reference = sorted(reference, Side::Reference, 1)?;
    let current = sorted(current, Side::Current, 1)?;
    let (m, n) = (reference.len(), current.len());
    let scaled = scaled_statistic(&reference, &current);
    let statistic = scaled as f64 / (m as f64 * n as f64);
    let exact_p_value = (m.max(n) <= LARGEST_EXACT).then(|| touching(m, n, scaled as i64));
    let effective = m as f64 * n as f64 / (m as f64 + n as f64);
    // Half to even, as numpy rounds; a single value on each side would round to no observation at all.
    let observations = libm::rint(effective).clamp(1.0, f64::from(u32::MAX)) as u32;
    let asymptotic_p_value = one_sample_kolmogorov_sf(statistic, observations);
    Ok(KolmogorovSmirnov {
        statistic,
        exact_p_value,
        asymptotic_p_value,
    })
}

/// `m n D`, a whole number.
fn scaled_statistic(reference: &[f64], current: &[f64]) -> u128 {
    let (m, n) = (reference.len(), current.len());
    let (mut i, mut j, mut largest) = (0, 0, 0);
    while i < m && j < n {
        let value = reference[i].min(current[j]);
        while i < m && reference[i] <= value {
            i += 1;
        }
        while j < n && current[j] <= value {
            j += 1;
        }
        largest = largest.max((i as u128 * n as u128).abs_diff(j as u128 * m as u128));
    }
    largest
}

/// The probability that a random path from (0, 0) to (m, n) has a point with `|i n - j m| >= scaled`.
///
/// `u[j]` is that probability for paths to `(i, j)`; only the band where it is below 1 is computed, and only sums of
/// positive terms, so that small probabilities keep their digits.
fn touching(m: usize, n: usize, scaled: i64) -> f64 {
    if scaled == 0 {
        return 1.0;
    }
    let (rows, columns) = (m as i64, n as i64);
    let mut u = vec![1.0; n + 1];
    // A division in the loop would take most of the time.
    let inverses: Vec<f64> = (0..=m + n).map(|steps| 1.0 / steps as f64).collect();
    for i in 0..=rows {
        let first = ((i * columns - scaled).div_euclid(rows) + 1).max(0);
        let last = ((i * columns + scaled - 1).div_euclid(rows)).min(columns);
        if first > 0 {
            u[first as usize - 1] = 1.0;
        }
        for j in first..=last {
            let index = j as usize;
            u[index] = match (i, j) {
                (0, 0) => 0.0,
                (0, _) => u[index - 1],
                (_, 0) => u[index],
                _ => {
                    let inverse = inverses[(i + j) as usize];
                    i as f64 * inverse * u[index] + j as f64 * inverse * u[index - 1]
                }
            };
        }
    }
    u[n].min(1.0)
}
