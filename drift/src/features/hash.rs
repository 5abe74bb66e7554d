//! Hashes whose values are kept: written out here, so that no release of a library can change them.
//!
//! Not for tables that an adversary fills: whoever knows the seed can make two texts collide, which costs a signal some
//! of its sharpness and nothing else.

/// SplitMix64's step from one state to the next; its odd multiples visit all 2^64 states.
pub(crate) const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
const MULTIPLIER: u64 = 0xD6E8_FEB8_6659_FD93;

/// SplitMix64's output function (Steele, Lea, Flood 2014): every bit of the input moves every bit of the output.
pub(crate) fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// High and low half of a 128-bit product, folded: the cheapest step that mixes well.
pub(crate) fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    (product as u64) ^ ((product >> 64) as u64)
}

/// A hash of bytes, eight at a time.
pub(crate) fn hash(bytes: &[u8], seed: u64) -> u64 {
    let mut state = seed ^ (bytes.len() as u64 + 1).wrapping_mul(GOLDEN);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        state = fold(state ^ u64::from_le_bytes(word), MULTIPLIER).wrapping_add(GOLDEN);
    }
    let mut word = [0; 8];
    for (target, source) in word.iter_mut().zip(chunks.remainder()) {
        *target = *source;
    }
    mix(state ^ u64::from_le_bytes(word).wrapping_mul(MULTIPLIER))
}

/// A number below `bound` (at least 1) from a hash, without the bias of a remainder.
pub(crate) fn below(hash: u64, bound: usize) -> usize {
    ((u128::from(hash) * bound as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_pinned() {
        assert_eq!(
            mix(GOLDEN),
            0xE220_A839_7B1D_CDAF,
            "the first output of SplitMix64 from 0"
        );
        let pinned: [u64; 3] = [hash(b"", 0), hash(b"perennial", 0), hash("naïve 中文".as_bytes(), 7)];
        assert_eq!(pinned, PINNED);
    }

    #[test]
    fn lengths_and_zeros_tell_texts_apart() {
        let zeros = [0u8; 40];
        let mut seen: Vec<u64> = (0..40).map(|length| hash(&zeros[..length], 1)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 40);
    }

    #[test]
    fn buckets_are_even() {
        let mut counts = [0u32; 64];
        for number in 0..64_000u32 {
            counts[below(hash(&number.to_le_bytes(), 3), 64)] += 1;
        }
        let chi: f64 = counts
            .iter()
            .map(|&count| (f64::from(count) - 1000.0).powi(2) / 1000.0)
            .sum();
        assert!(chi < 103.4, "chi-square {chi} of 63 degrees beyond its 99.9 % point");
    }

    const PINNED: [u64; 3] = [
        16_294_208_416_658_607_535,
        7_518_590_259_344_443_437,
        15_179_775_322_322_935_087,
    ];
}
