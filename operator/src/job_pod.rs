//! What the pods of all Jobs that the operator makes have in common: they may do little, and their last words are a file. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, KeyToPath, PodSecurityContext,
    PodSpec, PodTemplateSpec, SeccompProfile, SecretVolumeSource, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use perennial_crds::serving::TERMINATION_PATH;
use perennial_crds::{DriftPolicy, POLICY_LABEL};

use crate::deployment::build::Environment;
use crate::deployment::validate::plain;

/// Name of the volume for scratch.
pub(crate) const SCRATCH: &str = "perennial-scratch";
/// Name of the volume with credentials for a registry.
pub(crate) const REGISTRY: &str = "perennial-registry";
const USER: i64 = 65532;

/// A container of the trainer's image.
pub(crate) fn container(name: &str, environment: &Environment, args: Vec<String>, variables: Vec<EnvVar>) -> Container {
    Container {
        name: name.to_owned(),
        image: Some(environment.trainer_image.clone()),
        args: Some(args),
        env: Some(variables),
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

/// A pod with this container.
pub(crate) fn pod(container: Container, volumes: Vec<Volume>) -> PodSpec {
    PodSpec {
        containers: vec![container],
        volumes: (!volumes.is_empty()).then_some(volumes),
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
    }
}

/// Labels of a Job of a policy.
pub(crate) fn labels(policy: &DriftPolicy, component: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (
            "app.kubernetes.io/managed-by".to_owned(),
            "perennial-operator".to_owned(),
        ),
        ("app.kubernetes.io/component".to_owned(), component.to_owned()),
        (POLICY_LABEL.to_owned(), policy.name_any()),
    ])
}

/// A small Job of a policy that belongs to no cycle: so many tries, and gone so many seconds after its end.
pub(crate) fn small_job(
    policy: &DriftPolicy,
    name: String,
    component: &str,
    (tries, keep): (i32, i32),
    pod: PodSpec,
) -> Job {
    let labels = labels(policy, component);
    Job {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: policy.namespace(),
            labels: Some(labels.clone()),
            owner_references: policy.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            backoff_limit: Some(tries),
            ttl_seconds_after_finished: Some(keep),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// A volume in a container.
pub(crate) fn mount(name: &str, path: &str, sub_path: Option<String>, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        sub_path,
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

/// A volume for scratch.
pub(crate) fn scratch() -> Volume {
    Volume {
        name: SCRATCH.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    }
}

/// A ConfigMap as a volume. Without it a pod waits for ever, or, if it is `optional`, finds nothing.
pub(crate) fn config_map(name: &str, map: &str, optional: bool) -> Volume {
    Volume {
        name: name.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: map.to_owned(),
            optional: optional.then_some(true),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// A Secret with credentials for a registry as a volume with a docker `config.json`.
pub(crate) fn docker_config(secret: &str) -> Volume {
    Volume {
        name: REGISTRY.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            items: Some(vec![KeyToPath {
                key: ".dockerconfigjson".to_owned(),
                path: "config.json".to_owned(),
                mode: None,
            }]),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// Registries that are spoken to without TLS.
pub(crate) fn plain_http(environment: &Environment) -> Option<EnvVar> {
    (!environment.plain_http_registries.is_empty()).then(|| {
        plain(
            "PERENNIAL_PLAIN_HTTP_REGISTRIES",
            &environment.plain_http_registries.join(","),
        )
    })
}
