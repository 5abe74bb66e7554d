//! `DriftPolicy`: what of a model's traffic is watched, against which baseline, and how often being wrong is allowed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::probe_spec::{ProbeSpec, ProbeStatus};
use crate::retraining::{
    CycleStatus, FinishedCycle, GateSpec, HistorySpec, PromotionSpec, ResponsesSpec, RetrainingSpec,
};

/// Most panes that a baseline is learned from.
pub const MAX_BASELINE_PANES: u32 = 2048;

/// Watches the live traffic of an LLMDeployment for drift.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "perennial.dev",
    version = "v1alpha1",
    kind = "DriftPolicy",
    plural = "driftpolicies",
    shortname = "drift",
    category = "perennial",
    namespaced,
    status = "DriftPolicyStatus",
    derive = "PartialEq",
    doc = "Watches the live traffic of an LLMDeployment. It learns what is normal, and says when requests or answers have become different, in what, since when, by how much, and how sure that is. For watching, no prompt leaves the model's pods; what retraining learns from is kept by `spec.capture` of the LLMDeployment.",
    validation = Rule::new("self.metadata.name.size() <= 63")
        .message("metadata.name becomes a label and part of the names of ConfigMaps: use at most 63 characters"),
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.targetRef.name"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Top-Signal", type_ = "string", json_path = ".status.topSignal"),
    printcolumn(name = "Since", type_ = "date", json_path = ".status.phaseSince"),
    printcolumn(name = "Cycle", type_ = "string", json_path = ".status.cycle.id"),
    printcolumn(name = "Cause", type_ = "string", json_path = ".status.cause", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.baseline.learned.seconds <= 2048 * self.observation.paneSeconds")
        .message("a baseline is learned from at most 2048 panes: raise observation.paneSeconds or lower baseline.learned.seconds"),
    validation = Rule::new("self.baseline.learned.seconds >= 20 * self.observation.paneSeconds")
        .message("a baseline needs at least 20 panes: lower observation.paneSeconds or raise baseline.learned.seconds"),
    validation = Rule::new("self.baseline.learned.minSamples >= 40 * self.observation.minSamples")
        .message("a baseline needs at least 40 times observation.minSamples requests: raise baseline.learned.minSamples or lower observation.minSamples"),
    validation = Rule::new("self.observation.maxPaneSeconds >= self.observation.paneSeconds")
        .message("observation.maxPaneSeconds is shorter than observation.paneSeconds"),
    validation = Rule::new("!has(self.promotion.publishTag) || (has(self.retraining) && has(self.retraining.output))")
        .message("promotion.publishTag is a tag in the repository of retraining.output.oci: give that, or remove the tag"),
)]
pub struct DriftPolicySpec {
    /// The LLMDeployment that is watched.
    pub target_ref: TargetRef,
    /// Do nothing about a drift but say so. Watching goes on; a cycle that is under way stops where it is.
    #[serde(default)]
    pub suspend: bool,
    /// How traffic is counted.
    #[serde(default)]
    pub observation: ObservationSpec,
    /// What traffic is compared with.
    #[serde(default)]
    pub baseline: BaselineSpec,
    /// How often the policy may be wrong.
    #[serde(default)]
    pub false_alarms: FalseAlarmsSpec,
    /// What is watched. Default: all types, each with its own default of what matters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".into()]),
        validation = Rule::new("self.all(one, self.filter(other, other.type == one.type).size() == 1)")
            .message("signals has two of the same type: each type is watched once"),
        validation = Rule::new("self.size() == 0 || self.exists(one, one.weight > 0)")
            .message("no signal has a weight above 0: nothing would be watched"),
    )]
    #[schemars(length(max = 16))]
    pub signals: Vec<SignalSpec>,
    /// Seconds for which a change must have mattered before it is called a drift.
    #[serde(default = "default_confirm")]
    #[schemars(range(min = 0, max = 2_592_000))]
    pub confirm_seconds: u32,
    /// Fixed prompts, by which a change of the service is told from a change of the traffic. Absent: nobody can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeSpec>,
    /// What is done about each cause. `Alert`: it is told. `Retrain`: a better model is looked for as well, if `retraining` is given.
    #[serde(default)]
    pub responses: ResponsesSpec,
    /// How a better model is looked for. Absent: the policy watches and says what it sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retraining: Option<RetrainingSpec>,
    /// How a candidate is judged.
    #[serde(default)]
    pub gate: GateSpec,
    /// What becomes of a candidate that passed.
    #[serde(default)]
    pub promotion: PromotionSpec,
    /// Finished cycles.
    #[serde(default)]
    pub history: HistorySpec,
}

