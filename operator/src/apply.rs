//! The one place that writes to the API server.
//!
//! Every write names its field manager, is refused while this process does not lead, and is left out when the cluster
//! already is as it should be. An object of somebody else's that has a child's name is never taken over.

mod collector;
mod cycles;
mod policies;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource, ResourceExt};
use perennial_crds::LLMDeployment;
use perennial_crds::conditions::Reason;
use perennial_crds::status::LLMDeploymentStatus;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thiserror::Error;

use crate::deployment::notice::Notice;
use crate::deployment::observe::{Indexes, Kept};
use crate::disposition::Disposition;
use crate::index::Owner;

/// Field manager of the children.
pub const MANAGER: &str = "perennial-operator";
/// Field manager of the status.
pub const STATUS_MANAGER: &str = "perennial-operator-status";

/// A write failed.
#[derive(Debug, Error)]
pub enum Error {
    /// Another operator leads.
    #[error("this operator does not lead any more")]
    NotLeading,
    /// The name is taken.
    #[error(
        "the {kind} {name} is there already and does not belong to this object: remove or rename it, or rename the LLMDeployment"
    )]
    NameTaken {
        /// Kind of the child.
        kind: String,
        /// Its name.
        name: String,
    },
    /// A child of a deleted object of the same name is still on its way out.
    #[error("the {kind} {name} of an earlier object of this name is still being removed")]
    Leaving {
        /// Kind of the child.
        kind: String,
        /// Its name.
        name: String,
    },
    /// The API server said no, or nothing.
    #[error("could not {verb} the {kind} {name}: {source}")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
        /// What came back.
        source: Box<kube::Error>,
    },
}

impl Error {
    /// Reason for conditions, events and metrics.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::NameTaken { .. } => Reason::NameConflict,
            Self::Api { source, .. } if is_refused(source) => Reason::InvalidSpec,
            _ => Reason::ApiFailed,
        }
    }

    /// Whether the API server understood and refused what was written.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Api { source, .. } if is_refused(source))
    }

    /// Whether the same would be refused again until a person does something: a quota, a policy of the cluster, a name that is
    /// somebody else's.
    #[must_use]
    pub fn is_final(&self) -> bool {
        let is_denied = |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.code == 403);
        match self {
            Self::NameTaken { .. } => true,
            Self::Api { source, .. } => is_refused(source) || is_denied(source),
            _ => false,
        }
    }

    /// What trying again can do.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::NotLeading => Disposition::Silent,
            Self::NameTaken { .. } => Disposition::Permanent,
            Self::Leaving { .. } => Disposition::Retry,
            Self::Api { source, .. } if is_refused(source) => Disposition::Permanent,
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if status.code == 404 || status.code == 409 => Disposition::Silent,
                _ => Disposition::Retry,
            },
        }
    }
}

/// The API server understood and refused what was rendered.
fn is_refused(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 422 || status.code == 400)
}

/// All children of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Resources {
    /// Identity of the pods.
    pub service_account: ServiceAccount,
    /// The revision that the spec asks for.
    pub revision: Option<ControllerRevision>,
    /// Address for clients; absent until there is something to lead to.
    pub service: Option<Service>,
    /// Limit of voluntary disruptions.
    pub disruption_budget: PodDisruptionBudget,
    /// One per revision that runs.
    pub deployments: Vec<Deployment>,
    /// The Job that resolves the source.
    pub job: Option<Job>,
}

/// The children as last seen.
#[derive(Clone, Debug, Default)]
pub struct Current {
    /// Identities.
    pub service_accounts: Vec<Arc<ServiceAccount>>,
    /// Revisions.
    pub revisions: Vec<Arc<ControllerRevision>>,
    /// Services.
    pub services: Vec<Arc<Service>>,
    /// Disruption budgets.
    pub disruption_budgets: Vec<Arc<PodDisruptionBudget>>,
    /// Deployments.
    pub deployments: Vec<Arc<Deployment>>,
    /// Jobs.
    pub jobs: Vec<Arc<Job>>,
}

/// Writes, while this process leads.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    recorder: Recorder,
    leads: Arc<AtomicBool>,
    indexes: Indexes,
}

impl Writer {
    /// A writer that is silent while `leads` is false, and tells the caches what it wrote.
    #[must_use]
    pub fn new(client: Client, identity: &str, leads: Arc<AtomicBool>, indexes: Indexes) -> Self {
        let reporter = Reporter {
            controller: MANAGER.to_owned(),
            instance: Some(identity.to_owned()),
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            leads,
            indexes,
        }
    }

