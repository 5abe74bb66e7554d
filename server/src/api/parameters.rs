//! A request's parameters: read one by one, so that every error names the parameter.

use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use perennial_engine::Sampling;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::ApiError;
use super::{MAX_BODY_BYTES, request_id};
use crate::text::TextOptions;

/// Accepted and without effect: they do not change the answer.
const HARMLESS: &[&str] = &[
    "metadata",
    "modalities",
    "parallel_tool_calls",
    "prediction",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "store",
];
/// Accepted at the value that changes nothing, refused at any other.
const NEUTRAL: &[(&str, &str)] = &[
    ("best_of", "1"),
    ("echo", "false"),
    ("frequency_penalty", "0"),
    ("function_call", "\"none\""),
    ("functions", "[]"),
    ("logit_bias", "{}"),
    ("logprobs", "false"),
    ("n", "1"),
    ("presence_penalty", "0"),
    ("response_format", "{\"type\":\"text\"}"),
    ("suffix", "\"\""),
    ("tool_choice", "\"none\""),
    ("tools", "[]"),
    ("top_logprobs", "0"),
];
const MAX_STOP_STRINGS: usize = 16;
const MAX_STOP_BYTES: usize = 1024;
const MAX_USER_BYTES: usize = 512;

/// The body of a request: a JSON object.
pub(super) struct Parameters(Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Parameters {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let media_type = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let essence = media_type.unwrap_or("").split(';').next().unwrap_or("").trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(ApiError::not_json());
        }
        let body = axum::body::Bytes::from_request(request, state)
            .await
            .map_err(|error: BytesRejection| {
                if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
                    ApiError::too_large(MAX_BODY_BYTES)
                } else {
                    ApiError::invalid(format!("the request body could not be read: {error}"))
                }
            })?;
        match serde_json::from_slice(&body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(ApiError::invalid("the request body must be a JSON object")),
            Err(error) => Err(ApiError::invalid(format!(
                "the request body is not valid JSON: {error}"
            ))),
        }
    }
}