/// An LLMDeployment in the same namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// How traffic is counted.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservationSpec {
    /// Seconds of traffic that are counted together. A change of it learns a new baseline.
    #[serde(default = "default_pane")]
    #[schemars(range(min = 1, max = 3600))]
    pub pane_seconds: u32,
    /// Requests below which a pane is weighed together with the next.
    #[serde(default = "default_samples")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_samples: u32,
    /// Seconds after which joined panes that still have too few requests are left out.
    #[serde(default = "default_max_pane")]
    #[schemars(range(min = 1, max = 86_400))]
    pub max_pane_seconds: u32,
}

/// What traffic is compared with.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BaselineSpec {
    /// Learned from the traffic of the time after the policy was made.
    #[serde(default)]
    pub learned: LearnedSpec,
}

/// A baseline that is learned from live traffic, and then frozen. A change of it learns a new one.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LearnedSpec {
    /// Seconds that it is learned from; with a season at least one full cycle.
    #[serde(default = "default_learned")]
    #[schemars(range(min = 60, max = 7_372_800))]
    pub seconds: u32,
    /// Requests that it needs.
    #[serde(default = "default_learned_samples")]
    #[schemars(range(min = 1000, max = 1_000_000_000))]
    pub min_samples: u32,
    /// The rhythm of the traffic that is no drift.
    #[serde(default)]
    pub season: Season,
}

/// A rhythm of traffic, in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Season {
    /// None.
    None,
    /// Hours of the day.
    #[default]
    HourOfDay,
    /// Hours of the week.
    HourOfWeek,
}

/// How often the policy may be wrong, all signals together.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FalseAlarmsSpec {
    /// Allowed chance of any false suspicion in the time, in thousandths.
    #[serde(default = "default_per_mille")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_per_mille: u32,
    /// The time in days.
    #[serde(default = "default_days")]
    #[schemars(range(min = 1, max = 3650))]
    pub per_days: u32,
}

/// One signal that is watched.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.minEffect) || (self.type in ['PromptTokens', 'TokensPerCharacter', 'OutputTokens', 'OutputLogprob', 'OutputEntropy'] ? !has(self.minEffect.increasePercent) && !has(self.minEffect.mmdMilli) : self.type in ['Language', 'TokenDistribution'] ? !has(self.minEffect.shiftMilliSigma) && !has(self.minEffect.increasePercent) && !has(self.minEffect.mmdMilli) : self.type == 'PromptEmbedding' ? !has(self.minEffect.shiftMilliSigma) && !has(self.minEffect.psiMilli) && !has(self.minEffect.increasePercent) : !has(self.minEffect.shiftMilliSigma) && !has(self.minEffect.psiMilli) && !has(self.minEffect.mmdMilli))"
).message("minEffect has a measure that this type does not have: PromptTokens, TokensPerCharacter, OutputTokens, OutputLogprob and OutputEntropy take shiftMilliSigma and psiMilli, Language and TokenDistribution psiMilli, PromptEmbedding mmdMilli, rates increasePercent"))]
pub struct SignalSpec {
    /// Your name for it; it is told in status and events.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
    )]
    pub name: String,
    /// What is watched.
    #[serde(rename = "type")]
    pub kind: SignalType,
    /// Its share of the evidence, against the others' weights. 0: shown nowhere and never weighed.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 0, max = 1000))]
    pub weight: u32,
    /// From what size on its change matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_effect: Option<MinEffectSpec>,
}

