//! Whether training fits into memory, before any of it is taken.

use perennial_engine::memory::display;
use perennial_engine::model::ModelConfig;
use serde::Serialize;

use super::model::{Kept, Layout, batch_bytes, transfer_bytes, weights_bytes};

/// Program, tokenizer, threads, allocator, rows and their tokens.
const RESERVE_BYTES: u64 = 160 << 20;
/// The adapter, its gradient, both moments, the best so far, and a copy while they are stored.
const ADAPTER_COPIES: u64 = 6;

/// What decides about memory.
#[derive(Debug)]
pub struct Needs<'a> {
    /// The model's shape.
    pub config: &'a ModelConfig,
    /// The embedding makes the logits, too.
    pub tied: bool,
    /// The adapter.
    pub layout: &'a Layout,
    /// The longest sequence, tokens.
    pub longest: usize,
    /// Tokens that should be computed at a time.
    pub wanted: usize,
}

/// How memory is used, bytes unless the name says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// What may be used; absent when no limit is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// The frozen weights in 32 bits.
    pub weights_bytes: u64,
    /// The adapter and what learning keeps of it.
    pub adapter_bytes: u64,
    /// What is kept of a batch, or of a tensor while it is read or written.
    pub working_bytes: u64,
    /// Everything else.
    pub reserve_bytes: u64,
    /// Sum of all parts.
    pub total_bytes: u64,
    /// Tokens that are computed at a time.
    pub batch_tokens: usize,
    /// Layers are computed twice instead of kept.
    pub recompute: bool,
}

impl Plan {
    /// What is kept for going backward.
    #[must_use]
    pub fn kept(&self) -> Kept {
        if self.recompute { Kept::Inputs } else { Kept::Everything }
    }
}

/// Plans: fewer tokens at a time first, then layers computed twice.
///
/// # Errors
/// A sentence with the figures when it does not fit even so.
pub fn plan(needs: &Needs, limit: Option<u64>) -> Result<Plan, String> {
    let wanted = needs.wanted.max(needs.longest);
    let sizes = std::iter::successors(Some(wanted), |&tokens| {
        (tokens > needs.longest).then(|| (tokens / 2).max(needs.longest))
    });
    let kinds = sizes.map(|tokens| (tokens, Kept::Everything));
    let mut smallest = None;
    for (tokens, kept) in kinds.chain([(needs.longest, Kept::Inputs)]) {
        let plan = with(needs, limit, tokens, kept);
        if limit.is_none_or(|limit| plan.total_bytes <= limit) {
            return Ok(plan);
        }
        smallest = Some(plan);
    }
    Err(smallest.map_or_else(String::new, |plan| refusal(&plan, needs.longest)))
}

fn with(needs: &Needs, limit: Option<u64>, tokens: usize, kept: Kept) -> Plan {
    let head_norms = needs.config.architecture.to_lowercase().starts_with("qwen3");
    let weights = weights_bytes(needs.config, needs.tied);
    let adapter = (needs.layout.length() * size_of::<f32>()) as u64 * ADAPTER_COPIES;
    let batch = batch_bytes(needs.config, needs.layout, head_norms, kept, tokens);
    // Products rearrange their operands, and freed memory is not all used again: measured, less than a twentieth more.
    // Batches begin when all tensors are read, and are over before the changed ones are rounded in place and written.
    let working = (batch + batch / 10).max(transfer_bytes(needs.config));
    Plan {
        limit_bytes: limit,
        weights_bytes: weights,
        adapter_bytes: adapter,
        working_bytes: working,
        reserve_bytes: RESERVE_BYTES,
        total_bytes: weights + adapter + working + RESERVE_BYTES,
        batch_tokens: tokens,
        recompute: kept == Kept::Inputs,
    }
}

fn refusal(plan: &Plan, longest: usize) -> String {
    format!(
        "training needs {} (weights in 32 bits {}, adapter and its moments {}, {} for one sequence of {longest} tokens or the \
         largest tensor while it is read, reserve {}) and the memory limit is {}; raise the limit, lower --max-sequence-tokens \
         or choose a smaller model",
        display(plan.total_bytes),
        display(plan.weights_bytes),
        display(plan.adapter_bytes),
        display(plan.working_bytes),
        display(plan.reserve_bytes),
        display(plan.limit_bytes.unwrap_or(0)),
    )
}

#[cfg(test)]
mod tests {
    use perennial_engine::model::Rope;

    use super::*;
    use crate::train::model::Projection;

    fn config() -> ModelConfig {
        ModelConfig {
            architecture: "llama".to_owned(),
            hidden: 576,
            layers: 30,
            heads: 9,
            kv_heads: 3,
            head_width: 64,
            feed_forward: 1536,
            vocabulary: 49_152,
            context: 8192,
            norm_epsilon: 1e-5,
            rope: Rope {
                frequencies: vec![1.0; 32],
                interleaved: true,
            },
        }
    }

    fn planned(limit: u64) -> Result<Plan, String> {
        let config = config();
        let layout = Layout::new(&config, &Projection::ALL, 8, 16.0);
        let needs = Needs {
            config: &config,
            tied: true,
            layout: &layout,
            longest: 300,
            wanted: 1024,
        };
        plan(&needs, Some(limit))
    }

    #[test]
    fn less_memory_first_lowers_the_batch_then_computes_layers_twice() {
        let kinds: Vec<Option<(usize, bool)>> = [4096, 1350, 1100, 950, 700]
            .iter()
            .map(|megabytes| {
                planned(megabytes << 20)
                    .ok()
                    .map(|plan| (plan.batch_tokens, plan.recompute))
            })
            .collect();
        let expected = [
            Some((1024, false)),
            Some((512, false)),
            Some((300, false)),
            Some((300, true)),
            None,
        ];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn the_largest_tensor_has_room_twice_while_it_is_read_or_written() {
        let config = config();
        let table = (config.vocabulary * config.hidden * size_of::<f32>()) as u64;
        let least = planned(950 << 20).expect("it fits");
        // A batch of one sequence, computed twice, takes a quarter of that.
        assert_eq!(least.working_bytes, 2 * table);
        assert!(planned(least.total_bytes).is_ok() && planned(least.total_bytes - 1).is_err());
        let wide = ModelConfig {
            feed_forward: 2 * config.vocabulary,
            ..config
        };
        assert_eq!(transfer_bytes(&wide), 4 * table);
    }

    #[test]
    fn a_plan_never_exceeds_the_limit_and_a_refusal_says_by_how_much() {
        for megabytes in (100..3000).step_by(41) {
            let limit = megabytes << 20;
            match planned(limit) {
                Ok(plan) => assert!(plan.total_bytes <= limit && plan.batch_tokens >= 300, "{plan:?}"),
                Err(message) => {
                    assert!(
                        message.contains(&display(limit)) && message.contains("sequence of 300"),
                        "{message}"
                    );
                }
            }
        }
    }
}
