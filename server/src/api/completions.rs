//! `/v1/completions`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::error::ApiError;
use super::observed::Observed;
use super::parameters::Parameters;
use super::stream::{Events, collect, respond};
use super::{available, request_id};
use crate::capture::Texts;
use crate::observation::Question;
use crate::shared::{Shared, seconds_since_1970};
use crate::text::Service;

/// OpenAI's default for this endpoint.
const DEFAULT_MAX_TOKENS: usize = 16;

pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    observed: Observed,
    mut parameters: Parameters,
) -> Result<Response, ApiError> {
    parameters.model(&shared.served_model_name)?;
    let prompt: Value = parameters.required("prompt", EXPECTED)?;
    let streaming = parameters.streaming()?;
    let mut options = parameters.text_options()?;
    options.max_tokens.get_or_insert(DEFAULT_MAX_TOKENS);
    let user = parameters.user()?;
    parameters.finish()?;
    let service = available(&shared)?;
    let prompt = parse(prompt)?;
    let text = prompt.text();
    let asked = observed.asked(&shared, user, text.map(Texts::Prompt), |id, user| {
        Question::new(id, user, text, text.map(|text| text.chars().count()))
    });
    let prompt = encode(service, prompt).await?;
    let generation = service
        .generate(&shared, prompt, options, asked)
        .map_err(|error| ApiError::from_submit(error, "prompt"))?;
    let answer = Answer {
        id: request_id::unique("cmpl-"),
        created: seconds_since_1970(),
        model: shared.served_model_name.clone(),
        include_usage: streaming.include_usage,
    };
    if streaming.stream {
        return Ok(respond(&shared, generation, answer, streaming.include_usage));
    }
    let (text, reason, usage) = collect(generation).await?;
    let mut whole = answer.object(json!([answer.choice(&text, Some(reason))]));
    whole["usage"] = usage;
    Ok(Json(whole).into_response())
}

const EXPECTED: &str = "a string, a list of one string, or a list of token ids";

enum Prompt {
    Text(String),
    TokenIds(Vec<u32>),
}

impl Prompt {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::TokenIds(_) => None,
        }
    }
}

fn parse(prompt: Value) -> Result<Prompt, ApiError> {
    let wrong = || ApiError::parameter("prompt", format!("`prompt` must be {EXPECTED}"));
    let prompt = match prompt {
        Value::Array(mut list) if list.len() == 1 && !list[0].is_number() => list.swap_remove(0),
        other => other,
    };
    match prompt {
        Value::String(text) => Ok(Prompt::Text(text)),
        Value::Array(ids) => serde_json::from_value(Value::Array(ids))
            .map(Prompt::TokenIds)
            .map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

async fn encode(service: &Service, prompt: Prompt) -> Result<Vec<u32>, ApiError> {
    match prompt {
        Prompt::Text(text) => service
            .encode_prompt(text)
            .await
            .map_err(|error| ApiError::from_submit(error, "prompt")),
        Prompt::TokenIds(ids) => Ok(ids),
    }
}

struct Answer {
    id: String,
    created: u64,
    model: String,
    include_usage: bool,
}

impl Answer {
    fn object(&self, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }

    fn choice(&self, text: &str, finish: Option<&'static str>) -> Value {
        json!({"index": 0, "text": text, "logprobs": null, "finish_reason": finish})
    }

    fn chunk(&self, choices: Value, usage: Option<Value>) -> Value {
        let mut chunk = self.object(choices);
        if self.include_usage {
            chunk["usage"] = usage.unwrap_or(Value::Null);
        }
        chunk
    }
}

impl Events for Answer {
    fn begin(&self) -> Option<Value> {
        None
    }

    fn piece(&self, text: &str, finish: Option<&'static str>) -> Value {
        self.chunk(json!([self.choice(text, finish)]), None)
    }

    fn usage(&self, usage: Value) -> Value {
        self.chunk(json!([]), Some(usage))
    }
}
