//! What is remembered of the cycles of one policy. All that limits them is counted here, never in memory alone.

use std::collections::{BTreeMap, VecDeque};

use perennial_crds::retrain::EndedCycle;
use perennial_drift::cause::Cause;
use serde::{Deserialize, Serialize};

use super::gate::Verdict;
use super::lineage::Lineage;
use super::report::{Report, Training};

/// Finished cycles that are kept, at least; more while they count towards a limit.
const KEPT: usize = 10;
/// Digests that were not good enough, at most.
const REJECTED: usize = 64;
/// Cycles without data whose ids are kept. Each that begins deletes what they left.
const WITHOUT_DATA: usize = 16;

/// A model, as exactly as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    /// Pinned address, as a serving pod takes it.
    pub uri: String,
    /// Digest of its bytes.
    pub digest: String,
    /// Claim to mount, if it lies on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// Folder of the claim that is mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_path: Option<String>,
    /// Secret to pull it with, if it lies in a registry and not the target's own is to be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secret: Option<String>,
}

/// The Jobs of a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Freezes data.
    Prepare,
    /// Trains.
    Retrain,
    /// Judges.
    Gate,
    /// Writes the tag of the better model.
    Publish,
}

impl Kind {
    /// All of them, in the order of a cycle.
    pub const ALL: [Self; 4] = [Self::Prepare, Self::Retrain, Self::Gate, Self::Publish];

    /// The word in names of Jobs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Retrain => "retrain",
            Self::Gate => "gate",
            Self::Publish => "publish",
        }
    }

    /// Whether it works with models, so that users may bring their own, give it room, and let it queue.
    #[must_use]
    pub fn is_of_users(self) -> bool {
        matches!(self, Self::Retrain | Self::Gate)
    }
}

/// What is known of a Job that was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobRecord {
    /// Its UID: a Job of the same name with another one is not it.
    pub uid: String,
    /// When it ended, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<i64>,
}

/// How far a cycle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Data is being frozen.
    Preparing,
    /// A model is being trained.
    Retraining,
    /// It is being judged.
    Evaluating,
    /// It passed and waits for a person.
    Proposed,
    /// It is being rolled out.
    RollingOut,
    /// It serves, and its tag is being written.
    Publishing,
}

impl Stage {
    /// The Job that is at work.
    #[must_use]
    pub fn job(self) -> Option<Kind> {
        match self {
            Self::Preparing => Some(Kind::Prepare),
            Self::Retraining => Some(Kind::Retrain),
            Self::Evaluating => Some(Kind::Gate),
            Self::Publishing => Some(Kind::Publish),
            Self::Proposed | Self::RollingOut => None,
        }
    }
}

/// A cycle that is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cycle {
    /// Its id, unique among the policy's.
    pub id: String,
    /// UID of the LLMDeployment that it is for.
    #[serde(default)]
    pub target: String,
    /// Why it runs.
    pub cause: Cause,
    /// When it began, seconds since 1970.
    pub started: i64,
    /// Since when traffic is different, seconds since 1970.
    pub drifted_since: i64,
    /// Beginning of the window of its data, seconds since 1970.
    pub from: i64,
    /// What drifted, in words and figures; no text of a prompt.
    pub report: String,
    /// What may be deleted of earlier cycles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leftovers: Vec<EndedCycle>,
    /// The model of the spec, from which a better one is trained.
    pub base: Model,
    /// The model that served when it began, against which the better one is judged.
    pub champion: Model,
    /// How far it is.
    pub stage: Stage,
    /// Jobs that were seen.
    pub jobs: BTreeMap<Kind, JobRecord>,
    /// Digest of the frozen data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// Records in it.
    #[serde(default)]
    pub records: u64,
    /// Digest of the items of all suites.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suites: Option<String>,
    /// What the training told of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Training>,
    /// The model that came out, under the address that serving pods know it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Model>,
    /// Repository that the model goes to, if it is not the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// What came of writing the tag: nothing yet, done, or why it could not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Result<(), String>>,
    /// What the gate said.
    #[serde(default)]
    pub verdicts: Vec<Verdict>,
    /// Since when the target leaves the candidate that was stored with it alone, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unheeded_since: Option<i64>,
    /// Seconds of GPUs that were used.
    #[serde(default)]
    pub gpu_seconds: i64,
    /// The GPU seconds that it may use: reserved from the start, so that no restart forgets them.
    #[serde(default)]
    pub reserved_gpu_seconds: i64,
}

/// How a cycle ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// The candidate serves.
    Promoted,
    /// The candidate is not better.
    Rejected,
    /// The candidate was better and did not come up.
    RolledBack,
    /// Something broke.
    Failed,
    /// The model in the spec changed meanwhile.
    Superseded,
    /// There was no reason for it any more, or it was called off.
    Withdrawn,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Promoted,
        Self::Rejected,
        Self::RolledBack,
        Self::Failed,
        Self::Superseded,
        Self::Withdrawn,
    ];

    /// Whether it speaks against trying again soon.
    #[must_use]
    pub fn brought_nothing(self) -> bool {
        matches!(self, Self::Rejected | Self::RolledBack | Self::Failed)
    }
}

