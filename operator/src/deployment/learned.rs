//! Whether a learned model serves in place of the spec's. Pure.
//!
//! The spec in Git stays what it is. A learned model counts only while it was learned from the very bytes that the spec asks for:
//! another model in the spec, or `learned: Ignore`, and it is out of effect without anybody having to clean up.

use super::observe::Children;
use super::revision::{self, FrozenModel};
use super::validate::{Source, Validated, registry_auth};
use crate::cycle::lineage::{self, Learned, Lineage};
use crate::drift::words::{Introduces, Word};
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
        .filter(|learned| serves(valid, children, learned) || may_serve(valid, children, learned, word))
        .cloned()
        .collect();
    Some(in_place_of_the_spec(
        valid,
        &lineage::in_effect(&allowed, digest)?.lineage,
    ))
}

/// The object as if its spec asked for this model.
fn in_place_of_the_spec(valid: &Validated, learned: &Lineage) -> InEffect {
    let source = Source {
        uri: learned.model.uri.clone(),
        digest: Some(learned.model.digest.clone()),
        pinned: true,
        environment: credentials(valid, learned.model.pull_secret.as_deref()),
        claim: learned.model.claim.clone(),
        claim_path: learned.model.claim_path.clone(),
        again: None,
    };
    InEffect {
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
    }
}

