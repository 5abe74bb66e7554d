//! What a DriftPolicy does about a drift: retrain, judge, roll out. Spec and status of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::llm_deployment::{ResourcesSpec, SecretRef};
use crate::retrain::Include;

/// What is done about each cause of a drift.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResponsesSpec {
    /// When what users ask has changed.
    #[serde(default)]
    pub input_drift: Response,
    /// When answers have changed although neither what users ask nor the service has; only probes can tell.
    #[serde(default = "alert")]
    pub output_shift: Response,
    /// When answers are rated worse although what users ask has not changed, nor the service; only probes can tell.
    #[serde(default)]
    pub quality_drop: Response,
}

/// What is done about a drift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Response {
    /// Say so.
    Alert,
    /// Say so, and retrain if `spec.retraining` is given.
    #[default]
    Retrain,
}

/// How a better model is looked for. Needs `spec.capture.level: Payload` of the target.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetrainingSpec {
    /// Volume on which the Jobs of a cycle hand data to each other, and from which a learned model is served unless `output` says
    /// otherwise.
    pub workspace: WorkspaceSpec,
    /// A suspended CronJob whose Job template trains in place of the default trainer, by the contract `retrain/v1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_template_ref: Option<JobTemplateRef>,
    /// CPU and memory of the default Jobs. Default: none are requested or limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesSpec>,
    /// Further environment of the default trainer, such as `PERENNIAL_TRAIN_EPOCHS`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[schemars(length(max = 32))]
    pub settings: Vec<Setting>,
    /// A local queue of Kueue for the Jobs that train and judge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub queue_name: Option<String>,
    /// What is trained on.
    #[serde(default)]
    pub data: DataSpec,
    /// Where a learned model goes and is served from. Absent: the workspace volume, which all nodes must then reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputSpec>,
    /// Seconds that a training Job may run, from the start of its pod; waiting for room does not count.
    #[serde(default = "default_deadline")]
    #[schemars(range(min = 10, max = 2_592_000))]
    pub active_deadline_seconds: i64,
    /// How often a better model is looked for at most.
    #[serde(default)]
    pub limits: LimitsSpec,
}

/// A volume.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceSpec {
    /// A claim in the same namespace.
    pub persistent_volume_claim: WorkspaceClaim,
}

/// A claim that Jobs write to.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceClaim {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
}

/// Where a learned model goes.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputSpec {
    /// A repository of an OCI registry.
    pub oci: OCIOutput,
}

/// A repository to which learned models are pushed, under the tag `cycle-ID`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OCIOutput {
    /// Its name without a tag, such as `registry.example.com/models/support`.
    #[schemars(
        length(min = 3, max = 255),
        regex(
            pattern = r"^(localhost|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+(:[0-9]{1,5})?|[A-Za-z0-9-]+:[0-9]{1,5})(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$"
        )
    )]
    pub repository: String,
    /// Secret of type `kubernetes.io/dockerconfigjson` that may push. It is mounted as a file into the Jobs that push.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push_secret_ref: Option<SecretRef>,
    /// Secret of that type that may pull, for pods that serve a learned model and Jobs that read it. Absent: that of
    /// `spec.model.source.oci` of the target, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secret_ref: Option<SecretRef>,
}

/// Where a Job template comes from.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobTemplateRef {
    /// Its kind.
    #[serde(default)]
    pub kind: JobTemplateKind,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Kinds that hold a Job template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum JobTemplateKind {
    /// A CronJob with `suspend: true`: the API server has checked its template.
    #[default]
    CronJob,
}

/// An environment variable.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    /// Its name.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^PERENNIAL_TRAIN_[A-Z0-9_]+$"))]
    pub name: String,
    /// Its value.
    #[schemars(length(max = 1024))]
    pub value: String,
}

/// What is trained on.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataSpec {
    /// Seconds before the cycle from which records are taken.
    #[serde(default = "default_window")]
    #[schemars(range(min = 60, max = 31_536_000))]
    pub window_seconds: i64,
    /// Fewest records that are worth training on.
    #[serde(default = "default_min_records")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_records: u32,
    /// Most records that are trained on.
    #[serde(default = "default_max_records")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_records: u32,
    /// Most of them from one requester, in percent.
    #[serde(default = "default_per_requester")]
    #[schemars(range(min = 1, max = 100))]
    pub max_percent_per_requester: u32,
    /// Kinds of records. `CorrectedOutputs`: answers as somebody corrected them. `RatedGood`: the model's own answers that somebody
    /// found good; others are never trained on. `UserPrompts`: what users asked, as text.
    #[serde(default = "default_include")]
    #[schemars(length(min = 1, max = 3))]
    pub include: Vec<Include>,
}