    /// Brings all children to what they should be. What is right already costs no request.
    ///
    /// # Errors
    /// The first write that failed; the ones before it stay.
    pub async fn apply(&self, owner: &Owner, desired: &Resources, current: &Current) -> Result<(), Error> {
        // Without `..`: a new kind of child does not compile until it is applied.
        let Resources {
            service_account,
            revision,
            service,
            disruption_budget,
            deployments,
            job,
        } = desired;
        self.ensure(owner, service_account, &current.service_accounts).await?;
        if let Some(revision) = revision {
            self.create_once(owner, revision, &current.revisions).await?;
        }
        if let Some(service) = service {
            self.ensure(owner, service, &current.services).await?;
        }
        self.ensure(owner, disruption_budget, &current.disruption_budgets)
            .await?;
        for deployment in deployments {
            self.ensure(owner, deployment, &current.deployments).await?;
        }
        if let Some(job) = job {
            self.create_once(owner, job, &current.jobs).await?;
        }
        Ok(())
    }

    async fn ensure<K: Child>(&self, owner: &Owner, desired: &K, current: &[Arc<K>]) -> Result<(), Error> {
        if let Some(found) = current.iter().find(|found| found.name_any() == desired.name_any()) {
            belongs(found.as_ref(), desired)?;
            if found.meta().deletion_timestamp.is_some() {
                return Err(Error::Leaving {
                    kind: kind::<K>(),
                    name: desired.name_any(),
                });
            }
            if contains(&json(found.as_ref()), &json(desired)) {
                return Ok(());
            }
            return self.patch(owner, desired).await;
        }
        self.create_once(owner, desired, current).await
    }

    /// Creates what is not there. A live read first, because what has the name without our label is in no cache.
    async fn create_once<K: Child>(&self, owner: &Owner, desired: &K, current: &[Arc<K>]) -> Result<(), Error> {
        let name = desired.name_any();
        if let Some(found) = current.iter().find(|found| found.name_any() == name) {
            return belongs(found.as_ref(), desired);
        }
        let live = self.api::<K>(owner).get_opt(&name).await;
        match live.map_err(|source| failure::<K>("read", &name, source))? {
            Some(found) => {
                belongs(&found, desired)?;
                self.patch(owner, desired).await
            }
            None => self.patch(owner, desired).await,
        }
    }

    async fn patch<K: Child>(&self, owner: &Owner, desired: &K) -> Result<(), Error> {
        self.check()?;
        let name = desired.name_any();
        let parameters = PatchParams::apply(MANAGER).force();
        let result = self
            .api::<K>(owner)
            .patch(&name, &parameters, &Patch::Apply(desired))
            .await;
        let written = result.map_err(|source| failure::<K>("apply", &name, source))?;
        K::index(&self.indexes).wrote(written);
        tracing::info!(
            namespace = owner.namespace,
            name = owner.name,
            kind = kind::<K>(),
            child = name,
            "Applied."
        );
        Ok(())
    }

    /// Deletes a child that is still the one that was seen, and lets its own children follow.
    ///
    /// # Errors
    /// If the API server refuses. A child that is gone already is no error.
    pub async fn delete<K: Child>(&self, owner: &Owner, child: &K) -> Result<(), Error> {
        if child.meta().deletion_timestamp.is_some() {
            return Ok(());
        }
        self.check()?;
        let name = child.name_any();
        let parameters = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions {
                uid: child.uid(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match self.api::<K>(owner).delete(&name, &parameters).await {
            Ok(_) => {
                tracing::info!(
                    namespace = owner.namespace,
                    name = owner.name,
                    kind = kind::<K>(),
                    child = name,
                    "Deleted."
                );
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(failure::<K>("delete", &name, source)),
        }
    }

    /// Sets (or, with `None`, removes) annotations of a revision.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn mark(
        &self,
        owner: &Owner,
        revision: &str,
        annotations: &BTreeMap<String, Option<String>>,
    ) -> Result<(), Error> {
        self.check()?;
        let patch = json!({"metadata": {"annotations": annotations}});
        let api = self.api::<ControllerRevision>(owner);
        let parameters = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let result = api.patch(revision, &parameters, &Patch::Merge(&patch)).await;
        match result {
            Ok(written) => {
                self.indexes.revisions.wrote(written);
                Ok(())
            }
            // A record that somebody deleted cannot be marked, and must not keep the rest from being done.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(failure::<ControllerRevision>("mark", revision, source)),
        }
    }

    /// Sets (or, with `None`, removes) an annotation of a pod.
    ///
    /// # Errors
    /// If the API server refuses. A pod that is gone already is no error.
    pub async fn annotate_pod(&self, owner: &Owner, pod: &str, key: &str, value: Option<&str>) -> Result<(), Error> {
        self.check()?;
        let patch = json!({"metadata": {"annotations": {key: value}}});
        let parameters = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        match self
            .api::<Pod>(owner)
            .patch_metadata(pod, &parameters, &Patch::Merge(&patch))
            .await
        {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(failure::<Pod>("mark", pod, source)),
        }
    }

    /// Writes the status as a whole and returns the object's new resource version.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn status(
        &self,
        owner: &Owner,
        uid: &str,
        status: &LLMDeploymentStatus,
    ) -> Result<Option<String>, Error> {
        self.check()?;
        // The uid keeps a status from landing on a new object of the same name.
        let patch = json!({
            "apiVersion": LLMDeployment::api_version(&()),
            "kind": LLMDeployment::kind(&()),
            "metadata": {"name": owner.name, "uid": uid},
            "status": status,
        });
        let parameters = PatchParams::apply(STATUS_MANAGER).force();
        let api = self.api::<LLMDeployment>(owner);
        let written = api.patch_status(&owner.name, &parameters, &Patch::Apply(&patch)).await;
        written
            .map(|object| object.metadata.resource_version)
            .map_err(|source| failure::<LLMDeployment>("write the status of", &owner.name, source))
    }

    /// Publishes events. One that cannot be published is logged: events are news, not state.
    pub async fn publish<K: Resource<DynamicType = ()>>(&self, object: &K, notices: Vec<Notice>) {
        for notice in notices {
            if self.check().is_err() {
                return;
            }
            let event = Event {
                type_: if notice.warning {
                    EventType::Warning
                } else {
                    EventType::Normal
                },
                reason: notice.reason,
                note: Some(notice.note),
                action: notice.action.to_owned(),
                secondary: None,
            };
            if let Err(error) = self.recorder.publish(&event, &object.object_ref(&())).await {
                tracing::warn!(%error, reason = event.reason, "An event could not be published.");
            }
        }
    }

    fn check(&self) -> Result<(), Error> {
        if self.leads.load(Ordering::SeqCst) {
            Ok(())
        } else {
            Err(Error::NotLeading)
        }
    }

    fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self, owner: &Owner) -> Api<K> {
        Api::namespaced(self.client.clone(), &owner.namespace)
    }
}

