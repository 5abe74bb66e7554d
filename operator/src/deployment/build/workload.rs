//! The children beside the pod: Deployment, Service, disruption budget, service account.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{Service, ServiceAccount, ServicePort, ServiceSpec};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use perennial_crds::serving::METRICS_PORT;
use perennial_crds::{NAME_LABEL, REVISION_LABEL};

use super::super::revision::Frozen;
use super::super::validate::Validated;
use super::{labels, metadata, selector};

/// One Deployment per revision. Its template never changes, so its strategy only speaks when somebody restarts it.
#[must_use]
pub fn deployment(valid: &Validated, name: &str, frozen: &Frozen, replicas: i32) -> Deployment {
    Deployment {
        metadata: metadata(valid, name, Some(name)),
        spec: Some(DeploymentSpec {
            replicas: Some(replicas),
            selector: LabelSelector {
                match_labels: Some(selector(&valid.owner.name, name)),
                ..LabelSelector::default()
            },
            template: frozen.template.clone(),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            revision_history_limit: Some(0),
            progress_deadline_seconds: Some(valid.progress_deadline_seconds),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// The Service that clients use. Where its selector leads is the one record of which revision serves.
#[must_use]
pub fn service(valid: &Validated, serving: &str) -> Service {
    let port = |name: &str, port: i32, target: &str| ServicePort {
        name: Some(name.to_owned()),
        port,
        target_port: Some(IntOrString::String(target.to_owned())),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    };
    Service {
        metadata: metadata(valid, &valid.owner.name, None),
        spec: Some(ServiceSpec {
            selector: Some(selector(&valid.owner.name, serving)),
            ports: Some(vec![
                port("http", 80, "http"),
                port("metrics", i32::from(METRICS_PORT), "metrics"),
            ]),
            type_: Some("ClusterIP".to_owned()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// Node drains take one replica at a time.
#[must_use]
pub fn disruption_budget(valid: &Validated) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(valid, &valid.owner.name, None),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some([(NAME_LABEL.to_owned(), valid.owner.name.clone())].into()),
                // Not the pods of a resolving Job, for which no disruption can be counted.
                match_expressions: Some(vec![LabelSelectorRequirement {
                    key: REVISION_LABEL.to_owned(),
                    operator: "Exists".to_owned(),
                    values: None,
                }]),
            }),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

/// An identity without any right and without a token.
#[must_use]
pub fn service_account(valid: &Validated) -> ServiceAccount {
    let mut metadata = metadata(valid, &valid.owner.name, None);
    metadata.labels = Some(labels(&valid.owner.name, None));
    ServiceAccount {
        metadata,
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
