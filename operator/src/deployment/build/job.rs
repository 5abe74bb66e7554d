//! The Job that asks a source which bytes it has, in the object's namespace and with the object's credentials, so that
//! the operator needs none.

use std::collections::BTreeMap;

use k8s_openapi::DeepMerge;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{PodTemplateSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::super::SERVER;
use super::super::revision::source_hash;
use super::super::validate::Validated;
use super::{Environment, labels, metadata};

/// Label on a resolving Job and its pod: hash of the source.
pub const RESOLVE_LABEL: &str = "perennial.dev/resolve";
/// Tries of one Job; Kubernetes waits 10, 20, 40 s between them.
const RETRIES: i32 = 3;
/// Seconds that a finished Job stays, for people to look at.
const KEEP_SECONDS: i32 = 3600;

/// Name of the Job: by what triggered it, so that it is made once.
#[must_use]
pub fn resolve_job_name(valid: &Validated) -> String {
    format!("{}-resolve-{}", valid.owner.name, source_hash(&valid.source))
}

/// The Job that resolves the source of this object.
#[must_use]
pub fn resolve_job(valid: &Validated, environment: &Environment) -> Job {
    let image = valid.image.clone().unwrap_or_else(|| environment.server_image.clone());
    let mut args = vec!["resolve".to_owned(), format!("--source={}", valid.source.uri)];
    if let Some(digest) = &valid.source.digest {
        args.push(format!("--digest={digest}"));
    }
    let mut container = super::pod::bare_container(valid, environment, &image, args);
    container.resources = Some(modest());
    let mut spec = super::pod::pod_spec(valid, container);
    spec.node_selector = None;
    spec.restart_policy = Some("Never".to_owned());
    spec.termination_grace_period_seconds = None;
    let mut pod_labels = labels(&valid.owner.name, None);
    pod_labels.insert(RESOLVE_LABEL.to_owned(), source_hash(&valid.source));
    let mut template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(pod_labels.clone()),
            ..ObjectMeta::default()
        }),
        spec: Some(spec),
    };
    overlay(&mut template, valid);
    let mut metadata = metadata(valid, &resolve_job_name(valid), None);
    metadata.labels = Some(pod_labels);
    Job {
        metadata,
        spec: Some(JobSpec {
            backoff_limit: Some(RETRIES),
            active_deadline_seconds: Some(i64::from(valid.progress_deadline_seconds)),
            ttl_seconds_after_finished: Some(KEEP_SECONDS),
            template,
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// Of the overlay, what reaching the source may need: pull secrets, tolerations, environment and mounts of the server.
/// Sidecars would keep the Job from ending, and devices are for serving.
fn overlay(template: &mut PodTemplateSpec, valid: &Validated) {
    let Some(mut overlay) = valid.overlay.clone() else {
        return;
    };
    overlay.metadata = None;
    if let Some(spec) = &mut overlay.spec {
        spec.containers.retain(|container| container.name == SERVER);
        for container in &mut spec.containers {
            container.resources = None;
            container.ports = None;
            container.lifecycle = None;
            container.liveness_probe = None;
            container.readiness_probe = None;
            container.startup_probe = None;
        }
        spec.init_containers = None;
        spec.node_selector = None;
        spec.affinity = None;
        spec.termination_grace_period_seconds = None;
        spec.restart_policy = None;
        spec.topology_spread_constraints = None;
        spec.scheduling_gates = None;
    }
    template.merge_from(overlay);
}

fn modest() -> ResourceRequirements {
    let amounts = |cpu: &str, memory: &str| {
        BTreeMap::from([
            ("cpu".to_owned(), Quantity(cpu.to_owned())),
            ("memory".to_owned(), Quantity(memory.to_owned())),
        ])
    };
    ResourceRequirements {
        requests: Some(amounts("50m", "64Mi")),
        limits: Some(amounts("2", "1Gi")),
        ..ResourceRequirements::default()
    }
}
