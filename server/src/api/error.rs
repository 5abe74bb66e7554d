//! Errors the way OpenAI writes them.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use perennial_engine::Rejected;

use crate::text::SubmitError;

/// An error object with its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    message: String,
    param: Option<String>,
    retry_after_seconds: Option<u64>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: Option<&'static str>, message: String) -> Self {
        Self {
            status,
            kind,
            code,
            message,
            param: None,
            retry_after_seconds: None,
        }
    }

    /// The request makes no sense.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", None, message.into())
    }

    /// A parameter makes no sense.
    #[must_use]
    pub fn parameter(name: &str, message: impl Into<String>) -> Self {
        Self::invalid(message).with_param(name).with_code("invalid_value")
    }

    /// A parameter that would change the answer, but cannot be honoured.
    #[must_use]
    pub fn unsupported(name: &str, message: impl Into<String>) -> Self {
        Self::invalid(message)
            .with_param(name)
            .with_code("unsupported_parameter")
    }

    /// There is no such thing.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            Some("not_found"),
            message.into(),
        )
    }

    /// There is no such model.
    #[must_use]
    pub fn unknown_model(asked: &str, served: &str) -> Self {
        let message = format!("the model `{asked}` does not exist here; this server serves `{served}`");
        Self::not_found(message)
            .with_param("model")
            .with_code("model_not_found")
    }

    /// The path does not take the method.
    #[must_use]
    pub fn method_not_allowed(message: impl Into<String>) -> Self {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::new(
            status,
            "invalid_request_error",
            Some("method_not_allowed"),
            message.into(),
        )
    }

    /// The server is not set up for it.
    #[must_use]
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "invalid_request_error",
            Some(code),
            message.into(),
        )
    }

    /// The body is too large.
    #[must_use]
    pub fn too_large(limit: usize) -> Self {
        let message = format!("the request body is larger than {limit} bytes");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid_request_error",
            Some("request_too_large"),
            message,
        )
    }

    /// The body is not JSON by its own word.
    #[must_use]
    pub fn not_json() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid_request_error",
            Some("unsupported_media_type"),
            "the request body must be JSON with the header `Content-Type: application/json`".to_owned(),
        )
    }

    /// No work is taken at the moment.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        let mut error = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "server_error",
            Some("service_unavailable"),
            message.into(),
        );
        error.retry_after_seconds = Some(1);
        error
    }

    /// The server failed.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            Some("internal_error"),
            message.into(),
        )
    }

    fn with_param(mut self, name: &str) -> Self {
        self.param = Some(name.to_owned());
        self
    }

    fn with_code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// What the engine refused, in terms of a request; `prompt` is the parameter that holds the prompt.
    pub(super) fn from_submit(error: SubmitError, prompt: &str) -> Self {
        let message = error.to_string();
        match error {
            SubmitError::Template(_) => Self::parameter(prompt, message),
            SubmitError::Tokenizer(_) => Self::parameter(prompt, message),
            SubmitError::Interrupted(_) => Self::unavailable(message),
            SubmitError::Rejected(rejected) => Self::from_rejected(&rejected, message, prompt),
        }
    }

    fn from_rejected(rejected: &Rejected, message: String, prompt: &str) -> Self {
        match rejected {
            Rejected::QueueFull { retry_after, .. } => {
                let status = StatusCode::TOO_MANY_REQUESTS;
                let mut error = Self::new(status, "rate_limit_error", Some("queue_full"), message);
                error.retry_after_seconds = Some(retry_after.as_secs().max(1));
                error
            }
            Rejected::TooLong {
                prompt: tokens,
                max_tokens,
                limit,
            } => {
                let message = format!(
                    "this model's context is {limit} tokens, but {tokens} tokens of prompt and {max_tokens} tokens to \
                     produce were asked for; shorten the prompt or lower max_tokens"
                );
                Self::invalid(message)
                    .with_param(prompt)
                    .with_code("context_length_exceeded")
            }
            Rejected::InvalidPrompt { .. } => Self::parameter(prompt, message),
            Rejected::Draining => Self::unavailable("the server is shutting down; connect again to reach another"),
            Rejected::Stopped(_) => Self::unavailable(message),
        }
    }

    /// The error object.
    #[must_use]
    pub fn body(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after_seconds {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
