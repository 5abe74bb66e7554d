//! What the Jobs of a cycle are told, in their environment. Pure.

use k8s_openapi::api::core::v1::EnvVar;
use perennial_crds::capture_spec::Place;
use perennial_crds::retrain::{
    CANDIDATE_DIRECTORY, DATA_DIRECTORY, GATE_CONTRACT, MANIFEST_FILE, OUTPUT_DIRECTORY, PROGRESS_PORT,
    PrepareSettings, RETRAIN_CONTRACT, SCORES_DIRECTORY, SUITES_DIRECTORY,
};
use perennial_crds::serving::TERMINATION_PATH;

use super::mounts::{PROBES_FOLDER, probes};
use super::{Site, registry};
use crate::bucket;
use crate::cycle::answers::{output_uri, volume_uri};
use crate::cycle::ledger::{Cycle, Kind};
use crate::deployment::validate::plain;

/// Seeds follow from the cycle, so that a Job that is made again does the same.
fn seed(cycle: &Cycle) -> u64 {
    u64::from_str_radix(&cycle.id, 16).unwrap_or(0)
}

/// What a Job is told. `deadline`: of its pod, seconds.
pub(super) fn variables(kind: Kind, site: &Site<'_>, deadline: i64) -> Vec<EnvVar> {
    let (cycle, deadline) = (site.cycle, deadline.to_string());
    match kind {
        Kind::Prepare => {
            let settings = serde_json::to_string(&settings(site)).unwrap_or_default();
            let mut told = vec![
                plain("PREPARE_SETTINGS", &settings),
                plain("PREPARE_REPORT", &cycle.report),
            ];
            if let Some(Place::Bucket(of)) = site.records {
                told.extend(bucket::variables("PREPARE", of, &site.target.owner.name));
            }
            told
        }
        Kind::Retrain => vec![
            plain("RETRAIN_CONTRACT", RETRAIN_CONTRACT),
            plain("RETRAIN_CYCLE_ID", &cycle.id),
            plain("RETRAIN_CAUSE", &format!("{:?}", cycle.cause)),
            plain("RETRAIN_BASE_MODEL_URI", &cycle.base.uri),
            plain("RETRAIN_BASE_MODEL_DIGEST", &cycle.base.digest),
            plain("RETRAIN_CHAMPION_URI", &cycle.champion.uri),
            plain("RETRAIN_DATA_MANIFEST", &format!("{DATA_DIRECTORY}/{MANIFEST_FILE}")),
            plain("RETRAIN_OUTPUT_DIR", OUTPUT_DIRECTORY),
            plain("RETRAIN_OUTPUT_URI", &output_uri(cycle)),
            plain("RETRAIN_DEADLINE_SECONDS", &deadline),
            plain("RETRAIN_SEED", &seed(cycle).to_string()),
            plain("RETRAIN_TERMINATION_PATH", TERMINATION_PATH),
            plain("RETRAIN_PROGRESS_PORT", &PROGRESS_PORT.to_string()),
        ],
        Kind::Gate => vec![
            plain("GATE_CONTRACT", GATE_CONTRACT),
            plain("GATE_CYCLE_ID", &cycle.id),
            plain("GATE_CHAMPION_URI", &cycle.champion.uri),
            plain("GATE_CHAMPION_DIGEST", &cycle.champion.digest),
            plain("GATE_CANDIDATE_URI", &candidate_uri(cycle)),
            plain("GATE_CANDIDATE_DIGEST", candidate(cycle)),
            plain("GATE_SUITES_DIR", SUITES_DIRECTORY),
            plain("GATE_SUITES_DIGEST", cycle.suites.as_deref().unwrap_or_default()),
            plain("GATE_OUTPUT_DIR", SCORES_DIRECTORY),
            plain("GATE_DEADLINE_SECONDS", &deadline),
            plain("GATE_TERMINATION_PATH", TERMINATION_PATH),
        ],
        Kind::Publish => registry::told(site),
    }
}

fn settings(site: &Site<'_>) -> PrepareSettings {
    let data = &site.retraining.data;
    let gate = &site.policy.spec.gate;
    let named = |own: bool| {
        let suites = gate
            .suites
            .iter()
            .filter(|suite| suite.config_map_name.is_some() == own);
        suites.map(|suite| suite.name.clone()).collect()
    };
    PrepareSettings {
        cycle_id: site.cycle.id.clone(),
        from: site.cycle.from,
        to: site.cycle.started,
        drifted_since: site.cycle.drifted_since,
        max_records: data.max_records,
        max_percent_per_requester: data.max_percent_per_requester,
        include: data.include.clone(),
        // Half as many again as are needed, because some may be too long to be judged.
        hold_out: gate.min_items.saturating_add(gate.min_items / 2),
        recent_suites: named(false),
        own_suites: named(true),
        min_records: data.min_records,
        min_items: gate.min_items,
        excluded_sets: probes(site).map(|_| PROBES_FOLDER.to_owned()).into_iter().collect(),
        seed: seed(site.cycle),
        ended: site.cycle.leftovers.clone(),
    }
}

/// Digest of the candidate.
pub(super) fn candidate(cycle: &Cycle) -> &str {
    cycle
        .candidate
        .as_ref()
        .map_or("", |candidate| candidate.digest.as_str())
}

/// The candidate's address in the Job that judges.
pub(super) fn candidate_uri(cycle: &Cycle) -> String {
    let uri = cycle.candidate.as_ref().map_or("", |candidate| candidate.uri.as_str());
    match uri.strip_prefix(&volume_uri()) {
        Some(below) => format!("file://{CANDIDATE_DIRECTORY}{below}"),
        None => uri.to_owned(),
    }
}
