//! The pod of a revision.

use k8s_openapi::DeepMerge;
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, DownwardAPIVolumeFile, DownwardAPIVolumeSource, EmptyDirVolumeSource,
    HTTPGetAction, ObjectFieldSelector, PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec,
    PodTemplateSpec, Probe, SeccompProfile, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use perennial_crds::capture::{CAPTURE_ANNOTATION, POD_DIRECTORY, TERMS_FILE};
use perennial_crds::serving::{API_PORT, CLAIM_DIRECTORY, METRICS_PORT, SCRATCH_DIRECTORY};

use super::super::SERVER;
use super::super::revision::{Frozen, FrozenModel, source_hash};
use super::super::validate::{Validated, plain};
use super::Environment;

/// Seconds that a stopping server still takes requests, until all the cluster has heard that it is going.
const LAME_DUCK_SECONDS: i64 = 5;
/// Seconds between the end of the drain and the kill.
const KILL_MARGIN_SECONDS: i64 = 10;
/// Seconds between two looks at a starting pod: how late a ready pod may be noticed.
const STARTUP_PERIOD_SECONDS: i32 = 2;
const USER: i64 = 65532;
/// Volume of a serving pod with its own annotations.
pub const POD_VOLUME: &str = "pod-info";

/// Renders everything that is frozen in a revision.
#[must_use]
pub fn freeze(valid: &Validated, environment: &Environment, name: &str, model: &FrozenModel) -> Frozen {
    let image = valid.image.clone().unwrap_or_else(|| environment.server_image.clone());
    let args = serve_args(valid, model);
    let mut template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(super::labels(&valid.owner.name, Some(name))),
            annotations: Some([("kubectl.kubernetes.io/default-container".to_owned(), SERVER.to_owned())].into()),
            ..ObjectMeta::default()
        }),
        spec: Some(told(pod_spec(
            valid,
            server_container(valid, environment, &image, args.clone()),
        ))),
    };
    if let Some(overlay) = &valid.overlay {
        template.merge_from(overlay.clone());
        // Labels by which the pod is found are not the overlay's to change.
        if let Some(labels) = template.metadata.as_mut().and_then(|metadata| metadata.labels.as_mut()) {
            labels.extend(super::labels(&valid.owner.name, Some(name)));
        }
    }
    Frozen {
        source_hash: source_hash(&valid.source),
        model: model.clone(),
        image,
        args,
        template,
    }
}

/// The pod with the file in which it reads what to keep of requests. Nothing in it depends on `spec.capture`: the file follows the
/// pod's annotation.
fn told(mut pod: PodSpec) -> PodSpec {
    pod.volumes.get_or_insert_default().push(Volume {
        name: POD_VOLUME.to_owned(),
        downward_api: Some(DownwardAPIVolumeSource {
            items: Some(vec![DownwardAPIVolumeFile {
                path: TERMS_FILE.to_owned(),
                field_ref: Some(ObjectFieldSelector {
                    field_path: format!("metadata.annotations['{CAPTURE_ANNOTATION}']"),
                    api_version: None,
                }),
                ..DownwardAPIVolumeFile::default()
            }]),
            default_mode: None,
        }),
        ..Volume::default()
    });
    for server in pod.containers.iter_mut().filter(|container| container.name == SERVER) {
        server.volume_mounts.get_or_insert_default().push(VolumeMount {
            name: POD_VOLUME.to_owned(),
            mount_path: POD_DIRECTORY.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }
    pod
}

fn serve_args(valid: &Validated, model: &FrozenModel) -> Vec<String> {
    let mut args = vec![
        "serve".to_owned(),
        format!("--served-model-name={}", model.name),
        format!("--source={}", model.uri),
    ];
    if let Some(digest) = &model.digest {
        args.push(format!("--digest={digest}"));
    }
    if let Some(tokens) = valid.max_context_tokens {
        args.push(format!("--max-context-tokens={tokens}"));
    }
    args.push(format!("--drain-seconds={}", valid.drain_seconds));
    args.extend(valid.extra_args.iter().cloned());
    args
}

pub(super) fn pod_spec(valid: &Validated, server: Container) -> PodSpec {
    let scratch = Volume {
        name: "scratch".to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    let claim = valid.source.claim.as_ref().map(|claim| Volume {
        name: "model".to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.clone(),
            read_only: Some(true),
        }),
        ..Volume::default()
    });
    PodSpec {
        containers: vec![server],
        volumes: Some(std::iter::once(scratch).chain(claim).collect()),
        node_selector: valid
            .accelerator
            .as_ref()
            .map(|accelerator| accelerator.node_selector.clone())
            .filter(|labels| !labels.is_empty()),
        service_account_name: Some(valid.owner.name.clone()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(
            i64::from(valid.drain_seconds) + LAME_DUCK_SECONDS + KILL_MARGIN_SECONDS,
        ),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        ..PodSpec::default()
    }
}

fn server_container(valid: &Validated, environment: &Environment, image: &str, args: Vec<String>) -> Container {
    let port = |name: &str, number: u16| ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    Container {
        ports: Some(vec![port("http", API_PORT), port("metrics", METRICS_PORT)]),
        resources: super::resources(valid),
        startup_probe: Some(Probe {
            period_seconds: Some(STARTUP_PERIOD_SECONDS),
            failure_threshold: Some((valid.startup_deadline_seconds / STARTUP_PERIOD_SECONDS).max(1)),
            ..probe("/readyz")
        }),
        readiness_probe: Some(Probe {
            period_seconds: Some(2),
            failure_threshold: Some(2),
            ..probe("/readyz")
        }),
        liveness_probe: Some(Probe {
            period_seconds: Some(10),
            failure_threshold: Some(3),
            ..probe("/livez")
        }),
        ..bare_container(valid, environment, image, args)
    }
}

/// The container without what only serving needs.
pub(super) fn bare_container(
    valid: &Validated,
    environment: &Environment,
    image: &str,
    args: Vec<String>,
) -> Container {
    let mut variables = valid.source.environment.clone();
    if !environment.plain_http_registries.is_empty() {
        variables.push(plain(
            "PERENNIAL_PLAIN_HTTP_REGISTRIES",
            &environment.plain_http_registries.join(","),
        ));
    }
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    let claim = valid.source.claim.as_ref().map(|_| VolumeMount {
        sub_path: valid.source.claim_path.clone(),
        ..mount("model", CLAIM_DIRECTORY, true)
    });
    Container {
        name: SERVER.to_owned(),
        image: Some(image.to_owned()),
        args: Some(args),
        env: (!variables.is_empty()).then_some(variables),
        volume_mounts: Some(
            std::iter::once(mount("scratch", SCRATCH_DIRECTORY, false))
                .chain(claim)
                .collect(),
        ),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

fn probe(path: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("metrics".to_owned()),
            ..HTTPGetAction::default()
        }),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}
