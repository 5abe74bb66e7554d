//! Changes under load: nothing that a client asked for is lost.

use std::time::Duration;

use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;

use super::clients::Clients;
use super::cluster::{Bed, condition, eventually, simulated};

const MINUTE: Duration = Duration::from_secs(60);
const CHANGES: u32 = 10;

#[tokio::test]
async fn ten_changes_under_eight_streaming_clients_lose_no_request() {
    let bed = Bed::new("change").await;
    bed.apply("model", simulated(1).await).await;
    bed.settled("model", 2 * MINUTE).await;
    let clients = Clients::start(8, &bed.url("model").await, "model");
    clients.further(16).await;
    for change in 1..=CHANGES {
        let before = bed
            .llms()
            .get("model")
            .await
            .expect("it is there")
            .status
            .and_then(|status| status.stable_revision);
        bed.change("model", json!({"model": {"maxContextTokens": 1024 + change}}))
            .await;
        let after = bed
            .settled("model", MINUTE)
            .await
            .status
            .and_then(|status| status.stable_revision);
        assert_ne!(before, after);
        // The old pods take their time to finish what they answer; clients go on meanwhile.
        let old = before.expect("a revision");
        let gone = eventually(MINUTE, || async { bed.pods_of(&old).await.is_empty().then_some(()) }).await;
        assert!(gone.is_some(), "pods of {old} are left");
        clients.further(8).await;
    }
    let complete = clients.stop().await;
    println!("{CHANGES} changes, {complete} answers complete, 0 lost");
    bed.remove().await;
}

#[tokio::test]
async fn pods_that_are_deleted_under_load_finish_their_streams() {
    let bed = Bed::new("drain").await;
    bed.apply("model", simulated(2).await).await;
    let object = bed.settled("model", 2 * MINUTE).await;
    let revision = object
        .status
        .and_then(|status| status.stable_revision)
        .expect("a revision");
    let clients = Clients::start(8, &bed.url("model").await, "model");
    clients.further(16).await;
    for _ in 0..3 {
        let pod = bed.pods_of(&revision).await.first().expect("a pod").name_any();
        bed.pods()
            .delete(&pod, &DeleteParams::default())
            .await
            .expect("it can be deleted");
        let gone = eventually(MINUTE, || async {
            bed.pods().get_opt(&pod).await.ok().filter(Option::is_none).map(|_| ())
        });
        assert!(gone.await.is_some(), "{pod} does not end");
        bed.settled("model", MINUTE).await;
        clients.further(8).await;
    }
    let complete = clients.stop().await;
    println!("3 pods deleted, {complete} answers complete, 0 lost");
    bed.remove().await;
}

#[tokio::test]
async fn a_change_that_cannot_work_leaves_the_old_revision_serving_and_reverting_heals() {
    let bed = Bed::new("stall").await;
    let mut spec = simulated(1).await;
    spec["rollout"] = json!({"progressDeadlineSeconds": 20});
    bed.apply("model", spec).await;
    let good = bed
        .settled("model", 2 * MINUTE)
        .await
        .status
        .and_then(|status| status.stable_revision);
    let clients = Clients::start(8, &bed.url("model").await, "model");
    clients.further(8).await;

    bed.change(
        "model",
        json!({"runtime": {"extraArgs": ["--engine=simulated", "--no-such-flag"]}}),
    )
    .await;
    let stalled = bed
        .until("model", "given up", MINUTE, |object| {
            condition(object, "Stalled").is_some_and(|(_, reason, _)| reason == "ProgressDeadlineExceeded")
        })
        .await;
    assert!(condition(&stalled, "Ready").is_some_and(|(status, _, _)| status == "True"));
    let status = stalled.status.expect("a status");
    assert_eq!(status.stable_revision, good);
    let failed = status.update_revision.expect("a revision");
    let gone = eventually(MINUTE, || async { bed.pods_of(&failed).await.is_empty().then_some(()) }).await;
    assert!(gone.is_some(), "the failed revision still has pods");

    let same = json!({"runtime": simulated(1).await["runtime"]});
    bed.change("model", same).await;
    let healed = bed.settled("model", MINUTE).await;
    assert!(condition(&healed, "Stalled").is_none());
    assert_eq!(healed.status.and_then(|status| status.stable_revision), good);
    clients.further(8).await;
    clients.stop().await;
    bed.remove().await;
}
