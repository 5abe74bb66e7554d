//! `LLMDeployment`: which model is to be served, and how well.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::autoscaling::AutoscalingSpec;
use crate::capture_spec::CaptureSpec;
use crate::quantity::Quantity;
use crate::status::LLMDeploymentStatus;

/// A model that is to be served, with everything that decides how.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "perennial.dev",
    version = "v1alpha1",
    kind = "LLMDeployment",
    plural = "llmdeployments",
    shortname = "llm",
    category = "perennial",
    namespaced,
    status = "LLMDeploymentStatus",
    derive = "PartialEq",
    doc = "A model that is to be served, and how well. Perennial rolls out its inference server for it, reports honestly how far it is, and changes it safely.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    validation = Rule::new("self.metadata.name.size() <= 45 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name becomes the name of a Service: use at most 45 lower-case letters, digits and '-', beginning with a letter"),
    printcolumn(name = "Model", type_ = "string", json_path = ".status.model.name"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.stableRevision"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.summary"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url", priority = 1),
    printcolumn(name = "Drift", type_ = "string", json_path = ".status.drift.phase", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.autoscaling) || !has(oldSelf.autoscaling) || self.replicas == oldSelf.replicas"
).message("spec.autoscaling decides how many replicas there are: change autoscaling.minReplicas and maxReplicas, or remove autoscaling to set spec.replicas"))]
pub struct LLMDeploymentSpec {
    /// The model and where it comes from.
    pub model: ModelSpec,
    /// The inference server that runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeSpec>,
    /// GPUs or other devices for each replica. Absent: the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<AcceleratorSpec>,
    /// CPU and memory for each replica, requested and limited alike. Absent: neither is requested nor limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesSpec>,
    /// How many replicas serve. Also set by `kubectl scale` and by a HorizontalPodAutoscaler. With `autoscaling` it only says
    /// with how many to begin, and cannot be changed.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// Grow and shrink with the load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingSpec>,
    /// What of requests is kept: counts for DriftPolicies, prompts and answers to train on, or nothing. Absent: counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<CaptureSpec>,
    /// How a change is rolled out.
    #[serde(default)]
    pub rollout: RolloutSpec,
    /// Start and end of a replica's life.
    #[serde(default)]
    pub lifecycle: LifecycleSpec,
    /// Stop all replicas and keep everything else. Set it back to resume.
    #[serde(default)]
    pub suspend: bool,
    /// Merged over the pod template that Perennial renders, as `kubectl patch --type=strategic` would: the place for
    /// tolerations, affinity, sidecars, extra environment. The server's container is named `server`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub pod_template: Option<serde_json::Map<String, serde_json::Value>>,
}

/// The model and where it comes from.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.digest) || !has(self.source.oci) || !self.source.oci.reference.contains('@') || self.source.oci.reference.endsWith('@' + self.digest)"
).message("digest and source.oci.reference name different digests: remove one of them or make them equal"))]
pub struct ModelSpec {
    /// Name under which clients ask for the model. Default: the name of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9._/:-]*[A-Za-z0-9])?$")
    )]
    pub name: Option<String>,
    /// Where the model comes from; exactly one.
    pub source: ModelSource,
    /// Pin to these bytes; any others are refused and never served. A file: its sha256. An OCI artifact: the digest of
    /// its manifest. Several files: the sha256 of the listing that `sha256sum` prints for them, sorted by path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = r"^sha256:[0-9a-f]{64}$"))]
    pub digest: Option<String>,
    /// Longest context (prompt and answer together) in tokens. Default: what the model was trained for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 16_777_216))]
    pub max_context_tokens: Option<u32>,
    /// Whether a model that a DriftPolicy learned from this one, and found better, serves in its place.
    #[serde(default)]
    pub learned: Learned,
}

/// Whether a learned model serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Learned {
    /// It does, as long as it was learned from the very model of the spec.
    #[default]
    Follow,
    /// It does not.
    Ignore,
}

/// Where a model comes from; exactly one.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "[has(self.huggingFace), has(self.oci), has(self.http), has(self.persistentVolumeClaim)].filter(given, given).size() == 1"
).message("give exactly one source: huggingFace, oci, http or persistentVolumeClaim"))]
pub struct ModelSource {
    /// A repository of the Hugging Face Hub or of a mirror that speaks its API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hugging_face: Option<HuggingFaceSource>,
    /// An artifact or image in an OCI registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oci: Option<OciSource>,
    /// One file at a URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSource>,
    /// A file or folder on a volume that is already there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimSource>,
}

