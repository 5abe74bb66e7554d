//! What is remembered of the probes of one policy, and what a run changes in it. Pure.

use perennial_drift::cause::Probes;
use perennial_drift::policy::Policy;
use perennial_drift::probe::{Answer, REFERENCE_RUNS, Run, Verdict, Watch};
use serde::{Deserialize, Serialize};

/// A run that was begun and has not come to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asking {
    /// Its number: no name of a Job comes twice.
    pub number: u64,
    /// When it was begun, seconds since 1970.
    pub begun: i64,
    /// The revision that it asks.
    pub revision: String,
}

/// A run that could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// When, seconds since 1970.
    pub at: i64,
    /// Why, in words.
    pub message: String,
    /// Such runs in a row.
    pub in_a_row: u32,
}

/// What is known of one revision and one set of prompts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Known {
    /// The revision.
    pub revision: String,
    /// Digest of the prompts.
    pub set: String,
    /// Prompts.
    pub prompts: usize,
    /// Runs that were answered.
    pub runs: u64,
    /// When the last of them began, seconds since 1970.
    pub last: i64,
    /// Answers of the first runs, until they make a reference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first: Vec<Vec<u32>>,
    /// The reference and what speaks against it, once it is learned. Stored beside the rest.
    #[serde(skip)]
    pub watch: Option<Watch>,
}

/// All that is remembered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// Number of the last run: no name of a Job comes twice, even if this record is lost.
    pub last_number: u64,
    /// When the last was begun, seconds since 1970.
    #[serde(default)]
    pub last_begun: i64,
    /// The one that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asking: Option<Asking>,
    /// The last one, if it could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What the answers say.
    #[serde(default)]
    pub known: Known,
}

/// What the probes say of a revision at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// There are none, or they are still learning.
    Nothing,
    /// They are being asked; until then nothing is said of a cause.
    Awaited,
    /// Answered as ever.
    Same,
    /// Answered otherwise.
    Changed,
}

impl Said {
    /// In the words of the drift core.
    #[must_use]
    pub fn probes(self) -> Probes {
        match self {
            Self::Nothing | Self::Awaited => Probes::Unknown,
            Self::Same => Probes::Same,
            Self::Changed => Probes::Changed,
        }
    }
}

/// What a run of answers says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// Digest of the prompts.
    pub set: String,
    /// A fingerprint for each.
    pub fingerprints: Vec<u32>,
}

impl Memory {
    /// What the probes say of this revision. `since`: when a drift was confirmed, seconds since 1970; the answer must be younger.
    #[must_use]
    pub fn said(&self, revision: Option<&str>, since: Option<i64>) -> Said {
        let known = &self.known;
        let Some(watch) = known
            .watch
            .as_ref()
            .filter(|_| revision == Some(known.revision.as_str()))
        else {
            return Said::Nothing;
        };
        if self.verdict().is_some_and(|verdict| verdict.probes == Probes::Changed) {
            return Said::Changed;
        }
        match since {
            Some(since) if known.last < since || watch.is_unsure() => Said::Awaited,
            _ => Said::Same,
        }
    }

    /// What the last run said, if there is a reference.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        self.known.watch.as_ref()?.verdict()
    }

    /// Takes the answers of a run that was begun then.
    pub fn take(&mut self, asked: &Asking, answers: Answers, policy: &Policy) {
        self.failure = None;
        let known = &mut self.known;
        if known.revision != asked.revision || known.set != answers.set || known.prompts != answers.fingerprints.len() {
            *known = Known {
                revision: asked.revision.clone(),
                set: answers.set,
                prompts: answers.fingerprints.len(),
                ..Known::default()
            };
        }
        known.runs += 1;
        known.last = asked.begun;
        match &mut known.watch {
            None => {
                known.first.push(answers.fingerprints);
                known.learn();
            }
            Some(watch) => {
                if let Err(error) = watch.take(&run(&answers.fingerprints), asked.begun, policy) {
                    // Another number of prompts, which the digest of the set has ruled out.
                    tracing::error!(%error, "A run of probes could not be weighed.");
                }
            }
        }
    }

    /// Notes that a run could not be asked.
    pub fn fail(&mut self, now: i64, message: String) {
        let before = self.failure.as_ref().map_or(0, |failure| failure.in_a_row);
        self.failure = Some(Failure {
            at: now,
            message,
            in_a_row: before + 1,
        });
    }
}

impl Known {
    fn learn(&mut self) {
        if self.first.len() < REFERENCE_RUNS {
            return;
        }
        let runs: Vec<Run> = self.first.iter().map(|answers| run(answers)).collect();
        self.watch = Watch::learn(&runs).ok();
        self.first.clear();
    }
}

/// Each answer is one token to the drift core: its fingerprint.
fn run(fingerprints: &[u32]) -> Run {
    let answer = |fingerprint: &u32| Answer {
        tokens: vec![*fingerprint],
        logprobs: Vec::new(),
    };
    fingerprints.iter().map(answer).collect()
}