/// What a child must be able to do.
pub trait Child:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Kept
    + Send
    + Sync
    + 'static
{
}

impl<K> Child for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + Kept
        + Send
        + Sync
        + 'static
{
}

fn kind<K: Resource<DynamicType = ()>>() -> String {
    K::kind(&()).into_owned()
}

fn failure<K: Resource<DynamicType = ()>>(verb: &'static str, name: &str, source: kube::Error) -> Error {
    Error::Api {
        verb,
        kind: kind::<K>(),
        name: name.to_owned(),
        source: Box::new(source),
    }
}

/// Whether a found object is the child of the object that the desired one belongs to.
fn belongs<K: Resource<DynamicType = ()>>(found: &K, desired: &K) -> Result<(), Error> {
    let wanted = desired.owner_references().first();
    let controller = found
        .owner_references()
        .iter()
        .find(|owner| owner.controller == Some(true));
    match (controller, wanted) {
        (Some(controller), Some(wanted)) if controller.uid == wanted.uid => Ok(()),
        (Some(controller), Some(wanted)) if controller.kind == wanted.kind && controller.name == wanted.name => {
            Err(Error::Leaving {
                kind: kind::<K>(),
                name: found.name_any(),
            })
        }
        _ => Err(Error::NameTaken {
            kind: kind::<K>(),
            name: found.name_any(),
        }),
    }
}

fn json<K: Serialize>(value: &K) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// Whether everything that is desired is there. What the API server added by itself does not count.
#[must_use]
pub fn contains(found: &Value, desired: &Value) -> bool {
    match (found, desired) {
        (Value::Object(found), Value::Object(desired)) => desired.iter().all(|(key, value)| {
            found
                .get(key)
                .map_or_else(|| is_empty(value), |found| contains(found, value))
        }),
        (Value::Array(found), Value::Array(desired)) => {
            found.len() == desired.len()
                && found
                    .iter()
                    .zip(desired)
                    .all(|(found, desired)| contains(found, desired))
        }
        (found, desired) => found == desired,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_server_added_is_no_difference_and_what_a_person_changed_is() {
        let desired = json!({"spec": {"replicas": 1, "list": [{"name": "a"}]}, "metadata": {"annotations": {}}});
        let found =
            json!({"spec": {"replicas": 1, "list": [{"name": "a", "added": true}], "other": 1}, "metadata": {}});
        assert!(contains(&found, &desired));
        assert!(!contains(
            &json!({"spec": {"replicas": 2, "list": [{"name": "a"}]}}),
            &desired
        ));
        assert!(!contains(
            &json!({"spec": {"replicas": 1, "list": [{"name": "a"}, {"name": "b"}]}}),
            &desired
        ));
        assert!(!contains(&json!({"spec": {"replicas": 1}}), &desired));
    }
}
