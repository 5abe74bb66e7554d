//! The Job that asks fixed prompts. Pure: same inputs, same bytes.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use perennial_crds::DriftPolicy;
use perennial_crds::probe::PROMPTS_DIRECTORY;
use perennial_crds::serving::TERMINATION_PATH;

use crate::deployment::build::Environment;
use crate::deployment::validate::{Validated, plain};
use crate::job_pod::{config_map, container, mount, pod, small_job};

/// Tries of a run.
const RETRIES: i32 = 2;
/// Seconds that the pod of a run may take.
const DEADLINE: i64 = 1_200;
/// Seconds that a Job stays after its end: they come and go all the time.
const KEEP: i32 = 600;
const VOLUME: &str = "prompts";

/// Name of the Job of a run.
#[must_use]
pub fn name(policy: &str, number: u64) -> String {
    // 63 characters are a label's and a pod's limit.
    let policy = &policy[..policy.floor_char_boundary(40)];
    format!("{policy}-probe-{number}")
}

/// The Job of a run.
#[must_use]
pub fn job(
    policy: &DriftPolicy,
    prompts: &str,
    target: &Validated,
    address: &str,
    environment: &Environment,
    number: u64,
) -> Job {
    let variables = vec![
        plain("PROBE_URL", address),
        plain("PROBE_MODEL", &target.model_name),
        plain("PROBE_PROMPTS_DIRECTORY", PROMPTS_DIRECTORY),
        plain("PROBE_TERMINATION_PATH", TERMINATION_PATH),
    ];
    let mut container = container("probe", environment, vec!["probe".to_owned()], variables);
    container.volume_mounts = Some(vec![mount(VOLUME, PROMPTS_DIRECTORY, None, true)]);
    let amount = |cpu: &str, memory: &str| {
        BTreeMap::from([
            ("cpu".to_owned(), Quantity(cpu.to_owned())),
            ("memory".to_owned(), Quantity(memory.to_owned())),
        ])
    };
    // It waits for answers and does little else.
    container.resources = Some(ResourceRequirements {
        requests: Some(amount("10m", "32Mi")),
        limits: Some([("memory".to_owned(), Quantity("128Mi".to_owned()))].into()),
        ..ResourceRequirements::default()
    });
    let mut pod = pod(container, vec![config_map(VOLUME, prompts, true)]);
    pod.active_deadline_seconds = Some(DEADLINE);
    let name = name(&policy.name_any(), number);
    small_job(policy, name, "probe", (RETRIES, KEEP), pod)
}
