//! Bad luck on the way to a better model, with real Jobs: what a Job claims is checked, what is missing is said, and what
//! goes away for a while is tried again.

use std::time::Duration;

use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::{ListParams, PostParams};
use perennial_crds::DriftPolicy;
use perennial_crds::drift_policy::Phase;
use perennial_tests::drifted;
use serde_json::{Value, json};

use crate::cluster::{Bed, component, condition, eventually, kubectl, run};
use crate::operators::ChartOperators;
use crate::policy::{phase, policies, until};
use crate::talk::Talk;
use crate::tiny;
use crate::volumes::Volume;

const MINUTE: Duration = Duration::from_secs(60);
/// A shell and the tiny model.
const IMAGE: &str = "perennial.test/shell:1";
/// Corrected answers of each target.
const RECORDS: u64 = 150;

/// What scripts share: the digest of a file, and the last words of a Job that went well.
const SHELL: &str = r#"
b=/bin/busybox
sum() { $b sha256sum "$1" | $b cut -c 1-64; }
say() {
	printf '{"schema":"retrain/v1","outcome":"Succeeded","model":{"uri":"%s/model.gguf","digest":"sha256:%s","baseDigest":"%s","kind":"Merged"},"data":{"manifestDigest":"sha256:%s"}}' \
		"$RETRAIN_OUTPUT_URI" "$1" "$RETRAIN_BASE_MODEL_DIGEST" "$(sum "$RETRAIN_DATA_MANIFEST")" >"$RETRAIN_TERMINATION_PATH"
}
model=$RETRAIN_OUTPUT_DIR/model.gguf
"#;

/// A training of the user's that goes wrong, and the reason and words with which its cycle must end.
struct Case {
    name: &'static str,
    script: &'static str,
    reason: &'static str,
    words: &'static str,
}

const CASES: [Case; 4] = [
    Case {
        name: "garbage",
        script: "echo garbage >$model; say $(sum $model)",
        reason: "UntrustedOutput",
        words: "model.gguf",
    },
    Case {
        name: "lies",
        script: "$b cp /tiny.gguf $model; say 0000000000000000000000000000000000000000000000000000000000000000",
        reason: "UntrustedOutput",
        words: "not sha256:0000",
    },
    Case {
        name: "talks",
        script: "$b cp /tiny.gguf $model; say $(sum $model); $b head -c 5000 /dev/zero | $b tr '\\0' a >>$RETRAIN_TERMINATION_PATH",
        reason: "UntrustedOutput",
        words: "last words",
    },
    Case {
        name: "endless",
        script: SLEEP,
        reason: "JobFailed",
        words: "DeadlineExceeded",
    },
];
/// Its training asks for more GPUs than there are.
const NO_GPU: &str = "no-gpu";
/// Its volume is full at first.
const FULL: &str = "full";
/// The registry is away when its training begins.
const NO_REGISTRY: &str = "no-registry";
/// The pod of its training is killed.
const KILLED: &str = "killed";
/// Its target gets another model in the middle of the training.
const SUPERSEDED: &str = "superseded";
/// The policy is removed in the middle of the training.
const REMOVED: &str = "removed";
/// A training that does not end by itself.
const SLEEP: &str = "$b sleep 100000";

fn template(name: &str, script: &str, resources: &Value) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name}, "spec": {
        "schedule": "0 0 1 1 *", "suspend": true, "jobTemplate": {"spec": {"backoffLimit": 0, "template": {"spec": {
        "restartPolicy": "Never", "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "trainer", "image": IMAGE, "command": ["/bin/busybox", "sh", "-ec", format!("{SHELL}{script}")],
            "resources": resources,
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}}}}}})
}

fn policy(name: &str, claim: &str, template: bool) -> Value {
    let mut policy = json!({
        "apiVersion": "perennial.dev/v1alpha1", "kind": "DriftPolicy", "metadata": {"name": name},
        "spec": {
            "targetRef": {"name": name},
            "observation": {"paneSeconds": drifted::PANE_SECONDS, "minSamples": 25, "maxPaneSeconds": 60},
            "baseline": {"learned": {"seconds": 600, "minSamples": 1000, "season": "None"}},
            "confirmSeconds": 30,
            "retraining": {
                "workspace": {"persistentVolumeClaim": {"claimName": claim}},
                "settings": tiny::settings(if name == KILLED { 80 } else { 20 }),
                "data": {"windowSeconds": 3600, "minRecords": 50, "maxRecords": 200, "maxPercentPerRequester": 50},
                "activeDeadlineSeconds": if name == "endless" { 10 } else { 600 },
                "limits": {"cooldownSeconds": 3600},
            },
            "gate": {"minItems": 20},
            "promotion": {"mode": "Automatic"},
        },
    });
    if template {
        policy["spec"]["retraining"]["jobTemplateRef"] = json!({"name": name});
    }
    policy
}

