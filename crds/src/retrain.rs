//! The contracts `prepare/v1`, `retrain/v1` and `gate/v1`: what the operator tells the three Jobs of a cycle, and what their
//! last words may be. Values of environment variables and files are described in `docs/reference/contracts.md`.
//!
//! Last words are at most 4096 bytes and hold no text of a prompt: they end in etcd.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::serving::METRICS_PORT;

/// Version of the contract of the Job that prepares data.
pub const PREPARE_CONTRACT: &str = "prepare/v1";
/// Version of the contract of the Job that trains.
pub const RETRAIN_CONTRACT: &str = "retrain/v1";
/// Version of the contract of the Job that judges.
pub const GATE_CONTRACT: &str = "gate/v1";
/// Version of the contract of the container that checks what was trained before it is judged.
pub const VERIFY_CONTRACT: &str = "verify/v1";
/// Exit code that asks for another try.
pub const EXIT_RETRY: i32 = 75;
/// Port on which a training Job may tell how far it is.
pub const PROGRESS_PORT: u16 = METRICS_PORT;
/// Path on [`PROGRESS_PORT`] that answers with a [`TrainingProgress`].
pub const PROGRESS_PATH: &str = "/training";
/// Longest last words, bytes.
pub const MAX_MESSAGE_BYTES: usize = 4096;

/// Where a training Job finds its frozen data, read-only.
pub const DATA_DIRECTORY: &str = "/retrain/data";
/// Name of the manifest in [`DATA_DIRECTORY`].
pub const MANIFEST_FILE: &str = "manifest.json";
/// Where a training Job finds why it runs, read-only: `report.json`.
pub const REPORT_DIRECTORY: &str = "/retrain/drift";
/// Where a training Job leaves its model and checkpoints.
pub const OUTPUT_DIRECTORY: &str = "/retrain/output";
/// Where a gate Job finds the items of its suites, read-only: `NAME.jsonl`.
pub const SUITES_DIRECTORY: &str = "/gate/suites";
/// Where a gate Job finds the candidate, read-only: the content of [`OUTPUT_DIRECTORY`].
pub const CANDIDATE_DIRECTORY: &str = "/gate/candidate";
/// Where a gate Job leaves the scores of all items: `scores.jsonl`.
pub const SCORES_DIRECTORY: &str = "/gate/output";
/// Where the Job that prepares finds captured segments, read-only.
pub const CAPTURE_DIRECTORY: &str = "/prepare/capture";
/// Where the Job that prepares finds suites with items of the user, read-only: a folder `SUITE` each, with JSON Lines files.
pub const GOLDEN_DIRECTORY: &str = "/prepare/golden";
/// Where the Job that prepares writes `data/`, `suites/`.
pub const PREPARED_DIRECTORY: &str = "/prepare/output";

/// What is trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Include {
    /// Answers as somebody corrected them.
    CorrectedOutputs,
    /// Answers that somebody found good.
    RatedGood,
    /// The users' own prompts, as text.
    UserPrompts,
}

/// Settings of the Job that prepares: JSON in `PREPARE_SETTINGS`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrepareSettings {
    /// The cycle.
    pub cycle_id: String,
    /// Beginning of the window, seconds since 1970.
    pub from: i64,
    /// End of the window, seconds since 1970.
    pub to: i64,
    /// Since when traffic is different, seconds since 1970: what is held out comes from behind it.
    pub drifted_since: i64,
    /// Most records to train on.
    pub max_records: u32,
    /// Most of them from one requester, percent.
    pub max_percent_per_requester: u32,
    /// What is trained on.
    pub include: Vec<Include>,
    /// Items that are held out for suites without own items, at most.
    pub hold_out: u32,
    /// Names of suites of held-out items.
    pub recent_suites: Vec<String>,
    /// Names of suites with items of the user, which are never trained on.
    pub own_suites: Vec<String>,
    /// Names of sets of prompts that are neither trained on nor judged by: probes. They lie beside the suites in
    /// [`GOLDEN_DIRECTORY`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded_sets: Vec<String>,
    /// Fewest records to train on.
    pub min_records: u32,
    /// Items that every suite must have; fewer, and nothing is frozen.
    #[serde(default)]
    pub min_items: u32,
    /// Decides what is held out and what is validation.
    pub seed: u64,
    /// Cycles of the same policy that have ended. Their folders lie beside this cycle's; what nobody needs any more is
    /// deleted from them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<EndedCycle>,
}

/// A cycle that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndedCycle {
    /// Its id.
    pub cycle_id: String,
    /// Nobody uses a model of it, so that all of its folder may go; otherwise only what was trained on and judged by.
    #[serde(default)]
    pub discard: bool,
}

/// What a Job decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Outcome {
    /// Done.
    Succeeded,
    /// Nothing better was found.
    NoImprovement,
    /// There is too little data, or it cannot be trained on.
    DataRejected,
    /// It may go better another time.
    Retryable,
    /// What was found is not what was claimed.
    Untrusted,
}

/// Last words of the Job that prepares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrepareResult {
    /// [`PREPARE_CONTRACT`].
    pub schema: String,
    /// The decision.
    pub outcome: Outcome,
    /// sha256 of `data/manifest.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_digest: Option<String>,
    /// Records to train on.
    #[serde(default)]
    pub records: u64,
    /// Items held out for each suite.
    #[serde(default)]
    pub items: std::collections::BTreeMap<String, u64>,
    /// sha256 over the items of all suites, so that both models are judged on the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suites_digest: Option<String>,
    /// In words, without any text of a prompt.
    #[serde(default)]
    pub message: String,
}

