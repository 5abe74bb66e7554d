//! A service that answers otherwise, on real pods: somebody's pod with another model is behind the Service. Fixed prompts
//! tell it from a change of the traffic, and nothing is retrained.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::ResourceExt;
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use perennial_crds::LLMDeployment;
use perennial_crds::drift_policy::Phase;
use serde_json::json;

use super::cluster::{Bed, condition, kubectl};
use super::policy::{phase, policies, says, told, until};
use super::talk::Talk;
use super::tiny;
use super::volumes::Volume;

const MINUTE: Duration = Duration::from_secs(60);
/// Requests per second of all clients.
const RATE: u64 = 50;

/// A policy that would retrain at once.
async fn apply(bed: &Bed) {
    let policy = json!({
        "apiVersion": "perennial.dev/v1alpha1", "kind": "DriftPolicy", "metadata": {"name": "watch"},
        "spec": {
            "targetRef": {"name": "model"},
            "observation": {"paneSeconds": 2, "minSamples": 25, "maxPaneSeconds": 30},
            "baseline": {"learned": {"seconds": 60, "minSamples": 1500, "season": "None"}},
            "confirmSeconds": 6,
            "retraining": {
                "workspace": {"persistentVolumeClaim": {"claimName": "workspace"}},
                "settings": tiny::settings(10),
                "data": {"windowSeconds": 600, "minRecords": 1, "maxRecords": 300},
            },
            "promotion": {"mode": "Automatic"},
            "probe": {"promptSetRef": {"configMapName": "fixed-prompts"}, "intervalSeconds": 10},
        },
    });
    let parameters = PatchParams::apply("e2e").force();
    policies(bed)
        .patch("watch", &parameters, &Patch::Apply(&policy))
        .await
        .expect("the policy is accepted");
}

/// A pod like those of the Service, but that no ReplicaSet takes for its own, with another model.
async fn add_stray(bed: &Bed) {
    let object = bed.llms().get("model").await.expect("it is there");
    let revision = object.status.and_then(|status| status.stable_revision);
    let pod = bed.pods_of(&revision.expect("it serves")).await.remove(0);
    let mut labels = pod.labels().clone();
    labels.remove("pod-template-hash").expect("it is of a ReplicaSet");
    let mut spec = pod.spec.expect("a spec");
    spec.node_name = None;
    let args = spec.containers[0].args.get_or_insert_default();
    args.push("--engine=simulated".to_owned());
    let stray = Pod {
        metadata: ObjectMeta {
            name: Some("stray".to_owned()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        ..Pod::default()
    };
    bed.pods()
        .create(&PostParams::default(), &stray)
        .await
        .expect("it is accepted");
    kubectl(&[
        "-n",
        &bed.namespace,
        "wait",
        "--for=condition=Ready",
        "--timeout=60s",
        "pod/stray",
    ]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stray_pod_is_a_serving_regression_and_never_answered_with_retraining() {
    let bed = Bed::new("stray").await;
    let _volumes = (Volume::new(&bed, "records"), Volume::new(&bed, "workspace"));
    tiny::fixed_prompts(&bed, 32).await;
    let mut spec = tiny::spec(&tiny::store(), "records");
    spec["resources"]["cpu"] = json!("300m");
    bed.apply("model", spec).await;
    bed.settled("model", 3 * MINUTE).await;
    let captures =
        |object: &LLMDeployment| condition(object, "Capturing").is_some_and(|(status, _, _)| status == "True");
    bed.until("model", "capturing", MINUTE, captures).await;
    let talk = Talk::start(&bed.url("model").await, RATE, tiny::question);
    apply(&bed).await;
    until(&bed, "watch", "watching", 4 * MINUTE, |policy| {
        phase(policy) == Some(Phase::Watching) && says(policy, "ServingChanged", "False", "ProbesSame")
    })
    .await;
    add_stray(&bed).await;
    // Clients keep their connections; new ones find the stray pod, too.
    talk.end_anyhow().await;
    let talk = Talk::start(&bed.url("model").await, RATE, tiny::question);
    let changed = until(&bed, "watch", "answered otherwise", 2 * MINUTE, |policy| {
        says(policy, "ServingChanged", "True", "ServingRegression")
    })
    .await;
    let probe = changed.status.and_then(|status| status.probe).expect("it was asked");
    println!("{} {:?}", probe.message, probe.agreement_percent);
    let drifted = until(&bed, "watch", "drifted", 3 * MINUTE, |policy| {
        says(policy, "Drifted", "True", "ServingRegression")
    })
    .await;
    println!("{}", kubectl(&["-n", &bed.namespace, "get", "drift", "-o", "wide"]));
    let moved: Vec<String> = drifted
        .status
        .iter()
        .flat_map(|status| &status.signals)
        .filter(|signal| signal.moved)
        .map(|signal| signal.name.clone())
        .collect();
    println!("moved: {moved:?}");
    // The stray one is all but sure of what it says.
    assert!(moved.iter().any(|name| name == "OutputLogprob"), "{moved:?}");
    told(&bed, "ServingRegression").await;

    bed.pods()
        .delete("stray", &kube::api::DeleteParams::default())
        .await
        .expect("it can be deleted");
    let again = until(&bed, "watch", "answered as ever", 3 * MINUTE, |policy| {
        says(policy, "ServingChanged", "False", "ProbesSame")
    })
    .await;
    let status = again.status.expect("a status");
    assert!(
        status.cycle.is_none() && status.cycles.is_empty(),
        "{:?} {:?}",
        status.cycle,
        status.cycles
    );
    let jobs: Api<Job> = Api::namespaced(bed.client.clone(), &bed.namespace);
    let jobs = jobs
        .list(&ListParams::default())
        .await
        .expect("Jobs can be listed")
        .items;
    let retrained = jobs.iter().filter(|job| {
        job.labels()
            .get("app.kubernetes.io/component")
            .is_some_and(|of| of != "probe")
    });
    let retrained: Vec<String> = retrained.map(ResourceExt::name_any).collect();
    assert!(retrained.is_empty(), "{retrained:?}");
    talk.end_anyhow().await;
    bed.remove().await;
}