/// A repository of the Hugging Face Hub.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HuggingFaceSource {
    /// `ORGANISATION/NAME`.
    #[schemars(
        length(max = 192),
        regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$")
    )]
    pub repository: String,
    /// Branch, tag or 40-digit commit. A branch or tag is resolved once per change of the source, and stays there.
    #[serde(default = "default_revision")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._/-]*$"))]
    pub revision: String,
    /// One file of the repository, for repositories that hold several GGUF files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 256),
        regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$")
    )]
    pub file: Option<String>,
    /// Address of the Hub or of a mirror. Default: the Hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^https?://[^\s]+$"))]
    pub endpoint: Option<String>,
    /// Secret with an access token, for private and gated repositories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<SecretKeyRef>,
}

/// An artifact or image in an OCI registry.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OciSource {
    /// `HOST/REPOSITORY:TAG` or `HOST/REPOSITORY@sha256:DIGEST`. A tag is resolved once per change of the source.
    #[schemars(
        length(max = 512),
        regex(
            pattern = r"^[a-z0-9][a-zA-Z0-9.-]*(:[0-9]+)?/[a-z0-9][a-z0-9._/-]*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?$"
        )
    )]
    pub reference: String,
    /// Secret of type `kubernetes.io/dockerconfigjson` with credentials for the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secret_ref: Option<SecretRef>,
}

/// One file at a URL.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpSource {
    /// `https://` or `http://` address of a GGUF file. Credentials do not belong into it.
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^\s@]+$"))]
    pub url: String,
}

/// A file or folder on a volume that is already there.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimSource {
    /// Name of a PersistentVolumeClaim in the same namespace; it is mounted read-only.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
    /// File or folder in the volume. Default: its root.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new("!self.startsWith('/') && !self.split('/').exists(part, part == '..')")
        .message("path is relative to the root of the volume: no leading '/' and no '..'"))]
    pub path: String,
}

/// A key of a Secret in the same namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A Secret in the same namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The inference server that runs the model.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeSpec {
    /// Image of the Perennial server. Default: the one of the operator's release, frozen when a revision is made, so
    /// that an upgrade of the operator restarts no model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Further arguments for `perennial-server serve`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 1024)))]
    #[x_kube(validation = Rule::new(
        "self.all(argument, !['--served-model-name', '--source', '--digest', '--max-context-tokens', '--drain-seconds', '--api-address', '--metrics-address'].exists(own, argument == own || argument.startsWith(own + '=')))"
    ).message("the operator sets --served-model-name, --source, --digest, --max-context-tokens, --drain-seconds, --api-address and --metrics-address: use the fields of spec.model and spec.lifecycle"))]
    pub extra_args: Vec<String>,
}

/// Devices for each replica.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcceleratorSpec {
    /// How many devices each replica gets. 0: the CPU.
    #[serde(default = "default_accelerator_count")]
    #[schemars(range(min = 0, max = 64))]
    pub count: u32,
    /// Name of the device resource of the nodes.
    #[serde(default = "default_accelerator_resource")]
    #[schemars(length(min = 3, max = 253), regex(pattern = r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$"))]
    pub resource_name: String,
    /// Labels that a node must have, to choose a kind of device.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub node_selector: BTreeMap<String, String>,
}

/// CPU and memory for each replica.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourcesSpec {
    /// CPU cores, such as `4` or `500m`. The server uses as many threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    /// Memory, such as `16Gi`. A model that does not fit is refused with the figures before it is loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
}

/// How a change is rolled out.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutSpec {
    /// Seconds within which a new revision must be ready. After that the rollout stalls, the old revision goes on serving.
    #[serde(default = "default_progress_deadline")]
    #[schemars(range(min = 10, max = 604_800))]
    pub progress_deadline_seconds: i32,
    /// Begin no new rollout. What runs goes on; scaling works.
    #[serde(default)]
    pub paused: bool,
}

/// Start and end of a replica's life.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LifecycleSpec {
    /// Seconds that running requests get to finish when a replica is stopped.
    #[serde(default = "default_drain")]
    #[schemars(range(min = 0, max = 86_400))]
    pub drain_seconds: i32,
    /// Seconds within which a replica must have produced its first token, or it is restarted.
    #[serde(default = "default_startup_deadline")]
    #[schemars(range(min = 10, max = 86_400))]
    pub startup_deadline_seconds: i32,
}

impl Default for RolloutSpec {
    fn default() -> Self {
        Self {
            progress_deadline_seconds: default_progress_deadline(),
            paused: false,
        }
    }
}

impl Default for LifecycleSpec {
    fn default() -> Self {
        Self {
            drain_seconds: default_drain(),
            startup_deadline_seconds: default_startup_deadline(),
        }
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "pattern": crate::quantity::PATTERN,
            "maxLength": 32,
        })
    }
}

fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

fn default_replicas() -> i32 {
    1
}

fn default_revision() -> String {
    "main".to_owned()
}

fn default_accelerator_count() -> u32 {
    1
}

fn default_accelerator_resource() -> String {
    "nvidia.com/gpu".to_owned()
}

fn default_progress_deadline() -> i32 {
    3600
}

fn default_drain() -> i32 {
    120
}

fn default_startup_deadline() -> i32 {
    1800
}