/// An image with a shell, on the node.
fn load_image() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = format!("{}:/tiny.gguf", tiny::write(folder.path()).display());
    let files = ["--file", "/bin/busybox:/bin/busybox", "--file", &model];
    let arguments = [&["image", "build", IMAGE], &files[..], &["--load"]].concat();
    run("testcluster", &arguments).unwrap_or_else(|error| panic!("{error}"));
}

/// Waits until a target keeps what it is asked, and asks it enough to learn from.
async fn records(bed: &Bed, name: &str) {
    bed.settled(name, 3 * MINUTE).await;
    let captures = |object: &_| condition(object, "Capturing").is_some_and(|(status, _, _)| status == "True");
    bed.until(name, "capturing", MINUTE, captures).await;
    let talk = Talk::start(&bed.url(name).await, 100, tiny::question);
    talk.speak_german(100);
    let enough = eventually(MINUTE, || async { (talk.corrected() >= RECORDS).then_some(()) });
    assert!(
        enough.await.is_some(),
        "only {} answers were corrected",
        talk.corrected()
    );
    talk.end().await;
}

/// A policy that remembers a drift; no operator may be at work.
async fn remember(bed: &Bed, policy: &Value) {
    let policy: DriftPolicy = serde_json::from_value(policy.clone()).expect("a policy");
    let policy = policies(bed)
        .create(&PostParams::default(), &policy)
        .await
        .expect("it is accepted");
    let target = bed.llms().get(&policy.spec.target_ref.name).await.expect("it is there");
    let status = target.status.unwrap_or_default();
    let digest = status.model.and_then(|model| model.digest).expect("its model is known");
    let uid = target.metadata.uid.expect("it has a UID");
    let maps: Api<ConfigMap> = Api::namespaced(bed.client.clone(), &bed.namespace);
    for map in
        drifted::remembered(&policy, &uid, &digest, drifted::Change::LongerPrompts).expect("it can be remembered")
    {
        maps.create(&PostParams::default(), &map).await.expect("it is accepted");
    }
}

/// Pods of a Job of a policy.
async fn pods(bed: &Bed, policy: &str, kind: &str) -> Vec<Pod> {
    let labels = format!("perennial.dev/drift-policy={policy},app.kubernetes.io/component={kind}");
    let pods = bed.pods().list(&ListParams::default().labels(&labels)).await;
    pods.expect("they can be listed").items
}

fn blocked(policy: &DriftPolicy) -> Option<(&str, &str)> {
    let conditions = policy.status.iter().flat_map(|status| &status.conditions);
    let mut blocked =
        conditions.filter(|condition| condition.type_ == "RetrainingBlocked" && condition.status == "True");
    blocked
        .next()
        .map(|condition| (condition.reason.as_str(), condition.message.as_str()))
}

/// Waits until the policy says that it waits, and for what.
async fn waits(bed: &Bed, name: &str, words: &str) {
    let policy = until(bed, name, &format!("waiting for {words}"), 2 * MINUTE, |policy| {
        blocked(policy).is_some_and(|(reason, message)| reason == "Queued" && message.contains(words))
    })
    .await;
    println!("{name}: {:?}", blocked(&policy));
}

/// Waits until the policy's only cycle has ended, and gives outcome and message.
async fn ended(bed: &Bed, name: &str) -> (String, String) {
    let over = |policy: &DriftPolicy| policy.status.as_ref().is_some_and(|status| !status.cycles.is_empty());
    let policy = until(bed, name, "through with its cycle", 4 * MINUTE, over).await;
    let cycle = policy.status.expect("a status").cycles.remove(0);
    println!("{name}: {}, {}", cycle.outcome, cycle.message);
    (cycle.outcome, cycle.message)
}

