//! From the object to what the rest of the pipeline needs: checked where the schema cannot, defaults filled in.

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, PodTemplateSpec, SecretKeySelector};
use perennial_crds::autoscaling::AutoscalingSpec;
use perennial_crds::capture_spec::CaptureSpec;
use perennial_crds::llm_deployment::{AcceleratorSpec, Learned, ModelSource, ResourcesSpec};
use perennial_crds::serving::{CLAIM_DIRECTORY, REGISTRY_AUTH_VARIABLE};
use perennial_crds::{LLMDeployment, RESOLVE_AGAIN_ANNOTATION};
use serde::Serialize;
use thiserror::Error;

use super::RETRY_ANNOTATION;
use crate::index::Owner;

/// What is wrong with an object.
#[derive(Debug, Error)]
pub enum Error {
    /// The API server gave an object without what it always has.
    #[error("the object has no {0}")]
    Incomplete(&'static str),
    /// The overlay does not fit the API.
    #[error("spec.podTemplate is not a pod template: {0}. Write it as under spec.template of a Deployment")]
    PodTemplate(#[source] serde_json::Error),
    /// The overlay takes over what the operator needs.
    #[error("spec.podTemplate sets {0}, which the operator owns; use {1}")]
    Reserved(&'static str, &'static str),
}

/// An object that can be built from.
#[derive(Clone, Debug)]
pub struct Validated {
    /// Namespace and name.
    pub owner: Owner,
    /// UID, for owner references.
    pub uid: String,
    /// Generation of the spec.
    pub generation: i64,
    /// Name under which clients ask for the model.
    pub model_name: String,
    /// Where it comes from.
    pub source: Source,
    /// Image that the user asks for.
    pub image: Option<String>,
    /// Further arguments.
    pub extra_args: Vec<String>,
    /// Longest context in tokens.
    pub max_context_tokens: Option<u32>,
    /// Devices.
    pub accelerator: Option<AcceleratorSpec>,
    /// CPU and memory.
    pub resources: ResourcesSpec,
    /// Wanted replicas; 0 while suspended. With `autoscaling`, the ones to begin with.
    pub replicas: i32,
    /// Limits and targets of the autoscaler.
    pub autoscaling: Option<AutoscalingSpec>,
    /// What of requests is kept. No part of a revision.
    pub capture: Option<CaptureSpec>,
    /// Stopped on purpose.
    pub suspended: bool,
    /// New revisions wait.
    pub paused: bool,
    /// Seconds for a new revision to get ready.
    pub progress_deadline_seconds: i32,
    /// Seconds for running requests to finish.
    pub drain_seconds: i32,
    /// Seconds for a replica to produce its first token.
    pub startup_deadline_seconds: i32,
    /// Overlay of the pod template.
    pub overlay: Option<PodTemplateSpec>,
    /// A new value starts a failed rollout once more.
    pub retry: Option<String>,
    /// Whether a learned model may serve in place of the spec's.
    pub learned: Learned,
}

/// Where a model comes from, as a pod needs it.
#[derive(Clone, Debug, Serialize)]
pub struct Source {
    /// Address as `perennial-server` takes it; a branch or tag if the user gave one.
    pub uri: String,
    /// Digest that the user gave.
    pub digest: Option<String>,
    /// Whether the address or the digest pins exact bytes.
    pub pinned: bool,
    /// Environment with credentials and endpoint.
    pub environment: Vec<EnvVar>,
    /// Claim to mount.
    pub claim: Option<String>,
    /// Folder of the claim to mount; absent: all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim_path: Option<String>,
    /// A new value resolves once more.
    pub again: Option<String>,
}

/// Checks an object and fills in defaults.
///
/// # Errors
/// [`Error`] says which field is wrong and what to write instead.
pub fn validate(object: &LLMDeployment) -> Result<Validated, Error> {
    let metadata = &object.metadata;
    let name = metadata.name.clone().ok_or(Error::Incomplete("name"))?;
    let annotation = |key: &str| metadata.annotations.as_ref().and_then(|all| all.get(key)).cloned();
    let spec = &object.spec;
    let runtime = spec.runtime.clone().unwrap_or_default();
    Ok(Validated {
        owner: Owner {
            namespace: metadata.namespace.clone().ok_or(Error::Incomplete("namespace"))?,
            name: name.clone(),
        },
        uid: metadata.uid.clone().ok_or(Error::Incomplete("uid"))?,
        generation: metadata.generation.unwrap_or(0),
        model_name: spec.model.name.clone().unwrap_or(name),
        source: source(
            &spec.model.source,
            spec.model.digest.clone(),
            annotation(RESOLVE_AGAIN_ANNOTATION),
        ),
        image: runtime.image,
        extra_args: runtime.extra_args,
        max_context_tokens: spec.model.max_context_tokens,
        accelerator: spec.accelerator.clone().filter(|accelerator| accelerator.count > 0),
        resources: spec.resources.clone().unwrap_or_default(),
        replicas: if spec.suspend { 0 } else { spec.replicas },
        autoscaling: spec.autoscaling.clone(),
        capture: spec.capture.clone(),
        suspended: spec.suspend,
        paused: spec.rollout.paused,
        progress_deadline_seconds: spec.rollout.progress_deadline_seconds,
        drain_seconds: spec.lifecycle.drain_seconds,
        startup_deadline_seconds: spec.lifecycle.startup_deadline_seconds,
        overlay: overlay(spec.pod_template.as_ref())?,
        retry: annotation(RETRY_ANNOTATION),
        learned: spec.model.learned,
    })
}

fn overlay(given: Option<&serde_json::Map<String, serde_json::Value>>) -> Result<Option<PodTemplateSpec>, Error> {
    let Some(given) = given.filter(|map| !map.is_empty()) else {
        return Ok(None);
    };
    let mut value = serde_json::Value::Object(given.clone());
    // `containers` is required by the type, while an overlay need not name any.
    if let Some(spec) = value.get_mut("spec").and_then(serde_json::Value::as_object_mut) {
        spec.entry("containers")
            .or_insert_with(|| serde_json::Value::Array(Vec::new()));
    }
    let overlay: PodTemplateSpec = serde_json::from_value(value).map_err(Error::PodTemplate)?;
    for container in overlay
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .filter(|c| c.name == super::SERVER)
    {
        if container.image.is_some() {
            return Err(Error::Reserved(
                "the image of the container server",
                "spec.runtime.image",
            ));
        }
        if container.args.as_ref().is_some_and(|args| !args.is_empty()) {
            return Err(Error::Reserved(
                "the arguments of the container server",
                "spec.runtime.extraArgs",
            ));
        }
    }
    Ok(Some(overlay))
}

fn source(source: &ModelSource, digest: Option<String>, again: Option<String>) -> Source {
    let mut environment = Vec::new();
    let mut claim = None;
    let (uri, pinned_by_address) = if let Some(hub) = &source.hugging_face {
        if let Some(endpoint) = &hub.endpoint {
            environment.push(plain("HF_ENDPOINT", endpoint));
        }
        if let Some(secret) = &hub.token_secret_ref {
            environment.push(from_secret("HF_TOKEN", &secret.name, &secret.key));
        }
        let file = hub.file.as_ref().map(|file| format!("#{file}")).unwrap_or_default();
        (
            format!("hf://{}@{}{file}", hub.repository, hub.revision),
            is_commit(&hub.revision),
        )
    } else if let Some(registry) = &source.oci {
        if let Some(secret) = &registry.pull_secret_ref {
            environment.push(registry_auth(&secret.name));
        }
        (
            format!("oci://{}", registry.reference),
            registry.reference.contains("@sha256:"),
        )
    } else if let Some(http) = &source.http {
        (http.url.clone(), false)
    } else {
        let volume = source.persistent_volume_claim.clone();
        let path = volume
            .as_ref()
            .map(|volume| volume.path.trim_matches('/').to_owned())
            .unwrap_or_default();
        claim = volume.map(|volume| volume.claim_name);
        let uri = if path.is_empty() {
            format!("file://{CLAIM_DIRECTORY}")
        } else {
            format!("file://{CLAIM_DIRECTORY}/{path}")
        };
        (uri, false)
    };
    let pinned = pinned_by_address || digest.is_some();
    Source {
        uri,
        digest,
        pinned,
        environment,
        claim,
        claim_path: None,
        again: again.filter(|_| !pinned),
    }
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// An environment variable with a value.
#[must_use]
pub fn plain(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        ..EnvVar::default()
    }
}

/// As an environment variable, a missing Secret shows in the pod's status; as a volume it would only show in an event.
/// Credentials for a registry from a Secret of type `kubernetes.io/dockerconfigjson`.
pub(super) fn registry_auth(secret: &str) -> EnvVar {
    from_secret(REGISTRY_AUTH_VARIABLE, secret, ".dockerconfigjson")
}

pub(crate) fn from_secret(name: &str, secret: &str, key: &str) -> EnvVar {
    let selector = SecretKeySelector {
        name: secret.to_owned(),
        key: key.to_owned(),
        optional: None,
    };
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(selector),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}
