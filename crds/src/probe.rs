//! The contract `probe/v1`: what the operator tells a Job that asks fixed prompts, and what its last words may be.
//!
//! The answers never leave the namespace: the last words hold only a fingerprint of each.

use serde::{Deserialize, Serialize};

use crate::retrain::Outcome;

/// Version of the contract of the Job that asks fixed prompts.
pub const PROBE_CONTRACT: &str = "probe/v1";
/// Where that Job finds its prompts, read-only: files with one JSON object a line, the keys of a ConfigMap.
pub const PROMPTS_DIRECTORY: &str = "/probe/prompts";
/// Most prompts that are asked in one run: their fingerprints fit into the last words.
pub const MOST_PROBES: usize = 128;
/// Tokens of an answer to a probe.
pub const PROBE_TOKENS: u32 = 64;

/// Last words of the Job that asks fixed prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeResult {
    /// [`PROBE_CONTRACT`].
    pub schema: String,
    /// `Succeeded` if every prompt was answered, `DataRejected` if the prompts are none.
    pub outcome: Outcome,
    /// sha256 of what was asked: the same only if every prompt, their order and their limits are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_digest: Option<String>,
    /// Eight hex digits for each prompt in order: the beginning of the sha256 of its answer and of why that ended.
    #[serde(default)]
    pub answers: String,
    /// In words, without any text of a prompt or an answer.
    #[serde(default)]
    pub message: String,
}

impl ProbeResult {
    /// The fingerprints, in the order of the prompts; nothing if what is there is none.
    #[must_use]
    pub fn fingerprints(&self) -> Option<Vec<u32>> {
        let digits = self.answers.as_bytes();
        let (words, rest) = digits.as_chunks::<8>();
        if !rest.is_empty() || words.is_empty() || words.len() > MOST_PROBES {
            return None;
        }
        let read = words.iter().map(|word| {
            let text = std::str::from_utf8(word).ok()?;
            u32::from_str_radix(text, 16).ok()
        });
        read.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_or_refused_as_a_whole() {
        let of = |answers: &str| {
            let result = ProbeResult {
                schema: PROBE_CONTRACT.to_owned(),
                outcome: Outcome::Succeeded,
                set_digest: None,
                answers: answers.to_owned(),
                message: String::new(),
            };
            result.fingerprints()
        };
        assert_eq!(of("0000000aFFFFFFFF"), Some(vec![10, u32::MAX]));
        for wrong in ["", "0000000", "0000000g", "000000é", &"0".repeat(8 * MOST_PROBES + 8)] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
