//! The Jobs of a cycle. Pure: same inputs, same bytes.
//!
//! They run in the object's namespace and with its volumes; the operator sees neither data nor models. Their pods carry no
//! label of the LLMDeployment, so nothing takes them for replicas. `contract` is what they are told, `mounts` what they see,
//! `registry` the Jobs that speak to a registry alone.

mod contract;
mod mounts;
pub mod registry;

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, JobTemplateSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use perennial_crds::DriftPolicy;
use perennial_crds::capture_spec::Place;
use perennial_crds::llm_deployment::ResourcesSpec;
use perennial_crds::retrain::{CANDIDATE_DIRECTORY, EXIT_RETRY};
use perennial_crds::retraining::{OCIOutput, RetrainingSpec};
use perennial_crds::serving::{SCRATCH_DIRECTORY, TERMINATION_PATH};

use self::contract::{candidate, candidate_uri, variables};
use self::mounts::{RECORDS, WORKSPACE, below, mounts, registry, volumes};
use super::ledger::{Cycle, Kind};
use super::step::{cycle_path, job_name};
use crate::deployment::build::Environment;
use crate::deployment::validate::{Validated, plain};
use crate::job_pod::{SCRATCH, container, labels, mount, plain_http, pod, scratch};

/// Label on a Job of a cycle and on its pod: the id of the cycle.
pub const CYCLE_LABEL: &str = "perennial.dev/drift-cycle";
/// The container of a Job that speaks the contract.
const CONTAINER: &str = "trainer";
/// The container that checks a candidate before it is judged.
pub const VERIFY: &str = "verify";
/// Tries of a Job.
const RETRIES: i32 = 3;
/// Seconds that a finished Job stays, for people to look at.
const KEEP_SECONDS: i32 = 604_800;
/// Seconds that one of a user's template stays at least: how it ended must be read.
const KEEP_AT_LEAST: i32 = 86_400;
/// Largest model that may come out, bytes.
const MAX_MODEL_BYTES: u64 = 2 << 40;

/// Everything that the Jobs of a cycle are made from.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// The policy.
    pub policy: &'a DriftPolicy,
    /// Its retraining.
    pub retraining: &'a RetrainingSpec,
    /// The target.
    pub target: &'a Validated,
    /// Where records are.
    pub records: Option<Place<'a>>,
    /// Settings of the operator.
    pub environment: &'a Environment,
    /// The cycle.
    pub cycle: &'a Cycle,
}

impl<'a> Site<'a> {
    /// The repository of learned models, if this cycle has one.
    fn output(&self) -> Option<&'a OCIOutput> {
        self.cycle.repository.as_ref()?;
        Some(&self.retraining.output.as_ref()?.oci)
    }

    /// The Secret that lets a Job speak to the repository.
    fn registry_secret(&self, kind: Kind) -> Option<&'a str> {
        let output = self.output();
        let secret = match kind {
            Kind::Prepare => None,
            Kind::Retrain | Kind::Publish => output.and_then(|output| output.push_secret_ref.as_ref()),
            Kind::Gate => output.and_then(|output| output.pull_secret_ref.as_ref()),
        };
        secret.map(|secret| secret.name.as_str())
    }
}

/// GPUs that a pod asks for: as Kubernetes counts, those of all containers, or of the one before them that asks for more.
#[must_use]
pub fn gpus(pod: &PodSpec) -> i64 {
    let of = |container: &Container| -> i64 {
        let limits = container
            .resources
            .as_ref()
            .and_then(|resources| resources.limits.as_ref());
        limits.map_or(0, |limits| gpus_of(limits).sum())
    };
    let before = pod.init_containers.iter().flatten().map(of).max().unwrap_or(0);
    pod.containers.iter().map(of).sum::<i64>().max(before)
}

/// GPU seconds that a Job of this template may take at one try. `deadline`: of a pod that has none of its own, seconds.
#[must_use]
pub fn gpu_seconds(template: &JobTemplateSpec, deadline: i64) -> i64 {
    let Some(spec) = &template.spec else { return 0 };
    let pods = i64::from(spec.parallelism.unwrap_or(1));
    let pod = spec.template.spec.as_ref();
    let each = pod.map_or(0, |pod| {
        gpus(pod).saturating_mul(pod.active_deadline_seconds.unwrap_or(deadline))
    });
    each.saturating_mul(pods)
}

