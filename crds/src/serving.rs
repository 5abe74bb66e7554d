//! What the operator and a serving pod say to each other: ports, paths, loading progress, and last words.
//!
//! The operator reads these from pods that may be older or newer than itself, so every type tolerates fields it does
//! not know, and an unknown enum value becomes a value that says so instead of an error.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Port of the OpenAI API in a serving pod.
pub const API_PORT: u16 = 8080;
/// Port of `/livez`, `/readyz`, `/metrics`, `/loading`, `/load` and `/drift/panes` in a serving pod.
pub const METRICS_PORT: u16 = 9090;
/// Path on [`METRICS_PORT`] that answers with a [`LoadingProgress`].
pub const LOADING_PATH: &str = "/loading";
/// Path on [`METRICS_PORT`] that answers with a [`Load`].
pub const LOAD_PATH: &str = "/load";
/// Path on [`METRICS_PORT`]: `GET ?after=SEQUENCE` answers with a [`PanesPage`], `PUT` takes an [`Observation`].
pub const PANES_PATH: &str = "/drift/panes";
/// Version of [`PanesPage`] that this code writes.
pub const PANES_VERSION: u32 = 1;
/// Length of panes until somebody asks for another one, seconds.
pub const DEFAULT_PANE_SECONDS: u32 = 300;
/// Longest panes that a server makes, seconds.
pub const LONGEST_PANE_SECONDS: u32 = 3600;
/// Version of [`Load`] that this code writes.
pub const LOAD_VERSION: u32 = 1;
/// Number of buckets of [`Load::first_token`].
pub const FIRST_TOKEN_BUCKETS: usize = 23;
/// Upper bounds of the buckets of [`Load::first_token`] in seconds, vLLM's; the last bucket holds the rest.
pub const FIRST_TOKEN_SECONDS: [f64; FIRST_TOKEN_BUCKETS - 1] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
];
/// Directory in a serving pod for downloads and scratch; survives a restart of the container, not of the pod.
pub const SCRATCH_DIRECTORY: &str = "/var/lib/perennial";
/// Where the claim of a `persistentVolumeClaim` source is mounted, read-only.
pub const CLAIM_DIRECTORY: &str = "/mnt/model";
/// Environment variable with the text of a registry pull secret (`.dockerconfigjson`).
pub const REGISTRY_AUTH_VARIABLE: &str = "PERENNIAL_REGISTRY_AUTH";
/// Directory where a registry pull secret may be mounted as `config.json` instead.
pub const REGISTRY_AUTH_DIRECTORY: &str = "/etc/perennial/registry";
/// File in which a container leaves its [`Termination`] (Kubernetes' default path, at most 4096 bytes).
pub const TERMINATION_PATH: &str = "/dev/termination-log";

/// How a server is to observe its traffic: the body of `PUT /drift/panes`. A change begins a new pane and forgets those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// Length of a pane, 1 to [`LONGEST_PANE_SECONDS`] seconds. Panes begin at its multiples since 1970.
    pub pane_seconds: u32,
}

/// Closed panes of one process, oldest first: the answer of `GET /drift/panes?after=SEQUENCE`.
///
/// Reading changes nothing: whoever asks again gets the same panes, as long as the process keeps them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PanesPage {
    /// Version of this contract.
    pub version: u32,
    /// New with each start of the process and each change of the observation.
    pub boot_id: String,
    /// Length of its panes, seconds.
    pub pane_seconds: u32,
    /// Fingerprint of the layout of its panes, 16 hexadecimal digits: panes of other layouts do not add.
    pub layout: String,
    /// The server's clock, seconds since 1970.
    pub now: i64,
    /// Panes behind `after` that were dropped before this reading.
    pub lost: u64,
    /// Panes with at least one request; there is none for a time without requests.
    pub panes: Vec<PaneRecord>,
}

/// One closed pane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaneRecord {
    /// Counts from 0 and by one.
    pub sequence: u64,
    /// Its beginning, seconds since 1970.
    pub start: i64,
    /// `perennial_drift::pane::Pane::encode`, in base64.
    pub bytes: String,
}

