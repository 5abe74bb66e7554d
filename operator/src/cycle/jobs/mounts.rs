//! Volumes of the Jobs of a cycle. Pure.

use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Volume, VolumeMount};
use kube::ResourceExt;
use perennial_crds::capture_spec::Place;
use perennial_crds::retrain::{
    CANDIDATE_DIRECTORY, DATA_DIRECTORY, GOLDEN_DIRECTORY, OUTPUT_DIRECTORY, REPORT_DIRECTORY, SCORES_DIRECTORY,
    SUITES_DIRECTORY,
};
use perennial_crds::serving::{CLAIM_DIRECTORY, REGISTRY_AUTH_DIRECTORY, SCRATCH_DIRECTORY};

use super::Site;
use crate::cycle::ledger::{Cycle, Kind, Model};
use crate::cycle::step::cycle_path;
use crate::job_pod::{REGISTRY, SCRATCH, config_map, docker_config, mount};

/// Where the Job that prepares finds the root of the workspace volume.
pub(super) const WORKSPACE: &str = "/prepare/workspace";
/// Where it finds the root of the volume with records.
pub(super) const RECORDS: &str = "/prepare/records";
const VOLUME: &str = "perennial-workspace";
const MODEL: &str = "perennial-model";
/// The probes' volume, and their folder among the prompts that are not trained on: no suite can be named so.
const PROBES: &str = "perennial-probes";
pub(super) const PROBES_FOLDER: &str = "_probes";

/// A folder of the cycle. The Job that prepares has made it.
pub(super) fn below(site: &Site<'_>, folder: &str, path: &str, read_only: bool) -> VolumeMount {
    let cycle = cycle_path(&site.policy.name_any(), &site.cycle.id);
    mount(VOLUME, path, Some(format!("{cycle}/{folder}")), read_only)
}

/// The model that a Job reads from a claim.
fn model_of(kind: Kind, cycle: &Cycle) -> Option<&Model> {
    match kind {
        Kind::Prepare | Kind::Publish => None,
        Kind::Retrain => Some(&cycle.base),
        Kind::Gate => Some(&cycle.champion),
    }
}

/// What its container sees.
pub(super) fn mounts(kind: Kind, site: &Site<'_>) -> Vec<VolumeMount> {
    let mut mounts = match kind {
        Kind::Prepare => {
            let own = site
                .policy
                .spec
                .gate
                .suites
                .iter()
                .filter(|suite| suite.config_map_name.is_some());
            let golden = own.map(|suite| {
                mount(
                    &golden(&suite.name),
                    &format!("{GOLDEN_DIRECTORY}/{}", suite.name),
                    None,
                    true,
                )
            });
            let mut mounts: Vec<VolumeMount> = golden.collect();
            let excluded = probes(site).map(|_| format!("{GOLDEN_DIRECTORY}/{PROBES_FOLDER}"));
            mounts.extend(excluded.map(|path| mount(PROBES, &path, None, true)));
            mounts.push(mount(VOLUME, WORKSPACE, None, false));
            mounts.extend(site.records.map(|place| match place {
                Place::Claim(_) => mount("perennial-records", RECORDS, None, true),
                Place::Bucket(_) => mount(SCRATCH, SCRATCH_DIRECTORY, None, false),
            }));
            return mounts;
        }
        Kind::Retrain => vec![
            below(site, "data", DATA_DIRECTORY, true),
            below(site, "drift", REPORT_DIRECTORY, true),
            below(site, "output", OUTPUT_DIRECTORY, false),
        ],
        Kind::Gate => vec![
            below(site, "suites", SUITES_DIRECTORY, true),
            below(site, "output", CANDIDATE_DIRECTORY, true),
            below(site, "gate", SCORES_DIRECTORY, false),
        ],
        Kind::Publish => return registry(kind, site).into_iter().collect(),
    };
    mounts.extend(registry(kind, site));
    if let Some(model) = model_of(kind, site.cycle).filter(|model| model.claim.is_some()) {
        mounts.push(mount(MODEL, CLAIM_DIRECTORY, model.claim_path.clone(), true));
    }
    let template = match kind {
        Kind::Gate => site.policy.spec.gate.job_template_ref.is_some(),
        _ => site.retraining.job_template_ref.is_some(),
    };
    if !template {
        mounts.push(mount(SCRATCH, SCRATCH_DIRECTORY, None, false));
    }
    mounts
}

/// What its pod brings.
pub(super) fn volumes(kind: Kind, site: &Site<'_>) -> Vec<Volume> {
    let claim = |name: &str, claim: &str, read_only: bool| Volume {
        name: name.to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.to_owned(),
            read_only: read_only.then_some(true),
        }),
        ..Volume::default()
    };
    let secret = site.registry_secret(kind).map(docker_config);
    if kind == Kind::Publish {
        return secret.into_iter().collect();
    }
    let workspace = &site.retraining.workspace.persistent_volume_claim.claim_name;
    let mut volumes = vec![claim(VOLUME, workspace, false)];
    volumes.extend(secret);
    if kind == Kind::Prepare {
        volumes.extend(probes(site).map(|map| config_map(PROBES, map, false)));
        if let Some(Place::Claim(records)) = site.records {
            volumes.push(claim("perennial-records", &records.claim_name, true));
        }
        volumes.extend(site.policy.spec.gate.suites.iter().filter_map(|suite| {
            Some(config_map(
                &golden(&suite.name),
                suite.config_map_name.as_deref()?,
                false,
            ))
        }));
    }
    let model = model_of(kind, site.cycle).and_then(|model| model.claim.as_deref());
    volumes.extend(model.map(|name| claim(MODEL, name, true)));
    volumes
}

/// The Secret for the repository of learned models.
pub(super) fn registry(kind: Kind, site: &Site<'_>) -> Option<VolumeMount> {
    site.registry_secret(kind)?;
    Some(mount(REGISTRY, REGISTRY_AUTH_DIRECTORY, None, true))
}

/// The ConfigMap with the policy's probes.
pub(super) fn probes<'a>(site: &Site<'a>) -> Option<&'a str> {
    let probe = site.policy.spec.probe.as_ref()?;
    Some(&probe.prompt_set_ref.config_map_name)
}

fn golden(suite: &str) -> String {
    format!("golden-{suite}")
}
