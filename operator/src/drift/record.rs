//! What a policy remembers, as ConfigMaps. Pure.
//!
//! One small ConfigMap holds the evidence and is written once per pane. The frozen baseline lies in an immutable one that is
//! named by its digest. While a baseline is being learned, its panes lie in ConfigMaps of a few panes each. None of them holds
//! a prompt; what they hold is counts.

use std::collections::{BTreeMap, VecDeque};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Resource, ResourceExt};
use perennial_crds::drift_policy::MAX_BASELINE_PANES;
use perennial_crds::{DriftPolicy, POLICY_LABEL};
use perennial_drift::baseline::Baseline;
use perennial_drift::decision::State;
use perennial_drift::envelope::{EnvelopeError, digest};
use perennial_drift::pane::Pane;
use perennial_drift::pane::layout::Layout;
use perennial_drift::policy::Policy;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::memory::{Memory, Seen, Stage, Stored, Watching};
use super::terms::About;

/// Version of this form.
const VERSION: u32 = 1;
/// Panes in one ConfigMap: an hour of the default length.
const CHUNK: i64 = 12;
/// The API server takes 1 MiB; base64 and the rest need their part.
pub const LARGEST: usize = 700 * 1024;
/// Label that says what a ConfigMap of a policy holds.
const CONTENT_LABEL: &str = "perennial.dev/drift-content";
/// The content of the ConfigMap with the ledger of cycles, which outlives baselines.
pub(crate) const CYCLES: &str = "cycles";
/// The content of a ConfigMap with the report of a cycle, which outlives them, too.
pub(crate) const CYCLE_REPORT: &str = "cycle-report";
/// The content of the ConfigMap with what is known of probes, which outlives them, too.
pub(crate) const PROBES: &str = "probes";
const RECORD: &str = "record.json";
const STATE: &str = "state";
const BASELINE: &str = "baseline";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    version: u32,
    about: About,
    layout: u64,
    revision: Option<String>,
    moved: i64,
    until: i64,
    seen: Seen,
    watching: Option<RecordOfWatching>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordOfWatching {
    /// Digest of the frozen baseline.
    baseline: String,
    /// ConfigMaps that it takes.
    parts: usize,
    terms: Policy,
    since: i64,
}

/// Why what was stored cannot be used. Learning begins anew.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The evidence.
    #[error("the stored evidence cannot be read: {0}")]
    Unreadable(String),
    /// The baseline is not there.
    #[error("the ConfigMap {0} with the baseline is not there")]
    NoBaseline(String),
    /// It was changed.
    #[error("the ConfigMap {0} does not hold the baseline that its name says")]
    OtherBaseline(String),
    /// Damaged.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
}

/// Name of the ConfigMap with the evidence.
#[must_use]
pub fn evidence_name(policy: &str) -> String {
    format!("{policy}-drift-evidence")
}

/// Name of the ConfigMap with a baseline, or with the first part of it.
#[must_use]
pub fn baseline_name(policy: &str, digest: &str) -> String {
    let hex = digest.trim_start_matches("sha256:");
    format!("{policy}-drift-baseline-{}", hex.get(..12).unwrap_or(hex))
}

/// Names of all parts of a baseline: by the hour of the week it is larger than a ConfigMap can be.
fn part_names(policy: &str, digest: &str, parts: usize) -> Vec<String> {
    let first = baseline_name(policy, digest);
    let further = (1..parts).map(|part| format!("{first}-{part}"));
    std::iter::once(first.clone()).chain(further).collect()
}

/// Labels of the ConfigMaps with panes of a policy, as a selector.
#[must_use]
pub fn panes_selector(policy: &str) -> String {
    format!("{POLICY_LABEL}={policy},{CONTENT_LABEL}=panes")
}

/// Labels of the ConfigMaps of a policy that go when a new baseline is learned, as a selector.
#[must_use]
pub fn selector(policy: &str) -> String {
    format!("{POLICY_LABEL}={policy},{CONTENT_LABEL} notin ({CYCLES},{CYCLE_REPORT},{PROBES})")
}

