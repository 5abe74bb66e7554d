//! What the last words of a Job are worth. Nothing that it claims is believed before it was compared with what it was told. Pure.

use std::collections::{BTreeMap, VecDeque};

use perennial_crds::publish::{RESTORE_CONTRACT, RestoreResult};
use perennial_crds::retrain::{
    Curve, GATE_CONTRACT, GateResult, MAX_MESSAGE_BYTES, ModelKind, Outcome as Said, PREPARE_CONTRACT, PrepareResult,
    RETRAIN_CONTRACT, RetrainResult, VERIFY_CONTRACT, VerifyResult,
};
use perennial_crds::retraining::GateSpec;
use perennial_crds::serving::CLAIM_DIRECTORY;
use serde::de::DeserializeOwned;

use super::gate::{Unjudged, Verdict, judge};
use super::ledger::{Cycle, Outcome};
use super::lineage::Lineage;
use super::report::Training;
use super::step::End;

/// Bytes of a Job's own message that are told on.
const TOLD: usize = 300;
/// Figures of a training that are told on, and their length in bytes.
const FIGURES: usize = 24;
const FIGURE: usize = 24;

/// What came of a Job.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Data is frozen.
    Prepared {
        /// Digest of the manifest.
        manifest: String,
        /// Digest of the suites' items.
        suites: String,
        /// Records to train on.
        records: u64,
    },
    /// A model was trained.
    Trained {
        /// Its address, as serving pods will know it.
        uri: String,
        /// Its digest.
        digest: String,
        /// What the Job tells of its training.
        training: Training,
    },
    /// It was judged.
    Judged(Vec<Verdict>),
    /// There is too little data.
    NoData(String),
    /// The cycle is over.
    Over(Outcome, &'static str, String),
}

/// The address of the workspace under which a Job that trains may name its model.
#[must_use]
pub fn volume_uri() -> String {
    format!("file://{CLAIM_DIRECTORY}")
}

/// The address under which the Job that trains may name its model.
#[must_use]
pub fn output_uri(cycle: &Cycle) -> String {
    cycle
        .repository
        .as_ref()
        .map_or_else(volume_uri, |repository| format!("oci://{repository}"))
}

/// The last words of the Job that prepares.
#[must_use]
pub fn prepared(end: &End, gate: &GateSpec) -> Answer {
    if !end.succeeded {
        return failed("prepare", end);
    }
    let said: PrepareResult = match words(end.message.as_deref(), PREPARE_CONTRACT, |said: &PrepareResult| {
        &said.schema
    }) {
        Ok(said) => said,
        Err(why) => return untrusted(why),
    };
    match said.outcome {
        Said::Succeeded => {}
        Said::DataRejected => return Answer::NoData(short(&said.message, "too few records may be trained on")),
        other => return untrusted(format!("the prepare Job's outcome is {other:?}")),
    }
    for suite in &gate.suites {
        let items = said.items.get(&suite.name).copied().unwrap_or(0);
        if items < u64::from(gate.min_items) {
            return Answer::NoData(format!(
                "the suite {} has {items} items, gate.minItems asks for {}",
                suite.name, gate.min_items
            ));
        }
    }
    let (Some(manifest), Some(suites)) = (
        said.manifest_digest.filter(|digest| is_digest(digest)),
        said.suites_digest.filter(|digest| is_digest(digest)),
    ) else {
        return untrusted("the prepare Job names no digest of what it froze".to_owned());
    };
    Answer::Prepared {
        manifest,
        suites,
        records: said.records,
    }
}

