//! Whether a learned model serves in place of the spec's. Pure.
//!
//! The spec in Git stays what it is. A learned model counts only while it was learned from the very bytes that the spec asks for:
//! another model in the spec, or `learned: Ignore`, and it is out of effect without anybody having to clean up.

use super::observe::Children;
use super::revision::FrozenModel;
use super::validate::{Source, Validated, registry_auth};
use crate::cycle::lineage::{self, Learned};
use crate::drift::words::Word;
use k8s_openapi::api::core::v1::EnvVar;
use perennial_crds::llm_deployment::Learned as Follow;
use perennial_crds::serving::REGISTRY_AUTH_VARIABLE;

/// A learned model that serves in place of the spec's.
#[derive(Clone, Debug)]
pub struct InEffect {
    /// The object as if its spec asked for the learned model.
    pub valid: Validated,
    /// The learned model.
    pub model: FrozenModel,
}

/// The learned model that is in effect, if any.
#[must_use]
pub fn in_effect(valid: &Validated, children: &Children, base: &FrozenModel, word: &Word) -> Option<InEffect> {
    if valid.learned == Follow::Ignore {
        return None;
    }
    let digest = base.digest.as_deref()?;
    let allowed: Vec<Learned> = children
        .learned
        .iter()
        .filter(|learned| may_serve(children, learned, word))
        .cloned()
        .collect();
    let learned = &lineage::in_effect(&allowed, digest)?.lineage;
    let source = Source {
        uri: learned.model.uri.clone(),
        digest: Some(learned.model.digest.clone()),
        pinned: true,
        environment: credentials(valid, learned.model.pull_secret.as_deref()),
        claim: learned.model.claim.clone(),
        claim_path: learned.model.claim_path.clone(),
        again: None,
    };
    Some(InEffect {
        model: FrozenModel {
            name: valid.model_name.clone(),
            uri: source.uri.clone(),
            digest: source.digest.clone(),
            size_bytes: None,
        },
        valid: Validated {
            source,
            ..valid.clone()
        },
    })
}

/// Environment to read the model with: the spec's, or with another Secret for the registry.
fn credentials(valid: &Validated, pull_secret: Option<&str>) -> Vec<EnvVar> {
    let mut environment = valid.source.environment.clone();
    if let Some(secret) = pull_secret {
        environment.retain(|variable| variable.name != REGISTRY_AUTH_VARIABLE);
        environment.push(registry_auth(secret));
    }
    environment
}

/// One that has served goes on serving without its policy. One that has not is introduced only as long as its policy is there.
fn may_serve(children: &Children, learned: &Learned, word: &Word) -> bool {
    let digest = &learned.lineage.model.digest;
    let served = children
        .revisions
        .iter()
        .any(|revision| revision.served && revision.frozen.model.digest.as_ref() == Some(digest));
    served
        || match word {
            Word::NotYet => true,
            Word::Unwatched => false,
            Word::Said(said) => said.policy == learned.lineage.policy,
        }
}

/// Where a model comes from, for the status.
#[must_use]
pub fn origin(children: &Children, model: &FrozenModel) -> String {
    let learned = children
        .learned
        .iter()
        .find(|learned| Some(&learned.lineage.model.digest) == model.digest.as_ref());
    learned.map_or_else(
        || "Spec".to_owned(),
        |learned| format!("DriftPolicy/{}", learned.lineage.policy),
    )
}
