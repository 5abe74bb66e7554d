//! The node of the player: an object that looks alive.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

/// Name of the node.
pub const NODE: &str = "played";
const BEAT: Duration = Duration::from_secs(10);

pub(super) async fn create(client: &Client) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    let parameters = PatchParams::apply("perennial-tests").force();
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}});
    api.patch(NODE, &parameters, &Patch::Apply(&node)).await?;
    beat(client).await?;
    let amounts = BTreeMap::from([
        ("cpu", "100000"),
        ("memory", "100000Gi"),
        ("ephemeral-storage", "100000Gi"),
        ("pods", "20000"),
    ]);
    let condition = |kind: &str, status: &str| {
        json!({
            "type": kind, "status": status, "reason": "Played", "message": "a node that is only an object",
            "lastHeartbeatTime": now(), "lastTransitionTime": now(),
        })
    };
    let status = json!({"status": {
        "capacity": amounts, "allocatable": amounts,
        "conditions": [
            condition("Ready", "True"), condition("MemoryPressure", "False"),
            condition("DiskPressure", "False"), condition("PIDPressure", "False"),
        ],
    }});
    api.patch_status(NODE, &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    Ok(())
}

/// Renews the node's lease, or its pods would be taken for lost.
pub(super) async fn keep_alive(client: Client) {
    loop {
        if let Err(error) = beat(&client).await {
            tracing::warn!(%error, "The played node missed a heartbeat.");
        }
        tokio::time::sleep(BEAT).await;
    }
}

async fn beat(client: &Client) -> kube::Result<()> {
    let api: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(NODE.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(NODE.to_owned()),
            lease_duration_seconds: Some(40),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        }),
    };
    api.patch(
        NODE,
        &PatchParams::apply("perennial-tests").force(),
        &Patch::Apply(&lease),
    )
    .await
    .map(|_| ())
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
