//! The two-sample Cramer-von Mises test.

use std::f64::consts::PI;

use super::{ClassicalError, Side, sorted};
use crate::math::ln_gamma;

/// The largest sample for which the exact p-value is computed: scipy's limit.
pub const LARGEST_EXACT: usize = 20;

/// Result of [`cramer_von_mises`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CramerVonMises {
    /// `T`, Anderson's two-sample criterion.
    pub statistic: f64,
    /// Exact p-value for values without ties; `None` beyond [`LARGEST_EXACT`].
    pub exact_p_value: Option<f64>,
    /// P-value from the limit distribution, with the mean and variance of finite samples; to 1e-15 absolutely.
    pub asymptotic_p_value: f64,
}

impl CramerVonMises {
    /// The exact p-value where there is one: the figure of scipy, Evidently and alibi-detect.
    #[must_use]
    pub fn p_value(&self) -> f64 {
        self.exact_p_value.unwrap_or(self.asymptotic_p_value)
    }
}

/// The squared difference of two empirical distribution functions over the pooled sample, and how likely one at least as
/// large is (Anderson 1962; exact by Xiao, Gordon and Yakovlev 2007; limit by Csorgo and Faraway 1996). Both samples need
/// at least two values.
pub fn cramer_von_mises(reference: &[f64], current: &[f64]) -> Result<CramerVonMises, ClassicalError> {
    let reference = sorted(reference, Side::Reference, 2)?;
    let current = sorted(current, Side::Current, 2)?;
    let (m, n) = (reference.len() as f64, current.len() as f64);
    let u = m * rank_excess(&reference, &current) + n * rank_excess(&current, &reference);
    let (product, sum) = (m * n, m + n);
    let statistic = u / (product * sum) - (4.0 * product - 1.0) / (6.0 * sum);
    let exact_p_value =
        (reference.len().max(current.len()) <= LARGEST_EXACT).then(|| exact(u, reference.len(), current.len()));

    let mean = (1.0 + 1.0 / sum) / 6.0;
    let variance = (sum + 1.0) * (4.0 * product * sum - 3.0 * (m * m + n * n) - 2.0 * product)
        / (45.0 * sum * sum * 4.0 * product);
    let normed = 1.0 / 6.0 + (statistic - mean) / (45.0 * variance).sqrt();
    // Below this the limit distribution is zero to the last digit.
    let asymptotic_p_value = if normed < 0.003 {
        1.0
    } else {
        (1.0 - limit_cdf(normed)).clamp(0.0, 1.0)
    };
    Ok(CramerVonMises {
        statistic,
        exact_p_value,
        asymptotic_p_value,
    })
}

/// `sum (rank of the i-th value in both samples - i)^2`, with middle ranks for ties.
fn rank_excess(values: &[f64], others: &[f64]) -> f64 {
    let (mut start, mut sum) = (0, 0.0);
    let (mut less, mut at_most) = (0, 0);
    while start < values.len() {
        let end = start + values[start..].partition_point(|value| *value <= values[start]);
        less += others[less..].partition_point(|other| *other < values[start]);
        at_most += others[at_most..].partition_point(|other| *other <= values[start]);
        let middle = (start + end + 1 + less + at_most) as f64 / 2.0;
        for index in start..end {
            let excess = middle - (index + 1) as f64;
            sum += excess * excess;
        }
        start = end;
    }
    sum
}

/// The share of all arrangements whose criterion is at least the one found.
fn exact(u: f64, m: usize, n: usize) -> f64 {
    let (m, n) = (m as i64, n as i64);
    let common = m / greatest_common_divisor(m, n) * n;
    let (step_m, step_n) = (common / m, common / n);
    let product = (m * n) as f64;
    let bound = ((common * common * (m + n)) as f64 * (6.0 * u - product * (4.0 * product - 1.0))
        / (6.0 * product * product))
        .floor();
    // For each number of reference values so far: how many arrangements have which scaled criterion, ascending.
    let mut tables: Vec<Vec<(i64, u64)>> = vec![Vec::new(); m as usize + 1];
    tables[0].push((0, 1));
    for from_current in 0..=n {
        let mut before = Vec::new();
        for (from_reference, table) in tables.iter_mut().enumerate() {
            let difference = step_m * from_reference as i64 - step_n * from_current;
            before = merged(&before, table);
            before
                .iter_mut()
                .for_each(|(value, _)| *value += difference * difference);
            table.clone_from(&before);
        }
    }
    let (mut all, mut extreme) = (0u64, 0u64);
    for &(value, arrangements) in tables.last().into_iter().flatten() {
        all += arrangements;
        if value as f64 >= bound {
            extreme += arrangements;
        }
    }
    extreme as f64 / all as f64
}

/// Both tables in one, with the numbers of equal values added.
fn merged(left: &[(i64, u64)], right: &[(i64, u64)]) -> Vec<(i64, u64)> {
    let mut both = Vec::with_capacity(left.len() + right.len());
    let (mut i, mut j) = (0, 0);
    while i < left.len() && j < right.len() {
        let ((first, count), (second, other)) = (left[i], right[j]);
        both.push((
            first.min(second),
            if first <= second { count } else { 0 } + if second <= first { other } else { 0 },
        ));
        i += usize::from(first <= second);
        j += usize::from(second <= first);
    }
    both.extend_from_slice(&left[i..]);
    both.extend_from_slice(&right[j..]);
    both
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// The limit distribution of the criterion: a series of Bessel functions of order 1/4, all terms positive.
fn limit_cdf(x: f64) -> f64 {
    let mut sum = 0.0;
    for k in 0..200 {
        let k = f64::from(k);
        let odd = 4.0 * k + 1.0;
        let argument = odd * odd / (16.0 * x);
        let factor = libm::exp(ln_gamma(k + 0.5) - ln_gamma(k + 1.0)) / (PI * PI.sqrt() * x.sqrt());
        let term = factor * odd.sqrt() * bessel_quarter(argument);
        sum += term;
        if term <= sum * 1e-17 {
            break;
        }
    }
    sum
}

/// `e^-z K_{1/4}(z)` by the trapezoidal rule on `integral_0^inf e^{-z (1 + cosh t)} cosh(t/4) dt`, which converges faster
/// than any power of its step.
fn bessel_quarter(z: f64) -> f64 {
    const STEP: f64 = 0.125;
    let mut sum = 0.5 * libm::exp(-2.0 * z);
    for index in 1..400 {
        let t = STEP * f64::from(index);
        let term = libm::exp(-z * (1.0 + libm::cosh(t))) * libm::cosh(t / 4.0);
        sum += term;
        if term <= sum * 1e-18 {
            break;
        }
    }
    STEP * sum
}