/// What can be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum SignalType {
    /// Tokens of prompts.
    PromptTokens,
    /// Tokens per character of prompts: rises when the tokenizer does not know the text well.
    TokensPerCharacter,
    /// Languages of prompts.
    Language,
    /// Words of prompts, by one sampled token each.
    TokenDistribution,
    /// Subjects of prompts, by hashed n-grams of characters.
    PromptEmbedding,
    /// Tokens of answers.
    OutputTokens,
    /// How sure the model is of its answers: the mean log-probability of their tokens. Needs no labels.
    OutputLogprob,
    /// How open the model's choice was at each token of its answers: the mean entropy.
    OutputEntropy,
    /// Answers that were cut off by their limit of tokens.
    FinishReasonLength,
    /// Answers that refuse.
    RefusalRate,
    /// Answers caught in a loop.
    RepetitionRate,
    /// Empty answers.
    EmptyRate,
    /// Answers that a person rated badly: feedback with a score below 0, among all with a score.
    NegativeFeedback,
}

impl SignalType {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::PromptTokens,
        Self::TokensPerCharacter,
        Self::Language,
        Self::TokenDistribution,
        Self::PromptEmbedding,
        Self::OutputTokens,
        Self::OutputLogprob,
        Self::OutputEntropy,
        Self::FinishReasonLength,
        Self::RefusalRate,
        Self::RepetitionRate,
        Self::EmptyRate,
        Self::NegativeFeedback,
    ];
}

/// From what size on a change matters: when one of the given measures says so.
#[derive(KubeSchema, Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "has(self.shiftMilliSigma) || has(self.psiMilli) || has(self.increasePercent) || has(self.mmdMilli)"
).message("minEffect is empty: give a measure or remove it"))]
pub struct MinEffectSpec {
    /// Shift of the mean, in thousandths of the baseline's standard deviation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub shift_milli_sigma: Option<u32>,
    /// Change of shape: population stability index without what chance alone gives it, in thousandths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub psi_milli: Option<u32>,
    /// Rise of a rate, in percent of the baseline's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub increase_percent: Option<u32>,
    /// Change of subjects: maximum mean discrepancy without what chance alone gives it, in thousandths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_000))]
    pub mmd_milli: Option<u32>,
}

/// What was observed of a DriftPolicy.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriftPolicyStatus {
    /// Generation of the spec that this status speaks of; -1 before the operator has seen the object.
    #[serde(default = "unobserved")]
    pub observed_generation: i64,
    /// One word for people; the conditions are the contract.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase_since: Option<Time>,
    /// The signal with the most evidence, while a change is suspected or confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_signal: Option<String>,
    /// Where the change comes from, once it is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What traffic is compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselineStatus>,
    /// What was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observation: Option<ObservationStatus>,
    /// How much speaks against the baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<EvidenceStatus>,
    /// Where each signal stands, most evidence first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[schemars(length(max = 16))]
    pub signals: Vec<SignalStatus>,
    /// What fixed prompts say of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeStatus>,
    /// The cycle that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycle: Option<CycleStatus>,
    /// Finished cycles, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    #[schemars(length(max = 10))]
    pub cycles: Vec<FinishedCycle>,
    /// Until then no cycle begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown_until: Option<Time>,
    /// Cycles in a row that brought nothing better.
    #[serde(default)]
    pub unpromoted_in_a_row: i32,
    /// `Ready`, `Observing`, `BaselineReady`, `Drifted`; with `spec.probe` also `ServingChanged`; with `spec.retraining` also
    /// `RetrainingBlocked` and `CandidateAvailable`; `Stalled` when true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[schemars(length(max = 8))]
    pub conditions: Vec<Condition>,
}

/// Where a policy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// There is no baseline yet.
    Learning,
    /// The traffic is the baseline's, as far as anybody can tell.
    Watching,
    /// It is not; whether that matters is being measured.
    Suspected,
    /// It is not, and it matters.
    Drifted,
    /// What a better model is trained on and judged by is being frozen.
    Preparing,
    /// It is being trained.
    Retraining,
    /// It is being judged.
    Evaluating,
    /// It is better, and waits for a person.
    Proposed,
    /// It is being rolled out.
    RollingOut,
    /// Nothing happens until somebody acts.
    Stalled,
}