/// How often a better model is looked for at most.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitsSpec {
    /// Seconds of rest after a cycle.
    #[serde(default = "default_cooldown")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub cooldown_seconds: i64,
    /// Cycles in a time.
    #[serde(default)]
    pub max_cycles: CyclesSpec,
    /// GPU seconds in a time. Absent: as many as `maxCycles` take.
    #[serde(rename = "maxGPUSeconds", default, skip_serializing_if = "Option::is_none")]
    pub max_gpu_seconds: Option<GPUSecondsSpec>,
    /// Rest after a cycle that brought nothing better.
    #[serde(default)]
    pub backoff: BackoffSpec,
    /// After so many cycles in a row that brought nothing better, nothing more is tried until somebody changes the policy.
    #[serde(default = "default_stop_after")]
    #[schemars(range(min = 1, max = 100))]
    pub stop_after_unpromoted: u32,
}

/// Cycles in a time.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CyclesSpec {
    /// How many.
    #[schemars(range(min = 1, max = 1000))]
    pub count: u32,
    /// In how many days.
    #[schemars(range(min = 1, max = 365))]
    pub per_days: u32,
}

/// GPU seconds in a time.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GPUSecondsSpec {
    /// How many.
    #[schemars(range(min = 1, max = 1_000_000_000_000_i64))]
    pub count: i64,
    /// In how many days.
    #[schemars(range(min = 1, max = 365))]
    pub per_days: u32,
}

/// Rest after a cycle that brought nothing better; it doubles with each.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackoffSpec {
    /// Seconds after the first.
    #[serde(default = "default_backoff")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub initial_seconds: i64,
    /// Seconds at most.
    #[serde(default = "default_max_backoff")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub max_seconds: i64,
}

/// How a candidate is judged beside the model that serves.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GateSpec {
    /// A suspended CronJob whose Job template judges in place of the default one, by the contract `gate/v1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_template_ref: Option<JobTemplateRef>,
    /// What is judged; a candidate must pass all of it. Default: better by 10 thousandths on held-out recent records.
    #[serde(default = "default_suites")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[schemars(length(min = 1, max = 8))]
    pub suites: Vec<SuiteSpec>,
    /// How sure a verdict must be, in percent.
    #[serde(default = "default_confidence")]
    #[schemars(range(min = 80, max = 99))]
    pub confidence_percent: u32,
    /// Fewest items of a suite.
    #[serde(default = "default_min_items")]
    #[schemars(range(min = 2, max = 100_000))]
    pub min_items: u32,
}

/// One suite.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "self.purpose == 'NoRegression' ? !has(self.minGainPerMille) && !has(self.minScorePerMille) : self.purpose == 'Improvement' ? !has(self.marginPerMille) && !has(self.minScorePerMille) : !has(self.marginPerMille) && !has(self.minGainPerMille)"
).message("a suite has the figure of another purpose: NoRegression takes marginPerMille, Improvement minGainPerMille, Absolute minScorePerMille"))]
pub struct SuiteSpec {
    /// Its name.
    #[schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// What it is for. `NoRegression`: the candidate must not be worse. `Improvement`: it must be better. `Absolute`: it must reach a
    /// score.
    pub purpose: Purpose,
    /// ConfigMap with the items, one JSON object a line, in each of its keys. They are never trained on. Absent: recent
    /// records, held out before training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub config_map_name: Option<String>,
    /// `NoRegression`: how much worse the candidate may be, in thousandths of the score. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub margin_per_mille: Option<u32>,
    /// `Improvement`: how much better it must be. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub min_gain_per_mille: Option<u32>,
    /// `Absolute`: what it must reach. Default: 990.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub min_score_per_mille: Option<u32>,
}

/// What a suite is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Purpose {
    /// The candidate must not be worse.
    NoRegression,
    /// The candidate must be better.
    Improvement,
    /// The candidate must reach a score.
    Absolute,
}

/// What becomes of a candidate that passed.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PromotionSpec {
    /// Who decides. `Propose`: you; it is named in `status.cycle.candidate`, and nothing else happens until you put it into `spec.model`
    /// of the LLMDeployment. `Approve`: you; it is rolled out when its digest is in `approvedDigests`. `Automatic`: the gate; it is rolled
    /// out when it has passed.
    #[serde(default)]
    pub mode: PromotionMode,
    /// With `Approve`: digests that may be rolled out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 71), regex(pattern = r"^sha256:[0-9a-f]{64}$")))]
    pub approved_digests: Vec<String>,
    /// Tag that the better model gets in the repository of `retraining.output.oci`: with `Propose` once it passed the gate, for those
    /// who watch tags; else once it serves. A policy of a cluster that was built again finds its model by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"))]
    pub publish_tag: Option<String>,
}

/// Who decides on a candidate that passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PromotionMode {
    /// You: it is named in the status, and served when you put it into the LLMDeployment.
    #[default]
    Propose,
    /// You: it is rolled out when its digest is in `approvedDigests`.
    Approve,
    /// The gate: it is rolled out.
    Automatic,
}

/// Finished cycles that are told.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistorySpec {
    /// How many are told in the status.
    #[serde(default = "default_history")]
    #[schemars(range(min = 0, max = 10))]
    pub cycles: u32,
}

