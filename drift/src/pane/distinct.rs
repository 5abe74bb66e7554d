//! How many different requesters or prompts there were, about. For information, never for a decision.

use serde::{Deserialize, Serialize};

const BITS: u32 = 11;
const REGISTERS: usize = 1 << BITS;

/// A HyperLogLog of 2,048 registers (standard error 2.3 %), by Flajolet, Fusy, Gandouet and Meunier (2007). Its registers
/// merge by their maximum, so order and split change nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distinct {
    registers: Vec<u8>,
}

impl Default for Distinct {
    fn default() -> Self {
        Self {
            registers: vec![0; REGISTERS],
        }
    }
}

impl Distinct {
    /// Counts a hash of 64 good bits.
    pub(crate) fn add(&mut self, hash: u64) {
        let register = (hash >> (64 - BITS)) as usize;
        // The guard bit ends the run of zeros where the hash has no more bits.
        let rank = ((hash << BITS) | (1 << (BITS - 1))).leading_zeros() as u8 + 1;
        self.registers[register] = self.registers[register].max(rank);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (into, from) in self.registers.iter_mut().zip(&other.registers) {
            *into = (*into).max(*from);
        }
    }

    pub(crate) fn contradiction(&self) -> Option<&'static str> {
        let largest = 64 - BITS as u8 + 1;
        (self.registers.len() != REGISTERS || self.registers.iter().any(|rank| *rank > largest))
            .then_some("a count of distinct values has impossible registers")
    }

    pub(crate) fn memory(&self) -> usize {
        self.registers.len()
    }

    /// About how many.
    #[must_use]
    pub fn estimate(&self) -> f64 {
        let registers = REGISTERS as f64;
        let sum: f64 = self
            .registers
            .iter()
            .map(|rank| libm::ldexp(1.0, -i32::from(*rank)))
            .sum();
        let raw = 0.7213 / (1.0 + 1.079 / registers) * registers * registers / sum;
        let empty = self.registers.iter().filter(|rank| **rank == 0).count();
        if raw <= 2.5 * registers && empty > 0 {
            // Linear counting is the better one for few values.
            return registers * libm::log(registers / empty as f64);
        }
        raw
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixed(value: u64) -> u64 {
        let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    #[test]
    fn estimates_are_within_four_standard_errors() {
        for distinct in [0_u64, 1, 10, 1_000, 5_000, 20_000, 300_000] {
            let mut sketch = Distinct::default();
            for value in 1..=distinct {
                sketch.add(mixed(value));
                sketch.add(mixed(value));
            }
            let error = (sketch.estimate() - distinct as f64).abs();
            assert!(
                error <= 0.092 * distinct as f64 + 0.5,
                "{distinct}: {}",
                sketch.estimate()
            );
        }
    }
}
