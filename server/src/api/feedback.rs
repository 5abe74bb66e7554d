//! `/v1/feedback`: what somebody thinks of an answer, or how it should have been. A score is counted for drift, wherever that is
//! allowed; all of it is kept for retraining, if the answer is.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use perennial_crds::capture::{FeedbackRecord, Level, MAX_TEXT_BYTES};
use serde_json::{Value, json};

use super::error::ApiError;
use super::observed::Observed;
use super::parameters::Parameters;
use crate::capture::NotKept;
use crate::shared::{Shared, seconds_since_1970};

/// Longer than any id that this server echoes.
const MAX_ID_BYTES: usize = 256;

pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    observed: Observed,
    mut parameters: Parameters,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let now = i64::try_from(seconds_since_1970()).unwrap_or(i64::MAX);
    let feedback = parse(&mut parameters, now)?;
    parameters.nothing_else()?;
    if !shared.lifecycle.accepts_work() {
        return Err(ApiError::unavailable(
            "the server takes no feedback now; connect again to reach another",
        ));
    }
    let id = feedback.request_id.clone();
    let score = feedback
        .score
        .filter(|_| observed.0.is_some() && shared.capture.level() > Level::None);
    let kept = match shared.capture.feedback(feedback) {
        Ok(true) => Kept::Stored,
        Ok(false) => Kept::NotInSample,
        Err(NotKept::Off) if score.is_some() => Kept::Off,
        Err(NotKept::Off) => {
            return Err(ApiError::conflict(
                "capture_off",
                "this server keeps no feedback; to keep it, set `spec.capture.level` of the LLMDeployment to Payload (scores alone are counted with Features)",
            ));
        }
        // It will be sent again, and is counted then.
        Err(NotKept::Full) => {
            return Err(ApiError::unavailable(
                "there is no room for feedback until the collector has taken what waits for it; try again later",
            ));
        }
    };
    if let Some(score) = score {
        shared.observer.rate(&id, score < 0.0);
    }
    Ok((StatusCode::ACCEPTED, Json(answer(&id, kept, score.is_some()))))
}

/// What became of feedback.
#[derive(Clone, Copy, PartialEq)]
enum Kept {
    Stored,
    NotInSample,
    Off,
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

fn answer(id: &str, kept: Kept, counted: bool) -> Value {
    let mut answer = json!({
        "object": "feedback", "request_id": id, "stored": kept == Kept::Stored, "counted": counted,
    });
    let why = match kept {
        Kept::Stored => return answer,
        Kept::NotInSample => {
            "the request is not in the sample that is kept, so there is no answer to join feedback with"
        }
        Kept::Off => "this server keeps no feedback, and counts scores alone",
    };
    answer["message"] = why.into();
    answer
}
