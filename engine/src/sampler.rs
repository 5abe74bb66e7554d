//! Chooses a token from a row of logits.
//!
//! Stateless: randomness comes from the seed and the token's index in the answer, so an answer is the same whether its
//! request was preempted, batched with others, or alone.

use crate::contract::Sampling;

/// Chooses the token at `index` of the answer; `None` if no logit is a number.
#[must_use]
pub fn sample(logits: &[f32], sampling: &Sampling, index: usize) -> Option<u32> {
    let (best, highest) = likeliest(logits)?;
    if sampling.temperature <= 0.0 {
        return Some(best);
    }
    let inverse = 1.0 / sampling.temperature;
    let mut weights: Vec<(u32, f32)> = Vec::with_capacity(logits.len());
    let mut total = 0.0_f32;
    for (token, &logit) in logits.iter().enumerate() {
        let weight = ((logit - highest) * inverse).exp();
        if weight > 0.0 {
            total += weight;
            weights.push((token as u32, weight));
        }
    }
    if sampling.top_p < 1.0 {
        total = keep_nucleus(&mut weights, total, sampling.top_p);
    }
    let mut point = uniform(sampling.seed, index as u64) * total;
    for &(token, weight) in &weights {
        point -= weight;
        if point < 0.0 {
            return Some(token);
        }
    }
    weights.last().map(|&(token, _)| token)
}

/// The first highest logit; `None` if there is none above minus infinity or one is not a number.
fn likeliest(logits: &[f32]) -> Option<(u32, f32)> {
    let mut best = (0, f32::NEG_INFINITY);
    let mut sum = 0.0_f32;
    for (token, &logit) in logits.iter().enumerate() {
        if logit > best.1 {
            best = (token as u32, logit);
        }
        sum += if logit.is_nan() { f32::NAN } else { 0.0 };
    }
    (best.1.is_finite() && !sum.is_nan()).then_some(best)
}

/// Keeps the fewest tokens whose weights reach `top_p` of `total`; returns their sum.
fn keep_nucleus(weights: &mut Vec<(u32, f32)>, total: f32, top_p: f32) -> f32 {
    // Tokens below this share cannot be in the nucleus: all of them together weigh less than 1 - top_p.
    let negligible = (1.0 - top_p) * total / weights.len() as f32;
    let heaviest = weights
        .iter()
        .fold(0.0_f32, |heaviest, &(_, weight)| heaviest.max(weight));
    weights.retain(|&(_, weight)| weight >= negligible || weight == heaviest);
    weights.sort_unstable_by(|left, right| right.1.total_cmp(&left.1).then(left.0.cmp(&right.0)));
    let wanted = top_p * total;
    let mut sum = 0.0;
    let mut kept = 0;
    for &(_, weight) in weights.iter() {
        sum += weight;
        kept += 1;
        if sum >= wanted {
            break;
        }
    }
    weights.truncate(kept);
    sum
}

/// A number in [0, 1) from a seed and a counter (SplitMix64, twice).
fn uniform(seed: u64, counter: u64) -> f32 {
    let mixed = mix(mix(seed).wrapping_add(counter.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    (mixed >> 40) as f32 / (1_u64 << 24) as f32
}

pub(crate) fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(temperature: f32, top_p: f32, seed: u64) -> Sampling {
        Sampling {
            temperature,
            top_p,
            seed,
            ignore_end: false,
        }
    }

    #[test]
    fn temperature_zero_takes_the_first_of_the_likeliest() {
        assert_eq!(sample(&[0.0, 3.0, 3.0, -1.0], &sampling(0.0, 1.0, 1), 0), Some(1));
    }

    #[test]
    fn a_row_without_numbers_gives_no_token() {
        assert_eq!(sample(&[f32::NAN, 1.0], &sampling(0.0, 1.0, 1), 0), None);
        assert_eq!(sample(&[f32::NEG_INFINITY; 3], &sampling(1.0, 1.0, 1), 0), None);
        assert_eq!(sample(&[], &sampling(1.0, 1.0, 1), 0), None);
    }

    #[test]
    fn the_seed_decides() {
        let logits: Vec<f32> = (0..100).map(|token| (token % 7) as f32).collect();
        let draw = |seed| {
            (0..50)
                .map(|index| sample(&logits, &sampling(1.0, 1.0, seed), index))
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        let logits = [1.0_f32.ln(), 2.0_f32.ln(), 5.0_f32.ln()];
        let mut counts = [0_u32; 3];
        for index in 0..20_000 {
            counts[sample(&logits, &sampling(1.0, 1.0, 3), index).expect("a token") as usize] += 1;
        }
        for (count, expected) in counts.into_iter().zip([2_500.0, 5_000.0, 12_500.0]) {
            assert!((f64::from(count) - expected).abs() < 300.0, "{counts:?}");
        }
    }

    #[test]
    fn top_p_keeps_only_the_nucleus() {
        let logits = [0.5_f32.ln(), 0.3_f32.ln(), 0.15_f32.ln(), 0.05_f32.ln()];
        let mut seen = [false; 4];
        for index in 0..2_000 {
            seen[sample(&logits, &sampling(1.0, 0.75, 9), index).expect("a token") as usize] = true;
        }
        assert_eq!(seen, [true, true, false, false]);
        assert_eq!(sample(&logits, &sampling(1.0, 0.0001, 9), 0), Some(0));
    }
}
