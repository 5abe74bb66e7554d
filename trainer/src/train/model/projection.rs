//! The seven matrices of a layer, and how the two formats call them.

use clap::ValueEnum;
use perennial_engine::model::ModelConfig;
use serde::{Deserialize, Serialize};

/// A matrix of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Projection {
    /// Makes queries.
    #[value(name = "q")]
    Query,
    /// Makes keys.
    #[value(name = "k")]
    Key,
    /// Makes values.
    #[value(name = "v")]
    Value,
    /// Brings what was attended to back into the stream.
    #[value(name = "o")]
    Output,
    /// Opens and closes what `Up` makes.
    #[value(name = "gate")]
    Gate,
    /// Widens.
    #[value(name = "up")]
    Up,
    /// Brings it back into the stream.
    #[value(name = "down")]
    Down,
}

impl Projection {
    /// All, in the order of the forward computation.
    pub const ALL: [Self; 7] = [
        Self::Query,
        Self::Key,
        Self::Value,
        Self::Output,
        Self::Gate,
        Self::Up,
        Self::Down,
    ];

    /// Numbers that go out and that come in.
    #[must_use]
    pub fn shape(self, config: &ModelConfig) -> (usize, usize) {
        let (wide, narrow) = (config.heads * config.head_width, config.kv_heads * config.head_width);
        match self {
            Self::Query => (wide, config.hidden),
            Self::Key | Self::Value => (narrow, config.hidden),
            Self::Output => (config.hidden, wide),
            Self::Gate | Self::Up => (config.feed_forward, config.hidden),
            Self::Down => (config.hidden, config.feed_forward),
        }
    }

    /// Heads whose rows GGUF's llama puts in another order; none for other projections.
    #[must_use]
    pub fn turned_heads(self, config: &ModelConfig) -> Option<usize> {
        match self {
            Self::Query => Some(config.heads),
            Self::Key => Some(config.kv_heads),
            _ => None,
        }
    }

    /// Its own part of the name in safetensors.
    #[must_use]
    pub fn hub_part(self) -> &'static str {
        match self {
            Self::Query => "self_attn.q_proj",
            Self::Key => "self_attn.k_proj",
            Self::Value => "self_attn.v_proj",
            Self::Output => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }

    /// Its own part of the name in GGUF.
    #[must_use]
    pub fn gguf_part(self) -> &'static str {
        match self {
            Self::Query => "attn_q",
            Self::Key => "attn_k",
            Self::Value => "attn_v",
            Self::Output => "attn_output",
            Self::Gate => "ffn_gate",
            Self::Up => "ffn_up",
            Self::Down => "ffn_down",
        }
    }
}