/// The ConfigMap with the evidence.
///
/// # Errors
/// If the state cannot be written as bytes.
pub fn evidence(policy: &DriftPolicy, memory: &Memory) -> Result<ConfigMap, EnvelopeError> {
    let watching = match &memory.stage {
        Stage::Learning(_) => None,
        Stage::Watching(watching) => Some(watching),
    };
    let record = Record {
        version: VERSION,
        about: memory.about.clone(),
        layout: memory.layout,
        revision: memory.revision.clone(),
        moved: memory.moved,
        until: memory.until,
        seen: memory.seen,
        watching: match watching {
            Some(watching) => Some(RecordOfWatching {
                baseline: watching.digest.clone(),
                parts: watching.baseline.encode()?.len().div_ceil(LARGEST),
                terms: watching.terms.clone(),
                since: watching.since,
            }),
            None => None,
        },
    };
    let record = serde_json::to_string(&record).unwrap_or_default();
    let mut map = config_map(policy, evidence_name(&policy.name_any()), "evidence");
    map.data = Some([(RECORD.to_owned(), record)].into());
    if let Some(watching) = watching {
        map.binary_data = Some([(STATE.to_owned(), ByteString(watching.state.encode()?))].into());
    }
    Ok(map)
}

/// The immutable ConfigMaps with a baseline: one, or as many as it takes.
///
/// # Errors
/// If it cannot be written as bytes.
pub fn baseline(policy: &DriftPolicy, watching: &Watching) -> Result<Vec<ConfigMap>, EnvelopeError> {
    let bytes = watching.baseline.encode()?;
    let parts = bytes.chunks(LARGEST);
    let names = part_names(&policy.name_any(), &watching.digest, parts.len());
    let map = |(name, part): (String, &[u8])| {
        let mut map = config_map(policy, name, "baseline");
        map.binary_data = Some([(BASELINE.to_owned(), ByteString(part.to_vec()))].into());
        map.immutable = Some(true);
        map
    };
    Ok(names.into_iter().zip(parts).map(map).collect())
}

/// Names of the ConfigMaps with panes that hold none any more, now that these have left.
#[must_use]
pub fn emptied(policy: &str, about: &About, panes: &VecDeque<Stored>, dropped: &[i64]) -> Vec<String> {
    let Some(oldest) = panes.front() else { return Vec::new() };
    let first = chunk(about, oldest.start);
    let mut chunks: Vec<i64> = dropped.iter().map(|start| chunk(about, *start)).collect();
    chunks.dedup();
    chunks.retain(|begin| *begin < first);
    chunks.into_iter().map(|begin| panes_name(policy, begin)).collect()
}

fn panes_name(policy: &str, begin: i64) -> String {
    format!("{policy}-drift-panes-{begin}")
}

/// Beginning of the ConfigMap in which a pane lies.
fn chunk(about: &About, start: i64) -> i64 {
    let length = CHUNK * i64::from(about.pane_seconds.max(1));
    start.div_euclid(length) * length
}

/// The ConfigMaps with panes in which these beginnings lie.
#[must_use]
pub fn panes(policy: &DriftPolicy, about: &About, panes: &VecDeque<Stored>, changed: &[i64]) -> Vec<ConfigMap> {
    let mut chunks: Vec<i64> = changed.iter().map(|start| chunk(about, *start)).collect();
    chunks.dedup();
    let map = |begin: i64| {
        let mut map = config_map(policy, panes_name(&policy.name_any(), begin), "panes");
        let of_chunk = panes.iter().filter(|pane| chunk(about, pane.start) == begin);
        map.binary_data = Some(
            of_chunk
                .map(|pane| (pane.start.to_string(), ByteString(pane.bytes.clone())))
                .collect(),
        );
        map
    };
    chunks.into_iter().map(map).collect()
}

/// What the ConfigMaps say; nothing if they are of something else than `about`, with the reason.
///
/// # Errors
/// [`RecordError`].
pub fn read(
    policy: &str,
    evidence: &ConfigMap,
    panes: &[ConfigMap],
    baseline: &[ConfigMap],
) -> Result<Memory, RecordError> {
    let record = record(evidence)?;
    let layout = Layout::told(record.layout);
    let stage = match record.watching {
        Some(record) => Stage::Watching(Box::new(watching(policy, record, &layout, evidence, baseline)?)),
        None => Stage::Learning(stored(&layout, panes)),
    };
    // A pane is stored before the evidence says so.
    let last = match &stage {
        Stage::Learning(panes) => panes
            .back()
            .map(|pane| pane.start + i64::from(record.about.pane_seconds)),
        Stage::Watching(_) => None,
    };
    Ok(Memory {
        until: last.map_or(record.until, |last| last.max(record.until)),
        about: record.about,
        layout: record.layout,
        revision: record.revision,
        moved: record.moved,
        seen: record.seen,
        stage,
    })
}

