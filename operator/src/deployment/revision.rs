//! Revisions: everything that decides what a pod does, frozen under a name made from the inputs.
//!
//! The name comes from what the user wrote and what it was resolved to, never from what was rendered: a new operator
//! that would render differently finds the old name and applies the stored template, so it restarts no pod.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::core::v1::{EnvVar, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::ResourceExt;
use perennial_crds::llm_deployment::{AcceleratorSpec, ResourcesSpec};
use perennial_crds::serving::ResolvedModel;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::validate::{Source, Validated};

/// Set on a revision once it has served: it is worth keeping.
pub const SERVED_ANNOTATION: &str = "perennial.dev/served";
/// Set on a revision when another source was resolved to the same bytes: hashes of those sources, with commas between.
pub const SOURCES_ANNOTATION: &str = "perennial.dev/sources";
/// Set on a revision that did not get ready in time: it is not tried again by itself.
pub const FAILED_ANNOTATION: &str = "perennial.dev/failed";

/// A revision could not be read.
#[derive(Debug, Error)]
#[error("the ControllerRevision {name} cannot be read ({source}); delete it to have it made again")]
pub struct Unreadable {
    name: String,
    source: serde_json::Error,
}

/// What is stored in a ControllerRevision, once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Frozen {
    /// Hash of the source as the user wrote it; finds the answer to "what did this branch mean".
    pub source_hash: String,
    /// The model.
    pub model: FrozenModel,
    /// Image of the server.
    pub image: String,
    /// Arguments of the server.
    pub args: Vec<String>,
    /// The rendered pod template.
    pub template: PodTemplateSpec,
}

/// The model of a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FrozenModel {
    /// Name for clients.
    pub name: String,
    /// Pinned address.
    pub uri: String,
    /// Digest of the bytes; absent if only the address pins them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Size, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
}

impl FrozenModel {
    /// The part of the address that pins: commit, manifest digest, or the path.
    #[must_use]
    pub fn resolved_revision(&self) -> &str {
        let (scheme, rest) = self.uri.split_once("://").unwrap_or(("", &self.uri));
        match scheme {
            "hf" | "oci" => rest
                .rsplit_once('@')
                .map_or(rest, |(_, pin)| pin.split('#').next().unwrap_or(pin)),
            _ => &self.uri,
        }
    }
}

/// Why a revision is not tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Reason of the condition.
    pub reason: String,
    /// What happened.
    pub message: String,
    /// Value of the retry annotation at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<String>,
}

/// A revision as it was found in the cluster.
#[derive(Clone, Debug)]
pub struct Revision {
    /// Name of the ControllerRevision and of its Deployment.
    pub name: String,
    /// Place in the history.
    pub number: i64,
    /// What was frozen.
    pub frozen: Frozen,
    /// Whether it has ever served.
    pub served: bool,
    /// Whether it was given up.
    pub failed: Option<Failure>,
    /// Hashes of further sources that were resolved to the same bytes.
    pub further_sources: Vec<String>,
}

impl Revision {
    /// Whether this source, as the user wrote it, was resolved to the bytes of this revision.
    #[must_use]
    pub fn answers(&self, source_hash: &str) -> bool {
        self.frozen.source_hash == source_hash || self.further_sources.iter().any(|further| further == source_hash)
    }

    /// What to set so that the answer to one more source is kept as long as the revision.
    #[must_use]
    pub fn with_source(&self, source_hash: &str) -> BTreeMap<String, Option<String>> {
        let sources: Vec<&str> = self
            .further_sources
            .iter()
            .map(String::as_str)
            .chain([source_hash])
            .collect();
        BTreeMap::from([(SOURCES_ANNOTATION.to_owned(), Some(sources.join(",")))])
    }
}

/// Reads a revision.
///
/// # Errors
/// If its data is not ours.
pub fn read(stored: &ControllerRevision) -> Result<Revision, Unreadable> {
    let name = stored.name_any();
    let data = stored.data.clone().map(|data| data.0).unwrap_or_default();
    let frozen = serde_json::from_value(data).map_err(|source| Unreadable {
        name: name.clone(),
        source,
    })?;
    let failed = stored.annotations().get(FAILED_ANNOTATION).map(|text| {
        serde_json::from_str(text).unwrap_or_else(|_| Failure {
            reason: perennial_crds::conditions::Reason::ProgressDeadlineExceeded.to_string(),
            message: text.clone(),
            retry: None,
        })
    });
    Ok(Revision {
        number: stored.revision,
        served: stored.annotations().contains_key(SERVED_ANNOTATION),
        failed,
        further_sources: stored
            .annotations()
            .get(SOURCES_ANNOTATION)
            .map(|sources| sources.split(',').map(str::to_owned).collect())
            .unwrap_or_default(),
        frozen,
        name,
    })
}

