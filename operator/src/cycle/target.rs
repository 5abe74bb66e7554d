//! The target of a policy as its cycles see it, from the caches. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::ResourceExt;
use perennial_crds::capture::Level;
use perennial_crds::llm_deployment::Learned as Follow;
use perennial_crds::{DriftPolicy, LLMDeployment};

use super::ledger::Model;
use super::lineage::{self, Learned, is_learned};
use super::step::Target;
use crate::autoscaling::pods::serving_revision;
use crate::deployment::observe::Indexes;
use crate::deployment::resolve::{Resolution, resolution};
use crate::deployment::revision::{self, FrozenModel, Revision};
use crate::deployment::validate::Validated;
use crate::index::Owner;

/// The target at this moment.
#[must_use]
pub fn target(
    indexes: &Indexes,
    owner: &Owner,
    object: &LLMDeployment,
    valid: &Validated,
    policy: &DriftPolicy,
) -> Target {
    let stored = indexes.revisions.of(owner);
    let (learned, revisions): (Vec<_>, Vec<_>) = stored.iter().map(AsRef::as_ref).partition(|one| is_learned(one));
    let learned: Vec<Learned> = learned.into_iter().filter_map(lineage::read).collect();
    let revisions: Vec<Revision> = revisions
        .into_iter()
        .filter_map(|one: &ControllerRevision| revision::read(one).ok())
        .collect();
    let of = |name: &str| revisions.iter().find(|revision| revision.name == name);
    let lineage_of = |digest: &str| learned.iter().find(|learned| learned.lineage.model.digest == digest);
    let of_spec = |frozen: &FrozenModel| {
        Some(Model {
            uri: frozen.uri.clone(),
            digest: frozen.digest.clone()?,
            claim: valid.source.claim.clone(),
            claim_path: None,
            pull_secret: None,
        })
    };
    // What the spec itself asks for, whether or not it was learned once.
    let (jobs, pods) = (indexes.jobs.of(owner), indexes.pods.of(owner));
    let jobs: Vec<_> = jobs.iter().map(AsRef::as_ref).collect();
    let pods: Vec<_> = pods.iter().map(AsRef::as_ref).collect();
    let base = match resolution(valid, &revisions, &jobs, &pods, Timestamp::UNIX_EPOCH) {
        Resolution::Known(frozen) => of_spec(&frozen),
        _ => None,
    };
    // A learned model's own place, or the place that the spec names.
    let model = |revision: &Revision| {
        let digest = revision.frozen.model.digest.as_ref()?;
        if let Some(base) = base.as_ref().filter(|base| base.digest == *digest) {
            return Some(base.clone());
        }
        match lineage_of(digest) {
            Some(learned) => Some(learned.lineage.model.clone()),
            None => of_spec(&revision.frozen.model),
        }
    };
    let status = object.status.clone().unwrap_or_default();
    let seen = Some(status.observed_generation) == object.metadata.generation;
    let serving = serving_revision(indexes, owner);
    let champion = serving.as_deref().and_then(of).and_then(&model);
    let digests = |of: fn(&Revision) -> bool| {
        let found = revisions.iter().filter(|revision| of(revision));
        found
            .filter_map(|revision| revision.frozen.model.digest.clone())
            .collect()
    };
    Target {
        uid: valid.uid.clone(),
        runs: !valid.suspended && (valid.autoscaling.is_some() || valid.replicas > 0),
        champion,
        settled: seen && serving.is_some() && serving == status.update_revision && serving == status.stable_revision,
        failed: digests(|revision| revision.failed.is_some()),
        served: digests(|revision| revision.served),
        captures: object
            .spec
            .capture
            .as_ref()
            .is_some_and(|capture| capture.level == Level::Payload),
        follows: object.spec.model.learned == Follow::Follow,
        learned: own(&learned, policy),
        base,
    }
}

fn own(learned: &[Learned], policy: &DriftPolicy) -> BTreeSet<String> {
    let uid = policy.uid().unwrap_or_default();
    let own = learned.iter().filter(|learned| learned.lineage.policy_uid == uid);
    own.map(|learned| learned.lineage.model.digest.clone()).collect()
}
