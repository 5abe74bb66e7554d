//! Reads and writes for DriftPolicies: status, and the ConfigMaps in which they remember.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use perennial_crds::DriftPolicy;
use perennial_crds::drift_policy::DriftPolicyStatus;
use serde_json::json;

use super::{Error, MANAGER, STATUS_MANAGER, Writer, belongs, failure};
use crate::index::Owner;

impl Writer {
    /// Writes the status of a policy as a whole.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn policy_status(&self, owner: &Owner, uid: &str, status: &DriftPolicyStatus) -> Result<(), Error> {
        self.check()?;
        // The uid keeps a status from landing on a new object of the same name.
        let patch = json!({
            "apiVersion": DriftPolicy::api_version(&()),
            "kind": DriftPolicy::kind(&()),
            "metadata": {"name": owner.name, "uid": uid},
            "status": status,
        });
        let parameters = PatchParams::apply(STATUS_MANAGER).force();
        let api = self.api::<DriftPolicy>(owner);
        match api.patch_status(&owner.name, &parameters, &Patch::Apply(&patch)).await {
            Ok(_) => Ok(()),
            Err(source) => Err(failure::<DriftPolicy>("write the status of", &owner.name, source)),
        }
    }

    /// A ConfigMap that belongs to the policy that `like` names as its owner, or nothing.
    ///
    /// # Errors
    /// If it is somebody else's, or the API server does not answer.
    pub async fn config_map(&self, owner: &Owner, like: &ConfigMap) -> Result<Option<ConfigMap>, Error> {
        let name = like.name_any();
        let found = self.api::<ConfigMap>(owner).get_opt(&name).await;
        let found = found.map_err(|source| failure::<ConfigMap>("read", &name, source))?;
        if let Some(found) = &found {
            belongs(found, like)?;
        }
        Ok(found)
    }

    /// All ConfigMaps with these labels that belong to the same policy as `like`.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn config_maps(&self, owner: &Owner, like: &ConfigMap, labels: &str) -> Result<Vec<ConfigMap>, Error> {
        let parameters = ListParams::default().labels(labels);
        let found = self.api::<ConfigMap>(owner).list(&parameters).await;
        let mut found = found
            .map_err(|source| failure::<ConfigMap>("list", labels, source))?
            .items;
        found.retain(|map| belongs(map, like).is_ok());
        Ok(found)
    }

    /// Brings a ConfigMap of a policy to what it should be.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn keep(&self, owner: &Owner, map: &ConfigMap) -> Result<(), Error> {
        self.check()?;
        let name = map.name_any();
        let parameters = PatchParams::apply(MANAGER).force();
        let written = self
            .api::<ConfigMap>(owner)
            .patch(&name, &parameters, &Patch::Apply(map))
            .await;
        written
            .map(|_| ())
            .map_err(|source| failure::<ConfigMap>("apply", &name, source))
    }

    /// Removes a ConfigMap of a policy. One that is gone already is no error.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn drop_map(&self, owner: &Owner, name: &str) -> Result<(), Error> {
        self.check()?;
        match self
            .api::<ConfigMap>(owner)
            .delete(name, &DeleteParams::background())
            .await
        {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(failure::<ConfigMap>("delete", name, source)),
        }
    }
}