#[tokio::test]
async fn what_goes_wrong_in_a_cycle_is_said_and_what_may_go_better_is_tried_again() {
    let bed = Bed::new("failing").await;
    let (_records, workspace) = (Volume::new(&bed, "records"), Volume::new(&bed, "workspace"));
    let small = Volume::small(&bed, "small", 16);
    load_image();
    let reference = tiny::store();
    let names: Vec<&str> = CASES
        .iter()
        .map(|case| case.name)
        .chain([NO_GPU, FULL, NO_REGISTRY, KILLED, SUPERSEDED, REMOVED])
        .collect();
    for name in &names {
        bed.apply(name, tiny::spec(&reference, "records")).await;
    }
    futures::future::join_all(names.iter().map(|name| records(&bed, name))).await;
    let templates: Api<CronJob> = Api::namespaced(bed.client.clone(), &bed.namespace);
    let none = json!({});
    let gpus = json!({"limits": {"nvidia.com/gpu": "3"}});
    let scripts = CASES.iter().map(|case| (case.name, case.script, &none));
    for (name, script, resources) in scripts.chain([
        (NO_GPU, "exit 1", &gpus),
        (SUPERSEDED, SLEEP, &none),
        (REMOVED, SLEEP, &none),
    ]) {
        let object = serde_json::from_value(template(name, script, resources)).expect("a CronJob");
        templates
            .create(&PostParams::default(), &object)
            .await
            .expect("it is accepted");
    }
    let chart = ChartOperators::away().await;
    for name in &names {
        let claim = if *name == FULL { "small" } else { "workspace" };
        let theirs = ![FULL, NO_REGISTRY, KILLED].contains(name);
        remember(&bed, &policy(name, claim, theirs)).await;
    }
    component("stop", "registry");
    drop(chart);

    // What is missing at first is said, and then it is there.
    waits(&bed, FULL, "o space left").await;
    small.grow(65_536);
    training_runs(&bed, NO_REGISTRY).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    component("start", "registry");
    kill_training(&bed, workspace.path()).await;
    supersede(&bed).await;
    remove(&bed, workspace.path()).await;
    waits(&bed, NO_GPU, "nvidia.com/gpu").await;
    for case in &CASES {
        let (outcome, message) = ended(&bed, case.name).await;
        let told = message.starts_with(&format!("{}: ", case.reason)) && message.contains(case.words);
        assert!(outcome == "Failed" && told, "{}: {outcome}, {message}", case.name);
    }
    next_deletes(&bed, CASES[0].name, workspace.path()).await;
    for name in [FULL, NO_REGISTRY, KILLED] {
        let (outcome, message) = ended(&bed, name).await;
        assert_eq!(outcome, "Promoted", "{name}: {message}");
    }
    let logs: Vec<String> = pods(&bed, KILLED, "retrain")
        .await
        .iter()
        .map(|pod| log(&bed, pod))
        .collect();
    assert!(
        logs.iter().any(|log| log.contains("going on from a checkpoint")),
        "training began anew: {logs:?}"
    );
    // Nothing that went wrong serves, and a policy that is removed takes its waiting Job along.
    for case in &CASES {
        let status = bed
            .llms()
            .get(case.name)
            .await
            .expect("it is there")
            .status
            .unwrap_or_default();
        let origin = status.model.and_then(|model| model.origin);
        assert_eq!(origin.as_deref(), Some("Spec"), "{}", case.name);
    }
    let waiting = policies(&bed).get(NO_GPU).await.expect("it is there");
    assert_eq!(phase(&waiting), Some(Phase::Retraining));
    kubectl(&["-n", &bed.namespace, "delete", "drift", NO_GPU]);
    let gone = eventually(MINUTE, || async {
        pods(&bed, NO_GPU, "retrain").await.is_empty().then_some(())
    });
    assert!(gone.await.is_some(), "the Job of a policy that is gone waits on");
    bed.remove().await;
}

/// Another model in the spec, as by a change in Git: what was learned from the one before is of no use.
async fn supersede(bed: &Bed) {
    training_runs(bed, SUPERSEDED).await;
    let model = json!({"model": {"source": {"oci": {"reference": tiny::store_other()}}}});
    bed.change(SUPERSEDED, model).await;
    let (outcome, message) = ended(bed, SUPERSEDED).await;
    assert_eq!(outcome, "Superseded", "{message}");
    let gone = eventually(MINUTE, || async {
        pods(bed, SUPERSEDED, "retrain").await.is_empty().then_some(())
    });
    assert!(gone.await.is_some(), "a model that nobody wants is trained on");
    let status = bed.settled(SUPERSEDED, 2 * MINUTE).await.status.unwrap_or_default();
    let origin = status.model.and_then(|model| model.origin);
    assert_eq!(origin.as_deref(), Some("Spec"));
}

