//! The replicas of one object as the autoscaler sees them, from the caches. Pure.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use perennial_autoscaler::Replicas;
use perennial_crds::conditions::ConditionType;
use perennial_crds::status::LLMDeploymentStatus;
use perennial_crds::{LLMDeployment, REVISION_LABEL};

use crate::deployment::capture::revisions;
use crate::deployment::diagnose::{is_ready, waits_for_room};
use crate::deployment::observe::Indexes;
use crate::index::Owner;

/// A pod that answers requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Serving {
    /// The pod, as it is in the cache.
    pub pod: Arc<Pod>,
    /// Its address.
    pub address: IpAddr,
    /// Seconds from its creation to the start of its process; unknown after a restart.
    pub before_start: Option<f64>,
}

impl Serving {
    /// Its UID.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }
}

/// Whether a pod is of a revision, not of a collector or of a Job.
fn is_replica(pod: &Pod) -> bool {
    pod.labels().contains_key(REVISION_LABEL)
}

/// The pods of a revision that answer requests.
#[must_use]
pub fn serving(indexes: &Indexes, owner: &Owner, revision: &str) -> Vec<Serving> {
    let pods = indexes.pods.of(owner).into_iter();
    let of_revision = pods.filter(|pod| pod.labels().get(REVISION_LABEL).is_some_and(|label| label == revision));
    of_revision.filter(|pod| is_ready(pod)).filter_map(read).collect()
}

/// The revision to which the Service leads.
#[must_use]
pub fn serving_revision(indexes: &Indexes, owner: &Owner) -> Option<String> {
    let services = indexes.services.of(owner);
    let service = services.iter().find(|service| service.name_any() == owner.name)?;
    service.spec.as_ref()?.selector.as_ref()?.get(REVISION_LABEL).cloned()
}

fn read(pod: Arc<Pod>) -> Option<Serving> {
    pod.metadata.uid.as_ref()?;
    Some(Serving {
        address: pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?,
        before_start: before_start(&pod),
        pod,
    })
}

fn before_start(pod: &Pod) -> Option<f64> {
    let created = pod.creation_timestamp()?.0;
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    let server = containers
        .iter()
        .find(|container| container.name == crate::deployment::SERVER)?;
    let started = server.state.as_ref()?.running.as_ref()?.started_at.as_ref()?.0;
    (server.restart_count == 0).then(|| started.duration_since(created).as_secs_f64().max(0.0))
}

/// How many replicas there are, in the autoscaler's terms.
#[must_use]
pub fn replicas(indexes: &Indexes, owner: &Owner, status: &LLMDeploymentStatus, wanted: u32, ready: u32) -> Replicas {
    let no_room = |condition: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
        condition.type_ == ConditionType::CapacityAvailable.to_string() && condition.status == "False"
    };
    Replicas {
        wanted,
        ready,
        without_room: status.conditions.iter().any(no_room)
            || indexes
                .pods
                .of(owner)
                .iter()
                .any(|pod| is_replica(pod) && waits_for_room(pod)),
        // One that waits for `paused` to go, or was given up, has no Deployment and holds nothing up.
        rollout: revisions(owner, indexes.deployments.of(owner)).len() > 1,
    }
}

/// How many replicas an object has that the autoscaler has not spoken of yet: those it runs, or those it was last said to
/// need if they are more, else those it asks for to begin with. The one may be newer than the other after a crash, or set
/// by hand; only the larger takes nothing away.
#[must_use]
pub fn initial(indexes: &Indexes, owner: &Owner, object: &LLMDeployment, min: u32, max: u32) -> u32 {
    let count = |replicas: i32| u32::try_from(replicas).unwrap_or(0);
    let deployments = revisions(owner, indexes.deployments.of(owner));
    let asked = |deployment: &k8s_openapi::api::apps::v1::Deployment| deployment.spec.as_ref()?.replicas;
    let running = deployments
        .iter()
        .filter_map(|deployment| asked(deployment))
        .map(count)
        .max();
    let scaling = object.status.as_ref().and_then(|status| status.autoscaling.as_ref());
    let before = scaling.map_or(0, |scaling| count(scaling.desired_replicas));
    match running.unwrap_or(0) {
        0 if before > 0 => before.clamp(min, max),
        0 => count(object.spec.replicas).clamp(min, max),
        // Outside of the limits only if these have just changed; then the change is a decision to be told.
        running => running.max(before),
    }
}

/// Which pods shall go first when `surplus` replicas are too many: those with the least work. Pods whose work is not known
/// are the last to go.
#[must_use]
pub fn first_to_go(mut pods: Vec<(&str, Option<u64>)>, surplus: usize) -> Vec<&str> {
    pods.sort_by_key(|(name, work)| (work.is_none(), work.unwrap_or(0), *name));
    pods.into_iter().take(surplus).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_with_the_least_work_goes_first_and_an_unknown_one_last() {
        let pods = vec![("a", Some(5)), ("b", None), ("c", Some(1)), ("d", Some(3))];
        assert_eq!(first_to_go(pods.clone(), 2), ["c", "d"]);
        assert_eq!(first_to_go(pods, 4), ["c", "d", "a", "b"]);
    }
}
