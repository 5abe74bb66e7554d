//! Where a learned model comes from: what is stored with the LLMDeployment that serves it. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::ResourceExt;
use perennial_crds::LEARNED_LABEL;
use serde::{Deserialize, Serialize};

use super::gate::Verdict;
use super::ledger::{Cycle, Model};
use super::step::Policy;

/// A learned model and where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lineage {
    /// The model.
    pub model: Model,
    /// The model that it was trained from. It counts only while the spec asks for this one.
    pub base: Model,
    /// Digest of the model that it was judged against.
    pub champion_digest: String,
    /// The cycle that made it.
    pub cycle_id: String,
    /// Name of the policy that made it.
    pub policy: String,
    /// UID of that policy.
    pub policy_uid: String,
    /// Digest of the data that it was trained on.
    pub manifest_digest: String,
    /// What the gate said.
    pub gate: Vec<Verdict>,
}

impl Lineage {
    /// Of the candidate of a cycle.
    #[must_use]
    pub fn of(cycle: &Cycle, candidate: &Model, policy: &Policy<'_>) -> Self {
        Self {
            model: candidate.clone(),
            base: cycle.base.clone(),
            champion_digest: cycle.champion.digest.clone(),
            cycle_id: cycle.id.clone(),
            policy: policy.name.to_owned(),
            policy_uid: policy.uid.to_owned(),
            manifest_digest: cycle.manifest.clone().unwrap_or_default(),
            gate: cycle.verdicts.clone(),
        }
    }

    /// Name of the ControllerRevision that stores it.
    #[must_use]
    pub fn name(&self, deployment: &str) -> String {
        learned_name(deployment, &self.model.digest)
    }
}

/// Name of the ControllerRevision that stores the learned model of this digest.
#[must_use]
pub fn learned_name(deployment: &str, digest: &str) -> String {
    let hex = digest.trim_start_matches("sha256:");
    format!("{deployment}-learned-{}", hex.get(..10).unwrap_or(hex))
}

/// Whether a ControllerRevision stores a learned model, and not what a pod does.
#[must_use]
pub fn is_learned(stored: &ControllerRevision) -> bool {
    stored.labels().contains_key(LEARNED_LABEL)
}

/// A learned model as it was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Learned {
    /// Name of its ControllerRevision.
    pub name: String,
    /// Place in the history.
    pub number: i64,
    /// What it is.
    pub lineage: Lineage,
}

/// Reads a learned model. One that cannot be read is none: it never serves.
#[must_use]
pub fn read(stored: &ControllerRevision) -> Option<Learned> {
    let data = stored.data.clone()?.0;
    Some(Learned {
        name: stored.name_any(),
        number: stored.revision,
        lineage: serde_json::from_value(data).ok()?,
    })
}

/// The data of the ControllerRevision.
#[must_use]
pub fn data(lineage: &Lineage) -> RawExtension {
    RawExtension(serde_json::to_value(lineage).unwrap_or_default())
}

/// The learned model that serves in place of this base: the newest that was learned from it.
#[must_use]
pub fn in_effect<'a>(learned: &'a [Learned], base_digest: &str) -> Option<&'a Learned> {
    let valid = learned
        .iter()
        .filter(|learned| learned.lineage.base.digest == base_digest);
    valid.max_by_key(|learned| learned.number)
}

/// Names of learned models that can go: beyond the newest `keep`, none whose digest a stored revision of pods has.
#[must_use]
pub fn surplus(learned: &[Learned], of_revisions: &BTreeSet<&str>, keep: usize) -> Vec<String> {
    let mut newest: Vec<&Learned> = learned.iter().collect();
    newest.sort_by_key(|learned| std::cmp::Reverse(learned.number));
    let old = newest.into_iter().skip(keep);
    old.filter(|learned| !of_revisions.contains(learned.lineage.model.digest.as_str()))
        .map(|learned| learned.name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(number: i64) -> Learned {
        let model = |digest: &str| Model {
            uri: "file:///mnt/model/model.gguf".to_owned(),
            digest: digest.to_owned(),
            claim: None,
            claim_path: None,
            pull_secret: None,
        };
        Learned {
            name: format!("tiny-learned-{number}"),
            number,
            lineage: Lineage {
                model: model(&format!("sha256:{number}")),
                base: model("sha256:base"),
                champion_digest: String::new(),
                cycle_id: String::new(),
                policy: "watch".to_owned(),
                policy_uid: String::new(),
                manifest_digest: String::new(),
                gate: Vec::new(),
            },
        }
    }

    #[test]
    fn old_ones_go_unless_a_revision_is_made_of_them() {
        let all: Vec<Learned> = [3, 1, 4, 2].map(learned).into();
        let serving = BTreeSet::from(["sha256:1", "sha256:4"]);
        assert_eq!(surplus(&all, &serving, 2), ["tiny-learned-2"]);
        assert_eq!(surplus(&all, &BTreeSet::new(), 3), ["tiny-learned-1"]);
        assert_eq!(surplus(&all, &serving, 4), Vec::<String>::new());
        assert_eq!(in_effect(&all, "sha256:base").map(|learned| learned.number), Some(4));
        assert!(in_effect(&all, "sha256:other").is_none());
    }
}
