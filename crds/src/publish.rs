//! The contracts `publish/v1` and `restore/v1`: a learned model that serves gets a tag in its repository, with where it comes
//! from, so that a cluster that is built again finds it.
//!
//! The tag names an image index whose one manifest is the model. Its annotation [`LINEAGE_ANNOTATION`] holds the lineage as JSON.

use serde::{Deserialize, Serialize};

use crate::retrain::Outcome;

/// Version of the contract of the Job that writes the tag.
pub const PUBLISH_CONTRACT: &str = "publish/v1";
/// Version of the contract of the Job that reads it.
pub const RESTORE_CONTRACT: &str = "restore/v1";
/// Annotation of the index with the lineage of its model.
pub const LINEAGE_ANNOTATION: &str = "dev.perennial.lineage";
/// Longest lineage that is written or read, bytes: it must fit into last words.
pub const MAX_LINEAGE_BYTES: usize = 3000;
/// Annotation of a trained model's manifest: the cycle that made it.
pub const CYCLE_ANNOTATION: &str = "dev.perennial.cycle-id";
/// Annotation of a trained model's manifest: digest of the model that it was trained from.
pub const BASE_ANNOTATION: &str = "dev.perennial.base-digest";
/// Annotation of a trained model's manifest: digest of the manifest of its data.
pub const DATA_ANNOTATION: &str = "dev.perennial.data-manifest-digest";

/// Last words of the Job that writes the tag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishResult {
    /// [`PUBLISH_CONTRACT`].
    pub schema: String,
    /// `Succeeded`, or `Untrusted` when the model is not there.
    pub outcome: Outcome,
    /// Digest of the index that the tag names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// In words.
    #[serde(default)]
    pub message: String,
}

/// Last words of the Job that reads the tag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreResult {
    /// [`RESTORE_CONTRACT`].
    pub schema: String,
    /// `Succeeded`, also when there is no such tag; `Untrusted` if what it names is no learned model.
    pub outcome: Outcome,
    /// Digest of the model's manifest, if there is a tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Where it comes from, as it was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<serde_json::Value>,
    /// In words.
    #[serde(default)]
    pub message: String,
}
