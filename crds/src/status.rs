//! What the operator says of an `LLMDeployment`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::serving::LoadingStage;

/// What was observed of an LLMDeployment.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LLMDeploymentStatus {
    /// Generation of the spec that this status speaks of; -1 before the operator has seen the object.
    #[serde(default = "unobserved")]
    pub observed_generation: i64,
    /// Base URL of the OpenAI API inside the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Replicas that exist, of all revisions.
    #[serde(default)]
    pub replicas: i32,
    /// Replicas of the serving revision that answer requests.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Label selector of the replicas, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Ready of wanted replicas, such as `2/3`, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// One word for people: the reason of `Reconciling` while it is true, else of `Stalled`, else of `Ready`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Revision that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_revision: Option<String>,
    /// Revision that the spec asks for; equals `stableRevision` when nothing is being rolled out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_revision: Option<String>,
    /// The model of the serving revision (of the new one while none serves).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelStatus>,
    /// How far the newest replica is that is still starting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_start: Option<ColdStartStatus>,
    /// What the autoscaler does; absent without `spec.autoscaling`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingStatus>,
    /// What the DriftPolicy that watches its traffic says; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftStatus>,
    /// `Ready`, `Available`, `Progressing`, `ModelResolved`, `CapacityAvailable`; `ScalingActive` and `ScalingLimited` with
    /// `spec.autoscaling`; `Capturing` with the level `Payload` of `spec.capture`; `Reconciling` and `Stalled` when true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

impl Default for LLMDeploymentStatus {
    fn default() -> Self {
        Self {
            observed_generation: unobserved(),
            url: None,
            replicas: 0,
            ready_replicas: 0,
            selector: None,
            ready: None,
            summary: None,
            stable_revision: None,
            update_revision: None,
            model: None,
            cold_start: None,
            autoscaling: None,
            drift: None,
            conditions: Vec::new(),
        }
    }
}

/// The model that serves.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelStatus {
    /// Name under which clients ask for it.
    #[serde(default)]
    pub name: String,
    /// Pinned address: commit, manifest digest or path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_revision: Option<String>,
    /// Digest of its bytes, as in `spec.model.digest`. Absent if the source was pinned without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Bytes to download or read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// `Spec`, or `DriftPolicy/NAME` for a model that a policy learned from the one in the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// How far a starting replica is.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ColdStartStatus {
    /// What it does at the moment.
    #[schemars(with = "String")]
    pub stage: LoadingStage,
    /// Percent of the bytes that have arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub downloaded_percent: Option<i32>,
    /// Estimate until it answers, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_seconds: Option<i64>,
}

/// What the autoscaler does.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalingStatus {
    /// Replicas that are wanted now.
    #[serde(default)]
    pub desired_replicas: i32,
    /// Seconds from asking for a replica to its first token: the median of the last ones. So far ahead the load is looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_start_seconds: Option<i64>,
    /// The last changes, newest first; at most five.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub last_decisions: Vec<ScalingDecision>,
}

/// One change of the number of replicas.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScalingDecision {
    /// When.
    pub time: Time,
    /// Replicas before.
    pub from: i32,
    /// Replicas after.
    pub to: i32,
    /// Why: `WaitingRequests 9.1 per replica > 4`.
    pub reason: String,
}

/// What a DriftPolicy says of an LLMDeployment's traffic.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriftStatus {
    /// Name of the policy.
    pub policy: String,
    /// Its phase, as in `status.phase` of the policy.
    pub phase: String,
}

fn unobserved() -> i64 {
    -1
}