/// Whether requests go to it now. Its record, which says so too, may have been deleted by hand: it is made again from what runs.
fn serves(valid: &Validated, children: &Children, learned: &Learned) -> bool {
    let InEffect { valid, model } = in_place_of_the_spec(valid, &learned.lineage);
    let name = revision::name(&valid, &model);
    let has_record = children.revisions.iter().any(|revision| revision.name == name);
    !has_record && children.observed(&valid.owner).stable.as_ref() == Some(&name)
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

/// One that has served goes on serving without its policy. One that has not is introduced only while its policy rolls it out,
/// and while replicas can show whether it comes up: without them there would be no way back.
fn may_serve(valid: &Validated, children: &Children, learned: &Learned, word: &Word) -> bool {
    let digest = &learned.lineage.model.digest;
    let revisions = children.revisions.iter();
    let mut revisions = revisions.filter(|revision| revision.frozen.model.digest.as_ref() == Some(digest));
    if revisions.clone().any(|revision| revision.served) {
        return true;
    }
    if valid.replicas == 0 {
        return false;
    }
    // Who leads since a moment ago has not read what policies are at: what is on its way goes on, what was given up stays so until
    // its policy has seen it, and nothing begins.
    let mut on_its_way =
        || revisions.any(|revision| revision.failed.is_some() || children.deployment(&revision.name).is_some());
    match word {
        Word::Unwatched => false,
        Word::NotYet => on_its_way(),
        Word::Said(said) => match &said.introduces {
            Introduces::Unknown => on_its_way(),
            Introduces::Nothing => false,
            Introduces::Model(model) => model == digest,
        },
    }
}

/// Where a model comes from, for the status. One that the spec itself asks for is the spec's, whoever learned it once.
#[must_use]
pub fn origin(children: &Children, base: Option<&FrozenModel>, model: &FrozenModel) -> String {
    if base.is_some_and(|base| base.digest.is_some() && base.digest == model.digest) {
        return "Spec".to_owned();
    }
    let learned = children
        .learned
        .iter()
        .find(|learned| Some(&learned.lineage.model.digest) == model.digest.as_ref());
    learned.map_or_else(
        || "Spec".to_owned(),
        |learned| format!("DriftPolicy/{}", learned.lineage.policy),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::{PodTemplateSpec, Service};
    use perennial_crds::REVISION_LABEL;
    use perennial_crds::status::DriftStatus;

    use super::*;
    use crate::cycle::ledger::Model;
    use crate::deployment::revision::{Frozen, Revision};
    use crate::deployment::validate::validate;
    use crate::drift::words::Said;

    fn digest(letter: char) -> String {
        format!("sha256:{}", letter.to_string().repeat(64))
    }

    fn model(letter: char) -> Model {
        Model {
            uri: format!("oci://registry.example/models/tiny@{}", digest(letter)),
            digest: digest(letter),
            claim: None,
            claim_path: None,
            pull_secret: None,
        }
    }

    fn base() -> FrozenModel {
        FrozenModel {
            name: "tiny".to_owned(),
            uri: model('a').uri,
            digest: Some(digest('a')),
            size_bytes: None,
        }
    }

    fn valid(replicas: i32) -> Validated {
        let object = serde_json::from_value(serde_json::json!({
            "apiVersion": "perennial.dev/v1alpha1", "kind": "LLMDeployment",
            "metadata": {"name": "tiny", "namespace": "models", "uid": "uid"},
            "spec": {"replicas": replicas, "model": {"source": {"oci": {"reference": format!("registry.example/models/tiny@{}", digest('a'))}}}},
        }))
        .expect("an object");
        validate(&object).expect("a valid object")
    }

    /// A learned model, stored with the object, which has served or not.
    fn children(served: bool) -> Children {
        let mut children = Children::default();
        let lineage = Lineage {
            model: model('b'),
            base: model('a'),
            champion_digest: digest('a'),
            cycle_id: "0badcafe".to_owned(),
            policy: "watch".to_owned(),
            policy_uid: "policy".to_owned(),
            manifest_digest: String::new(),
            gate: Vec::new(),
        };
        children.learned.push(Learned {
            name: "tiny-learned-bbbbbbbbbb".to_owned(),
            number: 2,
            lineage,
        });
        children.revisions.push(Revision {
            name: "tiny-1".to_owned(),
            number: 3,
            frozen: Frozen {
                model: FrozenModel {
                    digest: Some(digest('b')),
                    ..base()
                },
                source_hash: String::new(),
                image: String::new(),
                args: Vec::new(),
                template: PodTemplateSpec::default(),
            },
            served,
            failed: None,
            further_sources: Vec::new(),
        });
        children
    }

    fn says(introduces: Introduces) -> Word {
        Word::Said(Said {
            status: DriftStatus {
                policy: "watch".to_owned(),
                phase: "Watching".to_owned(),
            },
            introduces,
        })
    }

    fn serves(replicas: i32, served: bool, word: &Word) -> bool {
        in_effect(&valid(replicas), &children(served), &base(), word).is_some()
    }

    #[test]
    fn what_has_not_served_is_introduced_only_while_a_policy_rolls_it_out() {
        assert!(serves(1, false, &says(Introduces::Model(digest('b')))));
        // A policy of the same name that was made later, or one that was given another target and came back.
        assert!(!serves(1, false, &says(Introduces::Nothing)));
        assert!(!serves(1, false, &says(Introduces::Model(digest('c')))));
        assert!(!serves(1, false, &says(Introduces::Unknown)));
        assert!(!serves(1, false, &Word::Unwatched));
        assert!(!serves(1, false, &Word::NotYet));
    }

    #[test]
    fn what_was_given_up_stays_so_until_its_policy_has_seen_it() {
        let mut given_up = children(false);
        given_up.revisions[0].failed = Some(crate::deployment::revision::Failure {
            reason: "ProgressDeadlineExceeded".to_owned(),
            message: String::new(),
            retry: None,
        });
        let wanted = |word: &Word| in_effect(&valid(1), &given_up, &base(), word).is_some();
        assert!(wanted(&Word::NotYet) && wanted(&says(Introduces::Unknown)));
        assert!(!wanted(&says(Introduces::Nothing)) && !wanted(&Word::Unwatched));
    }

    #[test]
    fn what_requests_go_to_stays_when_its_record_was_deleted_by_hand() {
        let (valid, mut serving) = (valid(1), children(true));
        let learned = in_place_of_the_spec(&valid, &serving.learned[0].lineage);
        serving.revisions.clear();
        assert!(in_effect(&valid, &serving, &base(), &says(Introduces::Nothing)).is_none());
        let name = revision::name(&learned.valid, &learned.model);
        let service: Service =
            serde_json::from_value(serde_json::json!({"metadata": {"name": "tiny", "namespace": "models"},
            "spec": {"selector": {REVISION_LABEL: name}}}))
            .expect("a Service");
        serving.current.services.push(Arc::new(service));
        assert!(in_effect(&valid, &serving, &base(), &says(Introduces::Nothing)).is_some());
    }

    #[test]
    fn nor_without_a_replica_that_could_show_whether_it_comes_up() {
        assert!(!serves(0, false, &says(Introduces::Model(digest('b')))));
        assert!(serves(0, true, &says(Introduces::Nothing)));
    }

    #[test]
    fn what_has_served_goes_on_serving_without_its_policy() {
        for word in [Word::Unwatched, Word::NotYet, says(Introduces::Nothing)] {
            assert!(serves(1, true, &word));
        }
    }

    #[test]
    fn a_learned_model_that_the_spec_itself_asks_for_is_the_specs() {
        let learned = FrozenModel {
            digest: Some(digest('b')),
            ..base()
        };
        assert_eq!(origin(&children(true), Some(&base()), &learned), "DriftPolicy/watch");
        assert_eq!(origin(&children(true), Some(&learned), &learned), "Spec");
    }
}
