//! Jobs that speak to a registry alone: one writes the tag of a better model, one asks what it names. Pure.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::EnvVar;
use kube::ResourceExt;
use perennial_crds::DriftPolicy;
use perennial_crds::publish::MAX_LINEAGE_BYTES;
use perennial_crds::retraining::OCIOutput;
use perennial_crds::serving::{REGISTRY_AUTH_DIRECTORY, TERMINATION_PATH};

use super::{CONTAINER, RETRIES, Site};
use crate::cycle::lineage::Lineage;
use crate::cycle::step::{Policy, restore_name};
use crate::deployment::build::Environment;
use crate::deployment::validate::plain;
use crate::job_pod::{REGISTRY, container, docker_config, mount, plain_http, pod, small_job};

/// Seconds that the question may take, and that its Job stays.
const DEADLINE: i64 = 600;
const KEEP: i32 = 3_600;

/// What the Job that writes the tag is told.
pub(super) fn told(site: &Site<'_>) -> Vec<EnvVar> {
    let (cycle, policy) = (site.cycle, site.policy);
    let Some(candidate) = &cycle.candidate else {
        return Vec::new();
    };
    let (name, uid) = (policy.name_any(), policy.uid().unwrap_or_default());
    let mut lineage = Lineage::of(cycle, candidate, &Policy { name: &name, uid: &uid });
    let mut text = serde_json::to_string(&lineage).unwrap_or_default();
    if text.len() > MAX_LINEAGE_BYTES {
        // The digests matter more than what many suites said.
        lineage.gate.clear();
        text = serde_json::to_string(&lineage).unwrap_or_default();
    }
    let tag = policy.spec.promotion.publish_tag.as_deref().unwrap_or_default();
    vec![
        plain("PUBLISH_URI", &candidate.uri),
        plain("PUBLISH_TAG", tag),
        plain("PUBLISH_LINEAGE", &text),
        plain("PUBLISH_TERMINATION_PATH", TERMINATION_PATH),
    ]
}

/// The Job that asks what the tag names.
#[must_use]
pub fn restore(policy: &DriftPolicy, output: &OCIOutput, tag: &str, environment: &Environment, attempt: u32) -> Job {
    let mut variables = vec![
        plain("RESTORE_URI", &format!("oci://{}:{tag}", output.repository)),
        plain("RESTORE_TERMINATION_PATH", TERMINATION_PATH),
    ];
    variables.extend(plain_http(environment));
    let mut container = container(CONTAINER, environment, vec!["restore".to_owned()], variables);
    let secret = output.pull_secret_ref.as_ref().or(output.push_secret_ref.as_ref());
    let volumes = secret.map(|secret| docker_config(&secret.name));
    container.volume_mounts = secret.map(|_| vec![mount(REGISTRY, REGISTRY_AUTH_DIRECTORY, None, true)]);
    let mut pod = pod(container, volumes.into_iter().collect());
    pod.active_deadline_seconds = Some(DEADLINE);
    let (name, uid) = (policy.name_any(), policy.uid().unwrap_or_default());
    let name = restore_name(&Policy { name: &name, uid: &uid }, attempt);
    small_job(policy, name, "restore", (RETRIES, KEEP), pod)
}