/// The last words of the Job that trains.
#[must_use]
pub fn trained(end: &End, cycle: &Cycle, rejected: &VecDeque<String>) -> Answer {
    if !end.succeeded {
        return failed("retrain", end);
    }
    let said: RetrainResult = match words(end.message.as_deref(), RETRAIN_CONTRACT, |said: &RetrainResult| {
        &said.schema
    }) {
        Ok(said) => said,
        Err(why) => return untrusted(why),
    };
    match said.outcome {
        Said::Succeeded => {}
        Said::NoImprovement => {
            let message = short(&said.message, "training found nothing better");
            return Answer::Over(Outcome::Rejected, "NoImprovement", message);
        }
        Said::DataRejected => {
            let message = short(&said.message, "the training Job cannot train on the data");
            return Answer::Over(Outcome::Failed, "DataRejected", message);
        }
        other => {
            return untrusted(format!(
                "the training Job's outcome is {other:?} although it ended well"
            ));
        }
    }
    let Some(model) = said.model else {
        return untrusted("the training Job names no model".to_owned());
    };
    if said.data.as_ref().map(|data| &data.manifest_digest) != cycle.manifest.as_ref() {
        return untrusted("the training Job used other data than was frozen for it".to_owned());
    }
    if model.base_digest != cycle.base.digest {
        return untrusted("the training Job began with another model than it was told".to_owned());
    }
    if !is_digest(&model.digest) {
        return untrusted("the training Job names no sha256 digest of its model".to_owned());
    }
    let output = output_uri(cycle);
    if !lies_in(&model.uri, &output, &model.digest) {
        return untrusted(format!("the training Job's model does not lie below {output}"));
    }
    if model.kind != ModelKind::Merged {
        return Answer::Over(
            Outcome::Failed,
            "AdapterNotServed",
            "the training Job made an adapter, and only merged models can be served: let it merge its result"
                .to_owned(),
        );
    }
    if model.digest == cycle.champion.digest || model.digest == cycle.base.digest {
        return Answer::Over(
            Outcome::Rejected,
            "NoImprovement",
            "the training Job gave back the model that it was given".to_owned(),
        );
    }
    if rejected.contains(&model.digest) {
        return Answer::Over(
            Outcome::Rejected,
            "KnownCandidate",
            "the training Job made a model again that was not good enough before".to_owned(),
        );
    }
    Answer::Trained {
        uri: model.uri,
        digest: model.digest,
        training: Training {
            figures: figures(said.metrics),
            curve: said.curve.filter(drawable).unwrap_or_default(),
        },
    }
}

/// Whether a model lies where it may: below the workspace, or in the repository under its digest.
fn lies_in(uri: &str, output: &str, digest: &str) -> bool {
    if output.starts_with("oci://") {
        return uri.strip_prefix(output).and_then(|rest| rest.strip_prefix('@')) == Some(digest);
    }
    let below = uri.strip_prefix(output).and_then(|rest| rest.strip_prefix('/'));
    let clean = |part: &str| !part.is_empty() && part != ".." && part != ".";
    below.is_some_and(|rest| rest.split('/').all(clean))
}

/// What came of writing the tag.
///
/// # Errors
/// Why it is not written, in words.
pub fn published(end: &End) -> Result<(), String> {
    if end.succeeded {
        return Ok(());
    }
    let why = reason(end.message.as_deref()).unwrap_or_else(|| short(&end.why, "see its pod's log"));
    Err(why)
}

/// What the registry's tag names, as far as it can be believed: a model of this repository that was learned from this base. Nothing
/// if there is none.
///
/// # Errors
/// In words. `true` if another try may go better.
pub fn restored(end: &End, repository: &str, base_digest: &str) -> Result<Option<Lineage>, (bool, String)> {
    let said = words(end.message.as_deref(), RESTORE_CONTRACT, |said: &RestoreResult| {
        &said.schema
    });
    let said = match said {
        Ok(said) if said.outcome == Said::Untrusted => return Err((false, short(&said.message, "it is no model"))),
        Ok(said) if end.succeeded => said,
        _ => {
            let why = reason(end.message.as_deref()).unwrap_or_else(|| short(&end.why, "see its pod's log"));
            return Err((true, why));
        }
    };
    let Some(lineage) = said.lineage else {
        return Ok(None);
    };
    let lineage: Lineage = serde_json::from_value(lineage).map_err(|_| {
        (
            false,
            "the tag's lineage cannot be read: was it written by a newer version?".to_owned(),
        )
    })?;
    let model = &lineage.model;
    let known = is_digest(&model.digest) && said.digest.as_deref() == Some(model.digest.as_str());
    if !known || !lies_in(&model.uri, &format!("oci://{repository}"), &model.digest) {
        return Err((
            false,
            "the tag's lineage is of another model than the tag names".to_owned(),
        ));
    }
    if lineage.base.digest != base_digest {
        return Err((
            false,
            "the tag's model was trained from another base than the spec asks for".to_owned(),
        ));
    }
    Ok(Some(lineage))
}

/// Figures that are short and look like figures or one word: it is for people, and nothing else may get into a report.
fn figures(metrics: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let plain = |text: &str| {
        let letters = text.len() <= FIGURE
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".+-_%".contains(&byte));
        letters && !text.is_empty()
    };
    let found = metrics.into_iter().filter(|(name, value)| plain(name) && plain(value));
    found.take(FIGURES).collect()
}

