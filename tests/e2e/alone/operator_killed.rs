//! An operator that is killed at any moment goes on to the same end.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{Bed, eventually, kubectl, simulated};
use crate::operators::{ChartOperators, Launch};

const MINUTE: Duration = Duration::from_secs(60);

/// Ten; twenty in `make test-long`.
fn kills() -> u32 {
    if std::env::var_os("TEST_LONG").is_some() {
        20
    } else {
        10
    }
}

#[tokio::test]
async fn kills_at_random_moments_of_a_rollout_end_alike() {
    let bed = Bed::new("killed").await;
    let chart = ChartOperators::away().await;
    let launch = Launch::like_the_chart();
    let mut operator = launch.start("killed");
    bed.apply("model", simulated(1).await).await;
    bed.settled("model", 2 * MINUTE).await;
    // Both specs once, so that the history is the same from the first kill on.
    for tokens in [1024, 1025] {
        bed.change("model", json!({"model": {"maxContextTokens": tokens}}))
            .await;
        bed.settled("model", MINUTE).await;
    }
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut random = seed;
    let mut ends = Vec::new();
    for kill in 1..=kills() {
        // Back and forth between two specs, so that all ends of one kind must be equal.
        bed.change("model", json!({"model": {"maxContextTokens": 1024 + kill % 2}}))
            .await;
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let moment = Duration::from_millis((random >> 33) % 4000);
        tokio::time::sleep(moment).await;
        operator.kill();
        operator = launch.start("killed");
        bed.settled("model", MINUTE).await;
        let end = eventually(MINUTE, || async { one_revision_is_left(&bed) }).await;
        let end = end.unwrap_or_else(|| {
            bed.explain("model");
            panic!("kill {kill} after {moment:?}: old pods or Deployments are left")
        });
        ends.push((kill, moment, end));
    }
    for (kill, moment, end) in &ends {
        let (_, _, reference) = ends
            .iter()
            .find(|(other, _, _)| other % 2 == kill % 2)
            .expect("itself at least");
        assert_eq!(end, reference, "kill {kill} after {moment:?} ended differently");
    }
    println!("{} kills, the same end each time", kills());
    operator.kill();
    drop(chart);
    bed.remove().await;
}

/// What there is in the end, without what differs each time; `None` while something old is left.
fn one_revision_is_left(bed: &Bed) -> Option<Value> {
    let kinds = "llm,deployments,pods,services,controllerrevisions,serviceaccounts,poddisruptionbudgets,jobs";
    let all: Value = serde_json::from_str(&kubectl(&[
        "-n",
        &bed.namespace,
        "get",
        kinds,
        "-l",
        "perennial.dev/name=model",
        "-o",
        "json",
    ]))
    .ok()?;
    let items = all["items"].as_array()?;
    let of_kind = |kind: &str| items.iter().filter(|item| item["kind"] == kind).collect::<Vec<_>>();
    let (deployments, pods) = (of_kind("Deployment"), of_kind("Pod"));
    if deployments.len() != 1 || pods.len() != 1 {
        return None;
    }
    let names = |kind: &str| {
        let mut names: Vec<&str> = of_kind(kind)
            .iter()
            .filter_map(|item| item["metadata"]["name"].as_str())
            .collect();
        names.sort_unstable();
        names.join(" ")
    };
    Some(json!({
        "deployment": deployments[0]["metadata"]["name"],
        "template": deployments[0]["spec"]["template"],
        "replicas": deployments[0]["spec"]["replicas"],
        "selector": of_kind("Service").first()?["spec"]["selector"],
        "revisions": names("ControllerRevision"),
        "others": [names("ServiceAccount"), names("PodDisruptionBudget"), names("Job"), names("Service")],
        "images": pods[0]["spec"]["containers"][0]["image"],
    }))
}
