//! Asks pods how far they are: servers that start, and Jobs that train.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use perennial_crds::retrain::{PROGRESS_PATH, TrainingProgress};
use perennial_crds::serving::{LOADING_PATH, LoadingProgress};

use crate::deployment::diagnose;
use crate::pod_http;

const TIMEOUT: Duration = Duration::from_secs(1);
/// Progress is a few hundred bytes; whatever is longer comes from something else.
const LONGEST_ANSWER: usize = 16 * 1024;

/// Reads `/loading` and `/training` of pods.
#[derive(Clone, Debug)]
pub struct LoadingReader {
    http: reqwest::Client,
}

impl LoadingReader {
    /// A reader that follows no redirect and no proxy, and waits a second at most.
    ///
    /// # Errors
    /// If the TLS library cannot be set up.
    pub fn new() -> reqwest::Result<Self> {
        let http = pod_http::client(TIMEOUT)?;
        Ok(Self { http })
    }

    /// Name and progress of the newest pod that runs but does not answer yet.
    pub async fn newest(&self, pods: &[&Pod]) -> Option<(String, LoadingProgress)> {
        let starting = pods
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none() && !diagnose::is_ready(pod) && is_running(pod))
            .max_by_key(|pod| (pod.creation_timestamp().map(|time| time.0), pod.name_any()))?;
        let address = starting.status.as_ref()?.pod_ip.clone()?;
        Some((starting.name_any(), self.read(&address).await?))
    }

    /// How far the training in a pod is. Not every trainer tells: it is not asked of them.
    pub async fn training(&self, address: IpAddr) -> Option<TrainingProgress> {
        pod_http::json(&self.http, pod_http::url(address, PROGRESS_PATH), LONGEST_ANSWER).await
    }

    async fn read(&self, address: &str) -> Option<LoadingProgress> {
        let url = pod_http::url(address.parse().ok()?, LOADING_PATH);
        pod_http::json(&self.http, url, LONGEST_ANSWER).await
    }
}

/// Whether a container of the pod runs, so that there is somebody to ask.
#[must_use]
pub fn is_running(pod: &Pod) -> bool {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    statuses.is_some_and(|all| {
        all.iter()
            .any(|container| container.state.as_ref().is_some_and(|state| state.running.is_some()))
    })
}
