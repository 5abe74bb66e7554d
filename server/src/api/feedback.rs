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
/// How ids begin that this server puts into the bodies of answers, and of which no record knows.
const OF_BODIES: [&str; 2] = ["chatcmpl-", "cmpl-"];

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
    if observed.0.is_none() {
        return Ok(taken(&id, Kept::Unwanted, false));
    }
    let score = feedback.score.filter(|_| shared.capture.level() > Level::None);
    let kept = match shared.capture.feedback(feedback) {
        Ok(true) => Kept::Stored,
        Ok(false) => Kept::NotInSample,
        Err(NotKept::Enough) => Kept::Enough,
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
    Ok(taken(&id, kept, score.is_some()))
}

/// What became of feedback.
#[derive(Clone, Copy, PartialEq)]
enum Kept {
    Stored,
    NotInSample,
    Enough,
    Off,
    Unwanted,
}

fn parse(parameters: &mut Parameters, time: i64) -> Result<FeedbackRecord, ApiError> {
    let feedback = FeedbackRecord {
        request_id: request_id(parameters)?,
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

fn request_id(parameters: &mut Parameters) -> Result<String, ApiError> {
    let wrong = |why: &str| ApiError::parameter("request_id", format!("`request_id` {why}"));
    let id = text(parameters, "request_id", MAX_ID_BYTES)?
        .ok_or_else(|| wrong("is missing; it must be the X-Request-Id of the answer"))?;
    if OF_BODIES
        .iter()
        .any(|prefix| id.strip_prefix(prefix).is_some_and(is_ours))
    {
        return Err(wrong(
            "is the `id` in the body of the answer; give the value of its header x-request-id instead",
        ));
    }
    Ok(id)
}

/// As [`request_id::unique`](super::request_id::unique) makes them. A gateway may give its own ids the same beginning.
fn is_ours(rest: &str) -> bool {
    rest.len() == 32 && rest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
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

fn taken(id: &str, kept: Kept, counted: bool) -> (StatusCode, Json<Value>) {
    let mut answer = json!({
        "object": "feedback", "request_id": id, "stored": kept == Kept::Stored, "counted": counted,
    });
    let why = match kept {
        Kept::Stored => None,
        Kept::NotInSample => {
            Some("the request is not in the sample that is kept, so there is no answer to join feedback with")
        }
        Kept::Enough => Some("there is as much feedback on this request as is kept on one"),
        Kept::Off => Some("this server keeps no feedback, and counts scores alone"),
        Kept::Unwanted => Some("a header of this feedback says that it is neither to be counted nor to be kept"),
    };
    if let Some(why) = why {
        answer["message"] = why.into();
    }
    (StatusCode::ACCEPTED, Json(answer))
}
