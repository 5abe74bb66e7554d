//! Several p-values: which of them stand, and what they say together.

use std::f64::consts::PI;

use super::{ClassicalError, Test};
use crate::math::chi_squared_sf;

/// P-values adjusted for the false discovery rate, in the order given (Benjamini and Hochberg 1995). Valid for
/// independent or positively dependent tests.
pub fn benjamini_hochberg(p_values: &[f64]) -> Result<Vec<f64>, ClassicalError> {
    check(p_values)?;
    let order = ascending(p_values);
    let count = p_values.len() as f64;
    let (mut adjusted, mut smallest) = (vec![0.0; p_values.len()], 1.0f64);
    for (rank, &index) in order.iter().enumerate().rev() {
        smallest = smallest.min(p_values[index] * count / (rank + 1) as f64);
        adjusted[index] = smallest;
    }
    Ok(adjusted)
}

/// P-values adjusted for the probability of any false rejection, in the order given (Holm 1979). Valid for any
/// dependence.
pub fn holm(p_values: &[f64]) -> Result<Vec<f64>, ClassicalError> {
    check(p_values)?;
    let order = ascending(p_values);
    let (mut adjusted, mut largest) = (vec![0.0; p_values.len()], 0.0f64);
    for (rank, &index) in order.iter().enumerate() {
        largest = largest.max(p_values[index] * (p_values.len() - rank) as f64).min(1.0);
        adjusted[index] = largest;
    }
    Ok(adjusted)
}

/// Fisher's combination of independent p-values: `-2 sum ln p` is chi-squared with two degrees of freedom each (Fisher
/// 1932). Infinite, with a p-value of 0, where one of them is 0.
pub fn fisher_combination(p_values: &[f64]) -> Result<Test, ClassicalError> {
    check(p_values)?;
    let statistic = -2.0 * p_values.iter().map(|&p| libm::log(p)).sum::<f64>();
    // Not minus zero where all are 1.
    let statistic = statistic.max(0.0);
    Ok(Test {
        statistic,
        p_value: chi_squared_sf(statistic, 2.0 * p_values.len() as f64),
    })
}

/// The p-value of the Cauchy combination, the mean of `tan((1/2 - p) pi)`: its tail holds for any dependence (Liu and Xie
/// 2020).
///
/// A p-value of exactly 1, which discrete tests give, would outweigh all others; then it is Bonferroni's, the smallest
/// times their number.
pub fn cauchy_combination(p_values: &[f64]) -> Result<f64, ClassicalError> {
    check(p_values)?;
    let count = p_values.len() as f64;
    let smallest = p_values.iter().copied().fold(1.0, f64::min);
    if smallest == 0.0 {
        return Ok(0.0);
    }
    if p_values.contains(&1.0) {
        return Ok((smallest * count).min(1.0));
    }
    let cotangent = |angle: f64| libm::cos(angle) / libm::sin(angle);
    let mean = p_values
        .iter()
        .map(|&p| if p <= 0.5 { cotangent(PI * p) } else { -cotangent(PI * (1.0 - p)) } / count)
        .sum::<f64>();
    // The angle of (mean, 1) is 1/2 - arctan(mean) / pi without the cancellation.
    Ok(libm::atan2(1.0, mean) / PI)
}

fn check(p_values: &[f64]) -> Result<(), ClassicalError> {
    if p_values.is_empty() {
        return Err(ClassicalError::NoProbabilities);
    }
    match p_values.iter().position(|p| !(0.0..=1.0).contains(p)) {
        Some(index) => Err(ClassicalError::NotAProbability {
            index,
            value: p_values[index],
        }),
        None => Ok(()),
    }
}

fn ascending(p_values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&left, &right| p_values[left].total_cmp(&p_values[right]));
    order
}
