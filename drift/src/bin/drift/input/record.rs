//! One recorded request, whatever form it was written in.

use perennial_drift::features::{Exchange, FinishReason};

/// What is known of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    pub id: String,
    /// Seconds since 1970.
    pub time: Option<f64>,
    pub requester: Option<String>,
    pub prompt: Option<String>,
    pub prompt_tokens: Option<u32>,
    pub prompt_characters: Option<u32>,
    pub prompt_token_ids: Option<Vec<u32>>,
    pub embedding: Option<Vec<f32>>,
    pub prompt_perplexity: Option<f64>,
    pub output: Option<String>,
    pub output_tokens: Option<u32>,
    pub finish_reason: Option<FinishReason>,
    pub json_requested: bool,
    pub tool_arguments: Vec<String>,
    pub output_logprob: Option<f64>,
    pub output_entropy: Option<f64>,
    pub negative_feedback: Option<bool>,
    pub time_to_first_token: Option<f64>,
    pub inter_token_latency: Option<f64>,
    pub failed: bool,
    /// Fields that nothing is done with.
    pub ignored: Vec<String>,
}

impl Record {
    pub fn exchange(&self) -> Exchange<'_> {
        Exchange {
            id: &self.id,
            requester: self.requester.as_deref(),
            prompt: self.prompt.as_deref(),
            prompt_tokens: self.prompt_tokens,
            prompt_characters: self.prompt_characters,
            prompt_token_ids: self.prompt_token_ids.as_deref(),
            embedding: self.embedding.as_deref(),
            prompt_perplexity: self.prompt_perplexity,
            output: self.output.as_deref(),
            output_tokens: self.output_tokens,
            finish_reason: self.finish_reason,
            json_requested: self.json_requested,
            tool_arguments: self.tool_arguments.iter().map(String::as_str).collect(),
            output_logprob: self.output_logprob,
            output_entropy: self.output_entropy,
            negative_feedback: self.negative_feedback,
            time_to_first_token: self.time_to_first_token,
            inter_token_latency: self.inter_token_latency,
            failed: self.failed,
        }
    }
}

/// The reason by the names of OpenAI and those of others; `None` for one that is not known.
pub fn finish_reason(name: &str) -> Option<FinishReason> {
    match name {
        "stop" | "eos" | "end_turn" | "stop_sequence" => Some(FinishReason::Stop),
        "length" | "max_tokens" => Some(FinishReason::Length),
        "tool_calls" | "function_call" | "tool_use" => Some(FinishReason::ToolCalls),
        "content_filter" => Some(FinishReason::ContentFilter),
        _ => None,
    }
}
