//! What a model needs of memory, before any of it is taken.

use serde::Serialize;

use crate::batch::BLOCK_SIZE;
use crate::error::ModelError;
use crate::memory::display;
use crate::model::{LoadOptions, ModelConfig};

/// Tokens of one step that the working memory is counted for.
const STEP_TOKENS: u64 = 256;
/// Program, tokenizer, threads, allocator and HTTP.
const RESERVE_BYTES: u64 = 96 << 20;

/// How memory is used. All sizes in bytes unless the name says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Architecture of the model.
    pub architecture: String,
    /// What may be used; absent when no limit is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// Weights as they are kept.
    pub weights_bytes: u64,
    /// Copies of weights that the kernels rearrange for the processor.
    pub packed_bytes: u64,
    /// Working memory of a step.
    pub activation_bytes: u64,
    /// Everything that is not the model.
    pub reserve_bytes: u64,
    /// Keys and values of one token.
    pub cache_bytes_per_token: u64,
    /// The whole key-value cache.
    pub cache_bytes: u64,
    /// Blocks in the key-value cache.
    pub cache_blocks: usize,
    /// Longest sequence.
    pub context_tokens: usize,
    /// Sequences of full length that the cache holds.
    pub full_sequences: usize,
    /// Sum of all parts.
    pub total_bytes: u64,
}

/// Sizes of the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WeightSizes {
    /// Bytes as they are kept.
    pub kept: u64,
    /// Bytes of rearranged copies.
    pub packed: u64,
}

/// Plans the memory of a model with this shape and these weights.
///
/// # Errors
/// [`ModelError::InsufficientMemory`] with the numbers when not even one sequence of full length fits, and
/// [`ModelError::Unsupported`] when a longer context is asked for than the model was made for.
pub fn plan(config: &ModelConfig, weights: WeightSizes, options: &LoadOptions) -> Result<Plan, ModelError> {
    let context = options.max_length.unwrap_or(config.context);
    if context > config.context {
        return Err(ModelError::Unsupported(format!(
            "a context of {context} tokens is asked for, but the model was made for {}; lower --max-context-tokens",
            config.context
        )));
    }
    let per_token = config.cache_bytes_per_token();
    let block = per_token * BLOCK_SIZE as u64;
    let least = context.div_ceil(BLOCK_SIZE);
    let activations = activation_bytes(config, options);
    let fixed = weights.kept + weights.packed + activations + RESERVE_BYTES;
    let limit = options.memory.or_else(crate::memory::limit);
    let affordable = limit.map_or(usize::MAX, |limit| (limit.saturating_sub(fixed) / block) as usize);
    if affordable < least {
        let room = affordable * BLOCK_SIZE;
        return Err(insufficient(
            limit.unwrap_or(0),
            weights,
            activations,
            block * least as u64,
            context,
            room,
        ));
    }
    let blocks = affordable.min(least * options.max_running.max(1));
    let cache = block * blocks as u64;
    Ok(Plan {
        architecture: config.architecture.clone(),
        limit_bytes: limit,
        weights_bytes: weights.kept,
        packed_bytes: weights.packed,
        activation_bytes: activations,
        reserve_bytes: RESERVE_BYTES,
        cache_bytes_per_token: per_token,
        cache_bytes: cache,
        cache_blocks: blocks,
        context_tokens: context,
        full_sequences: blocks / least,
        total_bytes: fixed + cache,
    })
}

/// A step's widest tensors (stream, queries, gate and up) and its rows of logits, in and out.
fn activation_bytes(config: &ModelConfig, options: &LoadOptions) -> u64 {
    let width = (4 * config.hidden + 2 * config.heads * config.head_width + 3 * config.feed_forward) as u64;
    let logits = 2 * options.max_running.max(1) * config.vocabulary;
    (STEP_TOKENS * width + logits as u64) * size_of::<f32>() as u64
}

fn insufficient(
    limit: u64,
    weights: WeightSizes,
    activations: u64,
    cache: u64,
    context: usize,
    room: usize,
) -> ModelError {
    let total = weights.kept + weights.packed + activations + RESERVE_BYTES + cache;
    let advice = if room >= BLOCK_SIZE {
        format!(
            "raise the memory limit to at least {} or lower the context to at most {room} tokens",
            display(total)
        )
    } else {
        format!(
            "raise the memory limit to at least {} or choose a smaller model",
            display(total)
        )
    };
    ModelError::InsufficientMemory(format!(
        "the model needs {} (weights {}, working memory {}, {} for one sequence of {context} tokens, reserve {}) and \
         the memory limit is {}; {advice}",
        display(total),
        display(weights.kept + weights.packed),
        display(activations),
        display(cache),
        display(RESERVE_BYTES),
        display(limit),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Rope;

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

    const WEIGHTS: WeightSizes = WeightSizes {
        kept: 98 << 20,
        packed: 0,
    };

    fn options(memory: u64, max_length: Option<usize>) -> LoadOptions {
        LoadOptions {
            max_length,
            max_running: 4,
            memory: Some(memory),
        }
    }

    #[test]
    fn the_cache_takes_what_it_can_use_and_no_more() {
        let plan = plan(&config(), WEIGHTS, &options(64 << 30, None)).expect("a plan");
        assert_eq!(plan.cache_bytes_per_token, 46_080);
        assert_eq!((plan.full_sequences, plan.cache_blocks), (4, 4 * 256));
        let parts = plan.weights_bytes + plan.packed_bytes + plan.activation_bytes;
        assert_eq!(plan.total_bytes, parts + plan.reserve_bytes + plan.cache_bytes);
    }

    #[test]
    fn a_plan_never_exceeds_the_limit() {
        for megabytes in (600..4000).step_by(97) {
            let limit = megabytes << 20;
            if let Ok(plan) = plan(&config(), WEIGHTS, &options(limit, None)) {
                assert!(plan.total_bytes <= limit && plan.full_sequences >= 1, "{plan:?}");
            }
        }
    }

    #[test]
    fn too_little_memory_says_how_much_and_which_context_fits() {
        let message = plan(&config(), WEIGHTS, &options(400 << 20, None))
            .expect_err("too little")
            .to_string();
        assert!(
            message.contains("400.0 MiB") && message.contains("lower the context to at most"),
            "{message}"
        );
        let fitting: usize = message
            .split("at most ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next())
            .and_then(|number| number.parse().ok())
            .expect("a number");
        assert!(plan(&config(), WEIGHTS, &options(400 << 20, Some(fitting))).is_ok());
        assert!(plan(&config(), WEIGHTS, &options(400 << 20, Some(fitting + BLOCK_SIZE))).is_err());
        let message = plan(&config(), WEIGHTS, &options(64 << 20, None))
            .expect_err("too little")
            .to_string();
        assert!(message.contains("smaller model"), "{message}");
    }

    #[test]
    fn a_longer_context_than_the_model_knows_is_refused() {
        let error = plan(&config(), WEIGHTS, &options(64 << 30, Some(9000))).expect_err("too long");
        assert!(
            matches!(&error, ModelError::Unsupported(text) if text.contains("8192")),
            "{error}"
        );
    }
}
