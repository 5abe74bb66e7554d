//! Growing and shrinking with a real load, on real pods, and standing still when nothing can be known.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use perennial_crds::LLMDeployment;
use serde_json::{Value, json};

use super::clients::Clients;
use super::cluster::{Bed, condition, eventually, kubectl, run, simulated};

const MINUTE: Duration = Duration::from_secs(60);

/// A model that scales: two requests at a time per replica, cold starts of three seconds, patience of ten.
pub async fn scaled(max: u32) -> Value {
    let mut spec = simulated(1).await;
    spec["runtime"]["extraArgs"] = json!([
        "--engine=simulated",
        "--simulated-decode-tokens-per-second=60",
        "--simulated-cold-start-seconds=3",
        "--max-running=4",
    ]);
    spec["autoscaling"] = json!({
        "maxReplicas": max,
        "targets": [{"metric": "RunningRequests", "averageValue": 3}],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 10}},
    });
    spec
}

pub fn desired(object: &LLMDeployment) -> i32 {
    let scaling = object.status.as_ref().and_then(|status| status.autoscaling.as_ref());
    scaling.map_or(0, |scaling| scaling.desired_replicas)
}

pub fn ready(object: &LLMDeployment) -> i32 {
    object.status.as_ref().map_or(0, |status| status.ready_replicas)
}

fn says(object: &LLMDeployment, kind: &str, status: &str, reason: &str) -> bool {
    condition(object, kind).is_some_and(|(found, why, _)| found == status && why == reason)
}

/// The decisions in words, oldest first.
pub fn story(object: &LLMDeployment) -> Vec<String> {
    let scaling = object.status.as_ref().and_then(|status| status.autoscaling.as_ref());
    let decisions = scaling
        .map(|scaling| scaling.last_decisions.clone())
        .unwrap_or_default();
    let told = decisions.iter().rev();
    told.map(|one| format!("{} -> {}: {}", one.from, one.to, one.reason))
        .collect()
}

/// Waits until a model with an autoscaler answers, whatever the number of its replicas.
pub async fn answers(bed: &Bed, limit: Duration) -> LLMDeployment {
    bed.until("model", "ready", limit, |object| {
        condition(object, "Ready").is_some_and(|(status, _, _)| status == "True") && desired(object) > 0
    })
    .await
}

#[tokio::test]
async fn it_grows_to_three_under_load_and_shrinks_to_one_and_loses_no_request() {
    let bed = Bed::new("scale").await;
    bed.apply("model", scaled(3).await).await;
    answers(&bed, 2 * MINUTE).await;
    let url = bed.url("model").await;
    let clients = Clients::start(8, &url, "model");
    bed.until("model", "scaled to three", 2 * MINUTE, |object| {
        desired(object) == 3 && ready(object) == 3
    })
    .await;
    // What is seen is told once it has lasted ten seconds.
    let sees = |object: &LLMDeployment| says(object, "ScalingActive", "True", "ValidMetricFound");
    bed.until("model", "seeing all its replicas", MINUTE, sees).await;
    clients.further(16).await;
    // Fewer clients: the replicas become too many, one after the other, while requests still run.
    let complete = clients.stop().await;
    let few = Clients::start(1, &url, "model");
    let one = bed
        .until("model", "scaled to one", 3 * MINUTE, |object| {
            desired(object) == 1 && ready(object) == 1
        })
        .await;
    few.further(4).await;
    let later = few.stop().await;
    let told = story(&one);
    println!(
        "{complete} answers under load, {later} while shrinking, 0 lost; decisions:\n{}",
        told.join("\n")
    );
    assert!(
        told.iter()
            .any(|line| line.starts_with("1 -> ") && line.contains("RunningRequests")),
        "{told:?}"
    );
    assert!(
        told.iter().any(|line| line.starts_with("3 -> 2: ")),
        "it did not go one by one: {told:?}"
    );
    assert!(
        told.last()
            .is_some_and(|line| line.starts_with("2 -> 1: RunningRequests")),
        "{told:?}"
    );
    let events = kubectl(&[
        "-n",
        &bed.namespace,
        "get",
        "events",
        "-o",
        "jsonpath={.items[*].reason}",
    ]);
    assert!(events.contains("ScaledUp") && events.contains("ScaledDown"), "{events}");
    bed.remove().await;
}

