//! The shape of a model, from `config.json` or GGUF metadata.

use serde::Deserialize;

use crate::error::ModelError;

/// Architectures as `config.json` names them, and in parentheses as GGUF does.
pub const SUPPORTED_ARCHITECTURES: &str = "LlamaForCausalLM and MistralForCausalLM (GGUF: llama), Qwen2ForCausalLM \
     (GGUF: qwen2), Qwen3ForCausalLM (GGUF: qwen3)";

/// How positions turn queries and keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Angle of each pair of dimensions per position.
    pub frequencies: Vec<f32>,
    /// Pairs are neighbours (GGUF's llama), not halves of the head.
    pub interleaved: bool,
}

/// The shape of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Architecture, as the file names it.
    pub architecture: String,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_width: usize,
    /// Width inside the feed-forward network.
    pub feed_forward: usize,
    /// Number of token ids.
    pub vocabulary: usize,
    /// Longest sequence the model was made for.
    pub context: usize,
    /// Added to the mean square in the norms.
    pub norm_epsilon: f32,
    /// Positions.
    pub rope: Rope,
}

impl ModelConfig {
    /// Bytes of keys and values per token of a sequence.
    #[must_use]
    pub fn cache_bytes_per_token(&self) -> u64 {
        (self.layers * 2 * self.kv_heads * self.head_width * size_of::<f32>()) as u64
    }

    /// Checks what the decoder relies on.
    pub(super) fn check(&self) -> Result<(), String> {
        let Self {
            hidden,
            layers,
            heads,
            kv_heads,
            head_width,
            feed_forward,
            vocabulary,
            context,
            ..
        } = self;
        if [
            hidden,
            layers,
            heads,
            kv_heads,
            head_width,
            feed_forward,
            vocabulary,
            context,
        ]
        .iter()
        .any(|&&size| size == 0)
        {
            return Err(format!(
                "a size is zero: {hidden} wide, {layers} layers, {heads} heads, {kv_heads} key-value heads of \
                 {head_width}, {vocabulary} token ids, {context} context"
            ));
        }
        if heads % kv_heads != 0 || head_width % 2 != 0 {
            return Err(format!(
                "{heads} heads of {head_width} cannot share {kv_heads} key-value heads"
            ));
        }
        if self.rope.frequencies.len() != head_width / 2 {
            let found = self.rope.frequencies.len();
            return Err(format!("{found} rotary frequencies for heads of {head_width}"));
        }
        Ok(())
    }
}

pub(super) fn unsupported_architecture(name: &str) -> ModelError {
    ModelError::Unsupported(format!(
        "the model's architecture is {name}, which this server does not know; choose a model with one of: \
         {SUPPORTED_ARCHITECTURES}"
    ))
}

/// Checks an architecture as `config.json` names it.
pub(super) fn check_architecture(name: &str) -> Result<(), ModelError> {
    const KNOWN: [&str; 4] = [
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen3ForCausalLM",
    ];
    if KNOWN.contains(&name) {
        Ok(())
    } else {
        Err(unsupported_architecture(name))
    }
}

/// Plain rotary frequencies.
pub(super) fn frequencies(base: f64, width: usize) -> Vec<f32> {
    (0..width / 2)
        .map(|pair| (1.0 / base.powf(2.0 * pair as f64 / width as f64)) as f32)
        .collect()
}

/// `config.json`, as far as it is read.
#[derive(Debug, Deserialize)]
pub(super) struct HubConfig {
    #[serde(default)]
    architectures: Vec<String>,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "default_epsilon")]
    rms_norm_eps: f32,
    #[serde(default)]
    rope_theta: Option<f64>,
    #[serde(default)]
    rope_scaling: Option<RopeScaling>,
    /// transformers 5 puts the base and the scaling here.
    #[serde(default)]
    rope_parameters: Option<RopeScaling>,
    #[serde(default)]
    pub(super) tie_word_embeddings: bool,
    #[serde(default)]
    sliding_window: Option<usize>,
    #[serde(default)]
    use_sliding_window: Option<bool>,
    #[serde(default)]
    hidden_act: Option<String>,
    #[serde(default)]
    pub(super) eos_token_id: Option<TokenIds>,
    #[serde(default)]
    quantization_config: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct RopeScaling {
    #[serde(alias = "type", default)]
    rope_type: Option<String>,
    #[serde(default)]
    rope_theta: Option<f64>,
    #[serde(default)]
    factor: Option<f64>,
    #[serde(default)]
    low_freq_factor: Option<f64>,
    #[serde(default)]
    high_freq_factor: Option<f64>,
    #[serde(default)]
    original_max_position_embeddings: Option<f64>,
}

/// One id or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum TokenIds {
    One(u32),
    Many(Vec<u32>),
}

