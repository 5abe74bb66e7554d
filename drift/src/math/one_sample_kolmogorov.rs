//! The distribution of the Kolmogorov-Smirnov statistic of one finite sample.
//!
//! Other tools put `D` of two large samples into it, with their effective number, so it is here to give their figure.
//! Which formula serves where follows Simard and L'Ecuyer, "Computing the two-sided Kolmogorov-Smirnov distribution",
//! Journal of Statistical Software 39(11), 2011, and is what scipy's `kstwo` does: exact up to 140 observations, else
//! within 1e-5 of it.

use std::f64::consts::{PI, TAU};

use super::ln_gamma;
use super::saddle::binomial_probability;

/// Where entries of a power of the matrix are scaled down: 2^128.
const SCALE: f64 = 340_282_366_920_938_463_463_374_607_431_768_211_456.0;
const LN_SCALE: f64 = 128.0 * std::f64::consts::LN_2;

/// `P(D_n > d)` for the two-sided statistic of `n > 0` observations.
#[must_use]
pub fn one_sample_kolmogorov_sf(d: f64, n: u32) -> f64 {
    if d.is_nan() || n == 0 {
        return f64::NAN;
    }
    let count = f64::from(n);
    let scaled = count * d;
    if scaled <= 0.5 {
        return 1.0;
    }
    if d >= 1.0 {
        return 0.0;
    }
    let square = scaled * d;
    if scaled <= 1.0 {
        // Ruben and Gambino 1982: n! ((2 n d - 1) / n)^n.
        let ln_below = ln_gamma(count + 1.0) + count * libm::log((2.0 * scaled - 1.0) / count);
        return 1.0 - libm::exp(ln_below);
    }
    if scaled >= count - 1.0 {
        return 2.0 * libm::exp(count * libm::log1p(-d));
    }
    let twice_one_sided = if n <= 140 { square > 4.0 } else { square >= 2.2 };
    if d >= 0.5 || twice_one_sided {
        return (2.0 * one_sided_sf(d, n)).min(1.0);
    }
    let below = if n <= 140 || (n <= 100_000 && count * d * d.sqrt() <= 1.4) {
        by_matrix(d, n)
    } else {
        pelz_good(d, n)
    };
    (1.0 - below).clamp(0.0, 1.0)
}

/// `P(D_n^+ > d)`: `d sum_j C(n, j) (d + j/n)^(j-1) (1 - d - j/n)^(n-j)` (Birnbaum and Tingey 1951).
fn one_sided_sf(d: f64, n: u32) -> f64 {
    let count = f64::from(n);
    let mut sum = 0.0;
    for j in 0..=n {
        let successes = f64::from(j);
        let probability = d + successes / count;
        let complement = (count - successes) / count - d;
        if complement < 0.0 {
            break;
        }
        sum += binomial_probability(successes, count - successes, probability, complement) / probability;
    }
    d * sum
}

/// `P(D_n < d)` as an entry of the n-th power of a matrix (Durbin 1968; Marsaglia, Tsang and Wang 2003).
fn by_matrix(d: f64, n: u32) -> f64 {
    let count = f64::from(n);
    let steps = (count * d).ceil();
    let h = steps - count * d;
    // At most 58 steps where this is called.
    let centre = steps as usize - 1;
    let size = 2 * centre + 1;
    let mut base = transition(h, size);
    let mut power: Vec<f64> = (0..size * size)
        .map(|index| f64::from(u8::from(index % (size + 1) == 0)))
        .collect();
    let (mut base_scales, mut power_scales) = (0.0, 0.0);
    let mut exponent = n;
    while exponent > 0 {
        if exponent % 2 == 1 {
            power = product(&power, &base, size);
            power_scales += base_scales;
        }
        base = product(&base, &base, size);
        base_scales *= 2.0;
        if base[centre * size + centre] > SCALE {
            base.iter_mut().for_each(|entry| *entry /= SCALE);
            base_scales += 1.0;
        }
        exponent /= 2;
    }
    let mut probability = power[centre * size + centre];
    for i in 1..=n {
        probability *= f64::from(i) / count;
        if probability < 1.0 / SCALE {
            probability *= SCALE;
            power_scales -= 1.0;
        }
    }
    probability * libm::exp(power_scales * LN_SCALE)
}

