//! What is heard of one client alone, too little or not at all is no drift of the traffic, and no health either.

use std::time::Duration;

use kube::ResourceExt;
use perennial_crds::drift_policy::{DriftPolicyStatus, Phase};
use perennial_tests::seed::Random;

use super::cluster::{Bed, kubectl};
use super::drift::{self, RATE};
use super::policy::{phase, policies, says, until};
use super::talk::{Talk, Turn};

const MINUTE: Duration = Duration::from_secs(60);

/// Only one of the clients changes.
fn one_of_them(client: u64, german: bool, random: &mut Random) -> Turn {
    drift::chat(client, german && client == 3, random)
}

async fn status(bed: &Bed) -> DriftPolicyStatus {
    let policy = policies(bed).get("watch").await.expect("it is there");
    policy.status.expect("a status")
}

#[tokio::test]
async fn one_client_is_told_as_such_and_neither_silence_nor_a_replica_that_dies_moves_anything() {
    let bed = Bed::new("unheard").await;
    drift::talkative(&bed).await;
    let url = bed.url("model").await;
    let talk = Talk::start(&url, RATE, one_of_them);
    drift::apply(&bed, "watch", 2).await;
    drift::learned(&bed).await;
    talk.speak_german(100);
    until(&bed, "watch", "drifted by one client", 2 * MINUTE, |policy| {
        says(policy, "Drifted", "True", "SingleSource")
    })
    .await;
    talk.speak_german(0);
    drift::learned(&bed).await;

    // Nobody asks any more.
    talk.end().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = status(&bed).await;
    tokio::time::sleep(Duration::from_secs(45)).await;
    let after = status(&bed).await;
    assert_eq!(after.phase, Some(Phase::Watching));
    assert_eq!(before.evidence, after.evidence, "evidence of silence");
    let requests = |status: &DriftPolicyStatus| status.observation.as_ref().map_or(0, |one| one.requests);
    assert_eq!(requests(&before), requests(&after));

    // They ask again, and a replica dies in the middle of a pane.
    let talk = Talk::start(&url, RATE, one_of_them);
    tokio::time::sleep(Duration::from_secs(11)).await;
    let pod = bed
        .pods_of(&stable(&bed).await)
        .await
        .first()
        .expect("a pod")
        .name_any();
    kubectl(&[
        "-n",
        &bed.namespace,
        "delete",
        "pod",
        &pod,
        "--grace-period=0",
        "--force",
        "--wait=false",
    ]);
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let policy = policies(&bed).get("watch").await.expect("it is there");
        assert_eq!(phase(&policy), Some(Phase::Watching), "{:?}", policy.status);
    }
    let answered = i64::try_from(talk.end_anyhow().await).expect("few");
    let seen = requests(&status(&bed).await) - requests(&after);
    println!("{seen} of {answered} requests were observed around the death of a replica");
    assert!(seen > answered / 2, "{seen} of {answered}");
    bed.remove().await;
}

async fn stable(bed: &Bed) -> String {
    let status = bed.llms().get("model").await.expect("it is there").status;
    status.and_then(|status| status.stable_revision).expect("a revision")
}
