//! Requests and responses in the form of OpenAI's API, together or flattened, as proxies and gateways log them.

use serde_json::Value;

use super::record::{Record, finish_reason};
use super::{Refused, json_error, time};

const NOTHING: &Value = &Value::Null;

pub fn record(line: &str) -> Result<Record, Refused> {
    let line: Value = serde_json::from_str(line).map_err(|error| json_error(&error))?;
    if !line.is_object() {
        return Err(Refused::Value("it is no JSON object"));
    }
    let own = |value: &Value, name: &str| value.get(name).filter(|value| !value.is_null()).cloned();
    let request = body(line.get("request").or_else(|| line.get("body")).unwrap_or(&line));
    let outer = line.get("response").unwrap_or(&line);
    let response = body(outer);
    let at = ["time", "timestamp", "created", "created_at"]
        .into_iter()
        .find_map(|name| own(&line, name))
        .or_else(|| own(request, "created"))
        .or_else(|| own(response, "created"));
    let at = match at {
        None => None,
        Some(value) => Some(time::from_value(&value).ok_or(Refused::Time)?),
    };
    let status = [outer, &line].into_iter().find_map(|value| {
        ["status_code", "status"]
            .into_iter()
            .find_map(|name| value.get(name)?.as_u64())
    });
    let error = [&line, response].into_iter().any(|value| own(value, "error").is_some());
    if request.get("messages").is_none() && request.get("prompt").is_none() && response.get("choices").is_none() {
        return Err(Refused::Value("it has neither messages, nor a prompt, nor choices"));
    }
    let mut record = Record {
        id: ["id", "custom_id", "request_id"]
            .into_iter()
            .find_map(|name| text_of(line.get(name)?))
            .or_else(|| text_of(response.get("id")?))
            .unwrap_or_default(),
        time: at,
        requester: ["user", "safety_identifier"]
            .into_iter()
            .find_map(|name| text_of(request.get(name)?).or_else(|| text_of(line.get(name)?))),
        json_requested: matches!(
            request
                .get("response_format")
                .and_then(|format| format.get("type")?.as_str()),
            Some("json_object" | "json_schema")
        ),
        negative_feedback: line.get("negativeFeedback").and_then(Value::as_bool),
        time_to_first_token: line.get("timeToFirstToken").and_then(Value::as_f64),
        inter_token_latency: line.get("interTokenLatency").and_then(Value::as_f64),
        // What is the client's fault is no failure of the service.
        failed: status.map_or(error, |status| status >= 500),
        ..Record::default()
    };
    prompt(request, &mut record);
    answer(response, &mut record);
    Ok(record)
}

/// Batch files and some proxies have one more level.
fn body(value: &Value) -> &Value {
    value.get("body").filter(|body| body.is_object()).unwrap_or(value)
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Text of a message's content: a string, or the text parts of a list.
fn content(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts: Vec<&str> = parts
                .iter()
                .filter_map(|part| part.as_str().or_else(|| part.get("text")?.as_str()))
                .collect();
            (!texts.is_empty()).then(|| texts.join("\n"))
        }
        _ => None,
    }
}

fn prompt(request: &Value, record: &mut Record) {
    if let Some(messages) = request.get("messages").and_then(Value::as_array) {
        let mut characters = 0;
        for message in messages {
            let Some(text) = message.get("content").and_then(content) else {
                continue;
            };
            characters += text.chars().count();
            if message.get("role").and_then(Value::as_str) == Some("user") {
                record.prompt = Some(text);
            }
        }
        record.prompt_characters = u32::try_from(characters).ok().filter(|characters| *characters > 0);
    } else {
        match request.get("prompt") {
            Some(Value::Array(ids)) if ids.first().is_some_and(Value::is_number) => {
                let ids = ids.iter().map(|id| u32::try_from(id.as_u64()?).ok());
                record.prompt_token_ids = ids.collect();
            }
            Some(value) => record.prompt = content(value),
            None => {}
        }
    }
}

fn answer(response: &Value, record: &mut Record) {
    let usage = response.get("usage").unwrap_or(NOTHING);
    let count = |name: &str| usage.get(name)?.as_u64().and_then(|count| u32::try_from(count).ok());
    record.prompt_tokens = count("prompt_tokens");
    record.output_tokens = count("completion_tokens");
    let Some(choice) = response.get("choices").and_then(|choices| choices.get(0)) else {
        return;
    };
    let message = choice.get("message").unwrap_or(NOTHING);
    record.finish_reason = choice
        .get("finish_reason")
        .and_then(Value::as_str)
        .and_then(finish_reason);
    record.tool_arguments = message
        .get("tool_calls")
        .and_then(Value::as_array)
        .map(|calls| {
            calls
                .iter()
                .filter_map(|call| Some(call.get("function")?.get("arguments")?.as_str()?.to_owned()))
                .collect()
        })
        .unwrap_or_default();
    let called = !record.tool_arguments.is_empty();
    record.output = message
        .get("content")
        .and_then(content)
        .or_else(|| Some(message.get("refusal")?.as_str()?.to_owned()))
        .or_else(|| Some(choice.get("text")?.as_str()?.to_owned()))
        .or_else(|| (called || message.get("content").is_some()).then(String::new));
    let logprobs = choice.get("logprobs").unwrap_or(NOTHING);
    let chat = logprobs.get("content").and_then(Value::as_array);
    let of_tokens: Vec<f64> = match chat {
        Some(tokens) => tokens
            .iter()
            .filter_map(|token| token.get("logprob")?.as_f64())
            .collect(),
        None => logprobs
            .get("token_logprobs")
            .and_then(Value::as_array)
            .map(|tokens| tokens.iter().filter_map(Value::as_f64).collect())
            .unwrap_or_default(),
    };
    if !of_tokens.is_empty() {
        record.output_logprob = Some(of_tokens.iter().sum::<f64>() / of_tokens.len() as f64);
    }
}
