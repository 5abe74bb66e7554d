//! What is computed of each token alone: norms and the gate, forward and backward.

use rayon::prelude::*;

/// Tokens that one thread takes at a time.
const ROWS: usize = 16;

/// e to the `x` within a few units of the last place: without a branch or a call, so that it is computed for many numbers
/// at once. Below -87 it is e to the -87, above 88 e to the 88.
#[must_use]
pub fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    /// Adding it leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let whole = rounded - ROUND;
    let rest = x - whole * LN_2_HIGH - whole * LN_2_LOW;
    let series = 1.0 / 5040.0;
    let series = series * rest + 1.0 / 720.0;
    let series = series * rest + 1.0 / 120.0;
    let series = series * rest + 1.0 / 24.0;
    let series = series * rest + 1.0 / 6.0;
    let series = series * rest + 0.5;
    let series = series * rest * rest + rest + 1.0;
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    series * f32::from_bits(exponent << 23)
}

/// Scales each row of `input` to a mean square of 1 and by `weight`. Leaves the scale of each row in `scales`.
pub fn norm(input: &[f32], weight: &[f32], epsilon: f32, scales: &mut Vec<f32>, out: &mut Vec<f32>) {
    let width = weight.len();
    out.resize(input.len(), 0.0);
    scales.resize(input.len() / width, 0.0);
    let rows = out
        .par_chunks_mut(width * ROWS)
        .zip(input.par_chunks(width * ROWS))
        .zip(scales.par_chunks_mut(ROWS));
    rows.for_each(|((out, input), scales)| {
        let rows = out.chunks_exact_mut(width).zip(input.chunks_exact(width));
        for ((out, input), scale) in rows.zip(scales) {
            *scale = 1.0 / (dot(input, input) / width as f32 + epsilon).sqrt();
            for ((out, input), weight) in out.iter_mut().zip(input).zip(weight) {
                *out = input * *scale * weight;
            }
        }
    });
}

/// Adds to `d_input` what [`norm`] hands back of `d_out`.
pub fn norm_back(d_out: &[f32], input: &[f32], weight: &[f32], scales: &[f32], d_input: &mut [f32]) {
    let width = weight.len();
    let rows = d_input
        .par_chunks_mut(width * ROWS)
        .zip(d_out.par_chunks(width * ROWS))
        .zip(input.par_chunks(width * ROWS))
        .zip(scales.par_chunks(ROWS));
    rows.for_each(|(((d_input, d_out), input), scales)| {
        let rows = d_input
            .chunks_exact_mut(width)
            .zip(d_out.chunks_exact(width))
            .zip(input.chunks_exact(width));
        for (((d_input, d_out), input), &scale) in rows.zip(scales) {
            let along = dot3(d_out, input, weight) * scale * scale * scale / width as f32;
            for (((d_input, d_out), input), weight) in d_input.iter_mut().zip(d_out).zip(input).zip(weight) {
                *d_input += d_out * weight * scale - input * along;
            }
        }
    });
}

/// `out = gate * sigmoid(gate) * up`.
pub fn gate(gate: &[f32], up: &[f32], out: &mut Vec<f32>) {
    out.resize(gate.len(), 0.0);
    let parts = out
        .par_chunks_mut(CHUNK)
        .zip(gate.par_chunks(CHUNK))
        .zip(up.par_chunks(CHUNK));
    parts.for_each(|((out, gate), up)| {
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate / (1.0 + exp(-gate)) * up;
        }
    });
}

/// What [`gate`] hands back of `d_out`: to its gate, and in place of `d_out` to `up`.
pub fn gate_back(gate: &[f32], up: &[f32], d_out: &mut [f32], d_gate: &mut Vec<f32>) {
    d_gate.resize(gate.len(), 0.0);
    let parts = d_gate
        .par_chunks_mut(CHUNK)
        .zip(d_out.par_chunks_mut(CHUNK))
        .zip(gate.par_chunks(CHUNK))
        .zip(up.par_chunks(CHUNK));
    parts.for_each(|(((d_gate, d_out), gate), up)| {
        for (((d_gate, d_out), gate), up) in d_gate.iter_mut().zip(d_out).zip(gate).zip(up) {
            let sigmoid = 1.0 / (1.0 + exp(-gate));
            let swish = gate * sigmoid;
            *d_gate = *d_out * up * (sigmoid + swish * (1.0 - sigmoid));
            *d_out *= swish;
        }
    });
}

