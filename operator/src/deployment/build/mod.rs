//! From values to Kubernetes objects. Pure: same inputs, same bytes.

mod collector;
mod job;
mod pod;
mod workload;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use perennial_crds::{NAME_LABEL, REVISION_LABEL};

pub use collector::{CAPTURE, COMPONENT_LABEL, collector_deployment, collector_name, collector_service};
pub use job::{RESOLVE_LABEL, resolve_job, resolve_job_name};
pub use pod::{POD_VOLUME, freeze};
pub use workload::{deployment, disruption_budget, service, service_account};

use super::validate::Validated;

/// Settings of this operator that enter what is rendered.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Image of the server when the object names none.
    pub server_image: String,
    /// Image of the collector and of the default Jobs of a cycle.
    pub trainer_image: String,
    /// Registries that serving pods may talk to without TLS, `HOST:PORT`.
    pub plain_http_registries: Vec<String>,
}

/// Metadata of a child: owned by the object, so that it goes with it.
#[must_use]
pub fn metadata(valid: &Validated, name: &str, revision: Option<&str>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(valid.owner.namespace.clone()),
        labels: Some(labels(&valid.owner.name, revision)),
        owner_references: Some(vec![OwnerReference {
            api_version: "perennial.dev/v1alpha1".to_owned(),
            kind: "LLMDeployment".to_owned(),
            name: valid.owner.name.clone(),
            uid: valid.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]),
        ..ObjectMeta::default()
    }
}

/// Labels of a child.
#[must_use]
pub fn labels(name: &str, revision: Option<&str>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "perennial-server".to_owned()),
        ("app.kubernetes.io/instance".to_owned(), name.to_owned()),
        (
            "app.kubernetes.io/managed-by".to_owned(),
            "perennial-operator".to_owned(),
        ),
        (NAME_LABEL.to_owned(), name.to_owned()),
    ]);
    if let Some(revision) = revision {
        labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    }
    labels
}

/// Labels by which the pods of a revision are found.
#[must_use]
pub fn selector(name: &str, revision: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (NAME_LABEL.to_owned(), name.to_owned()),
        (REVISION_LABEL.to_owned(), revision.to_owned()),
    ])
}

/// Requests and limits alike, so that the server may plan with what it was given.
fn resources(valid: &Validated) -> Option<ResourceRequirements> {
    let mut amounts = BTreeMap::new();
    let given = [("cpu", &valid.resources.cpu), ("memory", &valid.resources.memory)];
    for (name, amount) in given {
        if let Some(amount) = amount {
            amounts.insert(name.to_owned(), Quantity(amount.0.clone()));
        }
    }
    if let Some(accelerator) = &valid.accelerator {
        amounts.insert(
            accelerator.resource_name.clone(),
            Quantity(accelerator.count.to_string()),
        );
    }
    (!amounts.is_empty()).then(|| ResourceRequirements {
        limits: Some(amounts.clone()),
        requests: Some(amounts),
        ..ResourceRequirements::default()
    })
}
