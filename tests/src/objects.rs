//! LLMDeployments for tests, and what is said of them.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use perennial_crds::LLMDeployment;
use serde_json::{Value, json};

/// The smallest pinned LLMDeployment, with this merged over its spec.
#[must_use]
pub fn pinned(name: &str, spec: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "perennial.dev/v1alpha1", "kind": "LLMDeployment", "metadata": {"name": name},
        "spec": {"model": {"source": {"oci": {"reference": reference('a')}}}},
    });
    merge(&mut object["spec"], spec);
    object
}

/// A pinned address; another digit is another model.
#[must_use]
pub fn reference(digit: char) -> String {
    format!("registry.example/models/tiny@sha256:{}", digit.to_string().repeat(64))
}

/// The patch that asks for another model.
#[must_use]
pub fn model(digit: char) -> Value {
    json!({"spec": {"model": {"source": {"oci": {"reference": reference(digit)}}}}})
}

/// Merges one object over another, as a merge patch would without its deletions.
pub fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// A condition of an object.
#[must_use]
pub fn condition(object: &LLMDeployment, kind: &str) -> Option<Condition> {
    let conditions = &object.status.as_ref()?.conditions;
    conditions.iter().find(|condition| condition.type_ == kind).cloned()
}

/// Whether an object is settled, or why not.
///
/// # Errors
/// If it is not.
pub fn settled(object: &LLMDeployment) -> Result<()> {
    let status = object.status.as_ref().context("it has no status")?;
    ensure!(
        Some(status.observed_generation) == object.metadata.generation,
        "the status speaks of generation {}",
        status.observed_generation
    );
    for absent in ["Reconciling", "Stalled"] {
        if let Some(found) = condition(object, absent) {
            anyhow::bail!("{absent}: {}: {}", found.reason, found.message);
        }
    }
    let ready = condition(object, "Ready").context("there is no condition Ready")?;
    ensure!(ready.status == "True", "not ready: {}: {}", ready.reason, ready.message);
    ensure!(
        status.stable_revision == status.update_revision,
        "a revision is being introduced"
    );
    Ok(())
}
