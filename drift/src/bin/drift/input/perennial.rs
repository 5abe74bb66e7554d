//! Our own lines: the fields of [`perennial_drift::features::Exchange`] in camelCase, and `time`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::record::{Record, finish_reason};
use super::{Refused, json_error, time};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
struct Line {
    id: Option<Id>,
    time: Option<Value>,
    requester: Option<Id>,
    prompt: Option<String>,
    prompt_tokens: Option<u32>,
    prompt_characters: Option<u32>,
    prompt_token_ids: Option<Vec<u32>>,
    embedding: Option<Vec<f32>>,
    prompt_perplexity: Option<f64>,
    output: Option<String>,
    output_tokens: Option<u32>,
    finish_reason: Option<String>,
    json_requested: Option<bool>,
    tool_arguments: Option<Vec<String>>,
    output_logprob: Option<f64>,
    output_entropy: Option<f64>,
    negative_feedback: Option<bool>,
    time_to_first_token: Option<f64>,
    inter_token_latency: Option<f64>,
    failed: Option<bool>,
    #[serde(flatten)]
    others: BTreeMap<String, IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(u64),
}

impl Id {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
        }
    }
}

pub fn record(line: &str) -> Result<Record, Refused> {
    let line: Line = serde_json::from_str(line).map_err(|error| json_error(&error))?;
    let at = match &line.time {
        None | Some(Value::Null) => None,
        Some(value) => Some(time::from_value(value).ok_or(Refused::Time)?),
    };
    let finish_reason = match line.finish_reason.as_deref() {
        None => None,
        Some(name) => Some(finish_reason(name).ok_or(Refused::Value(
            "finishReason is none of stop, length, tool_calls, content_filter",
        ))?),
    };
    Ok(Record {
        id: line.id.map(Id::text).unwrap_or_default(),
        time: at,
        requester: line.requester.map(Id::text),
        prompt: line.prompt,
        prompt_tokens: line.prompt_tokens,
        prompt_characters: line.prompt_characters,
        prompt_token_ids: line.prompt_token_ids,
        embedding: line.embedding,
        prompt_perplexity: line.prompt_perplexity,
        output: line.output,
        output_tokens: line.output_tokens,
        finish_reason,
        json_requested: line.json_requested.unwrap_or(false),
        tool_arguments: line.tool_arguments.unwrap_or_default(),
        output_logprob: line.output_logprob,
        output_entropy: line.output_entropy,
        negative_feedback: line.negative_feedback,
        time_to_first_token: line.time_to_first_token,
        inter_token_latency: line.inter_token_latency,
        failed: line.failed.unwrap_or(false),
        ignored: line.others.into_keys().collect(),
    })
}
