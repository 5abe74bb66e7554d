//! `/v1/feedback`: what somebody thinks of an answer, or how it should have been.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use perennial_crds::capture::{FeedbackRecord, MAX_TEXT_BYTES};
use serde_json::{Value, json};

use super::error::ApiError;
use super::parameters::Parameters;
use crate::capture::NotKept;
use crate::shared::{Shared, seconds_since_1970};

/// Longer than any id that this server echoes.
const MAX_ID_BYTES: usize = 256;

pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    mut parameters: Parameters,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let now = i64::try_from(seconds_since_1970()).unwrap_or(i64::MAX);
    let feedback = parse(&mut parameters, now)?;
    parameters.nothing_else()?;
    let id = feedback.request_id.clone();
    if !shared.lifecycle.accepts_work() {
        return Err(ApiError::unavailable(
            "the server takes no feedback now; connect again to reach another",
        ));
    }
    match shared.capture.feedback(feedback) {
        Ok(stored) => Ok((StatusCode::ACCEPTED, Json(answer(&id, stored)))),
        Err(NotKept::Off) => Err(ApiError::conflict(
            "capture_off",
            "this server keeps no feedback; to keep it, set `spec.capture.level` of the LLMDeployment to Payload",
        )),
        Err(NotKept::Full) => Err(ApiError::unavailable(
            "there is no room for feedback until the collector has taken what waits for it; try again later",
        )),
    }
}

fn parse(parameters: &mut Parameters, time: i64) -> Result<FeedbackRecord, ApiError> {
    let feedback = FeedbackRecord {
        request_id: text(parameters, "request_id", MAX_ID_BYTES)?.ok_or_else(|| {
            ApiError::parameter(
                "request_id",
                "`request_id` is missing; it must be the X-Request-Id of the answer",
            )
        })?,
        time,
        score: parameters.between("score", -1.0, 1.0, "a number from -1 (bad) to 1 (good)")?,
        corrected_output: text(parameters, "corrected_output", MAX_TEXT_BYTES)?,
    };
    if feedback.score.is_none() && feedback.corrected_output.is_none() {
        return Err(ApiError::parameter(
            "score",
            "there is no feedback; give `score`, `corrected_output`, or both",
        ));
    }
    Ok(feedback)
}

fn text(parameters: &mut Parameters, name: &str, longest: usize) -> Result<Option<String>, ApiError> {
    let expected = format!("a string of 1 to {longest} bytes");
    let text: Option<String> = parameters.optional(name, &expected)?;
    match text {
        Some(text) if !(1..=longest).contains(&text.len()) => {
            Err(ApiError::parameter(name, format!("`{name}` must be {expected}")))
        }
        text => Ok(text),
    }
}

fn answer(id: &str, stored: bool) -> Value {
    let mut answer = json!({"object": "feedback", "request_id": id, "stored": stored});
    if !stored {
        answer["message"] =
            "the request is not in the sample that is kept, so there is no answer to join feedback with".into();
    }
    answer
}