/// What traffic is compared with.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BaselineStatus {
    /// How far learning is, in percent.
    #[serde(default)]
    pub learned_percent: i32,
    /// Requests that it was, or is being, learned from.
    #[serde(default)]
    pub samples: i64,
    /// Its beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Time>,
    /// Its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Time>,
    /// Digest of the frozen baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// ConfigMap that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_name: Option<String>,
    /// Signals that are not watched, and why: `InsufficientData`, or `BaselineUnstable`, where its halves contradict each other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[schemars(length(max = 16))]
    pub unarmed: Vec<UnarmedSignal>,
}

/// A signal that is not watched.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnarmedSignal {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// What was seen, and what was left out, since the baseline was begun.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservationStatus {
    /// End of the last pane that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_pane: Option<Time>,
    /// Requests.
    #[serde(default)]
    pub requests: i64,
    /// Panes of replicas that were lost before they were read.
    #[serde(default)]
    pub panes_lost: i64,
    /// Panes of time in which no replica was heard of.
    #[serde(default)]
    pub gaps: i64,
    /// Panes that were left out because of a rollout or a start from no replicas.
    #[serde(default)]
    pub masked: i64,
    /// Joined panes that never got enough requests.
    #[serde(default)]
    pub insufficient: i64,
}

/// How much speaks against the baseline, in thousandths of natural logarithms.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceStatus {
    /// Since when it is weighed: since the baseline was frozen, or the terms of the policy changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Of all signals together.
    #[serde(default)]
    pub log_evidence_milli: i64,
    /// At this much a change is suspected.
    #[serde(default)]
    pub log_threshold_milli: i64,
}

/// Where one signal stands.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignalStatus {
    /// Its name.
    pub name: String,
    /// `Input`, `Output` or `Quality`: what can be done about a change depends on it.
    pub class: String,
    /// Its part of all signals' evidence, in percent.
    #[serde(default)]
    pub share_of_evidence_percent: i32,
    /// It has moved.
    #[serde(default)]
    pub moved: bool,
    /// Its change certainly is as large as `minEffect`.
    #[serde(default)]
    pub matters: bool,
    /// The likely beginning, if it has moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// What has changed and by how much, in words.
    #[serde(default)]
    pub message: String,
}

impl Default for DriftPolicyStatus {
    fn default() -> Self {
        Self {
            observed_generation: unobserved(),
            phase: None,
            phase_since: None,
            top_signal: None,
            cause: None,
            baseline: None,
            observation: None,
            evidence: None,
            signals: Vec::new(),
            probe: None,
            cycle: None,
            cycles: Vec::new(),
            cooldown_until: None,
            unpromoted_in_a_row: 0,
            conditions: Vec::new(),
        }
    }
}

impl Default for ObservationSpec {
    fn default() -> Self {
        Self {
            pane_seconds: default_pane(),
            min_samples: default_samples(),
            max_pane_seconds: default_max_pane(),
        }
    }
}

impl Default for LearnedSpec {
    fn default() -> Self {
        Self {
            seconds: default_learned(),
            min_samples: default_learned_samples(),
            season: Season::default(),
        }
    }
}

impl Default for FalseAlarmsSpec {
    fn default() -> Self {
        Self {
            max_per_mille: default_per_mille(),
            per_days: default_days(),
        }
    }
}

fn default_pane() -> u32 {
    300
}

fn default_samples() -> u32 {
    100
}

fn default_max_pane() -> u32 {
    21_600
}

fn default_learned() -> u32 {
    604_800
}

fn default_learned_samples() -> u32 {
    20_000
}

fn default_per_mille() -> u32 {
    50
}

fn default_days() -> u32 {
    90
}

fn default_weight() -> u32 {
    1
}

fn default_confirm() -> u32 {
    1_800
}

fn unobserved() -> i64 {
    -1
}
