//! The collector: the one process that writes records of requests to the user's volume or bucket. Serving pods push to it.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, HTTPGetAction, PersistentVolumeClaimVolumeSource,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecurityContext,
    Service, ServicePort, ServiceSpec, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use perennial_crds::NAME_LABEL;
use perennial_crds::capture::COLLECTOR_PORT;
use perennial_crds::capture_spec::{CaptureSpec, Place};

use super::super::validate::{Validated, plain};
use super::{Environment, labels, metadata};
use crate::bucket;

/// Label that tells the pods of a collector from those that serve.
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// Its value.
pub const CAPTURE: &str = "capture";
/// Name of its container.
const CONTAINER: &str = "collector";
/// Name of its port.
const PORT: &str = "records";
/// Where the root of the volume is mounted.
const DATA: &str = "/data";
/// Size of the volume on which records wait for the bucket. The kubelet evicts a pod that uses more, and what waits is lost.
const SPOOL: &str = "2Gi";
/// What the collector uses of it at most, bytes.
const SPOOL_BYTES: u64 = 1792 << 20;
/// How long a collector may take to send the last of its records to the bucket, seconds.
const LAST_SECONDS: i64 = 60;
const USER: i64 = 65532;

/// Name of the collector's Deployment and Service. No revision ends like this: its name ends in a hash.
#[must_use]
pub fn collector_name(owner: &str) -> String {
    format!("{owner}-capture")
}

/// The address to which serving pods push.
#[must_use]
pub fn collector_service(valid: &Validated) -> Service {
    Service {
        metadata: collector_metadata(valid),
        spec: Some(ServiceSpec {
            selector: Some(collector_selector(&valid.owner.name)),
            ports: Some(vec![ServicePort {
                name: Some(PORT.to_owned()),
                port: i32::from(COLLECTOR_PORT),
                target_port: Some(IntOrString::String(PORT.to_owned())),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            type_: Some("ClusterIP".to_owned()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// The collector that keeps records at this place, and takes records from whoever knows the token.
#[must_use]
pub fn collector_deployment(
    valid: &Validated,
    environment: &Environment,
    capture: &CaptureSpec,
    place: Place<'_>,
    token: &str,
) -> Deployment {
    let metadata = collector_metadata(valid);
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: metadata.labels.clone(),
            ..ObjectMeta::default()
        }),
        spec: Some(pod(valid, place, container(valid, environment, capture, place, token))),
    };
    Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            replicas: Some(1),
            selector: LabelSelector {
                match_labels: Some(collector_selector(&valid.owner.name)),
                ..LabelSelector::default()
            },
            template,
            // Two would write to the same files.
            strategy: Some(DeploymentStrategy {
                type_: Some("Recreate".to_owned()),
                rolling_update: None,
            }),
            revision_history_limit: Some(0),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

fn collector_metadata(valid: &Validated) -> ObjectMeta {
    let mut labels = labels(&valid.owner.name, None);
    labels.insert("app.kubernetes.io/name".to_owned(), "perennial-trainer".to_owned());
    labels.insert(COMPONENT_LABEL.to_owned(), CAPTURE.to_owned());
    ObjectMeta {
        labels: Some(labels),
        ..metadata(valid, &collector_name(&valid.owner.name), None)
    }
}

fn collector_selector(owner: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (NAME_LABEL.to_owned(), owner.to_owned()),
        (COMPONENT_LABEL.to_owned(), CAPTURE.to_owned()),
    ])
}

fn pod(valid: &Validated, place: Place<'_>, container: Container) -> PodSpec {
    let overlay = valid.overlay.as_ref().and_then(|overlay| overlay.spec.as_ref());
    PodSpec {
        containers: vec![container],
        volumes: Some(vec![data(place)]),
        termination_grace_period_seconds: matches!(place, Place::Bucket(_)).then_some(LAST_SECONDS),
        // Of the overlay, what it may take to run at all. The rest is for models.
        image_pull_secrets: overlay.and_then(|spec| spec.image_pull_secrets.clone()),
        tolerations: overlay.and_then(|spec| spec.tolerations.clone()),
        service_account_name: Some(valid.owner.name.clone()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            // A volume with years of records is not walked through at each start.
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        ..PodSpec::default()
    }
}

fn data(place: Place<'_>) -> Volume {
    let volume = Volume {
        name: "data".to_owned(),
        ..Volume::default()
    };
    match place {
        Place::Claim(claim) => Volume {
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.claim_name.clone(),
                read_only: None,
            }),
            ..volume
        },
        Place::Bucket(_) => Volume {
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: Some(Quantity(SPOOL.to_owned())),
                medium: None,
            }),
            ..volume
        },
    }
}

fn container(
    valid: &Validated,
    environment: &Environment,
    capture: &CaptureSpec,
    place: Place<'_>,
    token: &str,
) -> Container {
    let amounts = |amounts: &[(&str, &str)]| {
        let amount = |(name, amount): &(&str, &str)| ((*name).to_owned(), Quantity((*amount).to_owned()));
        amounts.iter().map(amount).collect()
    };
    let mut args = vec![
        "collect".to_owned(),
        format!("--retention-days={}", capture.retention_days),
        format!("--max-bytes={}", capture.most_bytes()),
    ];
    let mut variables = vec![
        plain(
            "COLLECT_DIRECTORY",
            &format!("{DATA}/perennial-capture/{}", valid.owner.name),
        ),
        plain("COLLECT_TOKEN", token),
    ];
    if let Place::Bucket(of) = place {
        args.push(format!("--spool-bytes={SPOOL_BYTES}"));
        variables.extend(bucket::variables("COLLECT", of, &valid.owner.name));
    }
    Container {
        name: CONTAINER.to_owned(),
        image: Some(environment.trainer_image.clone()),
        args: Some(args),
        env: Some(variables),
        ports: Some(vec![ContainerPort {
            name: Some(PORT.to_owned()),
            container_port: i32::from(COLLECTOR_PORT),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        volume_mounts: Some(vec![VolumeMount {
            name: "data".to_owned(),
            mount_path: DATA.to_owned(),
            ..VolumeMount::default()
        }]),
        resources: Some(ResourceRequirements {
            requests: Some(amounts(&[("cpu", "50m"), ("memory", "64Mi")])),
            limits: Some(amounts(&[("memory", "256Mi")])),
            ..ResourceRequirements::default()
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
            port: IntOrString::String(PORT.to_owned()),
            ..HTTPGetAction::default()
        }),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}