const CHUNK: usize = 1 << 13;

/// Adds `bias` to every row.
pub fn add_bias(rows: &mut [f32], bias: &[f32]) {
    rows.par_chunks_mut(bias.len() * ROWS).for_each(|rows| {
        for row in rows.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
        }
    });
}

const LANES: usize = 16;

/// The inner product, in lanes that the compiler keeps in vector registers.
#[must_use]
pub fn dot(left: &[f32], right: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (left, right) = (left.chunks_exact(LANES), right.chunks_exact(LANES));
    let rest = left.remainder().iter().zip(right.remainder());
    let rest: f32 = rest.map(|(left, right)| left * right).sum();
    for (left, right) in left.zip(right) {
        for lane in 0..LANES {
            lanes[lane] += left[lane] * right[lane];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// The sum of the products of three numbers each.
fn dot3(one: &[f32], two: &[f32], three: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (one, two, three) = (
        one.chunks_exact(LANES),
        two.chunks_exact(LANES),
        three.chunks_exact(LANES),
    );
    let rest = one.remainder().iter().zip(two.remainder()).zip(three.remainder());
    let rest: f32 = rest.map(|((one, two), three)| one * two * three).sum();
    for ((one, two), three) in one.zip(two).zip(three) {
        for lane in 0..LANES {
            lanes[lane] += one[lane] * two[lane] * three[lane];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_exact_to_a_few_units_of_the_last_place() {
        for step in -86_000..87_000 {
            let x = step as f32 / 1000.0;
            let (found, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found / exact - 1.0).abs() < 4e-7, "exp({x}) = {found}, not {exact}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(-1e9) > 0.0 && exp(-1e9) < 1e-37 && exp(1e9).is_finite());
    }

    fn wave(count: usize, speed: f32) -> Vec<f32> {
        (0..count).map(|at| (at as f32 * speed).sin() * 1.5).collect()
    }

    /// The slope of `function` along each of `at`, weighted by `d_out`.
    fn slopes(at: &[f32], d_out: &[f32], function: impl Fn(&[f32]) -> Vec<f32>) -> Vec<f64> {
        const STEP: f32 = 1.0 / 256.0;
        (0..at.len())
            .map(|index| {
                let value = |step: f32| {
                    let mut moved = at.to_vec();
                    moved[index] += step;
                    let out = function(&moved);
                    let weighed = out.iter().zip(d_out);
                    weighed
                        .map(|(out, weight)| f64::from(*out) * f64::from(*weight))
                        .sum::<f64>()
                };
                (value(STEP) - value(-STEP)) / (2.0 * f64::from(STEP))
            })
            .collect()
    }

    fn close(found: &[f32], expected: &[f64]) {
        for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!(
                (f64::from(*found) - expected).abs() < 2e-3,
                "{at}: {found}, not {expected}"
            );
        }
    }

    #[test]
    fn the_norm_hands_back_its_slope() {
        let (input, weight, d_out) = (wave(57, 0.7), wave(19, 1.3), wave(57, 2.1));
        let run = |input: &[f32]| {
            let (mut scales, mut out) = (Vec::new(), Vec::new());
            norm(input, &weight, 1e-5, &mut scales, &mut out);
            (scales, out)
        };
        let (scales, _) = run(&input);
        let mut d_input = vec![1.0; input.len()];
        norm_back(&d_out, &input, &weight, &scales, &mut d_input);
        let expected: Vec<f64> = slopes(&input, &d_out, |input| run(input).1);
        let expected: Vec<f64> = expected.iter().map(|slope| slope + 1.0).collect();
        close(&d_input, &expected);
    }

    #[test]
    fn the_gate_hands_back_its_slopes() {
        let (gates, ups, d_out) = (wave(40, 0.9), wave(40, 1.7), wave(40, 0.4));
        let run = |gates: &[f32], ups: &[f32]| {
            let mut out = Vec::new();
            gate(gates, ups, &mut out);
            out
        };
        let (mut d_up, mut d_gate) = (d_out.clone(), Vec::new());
        gate_back(&gates, &ups, &mut d_up, &mut d_gate);
        close(&d_gate, &slopes(&gates, &d_out, |gates| run(gates, &ups)));
        close(&d_up, &slopes(&ups, &d_out, |ups| run(&gates, ups)));
    }
}
