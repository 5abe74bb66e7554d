//! Parts of the cluster go away: what serves goes on, and what waits goes on afterwards.

use std::time::{Duration, Instant};

use perennial_crds::drift_policy::{ObservationStatus, Phase};
use perennial_tests::seed::Random;
use serde_json::json;

use crate::clients::Clients;
use crate::cluster::{Bed, REGISTRY, SYSTEM, component, kill_operators, kubectl, run, simulated};
use crate::drift::{self, RATE};
use crate::misfortune::{LIMIT, model_file};
use crate::operators::ChartOperators;
use crate::policy::{phase, policies, until};
use crate::scaling::{answers, desired, ready, scaled, story};
use crate::talk::Talk;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn models_serve_while_the_api_server_is_away_and_the_operator_recovers_by_itself() {
    let bed = Bed::new("away").await;
    bed.apply("model", simulated(1).await).await;
    bed.settled("model", 2 * MINUTE).await;
    let clients = Clients::start(4, &bed.url("model").await, "model");
    clients.further(8).await;
    let starts = || {
        kubectl(&[
            "-n",
            SYSTEM,
            "get",
            "pods",
            "-l",
            "app.kubernetes.io/name=perennial",
            "-o",
            "jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].restartCount} {end}",
        ])
    };
    let before = starts();
    component("stop", "kube-apiserver");
    let away = Instant::now();
    while away.elapsed() < MINUTE {
        clients.further(4).await;
    }
    component("start", "kube-apiserver");
    bed.change("model", json!({"model": {"maxContextTokens": 2048}})).await;
    bed.settled("model", 2 * MINUTE).await;
    let complete = clients.stop().await;
    assert_eq!(before, starts(), "an operator was restarted or replaced");
    println!("the API server was away for a minute: {complete} answers complete, 0 lost");
    bed.remove().await;
}

#[tokio::test]
async fn replicas_never_fall_when_the_leader_is_killed_or_the_api_server_is_away_in_a_burst() {
    let bed = Bed::new("burst").await;
    let mut spec = scaled(3).await;
    spec["autoscaling"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] = json!(30);
    bed.apply("model", spec).await;
    answers(&bed, 2 * MINUTE).await;
    let clients = Clients::start(8, &bed.url("model").await, "model");
    let mut highest = 0;
    let mut random = Random::named("burst");
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(random.below(5_000))).await;
        // Whoever leads is among them; the other one takes over.
        kill_operators();
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            let now = desired(&bed.llms().get("model").await.expect("it is there"));
            assert!(now >= highest, "fell from {highest} to {now}");
            highest = now;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    component("stop", "kube-apiserver");
    tokio::time::sleep(MINUTE).await;
    component("start", "kube-apiserver");
    let three = bed
        .until("model", "scaled to three", 3 * MINUTE, |object| {
            desired(object) == 3 && ready(object) == 3
        })
        .await;
    println!(
        "{} answers complete; decisions: {:?}",
        clients.stop().await,
        story(&three)
    );
    bed.remove().await;
}

#[tokio::test]
async fn a_registry_that_goes_away_in_the_middle_of_a_download_is_waited_for() {
    let bed = Bed::new("registry").await;
    // Repositories below slow/ are served at 4 MiB a second, so that there is a middle.
    let reference = format!("{REGISTRY}/slow/smollm2:1");
    let model = model_file();
    run(
        "testcluster",
        &["artifact", "push", &reference, &model.to_string_lossy()],
    )
    .unwrap_or_else(|error| panic!("{error}"));
    bed.apply(
        "model",
        json!({"model": {"source": {"oci": {"reference": reference}}}, "resources": {"cpu": "500m", "memory": "1Gi"}}),
    )
    .await;
    bed.until("model", "downloading", LIMIT, |object| {
        let started = object.status.as_ref().and_then(|status| status.cold_start.as_ref());
        started.is_some_and(|started| {
            started
                .downloaded_percent
                .is_some_and(|percent| (10..80).contains(&percent))
        })
    })
    .await;
    component("stop", "registry");
    tokio::time::sleep(Duration::from_secs(5)).await;
    component("start", "registry");
    let object = bed.settled("model", LIMIT).await;
    let status = object.status.expect("a status");
    assert!(status.model.and_then(|model| model.digest).is_some());
    let revision = status.stable_revision.expect("a revision");
    for pod in bed.pods_of(&revision).await {
        let containers = pod
            .status
            .and_then(|status| status.container_statuses)
            .unwrap_or_default();
        assert!(
            containers.iter().all(|container| container.restart_count == 0),
            "the server was restarted"
        );
    }
    bed.remove().await;
}

#[tokio::test]
async fn what_servers_counted_while_no_operator_was_there_is_read_and_what_they_forgot_is_counted() {
    let bed = Bed::new("gap").await;
    drift::talkative(&bed).await;
    let talk = Talk::start(&bed.url("model").await, RATE, drift::chat);
    // Servers keep 64 panes.
    drift::apply(&bed, "watch", 1).await;
    drift::learned(&bed).await;
    let chart = ChartOperators::away().await;
    let answered = talk.answered();
    tokio::time::sleep(Duration::from_secs(90)).await;
    let unseen = i64::try_from(talk.answered() - answered).expect("few");
    let before = observed(&bed).await;
    drop(chart);
    let after = until(&bed, "watch", "aware of the gap", 2 * MINUTE, |policy| {
        let now = policy.status.as_ref().and_then(|status| status.observation.as_ref());
        now.is_some_and(|now| now.gaps > before.gaps && now.last_pane > before.last_pane)
    })
    .await;
    println!(
        "{before:?}; then {:?}",
        after.status.and_then(|status| status.observation)
    );
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let policy = policies(&bed).get("watch").await.expect("it is there");
        assert_eq!(phase(&policy), Some(Phase::Watching), "{:?}", policy.status);
    }
    let read = observed(&bed).await.requests - before.requests;
    println!("{unseen} requests while nobody looked; {read} were read since");
    // A good part of what happened meanwhile was kept by the servers: 64 panes of a second.
    assert!(read > unseen / 2, "{read} of {unseen}");
    talk.end().await;
    bed.remove().await;
}

async fn observed(bed: &Bed) -> ObservationStatus {
    let policy = policies(bed).get("watch").await.expect("it is there");
    let status = policy.status.and_then(|status| status.observation);
    status.expect("it was observed")
}