/// Everything that the name of a revision is made from. Only ever add fields that are skipped while unset, or every
/// model of every user restarts with the next release of the operator; a test holds the hash of an example.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inputs<'a> {
    model_name: &'a str,
    uri: &'a str,
    digest: Option<&'a str>,
    environment: &'a [EnvVar],
    claim: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claim_path: Option<&'a str>,
    max_context_tokens: Option<u32>,
    image: Option<&'a str>,
    extra_args: &'a [String],
    accelerator: Option<&'a AcceleratorSpec>,
    resources: &'a ResourcesSpec,
    drain_seconds: i32,
    startup_deadline_seconds: i32,
    overlay: Option<&'a PodTemplateSpec>,
}

/// Name of the revision of this object with this model.
#[must_use]
pub fn name(valid: &Validated, model: &FrozenModel) -> String {
    let inputs = Inputs {
        model_name: &valid.model_name,
        uri: &model.uri,
        digest: model.digest.as_deref(),
        environment: &valid.source.environment,
        claim: valid.source.claim.as_deref(),
        claim_path: valid.source.claim_path.as_deref(),
        max_context_tokens: valid.max_context_tokens,
        image: valid.image.as_deref(),
        extra_args: &valid.extra_args,
        accelerator: valid.accelerator.as_ref(),
        resources: &valid.resources,
        drain_seconds: valid.drain_seconds,
        startup_deadline_seconds: valid.startup_deadline_seconds,
        overlay: valid.overlay.as_ref(),
    };
    format!("{}-{}", valid.owner.name, &hash(&inputs)[..10])
}

/// Hash of a source as the user wrote it.
#[must_use]
pub fn source_hash(source: &Source) -> String {
    hash(source)[..10].to_owned()
}

/// Lower-case hex of the sha256 of the canonical JSON (keys sorted).
fn hash(value: &impl Serialize) -> String {
    // Through `Value`, whose maps are ordered, so that the order of fields in the source code does not count.
    let canonical = serde_json::to_value(value).unwrap_or_default().to_string();
    Sha256::digest(canonical.as_bytes())
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            use std::fmt::Write as _;
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

/// The model as pinned by the object itself.
#[must_use]
pub fn pinned_model(valid: &Validated) -> Option<FrozenModel> {
    valid.source.pinned.then(|| FrozenModel {
        name: valid.model_name.clone(),
        uri: valid.source.uri.clone(),
        digest: valid.source.digest.clone().or_else(|| {
            valid
                .source
                .uri
                .strip_prefix("oci://")
                .and_then(|uri| uri.rsplit_once('@'))
                .map(|(_, digest)| digest.to_owned())
        }),
        size_bytes: None,
    })
}

/// The model as a resolving Job answered.
#[must_use]
pub fn resolved_model(valid: &Validated, answer: &ResolvedModel) -> FrozenModel {
    FrozenModel {
        name: valid.model_name.clone(),
        uri: answer.uri.clone(),
        digest: Some(answer.digest.clone()),
        size_bytes: Some(answer.size_bytes),
    }
}

/// The ControllerRevision that stores this.
#[must_use]
pub fn store(valid: &Validated, name: &str, number: i64, frozen: &Frozen) -> ControllerRevision {
    ControllerRevision {
        metadata: super::build::metadata(valid, name, Some(name)),
        data: Some(RawExtension(serde_json::to_value(frozen).unwrap_or_default())),
        revision: number,
    }
}

/// Takes the template from a running Deployment whose ControllerRevision was deleted by hand: what runs stays as it is.
#[must_use]
pub fn recover(rendered: Frozen, running: Option<&Deployment>) -> Frozen {
    let Some(template) = running
        .and_then(|running| running.spec.as_ref())
        .map(|spec| spec.template.clone())
    else {
        return rendered;
    };
    let server = template
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .find(|c| c.name == super::SERVER);
    Frozen {
        image: server.and_then(|server| server.image.clone()).unwrap_or(rendered.image),
        args: server.and_then(|server| server.args.clone()).unwrap_or(rendered.args),
        template,
        ..rendered
    }
}

/// Names of old revisions that can go: beyond the newest `keep`, none that is in use.
#[must_use]
pub fn surplus(revisions: &[Revision], in_use: &[&str], keep: usize) -> Vec<String> {
    let mut old: Vec<&Revision> = revisions
        .iter()
        .filter(|revision| !in_use.contains(&revision.name.as_str()))
        .collect();
    old.sort_by_key(|revision| std::cmp::Reverse((revision.served, revision.number)));
    old.iter().skip(keep).map(|revision| revision.name.clone()).collect()
}

/// The moment in RFC 3339 that marks a revision as having served.
#[must_use]
pub fn served_mark(now: Timestamp) -> BTreeMap<String, Option<String>> {
    BTreeMap::from([(
        SERVED_ANNOTATION.to_owned(),
        Some(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
    )])
}
