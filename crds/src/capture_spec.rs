//! `spec.capture`: what of its requests an LLMDeployment keeps, where, and for how long.
//!
//! It decides nothing about a pod, so it is no part of a revision: switching it on or off restarts nothing.

use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::capture::{Builtin, Level, Pattern};
use crate::quantity::Quantity;

/// What of requests is kept. Changes take effect on running replicas; none is restarted.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.level != 'Payload' || has(self.storage)")
    .message("the capture level Payload keeps prompts and answers in storage of yours: give capture.storage.persistentVolumeClaim.claimName, or capture.storage.s3 with a bucket and the name of a Secret"))]
pub struct CaptureSpec {
    /// How much may be kept.
    #[serde(default)]
    pub level: Level,
    /// Of how many of 1000 requests prompts and answers are kept, with `Payload`. Feedback on any other answer is of no use.
    #[serde(default = "default_sample")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_sample_per_mille: u32,
    /// What is taken out of texts before anything is kept.
    #[serde(default)]
    pub redaction: RedactionSpec,
    /// Where prompts and answers are kept; needed for `Payload`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageSpec>,
    /// Days after which they are deleted.
    #[serde(default = "default_retention")]
    #[schemars(range(min = 1, max = 3650))]
    pub retention_days: u32,
    /// Size beyond which the oldest are deleted before that, at least `1M`.
    #[serde(default = "default_size")]
    #[schemars(schema_with = "size")]
    pub max_bytes: Quantity,
}

/// What is taken out of texts. Each find is replaced by the name of its rule, such as `[EMAIL]`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RedactionSpec {
    /// Kinds of personal data that are found without being told how. Default: all of them.
    #[serde(default = "every_builtin")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[schemars(length(max = 3))]
    pub builtin: Vec<Builtin>,
    /// Further patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[schemars(length(max = 16))]
    pub patterns: Vec<Pattern>,
}

/// Storage of yours; exactly one.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.persistentVolumeClaim) != has(self.s3)")
    .message("give exactly one place for records: capture.storage.persistentVolumeClaim or capture.storage.s3"))]
pub struct StorageSpec {
    /// A claim in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<StorageClaim>,
    /// A bucket of an object store that speaks S3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<StorageBucket>,
}

/// Where records are kept, when it is clear which place that is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place<'a> {
    /// A volume.
    Claim(&'a StorageClaim),
    /// A bucket.
    Bucket(&'a StorageBucket),
}

/// A claim that records are written to, below `perennial-capture/NAME`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StorageClaim {
    /// Its name. Several LLMDeployments may share one.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
}

/// A bucket that records are written to, below `PREFIX/NAME`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StorageBucket {
    /// Its name. It has to be there; nothing makes it.
    #[schemars(length(min = 3, max = 63), regex(pattern = r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$"))]
    pub bucket: String,
    /// What the keys of all objects begin with, without a `/` at either end. Several LLMDeployments of one namespace may share
    /// one; those of several namespaces need one each.
    #[serde(default = "default_prefix")]
    #[schemars(
        length(min = 1, max = 256),
        regex(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$")
    )]
    pub prefix: String,
    /// The region of the bucket, which requests are signed for. Most stores that are not of AWS take any.
    #[serde(default = "default_region")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9-]+$"))]
    pub region: String,
    /// Address of a store that is not of AWS, such as `https://minio.storage.svc:9000`. With `http://` records are sent without
    /// encryption. Default: that of AWS in the region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^https?://[^\s@/?#]+(/[^\s@?#]*)?$"))]
    pub endpoint: Option<String>,
    /// Name of a Secret in the same namespace with the keys `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, and
    /// `AWS_SESSION_TOKEN` if the store asks for one.
    #[schemars(length(min = 1, max = 253))]
    pub credentials_secret_name: String,
}

impl StorageSpec {
    /// The place; absent where the rule of the API server was not asked.
    #[must_use]
    pub fn place(&self) -> Option<Place<'_>> {
        match (&self.persistent_volume_claim, &self.s3) {
            (Some(claim), None) => Some(Place::Claim(claim)),
            (None, Some(bucket)) => Some(Place::Bucket(bucket)),
            _ => None,
        }
    }
}

impl CaptureSpec {
    /// The limit of [`Self::max_bytes`] as a number.
    #[must_use]
    pub fn most_bytes(&self) -> u64 {
        self.max_bytes.bytes().unwrap_or(DEFAULT_BYTES)
    }
}

impl Default for RedactionSpec {
    fn default() -> Self {
        Self {
            builtin: every_builtin(),
            patterns: Vec::new(),
        }
    }
}

/// What [`default_size`] comes to.
const DEFAULT_BYTES: u64 = 10 << 30;

fn default_prefix() -> String {
    "perennial-capture".to_owned()
}

fn default_region() -> String {
    "us-east-1".to_owned()
}

fn size(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        // Else it would be taken for optional, and an explicit null would not get the default.
        "nullable": false,
        "x-kubernetes-int-or-string": true,
        "pattern": r"^([1-9][0-9]{0,8}(M|G|T|Mi|Gi|Ti)|[1-9][0-9]{6,17})$",
        "minimum": 1_000_000,
        "maxLength": 32,
    })
}

fn default_sample() -> u32 {
    50
}

fn every_builtin() -> Vec<Builtin> {
    vec![Builtin::Email, Builtin::PhoneNumber, Builtin::CreditCard]
}

fn default_retention() -> u32 {
    30
}

fn default_size() -> Quantity {
    Quantity("10Gi".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_has_a_default() {
        let spec: CaptureSpec = serde_json::from_str("{}").unwrap();
        assert_eq!(
            (spec.level, spec.max_sample_per_mille, spec.retention_days),
            (Level::Features, 50, 30)
        );
        assert_eq!(spec.redaction.builtin.len(), 3);
        assert_eq!(spec.most_bytes(), DEFAULT_BYTES);
    }

    #[test]
    fn nothing_has_to_be_taken_out() {
        let spec: CaptureSpec = serde_json::from_str(r#"{"redaction": {"builtin": []}}"#).unwrap();
        assert_eq!(spec.redaction.builtin, []);
        let again: CaptureSpec = serde_json::from_value(serde_json::to_value(&spec).unwrap()).unwrap();
        assert_eq!(again, spec);
    }

    #[test]
    fn one_place_is_a_place() {
        let place = |text: &str| serde_json::from_str::<StorageSpec>(text).unwrap();
        let claim = place(r#"{"persistentVolumeClaim": {"claimName": "records"}}"#);
        assert!(matches!(claim.place(), Some(Place::Claim(claim)) if claim.claim_name == "records"));
        let bucket = place(r#"{"s3": {"bucket": "records", "credentialsSecretName": "keys"}}"#);
        let Some(Place::Bucket(of)) = bucket.place() else {
            panic!("no bucket")
        };
        assert_eq!(
            (of.prefix.as_str(), of.region.as_str()),
            ("perennial-capture", "us-east-1")
        );
        assert_eq!(place("{}").place(), None);
        let both = StorageSpec { s3: bucket.s3, ..claim };
        assert_eq!(both.place(), None);
    }
}