/// The container of a pod that speaks the contract.
#[must_use]
pub fn speaker(pod: &PodSpec) -> Option<&str> {
    let named = pod.containers.iter().find(|container| container.name == CONTAINER);
    let speaker = named.or(pod.containers.first())?;
    Some(&speaker.name)
}

fn gpus_of(limits: &BTreeMap<String, Quantity>) -> impl Iterator<Item = i64> {
    let of_gpus = limits.iter().filter(|(name, _)| name.ends_with("/gpu"));
    of_gpus.filter_map(|(_, amount)| amount.0.parse::<i64>().ok())
}

/// The Job of this kind.
///
/// # Errors
/// What is wrong with the template of the user, in words.
pub fn job(kind: Kind, site: &Site<'_>, template: Option<&JobTemplateSpec>) -> Result<Job, String> {
    let mut spec = match (kind, template) {
        (Kind::Prepare | Kind::Publish, _) | (_, None) => default(kind, site),
        (_, Some(template)) => theirs(kind, site, template)?,
    };
    let name = job_name(&site.policy.name_any(), kind, &site.cycle.id);
    let mut labels = labels(site.policy, kind.word());
    labels.insert(CYCLE_LABEL.to_owned(), site.cycle.id.clone());
    let metadata = spec.template.metadata.get_or_insert_default();
    metadata.labels.get_or_insert_default().extend(labels.clone());
    if let Some(queue) = site.retraining.queue_name.as_ref().filter(|_| kind.is_of_users()) {
        labels.insert("kueue.x-k8s.io/queue-name".to_owned(), queue.clone());
        spec.suspend = Some(true);
    }
    if let Some(pod) = &mut spec.template.spec {
        // Of the pod, not of the Job: the time in which it waits for room does not count.
        pod.active_deadline_seconds
            .get_or_insert(site.retraining.active_deadline_seconds);
    }
    Ok(Job {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: site.policy.namespace(),
            labels: Some(labels),
            owner_references: site.policy.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    })
}

fn default(kind: Kind, site: &Site<'_>) -> JobSpec {
    let word = match kind {
        Kind::Prepare => "prepare",
        Kind::Retrain => "train",
        Kind::Gate => "evaluate",
        Kind::Publish => "publish",
    };
    let mut args = vec![word.to_owned()];
    if kind == Kind::Prepare {
        args.push(format!(
            "--output={WORKSPACE}/{}",
            cycle_path(&site.policy.name_any(), &site.cycle.id)
        ));
        args.push(match site.records {
            Some(Place::Bucket(_)) => format!("--scratch={SCRATCH_DIRECTORY}/records"),
            _ => format!("--capture={RECORDS}/perennial-capture/{}", site.target.owner.name),
        });
    }
    let mut environment = variables(kind, site, site.retraining.active_deadline_seconds);
    if kind == Kind::Retrain {
        environment.extend(
            site.retraining
                .settings
                .iter()
                .map(|setting| plain(&setting.name, &setting.value)),
        );
    }
    if kind.is_of_users() {
        environment.extend(site.target.source.environment.clone());
    }
    if kind != Kind::Prepare {
        environment.extend(plain_http(site.environment));
    }
    let mut container = container(CONTAINER, site.environment, args, environment);
    container.volume_mounts = Some(mounts(kind, site));
    if kind.is_of_users() {
        container.resources = resources(site.retraining.resources.as_ref());
    }
    let mut volumes = volumes(kind, site);
    volumes.push(scratch());
    JobSpec {
        backoff_limit: Some(RETRIES),
        pod_failure_policy: Some(failure_policy(kind)),
        ttl_seconds_after_finished: Some(KEEP_SECONDS),
        template: PodTemplateSpec {
            metadata: None,
            spec: Some(PodSpec {
                init_containers: (kind == Kind::Gate).then(|| vec![verify(site)]),
                ..pod(container, volumes)
            }),
        },
        ..JobSpec::default()
    }
}