impl Parameters {
    /// Takes a parameter; null counts as absent.
    pub(super) fn optional<T: DeserializeOwned>(&mut self, name: &str, expected: &str) -> Result<Option<T>, ApiError> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value)
                .map(Some)
                .map_err(|_| ApiError::parameter(name, format!("`{name}` must be {expected}"))),
        }
    }

    /// Takes a parameter that must be there.
    pub(super) fn required<T: DeserializeOwned>(&mut self, name: &str, expected: &str) -> Result<T, ApiError> {
        self.optional(name, expected)?
            .ok_or_else(|| ApiError::parameter(name, format!("`{name}` is missing; it must be {expected}")))
    }

    /// Takes the model's name and checks it.
    pub(super) fn model(&mut self, served: &str) -> Result<(), ApiError> {
        let asked: String = self.required("model", "a string")?;
        if asked == served {
            Ok(())
        } else {
            Err(ApiError::unknown_model(&asked, served))
        }
    }

    /// Takes whose request it is.
    pub(super) fn user(&mut self) -> Result<Option<String>, ApiError> {
        let expected = format!("a string of at most {MAX_USER_BYTES} bytes");
        let user: Option<String> = self.optional("user", &expected)?;
        if user.as_ref().is_some_and(|user| user.len() > MAX_USER_BYTES) {
            return Err(ApiError::parameter("user", format!("`user` must be {expected}")));
        }
        Ok(user.filter(|user| !user.is_empty()))
    }

    /// Takes whether and how to stream.
    pub(super) fn streaming(&mut self) -> Result<Streaming, ApiError> {
        let stream = self.optional("stream", "a boolean")?.unwrap_or(false);
        let options: Option<Map<String, Value>> = self.optional("stream_options", "an object")?;
        let Some(options) = options else {
            return Ok(Streaming {
                stream,
                include_usage: false,
            });
        };
        if !stream {
            return Err(ApiError::parameter(
                "stream_options",
                "`stream_options` is only allowed when `stream` is true",
            ));
        }
        let mut options = Self(options);
        let include_usage = options.optional("include_usage", "a boolean")?.unwrap_or(false);
        Ok(Streaming { stream, include_usage })
    }

    /// Takes what decides the answer.
    pub(super) fn text_options(&mut self) -> Result<TextOptions, ApiError> {
        let positive = "an integer of at least 1";
        let max_tokens = self.optional::<u32>("max_tokens", positive)?;
        let max_completion_tokens = self.optional::<u32>("max_completion_tokens", positive)?;
        for (name, value) in [
            ("max_tokens", max_tokens),
            ("max_completion_tokens", max_completion_tokens),
        ] {
            if value == Some(0) {
                return Err(ApiError::parameter(name, format!("`{name}` must be {positive}")));
            }
        }
        let temperature = self
            .between("temperature", 0.0, 2.0, "a number from 0 to 2")?
            .unwrap_or(1.0);
        let top_p = self
            .between("top_p", 0.0, 1.0, "a number above 0, at most 1")?
            .unwrap_or(1.0);
        if top_p <= 0.0 {
            return Err(ApiError::parameter(
                "top_p",
                "`top_p` must be a number above 0, at most 1",
            ));
        }
        let seed: Option<i64> = self.optional("seed", "an integer of 64 bits")?;
        let ignore_end = self.optional("ignore_eos", "a boolean")?.unwrap_or(false);
        Ok(TextOptions {
            max_tokens: max_completion_tokens.or(max_tokens).map(|tokens| tokens as usize),
            sampling: Sampling {
                temperature,
                top_p,
                seed: seed.map_or_else(request_id::random, |seed| seed as u64),
                ignore_end,
            },
            stop: self.stop()?,
        })
    }

    /// Takes a number within bounds.
    pub(super) fn between<T: DeserializeOwned + PartialOrd>(
        &mut self,
        name: &str,
        lowest: T,
        highest: T,
        expected: &str,
    ) -> Result<Option<T>, ApiError> {
        let value: Option<T> = self.optional(name, expected)?;
        match value {
            Some(number) if !(lowest..=highest).contains(&number) => {
                Err(ApiError::parameter(name, format!("`{name}` must be {expected}")))
            }
            other => Ok(other),
        }
    }

    fn stop(&mut self) -> Result<Vec<String>, ApiError> {
        let expected = format!("a string or up to {MAX_STOP_STRINGS} strings of 1 to {MAX_STOP_BYTES} bytes");
        let stops = match self.optional::<Value>("stop", &expected)? {
            None => Vec::new(),
            Some(Value::String(stop)) => vec![stop],
            Some(list) => serde_json::from_value::<Vec<String>>(list)
                .map_err(|_| ApiError::parameter("stop", format!("`stop` must be {expected}")))?,
        };
        let sensible = |stop: &String| (1..=MAX_STOP_BYTES).contains(&stop.len());
        if stops.len() > MAX_STOP_STRINGS || !stops.iter().all(sensible) {
            return Err(ApiError::parameter("stop", format!("`stop` must be {expected}")));
        }
        Ok(stops)
    }

    /// Refuses what is left.
    pub(super) fn nothing_else(self) -> Result<(), ApiError> {
        match self.0.into_iter().next() {
            Some((name, _)) => Err(unknown(&name)),
            None => Ok(()),
        }
    }

    /// Refuses what is left, unless it has no effect.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        for (name, value) in self.0 {
            if value.is_null() || HARMLESS.contains(&name.as_str()) {
                continue;
            }
            match NEUTRAL.iter().find(|(neutral, _)| *neutral == name) {
                Some((_, neutral)) if is_neutral(&value, neutral) => {}
                Some((_, neutral)) => {
                    let message = format!("`{name}` is not supported by this server except as {neutral}; remove it");
                    return Err(ApiError::unsupported(&name, message));
                }
                None => return Err(unknown(&name)),
            }
        }
        Ok(())
    }
}

