//! `/v1/models`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::error::ApiError;
use crate::shared::Shared;

fn describe(shared: &Shared) -> Value {
    json!({
        "id": shared.served_model_name,
        "object": "model",
        "created": shared.created,
        "owned_by": "perennial",
        "max_model_len": shared.service().map(|service| service.engine().info().max_length),
    })
}

pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({"object": "list", "data": [describe(&shared)]}))
}

pub(super) async fn retrieve(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    if id == shared.served_model_name {
        Ok(Json(describe(&shared)))
    } else {
        Err(ApiError::unknown_model(&id, &shared.served_model_name))
    }
}
