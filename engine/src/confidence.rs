//! How sure a model is of what it says: the log-probability of a token and the entropy that it was chosen from.
//!
//! Both are of the model's own distribution, at temperature 1 and before any cut, whatever a request asks of the sampler:
//! else a client's temperature would look like another model. The pass over the logits is written so that compilers turn
//! it into vector instructions of any machine, and so that its sums have one order.

/// Tokens of an answer of which one is measured, beginning with the first: a mean needs no more, and the pass costs more
/// than half as much as choosing the likeliest token.
pub const MEASURED_EVERY: usize = 4;

/// How sure a model was of one token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Confidence {
    /// Logarithm of the token's probability, nats; at most 0.
    pub logprob: f32,
    /// Entropy of the distribution, nats; at least 0.
    pub entropy: f32,
}

/// Numbers that are summed beside each other.
const LANES: usize = 16;
/// Rows of lanes that are added up in single precision before they go into a sum in double precision.
const ROWS: usize = 32;
/// Logits further below the highest one are taken for this far: their probability is no normal number any more.
const DEEPEST: f32 = -87.0;

/// How sure the model was that `token` follows. `None` where no logit is finite, one is not a number, or there is no such
/// token.
#[must_use]
pub fn confidence(logits: &[f32], token: u32) -> Option<Confidence> {
    let own = *logits.get(token as usize)?;
    let highest = highest(logits);
    if !highest.is_finite() {
        return None;
    }
    // Of all logits: exp(below), and below * exp(below), where below is the distance to the highest one.
    let (mut weight, mut moment) = (0.0_f64, 0.0_f64);
    for rows in logits.chunks(LANES * ROWS) {
        let (mut weights, mut moments) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        let (whole, rest) = rows.as_chunks::<LANES>();
        for row in whole {
            add(row, highest, &mut weights, &mut moments);
        }
        if !rest.is_empty() {
            let mut padded = [f32::NEG_INFINITY; LANES];
            padded[..rest.len()].copy_from_slice(rest);
            add(&padded, highest, &mut weights, &mut moments);
        }
        weight += weights.iter().map(|&sum| f64::from(sum)).sum::<f64>();
        moment += moments.iter().map(|&sum| f64::from(sum)).sum::<f64>();
    }
    if weight.is_nan() {
        return None;
    }
    let log = weight.ln();
    Some(Confidence {
        logprob: ((f64::from(own - highest)).max(f64::from(f32::MIN)) - log).min(0.0) as f32,
        entropy: (log - moment / weight).max(0.0) as f32,
    })
}

/// The highest logit, of those that are numbers.
fn highest(logits: &[f32]) -> f32 {
    let larger = |best: f32, logit: f32| if logit > best { logit } else { best };
    let (whole, rest) = logits.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for row in whole {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], row[lane]);
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger)
}

#[inline]
fn add(row: &[f32; LANES], highest: f32, weights: &mut [f32; LANES], moments: &mut [f32; LANES]) {
    for lane in 0..LANES {
        let below = row[lane] - highest;
        // Not f32::max, which would hide what is not a number.
        let below = if below < DEEPEST { DEEPEST } else { below };
        let weight = exp(below);
        weights[lane] += weight;
        moments[lane] += below * weight;
    }
}

/// `e^x` for x in [-87, 0], to a few units in the last place: a power of two, and a polynomial for the rest.
#[inline]
fn exp(x: f32) -> f32 {
    /// Added to a small number, it leaves the nearest integer in the lowest bits (1.5 * 2^23).
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts, the first with so few digits that its multiples are exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let whole = rounded - ROUND;
    let rest = x - whole * LN_2_HIGH - whole * LN_2_LOW;
    // Taylor's, to the seventh power: the rest is at most ln 2 / 2, so what is left out is below 2^-27.
    let mut power = 1.0 / 5040.0;
    for factor in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        power = power * rest + factor;
    }
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    power * f32::from_bits(exponent << 23)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The textbook, in double precision.
    fn plain(logits: &[f32], token: usize) -> (f64, f64) {
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f64> = logits.iter().map(|&logit| f64::from(logit - highest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let entropy = weights.iter().map(|weight| weight / sum).filter(|&share| share > 0.0);
        let entropy: f64 = entropy.map(|share| -share * share.ln()).sum();
        (f64::from(logits[token] - highest) - sum.ln(), entropy)
    }

    #[test]
    fn the_exponential_is_right_to_the_last_places() {
        for step in 0..=870_000 {
            let x = -(step as f32) / 10_000.0;
            let right = f64::from(x).exp();
            let error = (f64::from(exp(x)) - right).abs() / right;
            assert!(error < 3e-7, "{x}: {error:e}");
        }
        assert_eq!(exp(0.0), 1.0);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        #[test]
        fn it_is_what_the_textbook_says(
            logits in proptest::collection::vec(-40.0_f32..40.0, 1..3000), chosen in any::<proptest::sample::Index>(),
        ) {
            let token = chosen.index(logits.len());
            let found = confidence(&logits, token as u32).expect("numbers");
            let (logprob, entropy) = plain(&logits, token);
            prop_assert!((f64::from(found.logprob) - logprob).abs() < 1e-5 * (1.0 + logprob.abs()), "{found:?} {logprob}");
            prop_assert!((f64::from(found.entropy) - entropy).abs() < 1e-4, "{found:?} {entropy}");
        }
    }

    #[test]
    fn large_vocabularies_lose_no_digits() {
        let logits: Vec<f32> = (0..128_256)
            .map(|token: u32| (token.wrapping_mul(2_654_435_761) >> 20) as f32 / 400.0)
            .collect();
        let found = confidence(&logits, 77).expect("numbers");
        let (logprob, entropy) = plain(&logits, 77);
        assert!((f64::from(found.logprob) - logprob).abs() < 1e-5, "{found:?} {logprob}");
        assert!((f64::from(found.entropy) - entropy).abs() < 1e-4, "{found:?} {entropy}");
        let alike = confidence(&[1.5; 49_152], 5).expect("numbers");
        assert!((alike.entropy - 49_152_f32.ln()).abs() < 1e-5 && (alike.logprob + 49_152_f32.ln()).abs() < 1e-5);
    }

    #[test]
    fn certainty_has_no_entropy_and_what_is_no_distribution_has_no_confidence() {
        let sure = confidence(&[f32::NEG_INFINITY, 3.0, f32::NEG_INFINITY], 1).expect("one is finite");
        assert!(sure.logprob == 0.0 && sure.entropy < 1e-30, "{sure:?}");
        let never = confidence(&[f32::NEG_INFINITY, 3.0], 0).expect("one is finite");
        assert!(never.logprob < -1e30 && never.logprob.is_finite());
        assert_eq!(confidence(&[f32::NAN, 1.0], 1), None);
        assert_eq!(confidence(&[1.0, f32::NAN, 2.0], 0), None);
        assert_eq!(confidence(&[f32::NEG_INFINITY; 3], 0), None);
        assert_eq!(confidence(&[f32::INFINITY, 0.0], 0), None);
        assert_eq!(confidence(&[0.0], 1), None);
        assert_eq!(confidence(&[], 0), None);
    }
}
