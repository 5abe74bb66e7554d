//! What of requests is kept for retraining, and how it travels: from the serving pods to the collector, which alone writes it.
//!
//! A serving pod learns what to keep from an annotation on itself, which it reads as a file, so that switching capture on or
//! off restarts nothing, and nobody without the right to change pods can switch it. It pushes records to the collector;
//! there is no way to read them from it.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Annotation on a serving pod that holds its [`Terms`] as JSON.
pub const CAPTURE_ANNOTATION: &str = "perennial.dev/capture";
/// Directory in a serving pod with its annotations as files.
pub const POD_DIRECTORY: &str = "/etc/perennial/pod";
/// File in [`POD_DIRECTORY`] with the value of [`CAPTURE_ANNOTATION`]; empty or absent without one.
pub const TERMS_FILE: &str = "capture";
/// Port of the collector.
pub const COLLECTOR_PORT: u16 = 9091;
/// Path on [`COLLECTOR_PORT`]: `POST` takes a [`Batch`], with `Authorization: Bearer TOKEN`.
pub const RECORDS_PATH: &str = "/records";
/// Version of [`Batch`] that this code writes.
pub const BATCH_VERSION: u32 = 1;
/// Longest text that is kept of one message or answer, bytes; the rest is cut off and marked.
pub const MAX_TEXT_BYTES: usize = 64 << 10;

/// How much may be kept of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Level {
    /// Nothing: not even counts for drift.
    None,
    /// Counts, sums and hashes, in which no text can be found.
    #[default]
    Features,
    /// Prompts and answers of a sample of requests, redacted, in your own storage.
    Payload,
}

/// Kinds of personal data that are found without being told how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Builtin {
    /// Addresses of mail.
    Email,
    /// Phone numbers.
    PhoneNumber,
    /// Numbers of credit cards, with a valid check digit.
    CreditCard,
}

/// An own pattern.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pattern {
    /// What is put in its place: `[NAME]`.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9_-]+$"))]
    pub name: String,
    /// A regular expression in RE2's syntax.
    #[schemars(length(min = 1, max = 1024))]
    // With a mistake in the expression the rule cannot be computed, which is refused with the same message.
    #[x_kube(validation = Rule::new("!''.matches(self)")
        .message("a pattern for redaction is a regular expression in RE2's syntax that finds something: correct its regex, which has a mistake or finds the empty text everywhere"))]
    pub regex: String,
}

/// What a serving pod is to keep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Terms {
    /// How much.
    pub level: Level,
    /// Of how many of 1000 requests, chosen by the hash of the request id.
    #[serde(default)]
    pub sample_per_mille: u32,
    /// What is taken out before anything is kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redact: Vec<Builtin>,
    /// Further patterns that are taken out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patterns: Vec<Pattern>,
    /// Where records go, `http://HOST:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collector: Option<String>,
    /// What the collector wants to be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The revision of the pod, for the records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

/// Records of one process, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Batch {
    /// [`BATCH_VERSION`] of the writer.
    pub version: u32,
    /// New with each start of the process.
    pub boot_id: String,
    /// Number of the first record, counted from 0 and by one over the life of the process, dropped ones too. A batch that was
    /// taken already, because its answer was lost, is known by it.
    pub first: u64,
    /// Records that were dropped so far, for want of room.
    pub dropped: u64,
    /// The records.
    pub records: Vec<Record>,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Record {
    /// A request and its answer.
    Exchange(ExchangeRecord),
    /// What somebody thought of an answer.
    Feedback(FeedbackRecord),
}

/// A message of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Its text.
    pub content: String,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finish {
    /// By itself.
    Stop,
    /// At its limit of tokens.
    Length,
    /// The client went away.
    Abort,
    /// It failed.
    Error,
}

/// A request and its answer. Texts are redacted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExchangeRecord {
    /// As in the header `x-request-id` of the answer.
    pub request_id: String,
    /// When it ended, seconds since 1970.
    pub time: i64,
    /// The revision that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Who asked, as told in `user`. The collector stores a keyed hash of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requester: Option<String>,
    /// The messages of a chat; empty for a completion.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Message>,
    /// The prompt of a completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The model's answer.
    pub answer: String,
    /// How it ended.
    pub finish: Finish,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens of the answer.
    pub output_tokens: u32,
    /// For how many requests this one stands.
    pub sampling_weight: f64,
    /// How often each pattern was taken out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub redactions: BTreeMap<String, u32>,
    /// Some of its text was too long and was cut off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// What somebody thought of an answer. Texts are redacted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FeedbackRecord {
    /// Of which answer.
    pub request_id: String,
    /// When, seconds since 1970.
    pub time: i64,
    /// From -1 (bad) to 1 (good).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// How the answer should have been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrected_output: Option<String>,
}
