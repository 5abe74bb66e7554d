//! The three Jobs of a cycle. Pure: same inputs, same bytes.
//!
//! They run in the object's namespace and with its volumes; the operator sees neither data nor models. Their pods carry no
//! label of the LLMDeployment, so nothing takes them for replicas.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, JobTemplateSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, PersistentVolumeClaimVolumeSource,
    PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile, SecurityContext, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use perennial_crds::llm_deployment::ResourcesSpec;
use perennial_crds::retrain::{
    CANDIDATE_DIRECTORY, DATA_DIRECTORY, EXIT_RETRY, GATE_CONTRACT, GOLDEN_DIRECTORY, MANIFEST_FILE, OUTPUT_DIRECTORY,
    PROGRESS_PORT, PrepareSettings, REPORT_DIRECTORY, RETRAIN_CONTRACT, SCORES_DIRECTORY, SUITES_DIRECTORY,
};
use perennial_crds::retraining::RetrainingSpec;
use perennial_crds::serving::{CLAIM_DIRECTORY, SCRATCH_DIRECTORY, TERMINATION_PATH};
use perennial_crds::{DriftPolicy, POLICY_LABEL};

use super::answers::output_uri;
use super::ledger::{Cycle, Kind, Model};
use super::step::{cycle_path, job_name};
use crate::deployment::build::Environment;
use crate::deployment::validate::{Validated, plain};

/// Label on a Job of a cycle and on its pod: the id of the cycle.
pub const CYCLE_LABEL: &str = "perennial.dev/drift-cycle";
/// Label that says which Job it is.
const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// Where the Job that prepares finds the root of the workspace volume.
const WORKSPACE: &str = "/prepare/workspace";
/// Where it finds the root of the volume with records.
const RECORDS: &str = "/prepare/records";
/// The container of a Job that speaks the contract.
const CONTAINER: &str = "trainer";
/// The container that checks a candidate before it is judged.
pub const VERIFY: &str = "verify";
/// Tries of a Job.
const RETRIES: i32 = 3;
/// Seconds that a finished Job stays, for people to look at.
const KEEP_SECONDS: i32 = 604_800;
/// Largest model that may come out, bytes.
const MAX_MODEL_BYTES: u64 = 2 << 40;
const USER: i64 = 65532;

/// Everything that the Jobs of a cycle are made from.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// The policy.
    pub policy: &'a DriftPolicy,
    /// Its retraining.
    pub retraining: &'a RetrainingSpec,
    /// The target.
    pub target: &'a Validated,
    /// Claim with records.
    pub records_claim: Option<&'a str>,
    /// Settings of the operator.
    pub environment: &'a Environment,
    /// The cycle.
    pub cycle: &'a Cycle,
}

/// Seeds follow from the cycle, so that a Job that is made again does the same.
fn seed(cycle: &Cycle) -> u64 {
    u64::from_str_radix(&cycle.id, 16).unwrap_or(0)
}

