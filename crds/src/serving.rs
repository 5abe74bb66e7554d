//! What the operator and a serving pod say to each other: ports, paths, loading progress, and last words.
//!
//! The operator reads these from pods that may be older or newer than itself, so every type tolerates fields it does
//! not know, and an unknown enum value becomes a value that says so instead of an error.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Port of the OpenAI API in a serving pod.
pub const API_PORT: u16 = 8080;
/// Port of `/livez`, `/readyz`, `/metrics` and `/loading` in a serving pod.
pub const METRICS_PORT: u16 = 9090;
/// Path on [`METRICS_PORT`] that answers with a [`LoadingProgress`].
pub const LOADING_PATH: &str = "/loading";
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