#[tokio::test]
async fn the_pod_with_the_least_work_goes_first() {
    let bed = Bed::new("least").await;
    let mut spec = scaled(2).await;
    spec["autoscaling"]["minReplicas"] = json!(2);
    bed.apply("model", spec).await;
    let object = bed
        .until("model", "ready", 2 * MINUTE, |object| {
            ready(object) == 2 && desired(object) == 2
        })
        .await;
    let revision = object
        .status
        .and_then(|status| status.stable_revision)
        .expect("a revision");
    let pods = bed.pods_of(&revision).await;
    let busy = &pods[1];
    let address = busy
        .status
        .as_ref()
        .and_then(|status| status.pod_ip.clone())
        .expect("an address");
    // One pod alone has work.
    let clients = Clients::start(2, &format!("http://{address}:8080"), "model");
    clients.further(4).await;
    bed.change("model", json!({"autoscaling": {"minReplicas": 1, "maxReplicas": 2}}))
        .await;
    bed.until("model", "scaled to one", 2 * MINUTE, |object| desired(object) == 1)
        .await;
    let left = eventually(MINUTE, || async {
        let left = bed.pods_of(&revision).await;
        (left.len() == 1).then_some(left)
    });
    let left = left.await.expect("one of the two ends");
    assert_eq!(left[0].name_any(), busy.name_any(), "the busy one went");
    clients.further(2).await;
    clients.stop().await;
    bed.remove().await;
}

/// Drops what the operator asks some pods, as a NetworkPolicy would; the node's own probes pass. Ends with the test.
#[derive(Default)]
struct Cut(Vec<String>);

impl Cut {
    fn rule(verb: &str, address: &str) -> Result<String, String> {
        let port = ["-p", "tcp", "--dport", "9090", "-j", "DROP"];
        run("iptables", &[&[verb, "FORWARD", "-d", address][..], &port[..]].concat())
    }

    fn off(&mut self, address: &str) {
        Self::rule("-I", address).unwrap_or_else(|error| panic!("{error}"));
        self.0.push(address.to_owned());
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        for address in &self.0 {
            if let Err(error) = Self::rule("-D", address) {
                println!("a rule is left: {error}");
            }
        }
    }
}

#[tokio::test]
async fn pods_that_do_not_answer_are_held_and_it_recovers() {
    let bed = Bed::new("cut").await;
    let mut spec = scaled(4).await;
    spec["autoscaling"]["minReplicas"] = json!(2);
    bed.apply("model", spec).await;
    let two = |object: &LLMDeployment| ready(object) == 2 && desired(object) == 2;
    let object = bed.until("model", "ready", 2 * MINUTE, two).await;
    let revision = object
        .status
        .and_then(|status| status.stable_revision)
        .expect("a revision");
    let pods = bed.pods_of(&revision).await;
    let address = |pod: &Pod| {
        pod.status
            .as_ref()
            .and_then(|status| status.pod_ip.clone())
            .expect("an address")
    };
    let mut cut = Cut::default();
    cut.off(&address(&pods[0]));
    let half = |object: &LLMDeployment| says(object, "ScalingActive", "True", "MetricsIncomplete");
    bed.until("model", "half blind", MINUTE, half).await;
    cut.off(&address(&pods[1]));
    let blind = |object: &LLMDeployment| says(object, "ScalingActive", "False", "MetricsUnavailable");
    bed.until("model", "blind", MINUTE, blind).await;
    // One idle replica would do, and nobody can say so: both stay.
    bed.change("model", json!({"autoscaling": {"minReplicas": 1}})).await;
    tokio::time::sleep(Duration::from_secs(25)).await;
    let held = bed.llms().get("model").await.expect("it is there");
    assert!(two(&held) && blind(&held), "{:?}", held.status);
    drop(cut);
    let sees = |object: &LLMDeployment| says(object, "ScalingActive", "True", "ValidMetricFound");
    bed.until("model", "seeing again", MINUTE, sees).await;
    bed.until("model", "scaled to one", MINUTE, |object| desired(object) == 1)
        .await;
    bed.remove().await;
}

#[tokio::test]
async fn a_pod_that_waits_for_a_gpu_is_enough_to_wait_for() {
    let bed = Bed::new("gpu").await;
    let mut spec = scaled(9).await;
    spec["accelerator"] = json!({"count": 1});
    spec["autoscaling"]["targets"][0]["averageValue"] = json!(1);
    spec["runtime"]["extraArgs"][3] = json!("--max-running=16");
    bed.apply("model", spec).await;
    answers(&bed, 2 * MINUTE).await;
    let clients = Clients::start(12, &bed.url("model").await, "model");
    // The node claims two.
    let limited = bed
        .until("model", "limited", 2 * MINUTE, |object| {
            says(object, "ScalingLimited", "True", "InsufficientAccelerator")
        })
        .await;
    let asked = desired(&limited);
    tokio::time::sleep(Duration::from_secs(20)).await;
    let later = bed.llms().get("model").await.expect("it is there");
    assert_eq!(desired(&later), asked, "another pod was asked for: {:?}", story(&later));
    assert!(says(&later, "CapacityAvailable", "False", "InsufficientAccelerator"));
    println!(
        "two GPUs, {asked} asked for, no more: {:?}",
        condition(&later, "ScalingLimited")
    );
    clients.stop().await;
    bed.remove().await;
}
