//! One tag, written or read.

use std::collections::BTreeMap;

use perennial_crds::publish::{LINEAGE_ANNOTATION, PUBLISH_CONTRACT, PublishResult, RESTORE_CONTRACT, RestoreResult};
use perennial_crds::retrain::Outcome;
use perennial_loader::{Loader, TagRequest};
use tokio_util::sync::CancellationToken;

use super::arguments::{Arguments, RestoreArguments};
use super::error::PublishError;
use super::lineage;
use crate::contract::message;

/// Gives a model a tag. Doing it again changes nothing.
///
/// # Errors
/// [`PublishError::Untrusted`] when what is told makes no sense, the model is not there, or the registry refuses;
/// [`PublishError::Away`] when the registry cannot be reached.
pub async fn publish(
    arguments: &Arguments,
    loader: &Loader,
    cancel: &CancellationToken,
) -> Result<PublishResult, PublishError> {
    let text = arguments.lineage.trim();
    lineage::read("PUBLISH_LINEAGE", text).map_err(PublishError::Untrusted)?;
    let request = TagRequest {
        model: arguments.uri.clone(),
        tag: arguments.tag.clone(),
        annotations: BTreeMap::from([(LINEAGE_ANNOTATION.to_owned(), text.to_owned())]),
    };
    let digest = loader.tag(&request, cancel).await?;
    Ok(PublishResult {
        schema: PUBLISH_CONTRACT.to_owned(),
        outcome: Outcome::Succeeded,
        digest: Some(digest),
        message: message(&format!("the tag {} names {}", arguments.tag, arguments.uri)),
    })
}

/// Reads a tag. That there is none is an answer, too.
///
/// # Errors
/// [`PublishError::Untrusted`] when the tag names no learned model, or the registry refuses; [`PublishError::Away`] when the
/// registry cannot be reached.
pub async fn restore(
    arguments: &RestoreArguments,
    loader: &Loader,
    cancel: &CancellationToken,
) -> Result<RestoreResult, PublishError> {
    let uri = &arguments.uri;
    let result = RestoreResult {
        schema: RESTORE_CONTRACT.to_owned(),
        outcome: Outcome::Succeeded,
        digest: None,
        lineage: None,
        message: String::new(),
    };
    let Some(found) = loader.find(uri, cancel).await? else {
        return Ok(RestoreResult {
            message: message(&format!("there is no {uri}: nothing was published under this tag")),
            ..result
        });
    };
    let Some(text) = found.annotations.get(LINEAGE_ANNOTATION) else {
        return Err(PublishError::Untrusted(format!(
            "{uri} has no annotation {LINEAGE_ANNOTATION}, so it is no learned model: choose another tag, or remove this one"
        )));
    };
    let lineage = lineage::read(&format!("the annotation {LINEAGE_ANNOTATION} of {uri}"), text);
    Ok(RestoreResult {
        lineage: Some(lineage.map_err(PublishError::Untrusted)?),
        message: message(&format!("{uri} names {}", found.digest)),
        digest: Some(found.digest),
        ..result
    })
}