/// A cycle that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finished {
    /// Its id.
    pub id: String,
    /// Why it ran.
    pub cause: Cause,
    /// How it ended.
    pub outcome: Outcome,
    /// One word for why.
    pub reason: String,
    /// Why, in words.
    pub message: String,
    /// When it began, seconds since 1970.
    pub started: i64,
    /// When it ended, seconds since 1970.
    pub ended: i64,
    /// Digest of the model that came out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<String>,
    /// It lies in a registry, and what is on the workspace is a copy.
    #[serde(default)]
    pub in_registry: bool,
    /// What the gate said.
    #[serde(default)]
    pub verdicts: Vec<Verdict>,
    /// Seconds of GPUs that were used.
    #[serde(default)]
    pub gpu_seconds: i64,
}

/// A cycle that is not begun again at once, because there was too little data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wait {
    /// Until then, seconds since 1970.
    pub until: i64,
    /// Times in a row that there was too little.
    #[serde(default)]
    pub in_a_row: u32,
    /// What was missing, in words.
    pub message: String,
}

/// The question to the registry whether a model was learned before this cluster was built.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restore {
    /// How often it was asked.
    pub attempts: u32,
    /// It is being asked at this moment.
    #[serde(default)]
    pub asking: bool,
    /// When it was asked last, seconds since 1970.
    #[serde(default)]
    pub asked: i64,
    /// When it is asked next at the earliest, if the last answer was none, seconds since 1970.
    #[serde(default)]
    pub after: i64,
    /// Since when the target leaves what was found and stored with it alone, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unheeded_since: Option<i64>,
    /// The learned model that was found, until it is stored with the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Box<Lineage>>,
    /// What came of it, once it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}

/// Everything of one policy's cycles.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// Cycles begun so far: no id comes twice.
    pub begun: u64,
    /// When the first began, seconds since 1970: a part of every id, so that a policy whose ledger was lost does not find the
    /// data of its first cycle under the name of another.
    #[serde(default)]
    pub first: i64,
    /// The one that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycle: Option<Cycle>,
    /// Those that ended, oldest first.
    #[serde(default)]
    pub finished: VecDeque<Finished>,
    /// Reports of those that ended last, until they are written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reports: Vec<Report>,
    /// Until then none begins, seconds since 1970.
    #[serde(default)]
    pub cooldown_until: i64,
    /// Cycles in a row that brought nothing better.
    #[serde(default)]
    pub unpromoted: u32,
    /// Generation of the spec at which too many brought nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stalled_at: Option<i64>,
    /// Whether a model was learned before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restore>,
    /// Too little data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Wait>,
    /// Ids of the last cycles that ended so: some may have frozen a part.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub without_data: VecDeque<String>,
    /// Digests that were not good enough: they are not tried again.
    #[serde(default)]
    pub rejected: VecDeque<String>,
    /// Learned models that must go, with the reason: withdrawn until they are gone.
    #[serde(default)]
    pub withdrawn: BTreeMap<String, String>,
}

impl Ledger {
    /// The learned model that is being rolled out.
    #[must_use]
    pub fn introduces(&self) -> Option<&Model> {
        let cycle = self.cycle.as_ref().filter(|cycle| cycle.stage == Stage::RollingOut);
        let candidate = cycle.and_then(|cycle| cycle.candidate.as_ref());
        let found = || Some(&self.restore.as_ref()?.found.as_ref()?.model);
        candidate.or_else(found)
    }

    /// Remembers a cycle that ended because there was too little data.
    pub fn went_without_data(&mut self, id: &str) {
        self.without_data.push_back(id.to_owned());
        while self.without_data.len() > WITHOUT_DATA {
            self.without_data.pop_front();
        }
    }

    /// Adds a finished cycle and lets go of those that count no more.
    pub fn finish(&mut self, finished: Finished, counts_until_days: u32) {
        let horizon = finished.ended - i64::from(counts_until_days) * 86_400;
        self.finished.push_back(finished);
        while self.finished.len() > KEPT && self.finished.front().is_some_and(|old| old.started < horizon) {
            self.finished.pop_front();
        }
    }

    /// Remembers a digest that was not good enough.
    pub fn reject(&mut self, digest: &str) {
        if !self.rejected.iter().any(|known| known == digest) {
            self.rejected.push_back(digest.to_owned());
        }
        while self.rejected.len() > REJECTED {
            self.rejected.pop_front();
        }
    }

    /// Cycles begun since then. One that found too little data is none.
    #[must_use]
    pub fn cycles_since(&self, since: i64) -> usize {
        self.finished.iter().filter(|cycle| cycle.started > since).count()
    }

    /// GPU seconds of cycles begun since then.
    #[must_use]
    pub fn gpu_seconds_since(&self, since: i64) -> i64 {
        let recent = self.finished.iter().filter(|cycle| cycle.started > since);
        recent.map(|cycle| cycle.gpu_seconds).sum()
    }
}