/// A file of the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManifestFile {
    /// Path in [`DATA_DIRECTORY`].
    pub path: String,
    /// `train` or `validation`.
    pub split: String,
    /// Hex digits of its sha256.
    pub sha256: String,
    /// Lines.
    pub rows: u64,
    /// Size.
    pub bytes: u64,
}

/// What was left out, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Excluded {
    /// Their prompts are in a suite of the user.
    pub own_suites: u64,
    /// They were held out.
    pub held_out: u64,
    /// Their requester had its share already.
    pub requester_cap: u64,
    /// The same prompt and answer were there already.
    pub duplicates: u64,
    /// Neither corrected nor rated, and prompts are not trained on.
    pub no_label: u64,
    /// Beyond the most records.
    pub surplus: u64,
}

/// What a training Job may train on: `/retrain/data/manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// [`RETRAIN_CONTRACT`].
    pub schema: String,
    /// The cycle.
    pub cycle_id: String,
    /// Beginning of the window, seconds since 1970.
    pub from: i64,
    /// End of the window, seconds since 1970.
    pub to: i64,
    /// The files.
    pub files: Vec<ManifestFile>,
    /// Most records of one requester, percent.
    pub max_percent_per_requester: u32,
    /// What was left out.
    pub excluded: Excluded,
    /// sha256 over the sorted hashes of prompts that must not be trained on.
    pub evaluation_hash: String,
}

/// A line of a file of the manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrainingRow {
    /// The chat without its last answer; empty for plain text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<crate::capture::Message>,
    /// The prompt of a completion; absent for a chat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// What is to be learned as the answer; absent if the prompt itself is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// Where the answer comes from.
    pub label: Include,
    /// For how many requests it stands.
    pub sampling_weight: f64,
    /// The revision that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_revision: Option<String>,
}

/// A line of `/gate/suites/NAME.jsonl`: one item on which both models are judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SuiteItem {
    /// The chat without its last answer; empty for a completion.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<crate::capture::Message>,
    /// The prompt of a completion; absent for a chat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The right answer. Its score is the geometric mean of the probabilities of its tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The answer must be this, but for white space at both ends. Score 0 or 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    /// The answer must match this regular expression. Score 0 or 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// Longest answer for `exact` and `regex`, tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
}

/// What a trained model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ModelKind {
    /// A whole model, ready to be served.
    Merged,
    /// An adapter for the base.
    Adapter,
}

/// The model that a training Job claims to have made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrainedModel {
    /// Below `RETRAIN_OUTPUT_URI`, or in that repository by its digest.
    pub uri: String,
    /// As in `spec.model.digest`.
    pub digest: String,
    /// Digest of what it was trained from: `RETRAIN_BASE_MODEL_DIGEST`.
    pub base_digest: String,
    /// What it is.
    pub kind: ModelKind,
}

/// The data that a training Job claims to have used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsedData {
    /// sha256 of the manifest.
    pub manifest_digest: String,
}

/// Last words of a training Job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetrainResult {
    /// [`RETRAIN_CONTRACT`].
    pub schema: String,
    /// The decision.
    pub outcome: Outcome,
    /// The model, if one was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<TrainedModel>,
    /// The data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<UsedData>,
    /// Figures by name, as text.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub metrics: std::collections::BTreeMap<String, String>,
    /// Full record, below the output directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_path: Option<String>,
    /// How the loss went, for the report of the cycle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curve: Option<Curve>,
    /// In words, without any text of a prompt.
    #[serde(default)]
    pub message: String,
}

/// How the loss went: points of a step and the mean loss of a token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Curve {
    /// On the rows of a step.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub train: Vec<(u64, f64)>,
    /// On the validation rows.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub validation: Vec<(u64, f64)>,
}

impl Curve {
    /// Points of a line, at most.
    pub const MOST_POINTS: usize = 32;
}

/// How far training is, in figures alone: what a training Job may answer on its port for progress.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrainingProgress {
    /// Steps that are done.
    pub step: u64,
    /// Steps in all; 0 while that is not known.
    #[serde(default)]
    pub total_steps: u64,
    /// Mean loss of a token in the last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Seconds until all steps are done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_seconds: Option<u64>,
}

/// Last words of the container that checks a trained model, in the gate Job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyResult {
    /// [`VERIFY_CONTRACT`].
    pub schema: String,
    /// `Succeeded` or `Untrusted`.
    pub outcome: Outcome,
    /// Digest of the bytes that are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Their size.
    #[serde(default)]
    pub size_bytes: u64,
    /// What is wrong, and what to do.
    #[serde(default)]
    pub message: String,
}

/// What both models reached on one suite. Scores lie between 0 and 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SuiteScores {
    /// Name of the suite.
    pub name: String,
    /// Items that count: those on which the champion could be judged.
    pub items: u64,
    /// Mean score of the model that serves.
    pub champion_mean: f64,
    /// Mean score of the candidate.
    pub candidate_mean: f64,
    /// Mean over items of (candidate - champion).
    pub difference_mean: f64,
    /// Mean over items of the square of (candidate - champion).
    pub difference_squares_mean: f64,
}

/// Last words of a gate Job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateResult {
    /// [`GATE_CONTRACT`].
    pub schema: String,
    /// The decision whether it could judge, not which model is better: that the operator decides.
    pub outcome: Outcome,
    /// Digest of the model that serves, as it was judged.
    #[serde(default)]
    pub champion_digest: String,
    /// Digest of the candidate, as it was judged.
    #[serde(default)]
    pub candidate_digest: String,
    /// sha256 of `scores.jsonl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores_digest: Option<String>,
    /// The suites.
    #[serde(default)]
    pub suites: Vec<SuiteScores>,
    /// In words, without any text of a prompt.
    #[serde(default)]
    pub message: String,
}
