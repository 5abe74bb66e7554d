//! How the two formats call their tensors.

use super::model::Projection;

/// The norms of a layer.
#[derive(Clone, Copy, Debug)]
pub enum LayerNorm {
    /// Before attention.
    Attention,
    /// Of each head's queries.
    Query,
    /// Of each head's keys.
    Key,
    /// Before the feed-forward network.
    Feed,
}

/// How a format calls its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// llama.cpp's.
    Gguf,
    /// The hub's.
    Hub,
}

impl Names {
    /// The table of tokens.
    #[must_use]
    pub fn embedding(self) -> &'static str {
        match self {
            Self::Gguf => "token_embd.weight",
            Self::Hub => "model.embed_tokens.weight",
        }
    }

    /// The norm before the head.
    #[must_use]
    pub fn norm(self) -> &'static str {
        match self {
            Self::Gguf => "output_norm.weight",
            Self::Hub => "model.norm.weight",
        }
    }

    /// The head's `weight` or `bias`.
    #[must_use]
    pub fn head(self, part: &str) -> String {
        match self {
            Self::Gguf => format!("output.{part}"),
            Self::Hub => format!("lm_head.{part}"),
        }
    }

    /// A projection, without `.weight` or `.bias`.
    #[must_use]
    pub fn projection(self, layer: usize, projection: Projection) -> String {
        match self {
            Self::Gguf => format!("blk.{layer}.{}", projection.gguf_part()),
            Self::Hub => format!("model.layers.{layer}.{}", projection.hub_part()),
        }
    }

    /// A norm of a layer.
    #[must_use]
    pub fn of_layer(self, layer: usize, norm: LayerNorm) -> String {
        match self {
            Self::Gguf => {
                let part = match norm {
                    LayerNorm::Attention => "attn_norm",
                    LayerNorm::Query => "attn_q_norm",
                    LayerNorm::Key => "attn_k_norm",
                    LayerNorm::Feed => "ffn_norm",
                };
                format!("blk.{layer}.{part}.weight")
            }
            Self::Hub => {
                let part = match norm {
                    LayerNorm::Attention => "input_layernorm",
                    LayerNorm::Query => "self_attn.q_norm",
                    LayerNorm::Key => "self_attn.k_norm",
                    LayerNorm::Feed => "post_attention_layernorm",
                };
                format!("model.layers.{layer}.{part}.weight")
            }
        }
    }
}