fn transition(h: f64, size: usize) -> Vec<f64> {
    let mut inverse_factorial = vec![1.0; size + 1];
    let mut power = vec![1.0; size + 1];
    for j in 1..=size {
        inverse_factorial[j] = inverse_factorial[j - 1] / j as f64;
        power[j] = power[j - 1] * h;
    }
    let edge = |j: usize| (1.0 - power[j]) * inverse_factorial[j];
    let mut matrix = vec![0.0; size * size];
    for row in 0..size {
        matrix[row * size] = edge(row + 1);
        matrix[(size - 1) * size + row] = edge(size - row);
    }
    for row in 0..size - 1 {
        for column in 1..=row + 1 {
            matrix[row * size + column] = inverse_factorial[row + 1 - column];
        }
    }
    let overlap = (0..size).fold(1.0, |product, _| product * (2.0 * h - 1.0).max(0.0));
    matrix[(size - 1) * size] = (1.0 + overlap - 2.0 * power[size]) * inverse_factorial[size];
    matrix
}

fn product(left: &[f64], right: &[f64], size: usize) -> Vec<f64> {
    let mut result = vec![0.0; size * size];
    for row in 0..size {
        for inner in 0..size {
            let factor = left[row * size + inner];
            for column in 0..size {
                result[row * size + column] += factor * right[inner * size + column];
            }
        }
    }
    result
}

/// `P(D_n < d)` for large `n`: Kolmogorov's limit and three corrections (Pelz and Good 1976).
fn pelz_good(d: f64, n: u32) -> f64 {
    let root = f64::from(n).sqrt();
    let z = root * d;
    let z2 = z * z;
    let (z4, pi2) = (z2 * z2, PI * PI);
    let (z6, z8) = (z4 * z2, z4 * z4);
    let (mut k0, mut k1, mut k2, mut k3) = (0.0, 0.0, 0.0, 0.0);
    let (mut k2_even, mut k3_even) = (0.0, 0.0);
    // The exponents fall with the square of the index: 16 z / pi of them reach below 1e-16 of the first.
    let terms = (16.0 * z / PI).ceil().max(1.0) as u32;
    for k in (1..=terms).rev() {
        let odd = f64::from(2 * k - 1);
        let m2 = odd * odd * pi2;
        let weight = libm::exp(-m2 / (8.0 * z2));
        k0 += weight;
        k1 += weight * (m2 / 4.0 - z2);
        k2 += weight * (6.0 * z6 + 2.0 * z4 + (2.0 * z4 - 5.0 * z2) * m2 / 4.0 + (1.0 - 2.0 * z2) * m2 * m2 / 16.0);
        k3 += weight
            * (-30.0 * z6 - 90.0 * z8
                + (135.0 * z4 - 96.0 * z6) * m2 / 4.0
                + (212.0 * z4 - 60.0 * z2) * m2 * m2 / 16.0
                + (5.0 - 30.0 * z2) * m2 * m2 * m2 / 64.0);
        let even = f64::from(k) * f64::from(k) * pi2;
        let weight = libm::exp(-even / (2.0 * z2));
        k2_even += weight * even;
        k3_even += weight * even * (3.0 * z2 - even);
    }
    let second = k2 / (72.0 * z6 * z) - k2_even / (36.0 * z2 * z);
    let third = k3 / (6480.0 * z8 * z2) + k3_even / (216.0 * z6);
    TAU.sqrt() * (k0 / z + (k1 / (6.0 * z4) + (second + third / root) / root) / root)
}
