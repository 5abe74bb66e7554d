//! `spec.autoscaling`: how many replicas there may be, and what they shall keep to.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Grow and shrink with the load. Without it, `replicas` says how many there are.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.minReplicas <= self.maxReplicas")
    .message("autoscaling.minReplicas is larger than autoscaling.maxReplicas"))]
pub struct AutoscalingSpec {
    /// Fewest replicas.
    #[serde(default = "default_min_replicas")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: u32,
    /// Most replicas.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: u32,
    /// What the replicas shall keep to; the target that needs the most replicas decides. Default: at most 4 waiting requests
    /// per replica and 80 % of the key-value cache.
    #[serde(default = "default_targets")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["metric".into()]))]
    #[schemars(length(min = 1, max = 5))]
    pub targets: Vec<TargetSpec>,
    /// How quickly.
    #[serde(default)]
    pub behavior: BehaviorSpec,
    /// While no replica tells its load.
    #[serde(default)]
    pub missing_metrics: MissingMetrics,
}

/// A value that the replicas shall keep to.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.metric in ['WaitingRequests', 'RunningRequests', 'TokensPerSecond'] ? has(self.averageValue) && !has(self.averagePercent) && !has(self.p95Milliseconds) : true")
        .message("WaitingRequests, RunningRequests and TokensPerSecond take averageValue, and nothing else"),
    validation = Rule::new("self.metric == 'KVCacheUtilization' ? has(self.averagePercent) && !has(self.averageValue) && !has(self.p95Milliseconds) : true")
        .message("KVCacheUtilization takes averagePercent, and nothing else"),
    validation = Rule::new("self.metric == 'TimeToFirstToken' ? has(self.p95Milliseconds) && !has(self.averageValue) && !has(self.averagePercent) : true")
        .message("TimeToFirstToken takes p95Milliseconds, and nothing else"),
)]
pub struct TargetSpec {
    /// What is measured.
    pub metric: ScalingMetric,
    /// Per replica: waiting requests, requests that run or would if there were room, or tokens generated per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub average_value: Option<u32>,
    /// Used part of the key-value cache in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub average_percent: Option<u32>,
    /// Milliseconds from arrival to the first token that 95 of 100 requests shall keep to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3_600_000))]
    pub p95_milliseconds: Option<u32>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ScalingMetric {
    /// Requests in the queues.
    WaitingRequests,
    /// Requests that are computed, and those that would be if there were room.
    RunningRequests,
    /// Used part of the key-value cache.
    KVCacheUtilization,
    /// 95th percentile of the time from arrival to the first token.
    TimeToFirstToken,
    /// Tokens generated per second.
    TokensPerSecond,
}

/// How quickly.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BehaviorSpec {
    /// Towards more replicas.
    #[serde(default)]
    pub scale_up: ScaleUpSpec,
    /// Towards fewer replicas.
    #[serde(default)]
    pub scale_down: ScaleDownSpec,
}

/// Towards more replicas.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleUpSpec {
    /// Seconds for which more must have been needed all the time.
    #[serde(default)]
    #[schemars(range(min = 0, max = 3600))]
    pub stabilization_window_seconds: u32,
    /// Most growth within a minute in percent; four replicas are always allowed.
    #[serde(default = "default_percent")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_percent_per_minute: u32,
}

/// Towards fewer replicas.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleDownSpec {
    /// Seconds for which fewer must have sufficed all the time. Default: as long as a cold start of the model was lately, from
    /// 60 to 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub stabilization_window_seconds: Option<u32>,
    /// Most replicas that are removed within a minute, one after the other.
    #[serde(default = "default_down_step")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas_per_minute: u32,
}

/// While no replica tells its load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MissingMetrics {
    /// Keep as many replicas as there are.
    #[default]
    Hold,
    /// Go to `maxReplicas` after half a minute.
    ScaleToMax,
}

impl Default for ScaleUpSpec {
    fn default() -> Self {
        Self {
            stabilization_window_seconds: 0,
            max_percent_per_minute: default_percent(),
        }
    }
}

impl Default for ScaleDownSpec {
    fn default() -> Self {
        Self {
            stabilization_window_seconds: None,
            max_replicas_per_minute: default_down_step(),
        }
    }
}

fn default_min_replicas() -> u32 {
    1
}

fn default_targets() -> Vec<TargetSpec> {
    let target = |metric| TargetSpec {
        metric,
        average_value: None,
        average_percent: None,
        p95_milliseconds: None,
    };
    vec![
        TargetSpec {
            average_value: Some(4),
            ..target(ScalingMetric::WaitingRequests)
        },
        TargetSpec {
            average_percent: Some(80),
            ..target(ScalingMetric::KVCacheUtilization)
        },
    ]
}

fn default_percent() -> u32 {
    100
}

fn default_down_step() -> u32 {
    4
}
