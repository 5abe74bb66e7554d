//! `/v1/chat/completions`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::observed::Observed;
use super::parameters::Parameters;
use super::stream::{Events, collect, respond};
use super::{available, request_id};
use crate::capture::Texts;
use crate::observation::Question;
use crate::shared::{Shared, seconds_since_1970};
use crate::text::Message;

pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    observed: Observed,
    mut parameters: Parameters,
) -> Result<Response, ApiError> {
    parameters.model(&shared.served_model_name)?;
    let messages = messages(parameters.required("messages", "a list of messages")?)?;
    let streaming = parameters.streaming()?;
    let options = parameters.text_options()?;
    let user = parameters.user()?;
    parameters.finish()?;
    let service = available(&shared)?;
    let texts = Some(Texts::Chat(&messages));
    let asked = observed.asked(&shared, user, texts, |id, user| question(id, user, &messages));
    let failed = |error| ApiError::from_submit(error, "messages");
    let prompt = service.encode_chat(messages).await.map_err(failed)?;
    let generation = service.generate(&shared, prompt, options, asked).map_err(failed)?;
    let answer = Answer {
        id: request_id::unique("chatcmpl-"),
        created: seconds_since_1970(),
        model: shared.served_model_name.clone(),
        include_usage: streaming.include_usage,
    };
    if streaming.stream {
        return Ok(respond(&shared, generation, answer, streaming.include_usage));
    }
    let (text, reason, usage) = collect(generation).await?;
    Ok(Json(answer.whole(&text, reason, usage)).into_response())
}

/// What is observed of a chat: the last thing that its user said, and how long it all is.
fn question(id: String, user: Option<String>, messages: &[Message]) -> Question {
    let last = messages.iter().rfind(|message| message.role == "user");
    let characters = messages.iter().map(|message| message.content.chars().count()).sum();
    Question::new(id, user, last.map(|message| message.content.as_str()), Some(characters))
}

struct Answer {
    id: String,
    created: u64,
    model: String,
    include_usage: bool,
}

impl Answer {
    fn whole(&self, text: &str, reason: &str, usage: Value) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": null},
                "logprobs": null,
                "finish_reason": reason,
            }],
            "usage": usage,
        })
    }

    fn chunk(&self, choices: Value, usage: Option<Value>) -> Value {
        let mut chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        });
        if self.include_usage {
            chunk["usage"] = usage.unwrap_or(Value::Null);
        }
        chunk
    }
}

impl Events for Answer {
    fn begin(&self) -> Option<Value> {
        let delta = json!({"role": "assistant", "content": ""});
        Some(self.chunk(
            json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": null}]),
            None,
        ))
    }

    fn piece(&self, text: &str, finish: Option<&'static str>) -> Value {
        let delta = if finish.is_some() {
            json!({})
        } else {
            json!({"content": text})
        };
        self.chunk(
            json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]),
            None,
        )
    }

    fn usage(&self, usage: Value) -> Value {
        self.chunk(json!([]), Some(usage))
    }
}

fn messages(list: Vec<Map<String, Value>>) -> Result<Vec<Message>, ApiError> {
    if list.is_empty() {
        return Err(ApiError::parameter(
            "messages",
            "`messages` must hold at least one message",
        ));
    }
    list.into_iter()
        .enumerate()
        .map(|(index, message)| parse(index, &message))
        .collect()
}

fn parse(index: usize, message: &Map<String, Value>) -> Result<Message, ApiError> {
    let wrong = |field: &str, problem: &str| {
        let name = format!("messages[{index}].{field}");
        ApiError::parameter(&name, format!("`{name}` {problem}"))
    };
    let role = match message.get("role").and_then(Value::as_str) {
        // OpenAI's newer name for the same thing, which templates do not know.
        Some("system" | "developer") => "system",
        Some("user") => "user",
        Some("assistant") => "assistant",
        _ => return Err(wrong("role", "must be system, developer, user or assistant")),
    };
    if message
        .get("tool_calls")
        .is_some_and(|calls| !calls.is_null() && calls.as_array().is_none_or(|list| !list.is_empty()))
    {
        return Err(wrong("tool_calls", "is not supported by this server; remove it"));
    }
    let content = match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) if !parts.is_empty() => {
            let texts: Option<Vec<&str>> = parts.iter().map(text_part).collect();
            texts
                .ok_or_else(|| wrong("content", "may hold only parts of type text"))?
                .concat()
        }
        Some(Value::Null) | None if role == "assistant" => String::new(),
        _ => return Err(wrong("content", "must be a string or a list of text parts")),
    };
    Ok(Message {
        role: role.to_owned(),
        content,
    })
}

fn text_part(part: &Value) -> Option<&str> {
    (part["type"] == "text").then(|| part["text"].as_str()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_all(value: Value) -> Result<Vec<Message>, ApiError> {
        messages(serde_json::from_value(value).expect("a list of objects"))
    }

    #[test]
    fn content_is_text_or_text_parts() {
        let parsed = parse_all(json!([
            {"role": "developer", "content": "a"},
            {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}], "name": "x"},
            {"role": "assistant", "content": null},
        ]))
        .expect("messages");
        let flat: Vec<_> = parsed
            .iter()
            .map(|message| (message.role.as_str(), message.content.as_str()))
            .collect();
        assert_eq!(flat, [("system", "a"), ("user", "bc"), ("assistant", "")]);
    }

    #[test]
    fn wrong_messages_are_named_by_their_place() {
        for (messages, param) in [
            (json!([]), "messages"),
            (
                json!([{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]),
                "messages[1].role",
            ),
            (json!([{"role": "user"}]), "messages[0].content"),
            (
                json!([{"role": "user", "content": [{"type": "image_url"}]}]),
                "messages[0].content",
            ),
            (
                json!([{"role": "assistant", "content": "a", "tool_calls": [{}]}]),
                "messages[0].tool_calls",
            ),
        ] {
            let error = parse_all(messages).expect_err("refused");
            assert_eq!(error.body()["error"]["param"], param);
        }
    }
}