fn unknown(name: &str) -> ApiError {
    let message = format!("`{name}` is not a parameter that this server knows; remove it");
    ApiError::unsupported(name, message)
}

/// Whether a value is the one that changes nothing; numbers are compared as numbers.
fn is_neutral(value: &Value, neutral: &str) -> bool {
    let Ok(neutral) = serde_json::from_str::<Value>(neutral) else {
        return false;
    };
    match (value.as_f64(), neutral.as_f64()) {
        (Some(value), Some(neutral)) => value == neutral,
        _ => *value == neutral,
    }
}

/// Whether and how to stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Streaming {
    pub(super) stream: bool,
    pub(super) include_usage: bool,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parameters(value: Value) -> Parameters {
        match value {
            Value::Object(fields) => Parameters(fields),
            other => panic!("{other} is no object"),
        }
    }

    fn param(error: &ApiError) -> String {
        error.body()["error"]["param"].as_str().unwrap_or_default().to_owned()
    }

    #[test]
    fn wrong_values_name_their_parameter() {
        for (name, value) in [
            ("temperature", json!(2.5)),
            ("temperature", json!("hot")),
            ("top_p", json!(0)),
            ("top_p", json!(1.01)),
            ("max_tokens", json!(0)),
            ("max_tokens", json!(-1)),
            ("max_completion_tokens", json!(1.5)),
            ("seed", json!(1.5)),
            ("stop", json!([1])),
            ("stop", json!("")),
            ("stop", json!(vec!["a"; 17])),
        ] {
            let error = parameters(json!({name: value})).text_options().expect_err("refused");
            assert_eq!(param(&error), name, "{value}");
        }
    }

    #[test]
    fn absent_and_null_are_the_same() {
        let mut nulls = parameters(json!({"temperature": null, "top_p": null, "stop": null, "max_tokens": null}));
        let options = nulls.text_options().expect("options");
        assert_eq!(
            (options.max_tokens, options.sampling.temperature, options.stop.len()),
            (None, 1.0, 0)
        );
    }

    #[test]
    fn harmless_and_neutral_parameters_pass_and_others_are_named() {
        let fine = json!({"store": true, "metadata": {"a": "b"}, "n": 1, "frequency_penalty": 0.0,
            "logit_bias": {}, "response_format": {"type": "text"}, "tools": null});
        assert!(parameters(fine).finish().is_ok());
        for (name, value) in [
            ("n", json!(2)),
            ("logprobs", json!(true)),
            ("tools", json!([{"type": "function"}])),
            ("response_format", json!({"type": "json_object"})),
            ("temprature", json!(1)),
        ] {
            let error = parameters(json!({name: value})).finish().expect_err("refused");
            assert_eq!(param(&error), name);
        }
    }

    #[test]
    fn a_user_is_a_short_text() {
        let user = |value: Value| parameters(json!({"user": value})).user();
        assert_eq!(user(json!("me")), Ok(Some("me".to_owned())));
        assert_eq!(user(json!("x".repeat(512))).map(|user| user.is_some()), Ok(true));
        assert_eq!((user(Value::Null), user(json!(""))), (Ok(None), Ok(None)));
        for wrong in [json!(7), json!("x".repeat(513))] {
            assert_eq!(param(&user(wrong).expect_err("refused")), "user");
        }
    }

    #[test]
    fn stream_options_need_stream() {
        let error = parameters(json!({"stream_options": {"include_usage": true}}))
            .streaming()
            .expect_err("refused");
        assert_eq!(param(&error), "stream_options");
        let streaming = parameters(json!({"stream": true, "stream_options": {"include_usage": true}})).streaming();
        assert_eq!(
            streaming.expect("streaming"),
            Streaming {
                stream: true,
                include_usage: true
            }
        );
    }
}
