//! Randomness that can be played again: the seed is printed, and given back in `PERENNIAL_TEST_SEED`.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

/// Variable with the seed of an earlier run.
pub const SEED_VARIABLE: &str = "PERENNIAL_TEST_SEED";

static SEED: LazyLock<u64> = LazyLock::new(|| {
    let given = std::env::var(SEED_VARIABLE).ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 16);
    eprintln!("seed: {SEED_VARIABLE}={seed}");
    seed
});

/// Random numbers (SplitMix64), one sequence for each name.
pub struct Random(u64);

impl Random {
    /// The sequence of this name in this run.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let mixed = name.bytes().fold(*SEED, |state, byte| {
            (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(mixed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit.max(1)
    }

    /// One of a list.
    ///
    /// # Panics
    /// If the list is empty.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        let index = self.number() % list.len() as u64;
        &list[usize::try_from(index).unwrap_or_default()]
    }
}

/// A suffix for a name.
#[must_use]
pub fn suffix() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{:05x}{count}", Random::named("suffix").number() & 0xf_ffff)
}