fn drawable(curve: &Curve) -> bool {
    [&curve.train, &curve.validation]
        .iter()
        .all(|line| line.len() <= Curve::MOST_POINTS && line.iter().all(|(_, loss)| loss.is_finite()))
}

/// The last words of the Job that judges, and of the check before it.
#[must_use]
pub fn judged(end: &End, cycle: &Cycle, gate: &GateSpec) -> Answer {
    let verification = words(end.verification.as_deref(), VERIFY_CONTRACT, |said: &VerifyResult| {
        &said.schema
    });
    let candidate = cycle.candidate.as_ref().map(|candidate| candidate.digest.as_str());
    match &verification {
        Ok(said) if said.outcome == Said::Succeeded && said.digest.as_deref() == candidate => {}
        Ok(said) if said.outcome == Said::Untrusted => {
            return untrusted(short(
                &said.message,
                "the candidate is not what the training Job claims",
            ));
        }
        _ if !end.succeeded => return failed("gate", end),
        _ => return untrusted("nobody has checked that the candidate is what the training Job claims".to_owned()),
    }
    if !end.succeeded {
        return failed("gate", end);
    }
    let said: GateResult = match words(end.message.as_deref(), GATE_CONTRACT, |said: &GateResult| &said.schema) {
        Ok(said) => said,
        Err(why) => return untrusted(why),
    };
    match said.outcome {
        Said::Succeeded => {}
        Said::Untrusted => return untrusted(short(&said.message, "the gate Job found other bytes than were named")),
        other => {
            let message = short(&said.message, "it could not judge");
            return Answer::Over(
                Outcome::Failed,
                "NotJudged",
                format!("the gate Job says {other:?}: {message}"),
            );
        }
    }
    if said.champion_digest != cycle.champion.digest || Some(said.candidate_digest.as_str()) != candidate {
        return untrusted("the gate Job judged other models than it was told".to_owned());
    }
    match judge(gate, &said) {
        Ok(verdicts) => Answer::Judged(verdicts),
        Err(error @ Unjudged::Impossible(_)) => untrusted(error.to_string()),
        Err(error) => Answer::Over(Outcome::Failed, "NotJudged", error.to_string()),
    }
}

pub(crate) fn words<T: DeserializeOwned>(
    message: Option<&str>,
    contract: &str,
    schema: impl Fn(&T) -> &String,
) -> Result<T, String> {
    let message = message.ok_or_else(|| format!("a Job left no last words: {contract} asks for them"))?;
    // Kubernetes cuts longer ones off, so they cannot be read anyway.
    if message.len() > MAX_MESSAGE_BYTES {
        return Err(format!("a Job's last words are longer than {MAX_MESSAGE_BYTES} bytes"));
    }
    // The parser's error would quote what it read.
    let said: T = serde_json::from_str(message.trim()).map_err(|error| {
        format!(
            "a Job's last words are no {contract} (line {}, column {})",
            error.line(),
            error.column()
        )
    })?;
    if schema(&said) == contract {
        Ok(said)
    } else {
        Err(format!("a Job's last words do not say that they are {contract}"))
    }
}

pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

pub(crate) fn short(message: &str, default: &str) -> String {
    let message = message.trim();
    if message.is_empty() {
        return default.to_owned();
    }
    message[..message.floor_char_boundary(TOLD)].to_owned()
}

fn untrusted(message: String) -> Answer {
    Answer::Over(Outcome::Failed, "UntrustedOutput", message)
}

fn failed(what: &str, end: &End) -> Answer {
    let why = short(&end.why, "see its pod's log");
    let said = reason(end.message.as_deref()).or_else(|| reason(end.verification.as_deref()));
    let said = said.map(|said| format!(": {said}")).unwrap_or_default();
    Answer::Over(
        Outcome::Failed,
        "JobFailed",
        format!("the {what} Job failed: {why}{said}"),
    )
}

/// The `message` in the last words of a Job, whatever it came to. Anything else that it may have left is not told on.
pub(crate) fn reason(words: Option<&str>) -> Option<String> {
    let words: serde_json::Value = serde_json::from_str(words?.trim()).ok()?;
    let message = words.get("message")?.as_str()?.trim();
    (!message.is_empty()).then(|| short(message, ""))
}
