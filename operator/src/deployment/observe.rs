//! The cluster as one object sees it, from the caches.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use perennial_crds::REVISION_LABEL;

use super::capture::is_collector;
use super::diagnose::is_ready;
use super::plan::{Known, Observed, Running};
use super::revision::{self, Revision};
use crate::apply::Current;
use crate::cycle::lineage::{self, Learned, is_learned};
use crate::index::{Index, Owner};

/// One cache per kind of child.
#[derive(Clone, Default)]
pub struct Indexes {
    /// Identities of pods.
    pub service_accounts: Index<ServiceAccount>,
    /// Revisions.
    pub revisions: Index<ControllerRevision>,
    /// Addresses.
    pub services: Index<Service>,
    /// Disruption budgets.
    pub disruption_budgets: Index<PodDisruptionBudget>,
    /// Deployments.
    pub deployments: Index<Deployment>,
    /// Resolving Jobs.
    pub jobs: Index<Job>,
    /// Pods of all of them, without their spec.
    pub pods: Index<Pod>,
    /// Where the Services lead.
    pub slices: Index<EndpointSlice>,
}

impl Indexes {
    /// Waits until every cache has its first listing.
    pub async fn wait_until_ready(&self) {
        self.service_accounts.wait_until_ready().await;
        self.revisions.wait_until_ready().await;
        self.services.wait_until_ready().await;
        self.disruption_budgets.wait_until_ready().await;
        self.deployments.wait_until_ready().await;
        self.jobs.wait_until_ready().await;
        self.pods.wait_until_ready().await;
        self.slices.wait_until_ready().await;
    }
}

/// A kind of child that is written; knows its cache.
pub trait Kept: Sized {
    /// Its cache.
    fn index(indexes: &Indexes) -> &Index<Self>;
}

macro_rules! kept {
    ($($kind:ty: $index:ident),* $(,)?) => {$(
        impl Kept for $kind {
            fn index(indexes: &Indexes) -> &Index<Self> {
                &indexes.$index
            }
        }
    )*};
}

kept! {
    ServiceAccount: service_accounts,
    ControllerRevision: revisions,
    Service: services,
    PodDisruptionBudget: disruption_budgets,
    Deployment: deployments,
    Job: jobs,
}

/// Everything that belongs to one object, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Children {
    /// What is applied.
    pub current: Current,
    /// Readable revisions.
    pub revisions: Vec<Revision>,
    /// Models that policies learned from the one in the spec.
    pub learned: Vec<Learned>,
    /// Pods.
    pub pods: Vec<Arc<Pod>>,
    slices: Vec<Arc<EndpointSlice>>,
}

/// Reads all children of an object from the caches.
///
/// # Errors
/// If a stored revision cannot be read.
pub fn children(indexes: &Indexes, owner: &Owner) -> Result<Children, revision::Unreadable> {
    let stored = indexes.revisions.of(owner);
    let learned = stored
        .iter()
        .filter(|one| is_learned(one))
        .filter_map(|one| lineage::read(one));
    let learned = learned.collect();
    let mut revisions = stored
        .iter()
        .filter(|one| !is_learned(one))
        .map(|one| revision::read(one))
        .collect::<Result<Vec<_>, _>>()?;
    revisions.sort_by_key(|revision| revision.number);
    Ok(Children {
        current: Current {
            service_accounts: indexes.service_accounts.of(owner),
            revisions: stored,
            services: indexes.services.of(owner),
            disruption_budgets: indexes.disruption_budgets.of(owner),
            deployments: indexes.deployments.of(owner),
            jobs: indexes.jobs.of(owner),
        },
        revisions,
        learned,
        pods: indexes.pods.of(owner),
        slices: indexes.slices.of(owner),
    })
}

impl Children {
    /// Pods of one revision.
    pub fn pods_of<'a>(&'a self, revision: &'a str) -> impl Iterator<Item = &'a Pod> {
        self.pods
            .iter()
            .map(AsRef::as_ref)
            .filter(move |pod: &&Pod| pod.labels().get(REVISION_LABEL).is_some_and(|label| label == revision))
    }

