//! Reads and writes for the cycles of DriftPolicies: Jobs, Job templates, learned models.

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, PostParams};
use kube::{Resource, ResourceExt};
use perennial_crds::{DriftPolicy, LEARNED_LABEL, POLICY_LABEL};

use super::{Error, MANAGER, Writer, belongs, failure};
use crate::cycle::lineage::{self, Lineage, learned_name};
use crate::deployment::build;
use crate::deployment::validate::Validated;
use crate::index::Owner;

impl Writer {
    /// A CronJob, or nothing.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn cron_job(&self, owner: &Owner, name: &str) -> Result<Option<CronJob>, Error> {
        let found = self.api::<CronJob>(owner).get_opt(name).await;
        found.map_err(|source| failure::<CronJob>("read", name, source))
    }

    /// A Job of a policy as it is at this moment, or nothing.
    ///
    /// # Errors
    /// If it is somebody else's, or the API server does not answer.
    pub async fn job(&self, owner: &Owner, policy: &DriftPolicy, name: &str) -> Result<Option<Job>, Error> {
        let found = self.api::<Job>(owner).get_opt(name).await;
        let found = found.map_err(|source| failure::<Job>("read", name, source))?;
        if let Some(found) = &found {
            belongs(found, &like(policy, name))?;
        }
        Ok(found)
    }

    /// The pods of a Job.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn pods_of_job(&self, owner: &Owner, job: &str) -> Result<Vec<Pod>, Error> {
        let parameters = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
        let found = self.api::<Pod>(owner).list(&parameters).await;
        Ok(found.map_err(|source| failure::<Pod>("list", job, source))?.items)
    }

    /// All Jobs of a policy.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn jobs_of_policy(&self, owner: &Owner, policy: &DriftPolicy) -> Result<Vec<Job>, Error> {
        let labels = format!("{POLICY_LABEL}={}", owner.name);
        let found = self
            .api::<Job>(owner)
            .list(&ListParams::default().labels(&labels))
            .await;
        let mut found = found.map_err(|source| failure::<Job>("list", &labels, source))?.items;
        found.retain(|job| belongs(job, &like(policy, "")).is_ok());
        Ok(found)
    }

    /// Makes a Job. One of that name that is there already, of the same policy, is the one.
    ///
    /// # Errors
    /// If the API server refuses, or the name is taken.
    pub async fn create_job(&self, owner: &Owner, job: &Job) -> Result<(), Error> {
        self.check()?;
        let name = job.name_any();
        let parameters = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        match self.api::<Job>(owner).create(&parameters, job).await {
            Ok(_) => {
                tracing::info!(
                    namespace = owner.namespace,
                    name = owner.name,
                    job = name,
                    "Made a Job."
                );
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let found = self.api::<Job>(owner).get_opt(&name).await;
                match found.map_err(|source| failure::<Job>("read", &name, source))? {
                    Some(found) => belongs(&found, job),
                    None => Ok(()),
                }
            }
            Err(source) => Err(failure::<Job>("create", &name, source)),
        }
    }

    /// Removes a Job of a policy and its pods. One that is gone already is no error.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn delete_job(&self, owner: &Owner, policy: &DriftPolicy, name: &str) -> Result<(), Error> {
        let Some(found) = self.job(owner, policy, name).await? else {
            return Ok(());
        };
        self.delete(owner, &found).await
    }

    /// Stores a learned model with the LLMDeployment that is to serve it. One that is there already is left as it is.
    ///
    /// # Errors
    /// If the API server refuses, or the name is taken.
    pub async fn learn(&self, valid: &Validated, lineage: &Lineage) -> Result<(), Error> {
        let current = self.indexes.revisions.of(&valid.owner);
        let number = current.iter().map(|stored| stored.revision).max().unwrap_or(0) + 1;
        let mut metadata = build::metadata(valid, &lineage.name(&valid.owner.name), None);
        metadata
            .labels
            .get_or_insert_default()
            .insert(LEARNED_LABEL.to_owned(), "true".to_owned());
        let stored = ControllerRevision {
            metadata,
            data: Some(lineage::data(lineage)),
            revision: number,
        };
        self.create_once(&valid.owner, &stored, &current).await
    }

    /// Takes a learned model back.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn unlearn(&self, valid: &Validated, digest: &str) -> Result<(), Error> {
        let name = learned_name(&valid.owner.name, digest);
        let current = self.indexes.revisions.of(&valid.owner);
        match current.iter().find(|stored| stored.name_any() == name) {
            Some(stored) => self.delete(&valid.owner, stored.as_ref()).await,
            None => Ok(()),
        }
    }
}

/// A Job as the policy's own would be.
fn like(policy: &DriftPolicy, name: &str) -> Job {
    let mut like = Job::default();
    like.metadata.name = Some(name.to_owned());
    like.metadata.owner_references = policy.controller_owner_ref(&()).map(|owner| vec![owner]);
    like
}
