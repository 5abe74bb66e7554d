//! `spec.probe` of a DriftPolicy: fixed prompts that tell a change of the service from a change of the traffic. Spec and status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Prompts that are asked again and again, greedily. When the same revision answers them otherwise, the service has changed.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeSpec {
    /// The prompts.
    pub prompt_set_ref: PromptSetRef,
    /// Seconds from one run to the next. After a confirmed drift they are asked at once, whenever the last run was.
    #[serde(default = "default_interval")]
    #[schemars(range(min = 10, max = 2_592_000))]
    pub interval_seconds: u32,
}

/// A set of prompts in the same namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PromptSetRef {
    /// ConfigMap with the prompts, one JSON object a line, in each of its keys: at most 128, written as items of suites are. They
    /// are never trained on.
    #[schemars(length(min = 1, max = 253))]
    pub config_map_name: String,
}

/// What the probes say of the revision that serves.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeStatus {
    /// What they say.
    #[serde(default)]
    pub verdict: ProbeVerdict,
    /// Prompts.
    #[serde(default)]
    pub prompts: i32,
    /// Runs of this revision that were answered.
    #[serde(default)]
    pub runs: i64,
    /// When the last of them began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<Time>,
    /// Part of the answers of the last run that are the reference's, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement_percent: Option<i32>,
    /// The Job that asks them at this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_name: Option<String>,
    /// In words.
    #[serde(default)]
    pub message: String,
}

/// What probes say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ProbeVerdict {
    /// How this revision answers when all is well is being learned, from its first three runs.
    #[default]
    Learning,
    /// They are answered as ever.
    Same,
    /// They are answered otherwise.
    Changed,
}

fn default_interval() -> u32 {
    21_600
}
