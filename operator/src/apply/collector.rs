//! Writes for capture: the collector, and what pods are told.

use perennial_crds::capture::CAPTURE_ANNOTATION;

use super::{Current, Error, Writer};
use crate::deployment::capture::{Collector, Orders};
use crate::index::Owner;

impl Writer {
    /// Carries out what was decided for capture.
    ///
    /// # Errors
    /// The first write that failed. The model's own children do not depend on any of these.
    pub async fn capture(&self, owner: &Owner, orders: &Orders, current: &Current) -> Result<(), Error> {
        let Orders {
            collector,
            old_service,
            old_deployment,
            tell,
        } = orders;
        // What must not be kept is told first, and a collector goes only when nobody has been told of it.
        for (pod, terms) in tell {
            self.annotate_pod(owner, pod, CAPTURE_ANNOTATION, terms.as_deref())
                .await?;
        }
        if let Some(Collector { service, deployment }) = collector {
            self.ensure(owner, service, &current.services).await?;
            if let Some(deployment) = deployment {
                self.ensure(owner, deployment, &current.deployments).await?;
            }
        }
        if let Some(deployment) = old_deployment {
            self.delete(owner, deployment.as_ref()).await?;
        }
        if let Some(service) = old_service {
            self.delete(owner, service.as_ref()).await?;
        }
        Ok(())
    }
}