/// A policy that goes takes its Jobs along. What serves goes on serving, and the data stays where it was frozen.
async fn remove(bed: &Bed, workspace: &std::path::Path) {
    training_runs(bed, REMOVED).await;
    let before = bed.settled(REMOVED, MINUTE).await;
    kubectl(&["-n", &bed.namespace, "delete", "drift", REMOVED]);
    let gone = eventually(MINUTE, || async {
        pods(bed, REMOVED, "retrain").await.is_empty().then_some(())
    });
    assert!(gone.await.is_some(), "a model that nobody wants is trained on");
    let after = bed.settled(REMOVED, MINUTE).await;
    let stable =
        |object: &perennial_crds::LLMDeployment| object.status.clone().and_then(|status| status.stable_revision);
    assert_eq!(stable(&before), stable(&after));
    let folder = workspace.join("perennial-cycles").join(REMOVED);
    let frozen = std::fs::read_dir(&folder).expect("the policy's folder stays").flatten();
    assert!(
        frozen
            .into_iter()
            .any(|cycle| cycle.path().join("data/manifest.json").is_file()),
        "the data is gone from {}",
        folder.display()
    );
}

/// The next cycle deletes what the last one left: nobody wants what was garbage.
async fn next_deletes(bed: &Bed, name: &str, workspace: &std::path::Path) {
    let folder = workspace.join("perennial-cycles").join(name);
    let cycles = || -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(&folder).expect("the policy has a folder").flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let first = cycles();
    assert!(
        first.len() == 1 && first[0].join("output/model.gguf").is_file(),
        "{first:?}"
    );
    let no_rest = json!({"spec": {"retraining": {"limits": {"cooldownSeconds": 0, "backoff": {"initialSeconds": 0}}}}});
    kubectl(&[
        "-n",
        &bed.namespace,
        "patch",
        "drift",
        name,
        "--type=merge",
        "--patch",
        &no_rest.to_string(),
    ]);
    let only_next = eventually(2 * MINUTE, || async {
        let now = cycles();
        let frozen = now.len() == 1 && now != first && now[0].join("data/manifest.json").is_file();
        frozen.then_some(())
    });
    assert!(only_next.await.is_some(), "{:?} after {first:?}", cycles());
}

/// Waits until a pod trains, or tries to.
async fn training_runs(bed: &Bed, name: &str) {
    let runs = eventually(2 * MINUTE, || async {
        let pods = pods(bed, name, "retrain").await;
        let running = pods
            .iter()
            .filter_map(|pod| pod.status.as_ref()?.phase.as_deref())
            .any(|phase| phase == "Running");
        running.then_some(())
    });
    assert!(runs.await.is_some(), "no pod trains for {name}");
}

/// Kills the pod that trains once it has left a checkpoint.
async fn kill_training(bed: &Bed, workspace: &std::path::Path) {
    let folder = workspace.join("perennial-cycles").join(KILLED);
    let left = eventually(2 * MINUTE, || async {
        let cycle = std::fs::read_dir(&folder).ok()?.flatten().next()?.path();
        let mut output = std::fs::read_dir(cycle.join("output")).ok()?.flatten();
        output.find(|entry| entry.file_name().to_string_lossy().starts_with("checkpoint"))
    });
    assert!(left.await.is_some(), "no checkpoint in {}", folder.display());
    let pods = pods(bed, KILLED, "retrain").await;
    let pod = pods
        .last()
        .and_then(|pod| pod.metadata.name.clone())
        .expect("a pod trains");
    kubectl(&[
        "-n",
        &bed.namespace,
        "delete",
        "pod",
        &pod,
        "--grace-period=0",
        "--force",
    ]);
}

fn log(bed: &Bed, pod: &Pod) -> String {
    let name = pod.metadata.name.clone().unwrap_or_default();
    run("kubectl", &["-n", &bed.namespace, "logs", &name]).unwrap_or_default()
}
