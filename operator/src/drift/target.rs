//! The target of a policy as it is at this moment, from the caches. Pure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use perennial_crds::status::LLMDeploymentStatus;
use perennial_crds::{LLMDeployment, REVISION_LABEL};

use crate::autoscaling::pods::serving_revision;
use crate::deployment::diagnose::is_ready;
use crate::deployment::observe::Indexes;
use crate::index::Owner;

/// A pod that counts requests of the serving revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Its UID.
    pub uid: String,
    /// Its address.
    pub address: IpAddr,
    /// It answers clients; one that does not may still have panes to tell.
    pub ready: bool,
}

/// The target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// UID of the LLMDeployment.
    pub uid: String,
    /// Digest of the model that serves, or the address that pins it.
    pub model: Option<String>,
    /// Name of the revision that serves.
    pub revision: Option<String>,
    /// Pods of that revision.
    pub replicas: Vec<Replica>,
    /// Since when a replica has answered without a break, seconds since 1970. What was seen within a pane of it was seen of a
    /// service that was just starting, or just rolled out.
    pub steady_since: Option<i64>,
}

/// The target of this name.
#[must_use]
pub fn target(indexes: &Indexes, owner: &Owner, object: &LLMDeployment) -> Target {
    let status = object.status.clone().unwrap_or_default();
    let pods = indexes.pods.of(owner);
    let revision = serving_revision(indexes, owner);
    let of_revision: Vec<&Pod> = pods
        .iter()
        .map(AsRef::as_ref)
        .filter(|pod| revision.is_some() && pod.labels().get(REVISION_LABEL) == revision.as_ref())
        .collect();
    Target {
        uid: object.uid().unwrap_or_default(),
        model: model(&status),
        revision: revision.clone(),
        replicas: of_revision.iter().filter_map(|pod| replica(pod)).collect(),
        steady_since: of_revision.iter().filter_map(|pod| ready_since(pod)).min(),
    }
}

/// What the model is, as exactly as it is known.
fn model(status: &LLMDeploymentStatus) -> Option<String> {
    let model = status.model.as_ref()?;
    model.digest.clone().or_else(|| model.resolved_revision.clone())
}

fn replica(pod: &Pod) -> Option<Replica> {
    Some(Replica {
        uid: pod.metadata.uid.clone()?,
        address: pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?,
        ready: is_ready(pod),
    })
}

fn ready_since(pod: &Pod) -> Option<i64> {
    if !is_ready(pod) {
        return None;
    }
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    Some(ready.last_transition_time.as_ref()?.0.as_second())
}
