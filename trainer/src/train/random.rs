//! Random numbers that are the same on every machine and in every version: SplitMix64.

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of a seed and a purpose.
    #[must_use]
    pub fn new(seed: u64, purpose: u64) -> Self {
        let mut random = Self(seed);
        let mixed = random.bits();
        Self(mixed ^ purpose.wrapping_mul(0xD1B5_4A32_D192_ED03))
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in [-1, 1).
    pub fn symmetric(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// The numbers below `count` in a random order.
    pub fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            // The bias of this is below count / 2^64.
            let other = (u128::from(self.bits()) * (last as u128 + 1)) >> 64;
            order.swap(last, other as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_fixed_and_differ() {
        let first = |seed, purpose| Random::new(seed, purpose).bits();
        assert_eq!(first(1, 2), first(1, 2));
        assert!(first(1, 2) != first(1, 3) && first(1, 2) != first(2, 2));
        // The first number of SplitMix64 from zero, as published.
        assert_eq!(Random(0).bits(), 0xE220_A839_7B1D_CDAF);
    }

    #[test]
    fn an_order_holds_every_number_once() {
        let mut order = Random::new(7, 0).order(1000);
        assert!(order.windows(2).filter(|pair| pair[0] > pair[1]).count() > 400);
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
        assert_eq!(Random::new(7, 0).order(0), Vec::<usize>::new());
    }

    #[test]
    fn symmetric_numbers_fill_their_range() {
        let mut random = Random::new(3, 1);
        let numbers: Vec<f32> = (0..10_000).map(|_| random.symmetric()).collect();
        assert!(numbers.iter().all(|number| (-1.0..1.0).contains(number)));
        assert!(numbers.iter().sum::<f32>().abs() < 200.0);
        assert!(numbers.iter().any(|number| *number > 0.99) && numbers.iter().any(|number| *number < -0.99));
    }
}
