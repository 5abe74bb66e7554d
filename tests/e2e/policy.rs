//! Looking at DriftPolicies.

use std::time::Duration;

use kube::Api;
use perennial_crds::DriftPolicy;
use perennial_crds::drift_policy::Phase;

use super::cluster::{Bed, eventually, kubectl};

/// DriftPolicies of a namespace.
pub fn policies(bed: &Bed) -> Api<DriftPolicy> {
    Api::namespaced(bed.client.clone(), &bed.namespace)
}

/// Whether a condition is as given.
pub fn says(policy: &DriftPolicy, kind: &str, status: &str, reason: &str) -> bool {
    let conditions = policy.status.iter().flat_map(|status| &status.conditions);
    conditions
        .into_iter()
        .any(|condition| condition.type_ == kind && condition.status == status && condition.reason == reason)
}

/// Waits until a policy is as described.
pub async fn until(
    bed: &Bed,
    name: &str,
    what: &str,
    limit: Duration,
    is: impl Fn(&DriftPolicy) -> bool,
) -> DriftPolicy {
    let (policies, is) = (policies(bed), &is);
    let found = eventually(limit, || {
        let policies = policies.clone();
        async move { policies.get(name).await.ok().filter(|policy| is(policy)) }
    });
    found.await.unwrap_or_else(|| {
        println!(
            "{}",
            kubectl(&["-n", &bed.namespace, "get", "drift,configmaps", "-o", "yaml"])
        );
        bed.explain("model");
        panic!("the policy {name} is not {what} after {} s", limit.as_secs())
    })
}

/// Waits for an event of this reason, which is told after the status.
pub async fn told(bed: &Bed, reason: &str) {
    let told = eventually(Duration::from_secs(30), || async {
        let events = kubectl(&["-n", &bed.namespace, "get", "events", "-o", "json"]);
        events.contains(&format!("\"{reason}\"")).then_some(())
    });
    assert!(told.await.is_some(), "no event {reason}");
}

/// The summary of a policy.
pub fn phase(policy: &DriftPolicy) -> Option<Phase> {
    policy.status.as_ref()?.phase
}