/// Names of the ConfigMaps with the baseline that the evidence is held against; none while it is being learned.
///
/// # Errors
/// [`RecordError::Unreadable`].
pub fn baseline_names(policy: &str, evidence: &ConfigMap) -> Result<Vec<String>, RecordError> {
    let watching = record(evidence)?.watching;
    Ok(watching.map_or_else(Vec::new, |watching| {
        part_names(policy, &watching.baseline, watching.parts)
    }))
}

fn record(evidence: &ConfigMap) -> Result<Record, RecordError> {
    let text = evidence.data.as_ref().and_then(|data| data.get(RECORD));
    let text = text.ok_or_else(|| RecordError::Unreadable(format!("it has no {RECORD}")))?;
    let record: Record = serde_json::from_str(text).map_err(|error| RecordError::Unreadable(error.to_string()))?;
    if record.version == VERSION {
        Ok(record)
    } else {
        Err(RecordError::Unreadable(format!("it is of version {}", record.version)))
    }
}

fn watching(
    policy: &str,
    record: RecordOfWatching,
    layout: &Layout,
    evidence: &ConfigMap,
    baseline: &[ConfigMap],
) -> Result<Watching, RecordError> {
    let mut bytes = Vec::new();
    for name in part_names(policy, &record.baseline, record.parts) {
        let part = baseline.iter().find(|map| map.name_any() == name);
        let part = part.and_then(|map| binary(map, BASELINE));
        bytes.extend_from_slice(part.ok_or(RecordError::NoBaseline(name))?);
    }
    if digest(&bytes) != record.baseline {
        return Err(RecordError::OtherBaseline(baseline_name(policy, &record.baseline)));
    }
    let state = binary(evidence, STATE).ok_or_else(|| RecordError::Unreadable(format!("it has no {STATE}")))?;
    Ok(Watching {
        baseline: Baseline::decode(layout, &bytes)?,
        digest: record.baseline,
        state: State::decode(layout, state)?,
        terms: record.terms,
        since: record.since,
    })
}

/// Panes in order. One that is damaged is left out: others can be learned from.
fn stored(layout: &Layout, maps: &[ConfigMap]) -> VecDeque<Stored> {
    let data = maps.iter().filter_map(|map| map.binary_data.as_ref()).flatten();
    let panes: BTreeMap<i64, Stored> = data
        .filter_map(|(_, ByteString(bytes))| {
            let pane = Pane::decode(layout, bytes).ok()?;
            let stored = Stored {
                start: pane.start(),
                requests: pane.requests(),
                bytes: bytes.clone(),
            };
            Some((pane.start(), stored))
        })
        .collect();
    let surplus = panes.len().saturating_sub(MAX_BASELINE_PANES as usize);
    panes.into_values().skip(surplus).collect()
}

fn binary<'a>(map: &'a ConfigMap, key: &str) -> Option<&'a [u8]> {
    map.binary_data.as_ref()?.get(key).map(|bytes| bytes.0.as_slice())
}

/// Selects the reports of a policy's cycles.
pub(crate) fn reports_selector(policy: &str) -> String {
    format!("{POLICY_LABEL}={policy},{CONTENT_LABEL}={CYCLE_REPORT}")
}

pub(crate) fn config_map(policy: &DriftPolicy, name: String, content: &str) -> ConfigMap {
    let labels = [
        ("app.kubernetes.io/managed-by", "perennial".to_owned()),
        (POLICY_LABEL, policy.name_any()),
        (CONTENT_LABEL, content.to_owned()),
    ];
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name);
    map.metadata.namespace = policy.namespace();
    map.metadata.labels = Some(labels.map(|(key, value)| (key.to_owned(), value)).into());
    map.metadata.owner_references = policy.controller_owner_ref(&()).map(|owner| vec![owner]);
    map
}