/// GPUs that a Job of this template asks for.
#[must_use]
pub fn gpus(template: Option<&JobTemplateSpec>) -> i64 {
    let pod = template.and_then(|template| template.spec.as_ref()?.template.spec.as_ref());
    let containers = pod.into_iter().flat_map(|pod| &pod.containers);
    containers
        .filter_map(|container| container.resources.as_ref()?.limits.as_ref())
        .flat_map(gpus_of)
        .sum()
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
        (Kind::Prepare, _) | (_, None) => default(kind, site),
        (_, Some(template)) => theirs(kind, site, template)?,
    };
    let name = job_name(&site.policy.name_any(), kind, &site.cycle.id);
    let labels = BTreeMap::from([
        (
            "app.kubernetes.io/managed-by".to_owned(),
            "perennial-operator".to_owned(),
        ),
        (COMPONENT_LABEL.to_owned(), kind.word().to_owned()),
        (POLICY_LABEL.to_owned(), site.policy.name_any()),
        (CYCLE_LABEL.to_owned(), site.cycle.id.clone()),
    ]);
    let metadata = spec.template.metadata.get_or_insert_default();
    metadata.labels.get_or_insert_default().extend(labels.clone());
    let mut labels = labels;
    if let Some(queue) = site.retraining.queue_name.as_ref().filter(|_| kind != Kind::Prepare) {
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
    };
    let mut args = vec![word.to_owned()];
    if kind == Kind::Prepare {
        args.push(format!(
            "--output={WORKSPACE}/{}",
            cycle_path(&site.policy.name_any(), &site.cycle.id)
        ));
        args.push(format!(
            "--capture={RECORDS}/perennial-capture/{}",
            site.target.owner.name
        ));
    }
    let mut environment = variables(kind, site);
    if kind == Kind::Retrain {
        environment.extend(
            site.retraining
                .settings
                .iter()
                .map(|setting| plain(&setting.name, &setting.value)),
        );
    }
    if kind != Kind::Prepare {
        environment.extend(site.target.source.environment.clone());
        environment.extend(plain_http(site.environment));
    }
    let mut container = container(CONTAINER, site, args, environment);
    container.volume_mounts = Some(mounts(kind, site));
    if kind != Kind::Prepare {
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
                containers: vec![container],
                volumes: Some(volumes),
                restart_policy: Some("Never".to_owned()),
                automount_service_account_token: Some(false),
                enable_service_links: Some(false),
                security_context: Some(PodSecurityContext {
                    run_as_non_root: Some(true),
                    run_as_user: Some(USER),
                    run_as_group: Some(USER),
                    fs_group: Some(USER),
                    seccomp_profile: Some(SeccompProfile {
                        type_: "RuntimeDefault".to_owned(),
                        localhost_profile: None,
                    }),
                    ..PodSecurityContext::default()
                }),
                ..PodSpec::default()
            }),
        },
        ..JobSpec::default()
    }
}