/// A model pinned to exact bytes: the answer of `perennial-server resolve`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedModel {
    /// Pinned address: `hf://ORG/NAME@COMMIT`, `oci://HOST/REPOSITORY@sha256:HEX`, `https://...` or `file:///...`.
    pub uri: String,
    /// Content digest, `sha256:` and 64 hex digits.
    ///
    /// A file: the sha256 of its bytes. An OCI artifact: its manifest's digest. Several files: the sha256 of
    /// `sha256sum`'s listing (`HEX  PATH\n` per file, sorted by path).
    pub digest: String,
    /// Bytes to download or read.
    pub size_bytes: u64,
    /// Number of files.
    pub files: u32,
}

/// How far a starting server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoadingStage {
    /// Asks the source what it has.
    Resolving,
    /// Bytes are on their way.
    Downloading,
    /// Compares digests.
    Verifying,
    /// Reads weights into memory or onto the device.
    LoadingWeights,
    /// Computes a first token.
    WarmingUp,
    /// A token was produced; requests are answered.
    Ready,
    /// A stage that this version does not know.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for LoadingStage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// Answer of [`LOADING_PATH`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadingProgress {
    /// Current stage.
    pub stage: LoadingStage,
    /// Bytes downloaded so far.
    #[serde(default)]
    pub downloaded_bytes: u64,
    /// Bytes to download in all; absent while unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Estimate until ready, from the measured rate; absent while unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_seconds: Option<u64>,
}

/// Answer of [`LOAD_PATH`]: how loaded a serving pod is. Counters count from the start of its process.
///
/// All of it is numbers, so that reading one costs no allocation. Fields may be added; a change of a meaning is a new version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// [`LOAD_VERSION`] of the writer.
    pub version: u32,
    /// A random number below 2^53 that differs between two starts.
    pub boot_id: u64,
    /// Requests that are computed.
    pub running: u32,
    /// Requests in the queue.
    pub waiting: u32,
    /// Most requests that are computed at the same time.
    pub max_running: u32,
    /// Prompt tokens in the queue.
    pub queued_tokens: u64,
    /// Tokens of the key-value cache in use.
    pub cache_used_tokens: u64,
    /// Tokens of the key-value cache.
    pub cache_total_tokens: u64,
    /// Requests that arrived, those that were refused for a full queue too.
    pub requests: u64,
    /// Requests that ended.
    pub finished: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Seconds that the ended requests were computed, without their wait, summed over requests.
    pub computed_seconds: f64,
    /// Seconds from the start of the process to its first token; absent before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_start_seconds: Option<f64>,
    /// Requests by the time from their arrival to their first token, one count per bucket of [`FIRST_TOKEN_SECONDS`],
    /// not cumulative.
    pub first_token: [u32; FIRST_TOKEN_BUCKETS],
}

/// Why a container of ours gave up, as a word that the operator can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FailureReason {
    /// The source answers, but has no such repository, revision, tag, file or path.
    ModelNotFound,
    /// The source wants (other) credentials.
    Unauthorized,
    /// The source cannot be reached, or keeps breaking off.
    SourceUnreachable,
    /// The bytes are not the ones that were asked for.
    DigestMismatch,
    /// The disk of the pod is full.
    NoSpaceLeft,
    /// Weights, cache and reserve do not fit the memory limit.
    InsufficientMemory,
    /// The engine does not know the architecture or format.
    UnsupportedModel,
    /// A file is truncated or damaged.
    InvalidModel,
    /// Arguments or environment are wrong.
    InvalidArguments,
    /// The accelerator is missing or failed.
    DeviceFailed,
    /// Something else; the message says what.
    #[serde(other)]
    Internal,
}

impl FailureReason {
    /// Whether trying again without a change can help.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self, Self::SourceUnreachable | Self::Internal | Self::DeviceFailed)
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// Last words of a failed container, left as JSON in [`TERMINATION_PATH`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Termination {
    /// The kind of failure.
    pub reason: FailureReason,
    /// What happened and what to do; one line, no secret, no prompt.
    pub message: String,
}
