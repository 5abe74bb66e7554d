//! Capture: what the pods are told to keep of requests, and whether the collector takes it. Pure.
//!
//! A pod is told by an annotation on itself, so switching capture on or off restarts nothing. The collector is one
//! more Deployment of the object, and must never be taken for a revision: see [`is_collector`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec, Service};
use kube::{Resource, ResourceExt};
use perennial_crds::REVISION_LABEL;
use perennial_crds::capture::{CAPTURE_ANNOTATION, COLLECTOR_PORT, Level, Terms};
use perennial_crds::capture_spec::{CaptureSpec, Place};
use perennial_crds::conditions::Reason;
use sha2::{Digest, Sha256};

use super::build::{
    CAPTURE, COMPONENT_LABEL, Environment, POD_VOLUME, collector_deployment, collector_name, collector_service,
};
use super::diagnose;
use super::observe::Children;
use super::validate::Validated;
use crate::index::Owner;

/// Hex digits of a token.
const TOKEN_DIGITS: usize = 32;

/// The collector's objects.
#[derive(Clone, Debug, PartialEq)]
pub struct Collector {
    /// Its address.
    pub service: Service,
    /// Its pod; absent until the Service has the address that the token is made with.
    pub deployment: Option<Deployment>,
}

/// What is to be done for capture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Orders {
    /// The collector; absent: there is to be none.
    pub collector: Option<Collector>,
    /// The Service of a collector that is not wanted any more.
    pub old_service: Option<Arc<Service>>,
    /// Its Deployment.
    pub old_deployment: Option<Arc<Deployment>>,
    /// Pods by name with the terms that they have to be told; `None`: to be told nothing.
    pub tell: BTreeMap<String, Option<String>>,
}

/// Whether prompts and answers are kept, and why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capturing {
    /// They are.
    pub works: bool,
    /// Reason for the condition.
    pub reason: Reason,
    /// In words.
    pub message: String,
}

/// What the level `Payload` needs.
struct Payload<'a> {
    capture: &'a CaptureSpec,
    place: Place<'a>,
}

/// Whether this Deployment is the object's collector, not one of its revisions.
#[must_use]
pub fn is_collector(owner: &Owner, deployment: &Deployment) -> bool {
    deployment.name_any() == collector_name(&owner.name)
}

/// The Deployments that run revisions.
#[must_use]
pub fn revisions(owner: &Owner, mut deployments: Vec<Arc<Deployment>>) -> Vec<Arc<Deployment>> {
    deployments.retain(|deployment| !is_collector(owner, deployment));
    deployments
}

/// Decides what is to be done.
#[must_use]
pub fn orders(valid: &Validated, children: &Children, environment: &Environment) -> Orders {
    let service = own_service(valid, children);
    let payload = payload(valid);
    let token = service.and_then(|service| token(valid, service));
    let tell = told(children, |revision| terms(valid, service, revision));
    match payload {
        Some(Payload { capture, place }) => Orders {
            collector: Some(Collector {
                service: collector_service(valid),
                deployment: token.map(|token| collector_deployment(valid, environment, capture, place, &token)),
            }),
            tell,
            ..Orders::default()
        },
        None => Orders {
            old_service: service.cloned(),
            old_deployment: own_deployment(valid, children).cloned(),
            tell,
            ..Orders::default()
        },
    }
}

/// What the condition says; nothing unless prompts and answers are to be kept. `failed` is why the orders could not be
/// carried out.
#[must_use]
pub fn capturing(
    valid: &Validated,
    children: &Children,
    serving: Option<&str>,
    failed: Option<&str>,
) -> Option<Capturing> {
    let Payload { capture, place } = payload(valid)?;
    let not = |reason, message| {
        Some(Capturing {
            works: false,
            reason,
            message,
        })
    };
    if let Some(failed) = failed {
        return not(
            Reason::CaptureUnavailable,
            format!("capture cannot be set up: {failed}"),
        );
    }
    let deaf = serving.filter(|revision| template(children, revision).is_some_and(|template| !listens(template)));
    if let Some(revision) = deaf {
        return not(
            Reason::CaptureUnavailable,
            format!(
                "the revision {revision} was made by an older release, and its pods cannot be told what to keep: it takes effect with the next revision, for example after a change of spec.runtime.image"
            ),
        );
    }
    let pods: Vec<&Pod> = children
        .pods
        .iter()
        .map(AsRef::as_ref)
        .filter(|pod| collects(pod))
        .collect();
    if pods.iter().any(|pod| diagnose::is_ready(pod)) {
        return Some(Capturing {
            works: true,
            reason: Reason::CollectorReady,
            message: format!(
                "{} of 1000 requests are kept {}, for {} days and up to {}",
                capture.max_sample_per_mille,
                at(place),
                capture.retention_days,
                capture.max_bytes
            ),
        });
    }
    let finding = diagnose::collector(pods).or_else(|| {
        let deployment = own_deployment(valid, children)?;
        diagnose::collector_deployment(deployment)
    });
    not(
        Reason::CollectorNotReady,
        finding.map_or_else(
            || starting(valid, place),
            |finding| format!("{}: {}", finding.reason, finding.message),
        ),
    )
}