/// The user's template with what the contract gives it.
fn theirs(kind: Kind, site: &Site<'_>, template: &JobTemplateSpec) -> Result<JobSpec, String> {
    let mut spec = template.spec.clone().ok_or("the Job template is empty")?;
    let pod = spec.template.spec.as_mut().ok_or("the Job template has no pod")?;
    let position = pod
        .containers
        .iter()
        .position(|container| container.name == CONTAINER)
        .unwrap_or(0);
    let container = pod
        .containers
        .get_mut(position)
        .ok_or("the Job template has no container")?;
    let ours = variables(kind, site);
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

fn variables(kind: Kind, site: &Site<'_>) -> Vec<EnvVar> {
    let cycle = site.cycle;
    let deadline = site.retraining.active_deadline_seconds.to_string();
    match kind {
        Kind::Prepare => {
            let settings = serde_json::to_string(&settings(site)).unwrap_or_default();
            vec![
                plain("PREPARE_SETTINGS", &settings),
                plain("PREPARE_REPORT", &cycle.report),
            ]
        }
        Kind::Retrain => vec![
            plain("RETRAIN_CONTRACT", RETRAIN_CONTRACT),
            plain("RETRAIN_CYCLE_ID", &cycle.id),
            plain("RETRAIN_CAUSE", &format!("{:?}", cycle.cause)),
            plain("RETRAIN_BASE_MODEL_URI", &cycle.base.uri),
            plain("RETRAIN_BASE_MODEL_DIGEST", &cycle.base.digest),
            plain("RETRAIN_CHAMPION_URI", &cycle.champion.uri),
            plain("RETRAIN_DATA_MANIFEST", &format!("{DATA_DIRECTORY}/{MANIFEST_FILE}")),
            plain("RETRAIN_OUTPUT_DIR", OUTPUT_DIRECTORY),
            plain("RETRAIN_OUTPUT_URI", &output_uri()),
            plain("RETRAIN_DEADLINE_SECONDS", &deadline),
            plain("RETRAIN_SEED", &seed(cycle).to_string()),
            plain("RETRAIN_TERMINATION_PATH", TERMINATION_PATH),
            plain("RETRAIN_PROGRESS_PORT", &PROGRESS_PORT.to_string()),
        ],
        Kind::Gate => vec![
            plain("GATE_CONTRACT", GATE_CONTRACT),
            plain("GATE_CYCLE_ID", &cycle.id),
            plain("GATE_CHAMPION_URI", &cycle.champion.uri),
            plain("GATE_CHAMPION_DIGEST", &cycle.champion.digest),
            plain("GATE_CANDIDATE_URI", &candidate_uri(cycle)),
            plain("GATE_CANDIDATE_DIGEST", candidate(cycle)),
            plain("GATE_SUITES_DIR", SUITES_DIRECTORY),
            plain("GATE_SUITES_DIGEST", cycle.suites.as_deref().unwrap_or_default()),
            plain("GATE_OUTPUT_DIR", SCORES_DIRECTORY),
            plain("GATE_DEADLINE_SECONDS", &deadline),
            plain("GATE_TERMINATION_PATH", TERMINATION_PATH),
        ],
    }
}

fn settings(site: &Site<'_>) -> PrepareSettings {
    let data = &site.retraining.data;
    let gate = &site.policy.spec.gate;
    let named = |own: bool| {
        let suites = gate
            .suites
            .iter()
            .filter(|suite| suite.config_map_name.is_some() == own);
        suites.map(|suite| suite.name.clone()).collect()
    };
    PrepareSettings {
        cycle_id: site.cycle.id.clone(),
        from: site.cycle.from,
        to: site.cycle.started,
        drifted_since: site.cycle.drifted_since,
        max_records: data.max_records,
        max_percent_per_requester: data.max_percent_per_requester,
        include: data.include.clone(),
        // Half as many again as are needed, because some may be too long to be judged.
        hold_out: gate.min_items.saturating_add(gate.min_items / 2),
        recent_suites: named(false),
        own_suites: named(true),
        min_records: data.min_records,
        seed: seed(site.cycle),
    }
}

fn candidate(cycle: &Cycle) -> &str {
    cycle
        .candidate
        .as_ref()
        .map_or("", |candidate| candidate.digest.as_str())
}

/// The candidate's address in the Job that judges.
fn candidate_uri(cycle: &Cycle) -> String {
    let uri = cycle.candidate.as_ref().map_or("", |candidate| candidate.uri.as_str());
    let below = uri.strip_prefix(&output_uri()).unwrap_or_default();
    format!("file://{CANDIDATE_DIRECTORY}{below}")
}

fn verify(site: &Site<'_>) -> Container {
    let cycle = site.cycle;
    let environment = vec![
        plain("VERIFY_URI", &candidate_uri(cycle)),
        plain("VERIFY_DIGEST", candidate(cycle)),
        plain("VERIFY_BASE_DIGEST", &cycle.base.digest),
        plain("VERIFY_CLAIMED_BASE_DIGEST", &cycle.base.digest),
        plain("VERIFY_MAX_BYTES", &MAX_MODEL_BYTES.to_string()),
        plain("VERIFY_DIRECTORY", SCRATCH_DIRECTORY),
        plain("VERIFY_TERMINATION_PATH", TERMINATION_PATH),
    ];
    let mut verify = container(VERIFY, site, vec!["verify".to_owned()], environment);
    verify.volume_mounts = Some(vec![
        below(site, "output", CANDIDATE_DIRECTORY, true),
        mount(SCRATCH, SCRATCH_DIRECTORY, None, false),
    ]);
    verify
}

fn container(name: &str, site: &Site<'_>, args: Vec<String>, environment: Vec<EnvVar>) -> Container {
    Container {
        name: name.to_owned(),
        image: Some(site.environment.trainer_image.clone()),
        args: Some(args),
        env: Some(environment),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        termination_message_path: Some(TERMINATION_PATH.to_owned()),
        // Never the log: what is in it is not meant for etcd.
        termination_message_policy: Some("File".to_owned()),
        ..Container::default()
    }
}

const SCRATCH: &str = "perennial-scratch";
const VOLUME: &str = "perennial-workspace";
const MODEL: &str = "perennial-model";

fn mount(name: &str, path: &str, sub_path: Option<String>, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        sub_path,
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

/// A folder of the cycle. The Job that prepares has made it.
fn below(site: &Site<'_>, folder: &str, path: &str, read_only: bool) -> VolumeMount {
    let cycle = cycle_path(&site.policy.name_any(), &site.cycle.id);
    mount(VOLUME, path, Some(format!("{cycle}/{folder}")), read_only)
}

/// The model that a Job reads from a claim.
fn model_of(kind: Kind, cycle: &Cycle) -> Option<&Model> {
    match kind {
        Kind::Prepare => None,
        Kind::Retrain => Some(&cycle.base),
        Kind::Gate => Some(&cycle.champion),
    }
}

fn mounts(kind: Kind, site: &Site<'_>) -> Vec<VolumeMount> {
    let mut mounts = match kind {
        Kind::Prepare => {
            let own = site
                .policy
                .spec
                .gate
                .suites
                .iter()
                .filter(|suite| suite.config_map_name.is_some());
            let golden = own.map(|suite| {
                mount(
                    &golden(&suite.name),
                    &format!("{GOLDEN_DIRECTORY}/{}", suite.name),
                    None,
                    true,
                )
            });
            let mut mounts: Vec<VolumeMount> = golden.collect();
            mounts.push(mount(VOLUME, WORKSPACE, None, false));
            if site.records_claim.is_some() {
                mounts.push(mount("perennial-records", RECORDS, None, true));
            }
            return mounts;
        }
        Kind::Retrain => vec![
            below(site, "data", DATA_DIRECTORY, true),
            below(site, "drift", REPORT_DIRECTORY, true),
            below(site, "output", OUTPUT_DIRECTORY, false),
        ],
        Kind::Gate => vec![
            below(site, "suites", SUITES_DIRECTORY, true),
            below(site, "output", CANDIDATE_DIRECTORY, true),
            below(site, "gate", SCORES_DIRECTORY, false),
        ],
    };
    if let Some(model) = model_of(kind, site.cycle).filter(|model| model.claim.is_some()) {
        mounts.push(mount(MODEL, CLAIM_DIRECTORY, model.claim_path.clone(), true));
    }
    let template = match kind {
        Kind::Gate => site.policy.spec.gate.job_template_ref.is_some(),
        _ => site.retraining.job_template_ref.is_some(),
    };
    if !template {
        mounts.push(mount(SCRATCH, SCRATCH_DIRECTORY, None, false));
    }
    mounts
}

fn volumes(kind: Kind, site: &Site<'_>) -> Vec<Volume> {
    let claim = |name: &str, claim: &str, read_only: bool| Volume {
        name: name.to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.to_owned(),
            read_only: read_only.then_some(true),
        }),
        ..Volume::default()
    };
    let workspace = &site.retraining.workspace.persistent_volume_claim.claim_name;
    let mut volumes = vec![claim(VOLUME, workspace, false)];
    if kind == Kind::Prepare {
        volumes.extend(site.records_claim.map(|name| claim("perennial-records", name, true)));
        volumes.extend(site.policy.spec.gate.suites.iter().filter_map(|suite| {
            Some(Volume {
                name: golden(&suite.name),
                config_map: Some(ConfigMapVolumeSource {
                    name: suite.config_map_name.clone()?,
                    ..ConfigMapVolumeSource::default()
                }),
                ..Volume::default()
            })
        }));
    }
    let model = model_of(kind, site.cycle).and_then(|model| model.claim.as_deref());
    volumes.extend(model.map(|name| claim(MODEL, name, true)));
    volumes
}

fn golden(suite: &str) -> String {
    format!("golden-{suite}")
}

fn scratch() -> Volume {
    Volume {
        name: SCRATCH.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    }
}

fn plain_http(environment: &Environment) -> Option<EnvVar> {
    (!environment.plain_http_registries.is_empty()).then(|| {
        plain(
            "PERENNIAL_PLAIN_HTTP_REGISTRIES",
            &environment.plain_http_registries.join(","),
        )
    })
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
