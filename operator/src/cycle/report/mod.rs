//! What a finished cycle leaves for people: a page, and the same as JSON. Pure.
//!
//! Figures and sentences about figures; nothing of a prompt, which the operator never sees.

mod curve;
mod page;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use perennial_crds::DriftPolicy;
use perennial_crds::retrain::Curve;
use perennial_drift::cause::Cause;
use serde::{Deserialize, Serialize};

use super::gate::Verdict;
use super::ledger::{Cycle, Finished, Kind, Model, Outcome};
use crate::drift::record::{CYCLE_REPORT, config_map};

pub use page::page;

/// Keys of the ConfigMap.
const PAGE: &str = "report.html";
const JSON: &str = "report.json";

/// What a training Job told of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Training {
    /// Figures by name.
    #[serde(default)]
    pub figures: BTreeMap<String, String>,
    /// How the loss went.
    #[serde(default)]
    pub curve: Curve,
}

/// A finished cycle from the drift to the decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Id of the cycle.
    pub id: String,
    /// Why it ran.
    pub cause: Cause,
    /// How it ended.
    pub outcome: Outcome,
    /// One word for why.
    pub reason: String,
    /// Why, in words.
    pub message: String,
    /// Since when traffic was different, seconds since 1970.
    pub drifted_since: i64,
    /// When it began, seconds since 1970.
    pub started: i64,
    /// When it ended, seconds since 1970.
    pub ended: i64,
    /// When its Jobs ended, seconds since 1970.
    pub jobs: BTreeMap<Kind, i64>,
    /// What drifted.
    pub signals: Vec<Signal>,
    /// The model that it was trained from.
    pub base: Model,
    /// The model that it was judged against.
    pub champion: Model,
    /// The model that came out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Model>,
    /// Digest of what it was trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// Records in it.
    pub records: u64,
    /// Digest of the items that both models were judged by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suites: Option<String>,
    /// The training, once it went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Training>,
    /// What the gate said.
    pub verdicts: Vec<Verdict>,
    /// Seconds of GPUs that were used.
    pub gpu_seconds: i64,
}

/// A signal that moved: a part of what the Jobs are told, too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Signal {
    /// Its name.
    pub name: String,
    /// What it speaks of.
    #[serde(default)]
    pub class: String,
    /// Since when, seconds since 1970.
    #[serde(default)]
    pub since: i64,
    /// Its part of the evidence.
    #[serde(default)]
    pub share_of_evidence_percent: f64,
    /// Whether the change is large enough to matter.
    #[serde(default)]
    pub matters: bool,
    /// All of this in a sentence.
    #[serde(default)]
    pub sentence: String,
}

#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    signals: Vec<Signal>,
}

impl Report {
    /// Of a cycle that has ended.
    #[must_use]
    pub fn of(cycle: Cycle, finished: &Finished) -> Self {
        let told: Option<Told> = serde_json::from_str(&cycle.report).ok();
        let ended = cycle.jobs.iter().filter_map(|(kind, job)| Some((*kind, job.ended?)));
        Self {
            jobs: ended.collect(),
            id: cycle.id,
            cause: cycle.cause,
            outcome: finished.outcome,
            reason: finished.reason.clone(),
            message: finished.message.clone(),
            drifted_since: cycle.drifted_since,
            started: cycle.started,
            ended: finished.ended,
            signals: told.map(|told| told.signals).unwrap_or_default(),
            base: cycle.base,
            champion: cycle.champion,
            candidate: cycle.candidate,
            manifest: cycle.manifest,
            records: cycle.records,
            suites: cycle.suites,
            training: cycle.training,
            verdicts: cycle.verdicts,
            gpu_seconds: finished.gpu_seconds,
        }
    }
}

/// Name of the ConfigMap with the report of a cycle.
#[must_use]
pub fn name(policy: &str, cycle: &str) -> String {
    format!("{policy}-cycle-{cycle}")
}

/// The ConfigMap.
#[must_use]
pub fn map(policy: &DriftPolicy, report: &Report) -> ConfigMap {
    let mut map = config_map(policy, name(&policy.name_any(), &report.id), CYCLE_REPORT);
    let json = serde_json::to_string_pretty(report).unwrap_or_default();
    let page = page(report, &policy.name_any(), &policy.spec.target_ref.name);
    map.data = Some([(PAGE.to_owned(), page), (JSON.to_owned(), json)].into());
    map
}
