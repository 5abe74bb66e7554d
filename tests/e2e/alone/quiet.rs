//! At rest the operator writes nothing.

use std::path::Path;
use std::time::Duration;

use perennial_crds::LLMDeployment;
use serde_json::{Value, json};

use crate::clients::Clients;
use crate::cluster::{Bed, SYSTEM, condition, eventually, kubectl, simulated};

/// Seconds of rest: `E2E_QUIET_SECONDS`, 90 by default; `make test-long` rests for ten minutes.
fn rest() -> Duration {
    let seconds = std::env::var("E2E_QUIET_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(90);
    Duration::from_secs(seconds)
}

#[tokio::test]
async fn at_rest_the_operator_writes_nothing_but_its_lease() {
    let bed = Bed::new("quiet").await;
    // One that is let alone, and one with an autoscaler under a load that is always the same.
    bed.apply("model", simulated(1).await).await;
    let mut scaled = simulated(1).await;
    scaled["autoscaling"] = json!({"maxReplicas": 3, "targets": [{"metric": "RunningRequests", "averageValue": 8}]});
    bed.apply("scaled", scaled).await;
    bed.settled("model", Duration::from_secs(120)).await;
    // What the autoscaler sees is told when it has lasted.
    let sees =
        |object: &LLMDeployment| condition(object, "ScalingActive").is_some_and(|(status, _, _)| status == "True");
    bed.until("scaled", "seen", Duration::from_secs(120), sees).await;
    bed.settled("scaled", Duration::from_secs(120)).await;
    let clients = Clients::start(3, &bed.url("scaled").await, "scaled");
    clients.further(60).await;
    // What other tests left is being removed, which the operator notes down, and the last status may be on its way.
    let mine = bed.namespace.clone();
    eventually(Duration::from_secs(180), || async {
        let namespaces = kubectl(&["get", "namespaces", "-o", "name"]);
        let others = namespaces
            .lines()
            .any(|one| one.starts_with("namespace/e2e-") && !one.ends_with(&mine));
        (!others).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let log = std::env::var("TESTCLUSTER_STATE").unwrap_or_else(|_| "/var/lib/testcluster".to_owned());
    let log = Path::new(&log).join("logs/audit.log");
    let before = std::fs::read_to_string(&log)
        .expect("the cluster was started with --audit-log")
        .len();
    tokio::time::sleep(rest()).await;
    let after = std::fs::read_to_string(&log).expect("it is still there");
    let (mut writes, mut leases) = (Vec::new(), 0);
    for line in after[before..].lines() {
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let ours = event["user"]["username"]
            .as_str()
            .is_some_and(|user| user.starts_with(&format!("system:serviceaccount:{SYSTEM}:")));
        let verb = event["verb"].as_str().unwrap_or_default();
        if !ours || ["get", "list", "watch"].contains(&verb) || event["stage"] != "ResponseComplete" {
            continue;
        }
        if event["objectRef"]["resource"] == "leases" {
            leases += 1;
        } else {
            writes.push(format!("{verb} {}", event["objectRef"]));
        }
    }
    assert!(
        leases > 0,
        "the audit log does not show the operator's lease, so it shows nothing"
    );
    let answers = clients.stop().await;
    assert!(writes.is_empty(), "writes at rest: {writes:#?}");
    println!(
        "{} s of rest, {answers} answers under constant load: 0 writes, {leases} renewals of the lease",
        rest().as_secs()
    );
    bed.remove().await;
}