    /// Pods that serve or are meant to, of all revisions.
    #[must_use]
    pub fn serving_pods(&self) -> Vec<&Pod> {
        let pods = self.pods.iter().map(AsRef::as_ref);
        pods.filter(|pod: &&Pod| pod.labels().contains_key(REVISION_LABEL))
            .collect()
    }

    /// The Deployment of a revision.
    #[must_use]
    pub fn deployment(&self, name: &str) -> Option<&Arc<Deployment>> {
        self.current
            .deployments
            .iter()
            .find(|deployment| deployment.name_any() == name)
    }

    /// What the plan is made from.
    #[must_use]
    pub fn observed(&self, owner: &Owner) -> Observed {
        let mut known: BTreeMap<String, Known> = BTreeMap::new();
        for revision in &self.revisions {
            let entry = known.entry(revision.name.clone()).or_default();
            entry.served = revision.served;
            entry.failed.clone_from(&revision.failed);
        }
        for deployment in &self.current.deployments {
            if deployment.metadata.deletion_timestamp.is_none() && !is_collector(owner, deployment) {
                known.entry(deployment.name_any()).or_default().running = Some(self.running(deployment));
            }
        }
        let service = self
            .current
            .services
            .iter()
            .find(|service| service.name_any() == owner.name);
        let leads_to = service
            .and_then(|service| service.spec.as_ref()?.selector.as_ref()?.get(REVISION_LABEL).cloned())
            .or_else(|| served_and_ready(&known));
        let endpoints = self.endpoints(owner);
        let of_stable = |pod: &&String| leads_to.as_deref().is_some_and(|stable| self.is_pod_of(pod, stable));
        let ready_endpoints = endpoints.iter().filter(of_stable).count();
        Observed {
            endpoints_moved: ready_endpoints > 0 && ready_endpoints == endpoints.len(),
            ready_endpoints,
            stable: leads_to,
            revisions: known,
        }
    }

    fn running(&self, deployment: &Deployment) -> Running {
        let name = deployment.name_any();
        Running {
            created: deployment
                .creation_timestamp()
                .map_or(jiff::Timestamp::UNIX_EPOCH, |time| time.0),
            // Counted from the pods rather than read from the Deployment's status, which lags behind them.
            ready: count(self.pods_of(&name).filter(|pod| is_ready(pod))),
            replicas: count(
                self.pods_of(&name)
                    .filter(|pod| pod.metadata.deletion_timestamp.is_none()),
            ),
        }
    }

    /// Names of the pods that the Service leads to at this moment.
    fn endpoints(&self, owner: &Owner) -> Vec<String> {
        let of_service =
            |slice: &&Arc<EndpointSlice>| slice.labels().get("kubernetes.io/service-name") == Some(&owner.name);
        let ready = |endpoint: &k8s_openapi::api::discovery::v1::Endpoint| {
            endpoint
                .conditions
                .as_ref()
                .and_then(|conditions| conditions.ready)
                .unwrap_or(true)
        };
        let mut pods: Vec<String> = self
            .slices
            .iter()
            .filter(of_service)
            .flat_map(|slice| slice.endpoints.iter())
            .filter(|endpoint| ready(endpoint))
            .filter_map(|endpoint| endpoint.target_ref.as_ref()?.name.clone())
            .collect();
        // A pod with addresses of both families has an endpoint in two slices.
        pods.sort();
        pods.dedup();
        pods
    }

    fn is_pod_of(&self, pod: &str, revision: &str) -> bool {
        self.pods_of(revision).any(|candidate| candidate.name_any() == pod)
    }
}

fn count(items: impl Iterator) -> i32 {
    i32::try_from(items.count()).unwrap_or(i32::MAX)
}

/// Where the Service led before somebody deleted it: a revision that has served and still could.
fn served_and_ready(known: &BTreeMap<String, Known>) -> Option<String> {
    known
        .iter()
        .filter(|(_, known)| known.served && known.running.as_ref().is_some_and(|running| running.ready > 0))
        .max_by_key(|(_, known)| known.running.as_ref().map(|running| running.ready))
        .map(|(name, _)| name.clone())
}