/// A cycle that is under way.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CycleStatus {
    /// Its id; the names of its Jobs end with it.
    pub id: String,
    /// Why it runs.
    #[serde(default)]
    pub cause: String,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// The Job that is at work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_name: Option<String>,
    /// What is happening, in words.
    #[serde(default)]
    pub message: String,
    /// Digest of what is trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_digest: Option<String>,
    /// Records that are trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<i64>,
    /// The model that came out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<CandidateStatus>,
    /// What the gate says of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["suite".into()]))]
    #[schemars(length(max = 8))]
    pub gate: Vec<SuiteStatus>,
}

/// A model that a cycle made.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CandidateStatus {
    /// Digest of its bytes.
    pub digest: String,
    /// Digest of what it was trained from.
    #[serde(default)]
    pub base_digest: String,
    /// Address in a registry: what `spec.model.source.oci.reference` would be, after `oci://`. Absent: it lies on a claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Claim that holds it.
    #[serde(default)]
    pub claim_name: String,
    /// Its path on the claim: what `spec.model.source.persistentVolumeClaim.path` would be.
    #[serde(default)]
    pub path: String,
}

/// What the gate says of one suite.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SuiteStatus {
    /// Its name.
    pub suite: String,
    /// Items that count: on which the model that serves could be judged. One that only the candidate fails counts 0 for it.
    #[serde(default)]
    pub items: i64,
    /// Mean score of the model that serves, in thousandths.
    #[serde(default)]
    pub champion_per_mille: i64,
    /// Mean score of the candidate, in thousandths.
    #[serde(default)]
    pub candidate_per_mille: i64,
    /// Least difference that is certain, in thousandths.
    #[serde(default)]
    pub lower_per_mille: i64,
    /// Whether it is enough.
    #[serde(default)]
    pub passed: bool,
}

/// A cycle that ended.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FinishedCycle {
    /// Its id.
    pub id: String,
    /// Why it ran.
    pub cause: String,
    /// How it ended: `Promoted`, `Rejected`, `RolledBack`, `Failed`, `Superseded` or `Withdrawn`.
    pub outcome: String,
    /// Why it ended so.
    pub message: String,
    /// When it began.
    pub started: Time,
    /// When it ended.
    pub ended: Time,
    /// Digest of the model that came out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate_digest: Option<String>,
    /// Seconds of GPUs that it took.
    #[serde(default)]
    pub gpu_seconds: i64,
}

impl Default for ResponsesSpec {
    fn default() -> Self {
        Self {
            input_drift: Response::default(),
            output_shift: alert(),
            quality_drop: Response::default(),
        }
    }
}

impl Default for DataSpec {
    fn default() -> Self {
        Self {
            window_seconds: default_window(),
            min_records: default_min_records(),
            max_records: default_max_records(),
            max_percent_per_requester: default_per_requester(),
            include: default_include(),
        }
    }
}

impl Default for LimitsSpec {
    fn default() -> Self {
        Self {
            cooldown_seconds: default_cooldown(),
            max_cycles: CyclesSpec::default(),
            max_gpu_seconds: None,
            backoff: BackoffSpec::default(),
            stop_after_unpromoted: default_stop_after(),
        }
    }
}

impl Default for CyclesSpec {
    fn default() -> Self {
        Self { count: 2, per_days: 30 }
    }
}

impl Default for BackoffSpec {
    fn default() -> Self {
        Self {
            initial_seconds: default_backoff(),
            max_seconds: default_max_backoff(),
        }
    }
}

impl Default for GateSpec {
    fn default() -> Self {
        Self {
            job_template_ref: None,
            suites: default_suites(),
            confidence_percent: default_confidence(),
            min_items: default_min_items(),
        }
    }
}

impl Default for HistorySpec {
    fn default() -> Self {
        Self {
            cycles: default_history(),
        }
    }
}

fn alert() -> Response {
    Response::Alert
}

fn default_suites() -> Vec<SuiteSpec> {
    vec![SuiteSpec {
        name: "recent".to_owned(),
        purpose: Purpose::Improvement,
        config_map_name: None,
        margin_per_mille: None,
        min_gain_per_mille: None,
        min_score_per_mille: None,
    }]
}

fn default_deadline() -> i64 {
    43_200
}

fn default_window() -> i64 {
    1_209_600
}

fn default_min_records() -> u32 {
    200
}

fn default_max_records() -> u32 {
    50_000
}

fn default_per_requester() -> u32 {
    5
}

fn default_include() -> Vec<Include> {
    vec![Include::CorrectedOutputs, Include::RatedGood]
}

fn default_cooldown() -> i64 {
    604_800
}

fn default_backoff() -> i64 {
    86_400
}

fn default_max_backoff() -> i64 {
    2_592_000
}

fn default_stop_after() -> u32 {
    3
}

fn default_confidence() -> u32 {
    95
}

fn default_min_items() -> u32 {
    500
}

fn default_history() -> u32 {
    10
}
