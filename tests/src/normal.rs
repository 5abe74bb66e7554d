//! The state of a namespace with everything taken out that may differ between two runs that ended alike.

use std::collections::BTreeMap;

use anyhow::Result;
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::ListParams;
use kube::{Api, Client, Resource, ResourceExt};
use perennial_crds::{LLMDeployment, NAME_LABEL, REVISION_LABEL};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Everything in a namespace that belongs to LLMDeployments, by `Kind/name`, normalised. Pods are only counted: their
/// names are made up by controllers.
///
/// # Errors
/// If something cannot be listed.
pub async fn state(client: &Client, namespace: &str) -> Result<BTreeMap<String, Value>> {
    let mut found = BTreeMap::new();
    let ours = ListParams::default().labels(NAME_LABEL);
    add::<LLMDeployment>(&mut found, client, namespace, &ListParams::default()).await?;
    add::<ControllerRevision>(&mut found, client, namespace, &ours).await?;
    add::<Deployment>(&mut found, client, namespace, &ours).await?;
    add::<Job>(&mut found, client, namespace, &ours).await?;
    add::<PodDisruptionBudget>(&mut found, client, namespace, &ours).await?;
    add::<Service>(&mut found, client, namespace, &ours).await?;
    add::<ServiceAccount>(&mut found, client, namespace, &ours).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    for pod in pods.list(&ours).await?.items {
        let revision = pod.labels().get(REVISION_LABEL).cloned();
        let count = found
            .entry(format!("Pods/{}", revision.unwrap_or_default()))
            .or_insert_with(|| 0.into());
        *count = (count.as_u64().unwrap_or(0) + 1).into();
    }
    Ok(found)
}

async fn add<K>(found: &mut BTreeMap<String, Value>, client: &Client, namespace: &str, which: &ListParams) -> Result<()>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Serialize,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    for object in api.list(which).await?.items {
        let mut value = serde_json::to_value(&object)?;
        normalise(&mut value, namespace);
        found.insert(format!("{}/{}", K::kind(&()), object.name_any()), value);
    }
    Ok(())
}

/// Fields that name a moment, an identity or an address.
const VARYING: &[&str] = &[
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "managedFields",
    "lastTransitionTime",
    "lastUpdateTime",
    "lastProbeTime",
    "startTime",
    "completionTime",
    "clusterIP",
    "clusterIPs",
    "perennial.dev/served",
    "controller-uid",
    "batch.kubernetes.io/controller-uid",
    // A Deployment that is made again may find the ReplicaSet of the one before.
    "collisionCount",
];

fn normalise(value: &mut Value, namespace: &str) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !VARYING.contains(&key.as_str()));
            map.values_mut().for_each(|value| normalise(value, namespace));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| normalise(value, namespace)),
        Value::String(text) if text.contains(namespace) => *text = text.replace(namespace, "NAMESPACE"),
        _ => {}
    }
}

/// How two states differ, a line each; empty if they do not.
#[must_use]
pub fn differences(expected: &BTreeMap<String, Value>, found: &BTreeMap<String, Value>) -> Vec<String> {
    let mut lines = Vec::new();
    for key in expected
        .keys()
        .chain(found.keys().filter(|key| !expected.contains_key(*key)))
    {
        compare(key, expected.get(key), found.get(key), &mut lines);
    }
    lines
}

fn compare(path: &str, expected: Option<&Value>, found: Option<&Value>, lines: &mut Vec<String>) {
    match (expected, found) {
        (Some(Value::Object(expected)), Some(Value::Object(found))) => {
            for key in expected
                .keys()
                .chain(found.keys().filter(|key| !expected.contains_key(*key)))
            {
                compare(&format!("{path}.{key}"), expected.get(key), found.get(key), lines);
            }
        }
        (expected, found) if expected == found => {}
        (expected, found) => {
            let shown = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
            lines.push(format!("{path}: expected {}, found {}", shown(expected), shown(found)));
        }
    }
}

/// Resource versions of everything that [`state`] looks at, and of the ReplicaSets: unchanged means untouched.
///
/// # Errors
/// If something cannot be listed.
pub async fn versions(client: &Client, namespace: &str) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let ours = ListParams::default().labels(NAME_LABEL);
    note::<LLMDeployment>(&mut found, client, namespace, &ListParams::default()).await?;
    note::<ControllerRevision>(&mut found, client, namespace, &ours).await?;
    note::<Deployment>(&mut found, client, namespace, &ours).await?;
    note::<ReplicaSet>(&mut found, client, namespace, &ours).await?;
    note::<Job>(&mut found, client, namespace, &ours).await?;
    note::<PodDisruptionBudget>(&mut found, client, namespace, &ours).await?;
    note::<Pod>(&mut found, client, namespace, &ours).await?;
    note::<Service>(&mut found, client, namespace, &ours).await?;
    note::<ServiceAccount>(&mut found, client, namespace, &ours).await?;
    Ok(found)
}

async fn note<K>(
    found: &mut BTreeMap<String, String>,
    client: &Client,
    namespace: &str,
    which: &ListParams,
) -> Result<()>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    for object in api.list_metadata(which).await?.items {
        found.insert(
            format!("{}/{}", K::kind(&()), object.name_any()),
            object.metadata.resource_version.clone().unwrap_or_default(),
        );
    }
    Ok(())
}