/// What is to be told to a pod of this revision; `None`: nothing, which means counts.
#[must_use]
pub fn terms(valid: &Validated, service: Option<&Arc<Service>>, revision: &str) -> Option<Terms> {
    let capture = valid.capture.as_ref()?;
    if capture.level == Level::None {
        return Some(Terms {
            level: Level::None,
            ..Terms::default()
        });
    }
    payload(valid)?;
    let service = service?;
    Some(Terms {
        level: Level::Payload,
        sample_per_mille: capture.max_sample_per_mille,
        redact: capture.redaction.builtin.clone(),
        patterns: capture.redaction.patterns.clone(),
        collector: Some(address(service)?),
        token: Some(token(valid, service)?),
        revision: Some(revision.to_owned()),
    })
}

fn payload(valid: &Validated) -> Option<Payload<'_>> {
    let capture = valid
        .capture
        .as_ref()
        .filter(|capture| capture.level == Level::Payload)?;
    let place = capture.storage.as_ref()?.place()?;
    Some(Payload { capture, place })
}

/// A place in words.
fn at(place: Place<'_>) -> String {
    match place {
        Place::Claim(claim) => format!("on the volume claim {}", claim.claim_name),
        Place::Bucket(bucket) => format!("in the bucket {}", bucket.bucket),
    }
}

/// What is said of a collector with which nothing is known to be wrong.
fn starting(valid: &Validated, place: Place<'_>) -> String {
    match place {
        Place::Claim(_) => "the collector is being started".to_owned(),
        // It runs, waits and tries again, so nothing about its pod tells.
        Place::Bucket(bucket) => format!(
            "the collector is being started. If this lasts, it cannot use the bucket {}, or has no room left: see kubectl logs deployment/{}",
            bucket.bucket,
            collector_name(&valid.owner.name)
        ),
    }
}

/// What a pod must say so that the collector believes it. Both UIDs are random, and who may read them from the API server may
/// read the pod's annotation, too: it keeps out pods without any such right, which could forge records otherwise.
fn token(valid: &Validated, service: &Service) -> Option<String> {
    let text = format!("{}:{}", valid.uid, service.metadata.uid.as_deref()?);
    let mut token = Sha256::digest(text.as_bytes())
        .iter()
        .fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
    token.truncate(TOKEN_DIGITS);
    Some(token)
}

/// The collector's URL by its address, for which a pod needs no DNS.
fn address(service: &Service) -> Option<String> {
    let address: IpAddr = service.spec.as_ref()?.cluster_ip.as_ref()?.parse().ok()?;
    Some(format!("http://{}", SocketAddr::new(address, COLLECTOR_PORT)))
}

/// The pods whose annotation says something else than it should.
fn told(children: &Children, terms: impl Fn(&str) -> Option<Terms>) -> BTreeMap<String, Option<String>> {
    let pods = children
        .pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let serving = pods.filter_map(|pod| Some((pod, pod.labels().get(REVISION_LABEL)?)));
    let wanted = serving.map(|(pod, revision)| (pod, terms(revision).map(|terms| canonical(&terms))));
    wanted
        .filter(|(pod, terms)| pod.annotations().get(CAPTURE_ANNOTATION) != terms.as_ref())
        .map(|(pod, terms)| (pod.name_any(), terms))
        .collect()
}

/// With sorted keys, so that the order of fields in the source code does not count.
fn canonical(terms: &Terms) -> String {
    serde_json::to_value(terms).unwrap_or_default().to_string()
}

fn own_service<'a>(valid: &Validated, children: &'a Children) -> Option<&'a Arc<Service>> {
    let name = collector_name(&valid.owner.name);
    let mut services = children.current.services.iter();
    services.find(|service| service.name_any() == name && is_own(valid, service.as_ref()))
}

fn own_deployment<'a>(valid: &Validated, children: &'a Children) -> Option<&'a Arc<Deployment>> {
    let mut deployments = children.current.deployments.iter();
    deployments.find(|deployment| is_collector(&valid.owner, deployment) && is_own(valid, deployment.as_ref()))
}

/// Made for this object, and not on its way out.
fn is_own<K: Resource>(valid: &Validated, child: &K) -> bool {
    let meta = child.meta();
    let mut owners = meta.owner_references.iter().flatten();
    meta.deletion_timestamp.is_none() && owners.any(|owner| owner.controller == Some(true) && owner.uid == valid.uid)
}

fn collects(pod: &Pod) -> bool {
    pod.labels().get(COMPONENT_LABEL).is_some_and(|label| label == CAPTURE)
}

fn template<'a>(children: &'a Children, revision: &str) -> Option<&'a PodTemplateSpec> {
    let stored = children.revisions.iter().find(|stored| stored.name == revision);
    stored.map(|stored| &stored.frozen.template).or_else(|| {
        let running = children.deployment(revision)?.spec.as_ref()?;
        Some(&running.template)
    })
}

/// Whether pods of this template can read what to keep.
fn listens(template: &PodTemplateSpec) -> bool {
    let volumes = template.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut own = volumes.filter(|volume| volume.name == POD_VOLUME);
    own.any(|volume| volume.downward_api.is_some())
}