impl TokenIds {
    pub(super) fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

fn default_epsilon() -> f32 {
    1e-6
}

impl HubConfig {
    /// The shape, or why the model cannot be served.
    pub(super) fn into_model(self) -> Result<ModelConfig, ModelError> {
        let architecture = self
            .architectures
            .first()
            .cloned()
            .unwrap_or_else(|| "not named in config.json".to_owned());
        check_architecture(&architecture)?;
        if self.quantization_config.is_some() {
            return Err(ModelError::Unsupported(
                "the safetensors are quantized (quantization_config in config.json), which this server does not \
                 read; choose the unquantized model or a GGUF file"
                    .to_owned(),
            ));
        }
        if let Some(act) = self
            .hidden_act
            .as_deref()
            .filter(|act| !matches!(*act, "silu" | "swish"))
        {
            return Err(ModelError::Unsupported(format!(
                "the activation {act} is not known; only silu is"
            )));
        }
        let head_width = self
            .head_dim
            .unwrap_or(self.hidden_size / self.num_attention_heads.max(1));
        let rope = Rope {
            frequencies: self.rope_frequencies(head_width)?,
            interleaved: false,
        };
        // Beyond its window the model would attend to less than everything: serve it up to there.
        let window = self.sliding_window.filter(|_| self.use_sliding_window.unwrap_or(true));
        let context = self.max_position_embeddings.min(window.unwrap_or(usize::MAX));
        Ok(ModelConfig {
            architecture,
            hidden: self.hidden_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
            head_width,
            feed_forward: self.intermediate_size,
            vocabulary: self.vocab_size,
            context,
            norm_epsilon: self.rms_norm_eps,
            rope,
        })
    }

    fn rope_frequencies(&self, width: usize) -> Result<Vec<f32>, ModelError> {
        let scaling = self.rope_scaling.as_ref().or(self.rope_parameters.as_ref());
        let base = self
            .rope_theta
            .or(scaling.and_then(|scaling| scaling.rope_theta))
            .unwrap_or(10_000.0);
        let mut frequencies = frequencies(base, width);
        let Some(scaling) = scaling else { return Ok(frequencies) };
        let factor = scaling.factor.unwrap_or(1.0);
        match scaling.rope_type.as_deref().unwrap_or("default") {
            "default" => {}
            "linear" => frequencies.iter_mut().for_each(|frequency| *frequency /= factor as f32),
            "llama3" => {
                let low = scaling.low_freq_factor.unwrap_or(1.0);
                let high = scaling.high_freq_factor.unwrap_or(4.0);
                let original = scaling.original_max_position_embeddings.unwrap_or(8192.0);
                for frequency in &mut frequencies {
                    *frequency = llama3_frequency(f64::from(*frequency), factor, low, high, original) as f32;
                }
            }
            other => {
                return Err(ModelError::Unsupported(format!(
                    "the rotary scaling {other} is not known; known are default, linear and llama3"
                )));
            }
        }
        Ok(frequencies)
    }
}

/// Llama 3.1's scaling: long wavelengths are stretched by `factor`, short ones kept, those between blended.
fn llama3_frequency(frequency: f64, factor: f64, low: f64, high: f64, original: f64) -> f64 {
    let wavelength = 2.0 * std::f64::consts::PI / frequency;
    if wavelength < original / high {
        frequency
    } else if wavelength > original / low {
        frequency / factor
    } else {
        let smooth = (original / wavelength - low) / (high - low);
        (1.0 - smooth) * frequency / factor + smooth * frequency
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(extra: &str) -> Result<ModelConfig, ModelError> {
        let text = format!(
            r#"{{"hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,
               "vocab_size":256,"max_position_embeddings":512{extra}}}"#
        );
        serde_json::from_str::<HubConfig>(&text).expect("JSON").into_model()
    }

    #[test]
    fn an_unknown_architecture_is_named_with_the_known_ones() {
        let error = config(r#","architectures":["MambaForCausalLM"]"#)
            .expect_err("unsupported")
            .to_string();
        assert!(
            error.contains("MambaForCausalLM") && error.contains("LlamaForCausalLM"),
            "{error}"
        );
    }

    #[test]
    fn a_sliding_window_bounds_the_context_only_when_used() {
        let used = config(r#","architectures":["MistralForCausalLM"],"sliding_window":128"#).expect("a model");
        assert_eq!(used.context, 128);
        let unused = config(r#","architectures":["Qwen2ForCausalLM"],"sliding_window":128,"use_sliding_window":false"#);
        assert_eq!(unused.expect("a model").context, 512);
    }

    #[test]
    fn llama_3_scaling_keeps_short_waves_and_stretches_long_ones() {
        let scaled = config(
            r#","architectures":["LlamaForCausalLM"],"rope_theta":500000.0,"rope_scaling":{"rope_type":"llama3",
               "factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":8192}"#,
        )
        .expect("a model");
        let plain = frequencies(500_000.0, 16);
        assert_eq!(scaled.rope.frequencies[0], plain[0]);
        assert!((scaled.rope.frequencies[7] - plain[7] / 8.0).abs() < 1e-12);
    }

    #[test]
    fn unknown_rotary_scaling_is_refused() {
        let error = config(r#","architectures":["LlamaForCausalLM"],"rope_scaling":{"type":"yarn","factor":4.0}"#);
        assert!(error.expect_err("unsupported").to_string().contains("yarn"));
    }
}