/// The user's template with what the contract gives it.
fn theirs(kind: Kind, site: &Site<'_>, template: &JobTemplateSpec) -> Result<JobSpec, String> {
    let mut spec = template.spec.clone().ok_or("the Job template is empty")?;
    let keep = spec.ttl_seconds_after_finished.unwrap_or(KEEP_SECONDS);
    spec.ttl_seconds_after_finished = Some(keep.max(KEEP_AT_LEAST));
    let pod = spec.template.spec.as_mut().ok_or("the Job template has no pod")?;
    let deadline = pod
        .active_deadline_seconds
        .unwrap_or(site.retraining.active_deadline_seconds);
    let position = pod
        .containers
        .iter()
        .position(|container| container.name == CONTAINER)
        .unwrap_or(0);
    let container = pod
        .containers
        .get_mut(position)
        .ok_or("the Job template has no container")?;
    let ours = variables(kind, site, deadline);
    let set = container.env.get_or_insert_default();
    if let Some(taken) = set
        .iter()
        .find(|variable| ours.iter().any(|own| own.name == variable.name))
    {
        return Err(format!(
            "the Job template sets {}, which the contract sets: remove it from the container {}",
            taken.name, container.name
        ));
    }
    set.extend(ours);
    container
        .volume_mounts
        .get_or_insert_default()
        .extend(mounts(kind, site));
    container.termination_message_path = Some(TERMINATION_PATH.to_owned());
    container.termination_message_policy = Some("File".to_owned());
    let all = pod.volumes.get_or_insert_default();
    all.extend(volumes(kind, site));
    if kind == Kind::Gate {
        all.push(scratch());
        pod.init_containers.get_or_insert_default().insert(0, verify(site));
    }
    Ok(spec)
}

fn verify(site: &Site<'_>) -> Container {
    let cycle = site.cycle;
    let mut environment = vec![
        plain("VERIFY_URI", &candidate_uri(cycle)),
        plain("VERIFY_DIGEST", candidate(cycle)),
        plain("VERIFY_BASE_DIGEST", &cycle.base.digest),
        plain("VERIFY_CLAIMED_BASE_DIGEST", &cycle.base.digest),
        plain("VERIFY_MAX_BYTES", &MAX_MODEL_BYTES.to_string()),
        plain("VERIFY_DIRECTORY", SCRATCH_DIRECTORY),
        plain("VERIFY_TERMINATION_PATH", TERMINATION_PATH),
    ];
    if site.output().is_some() {
        environment.extend(site.target.source.environment.clone());
        environment.extend(plain_http(site.environment));
    }
    let mut verify = container(VERIFY, site.environment, vec!["verify".to_owned()], environment);
    let mut mounts = vec![
        below(site, "output", CANDIDATE_DIRECTORY, true),
        mount(SCRATCH, SCRATCH_DIRECTORY, None, false),
    ];
    mounts.extend(registry(Kind::Gate, site));
    verify.volume_mounts = Some(mounts);
    verify
}

fn resources(spec: Option<&ResourcesSpec>) -> Option<ResourceRequirements> {
    let spec = spec?;
    let given = [("cpu", &spec.cpu), ("memory", &spec.memory)];
    let amounts: BTreeMap<String, Quantity> = given
        .into_iter()
        .filter_map(|(name, amount)| Some((name.to_owned(), Quantity(amount.as_ref()?.0.clone()))))
        .collect();
    (!amounts.is_empty()).then(|| ResourceRequirements {
        limits: Some(amounts.clone()),
        requests: Some(amounts),
        ..ResourceRequirements::default()
    })
}

/// A node that goes away costs no try; a program that asks for another try costs one; anything else is final.
fn failure_policy(kind: Kind) -> PodFailurePolicy {
    let disrupted = PodFailurePolicyRule {
        action: "Ignore".to_owned(),
        on_exit_codes: None,
        on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
            status: "True".to_owned(),
            type_: "DisruptionTarget".to_owned(),
        }]),
    };
    let final_of = |container: &str| PodFailurePolicyRule {
        action: "FailJob".to_owned(),
        on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
            container_name: Some(container.to_owned()),
            operator: "NotIn".to_owned(),
            values: vec![EXIT_RETRY],
        }),
        on_pod_conditions: None,
    };
    let mut rules = vec![disrupted, final_of(CONTAINER)];
    if kind == Kind::Gate {
        rules.push(final_of(VERIFY));
    }
    PodFailurePolicy { rules }
}
