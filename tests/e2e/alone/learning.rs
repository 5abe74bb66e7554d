//! The whole loop on a real cluster: traffic drifts, a better model is trained, judged and rolled out. Meanwhile operators are
//! killed, the API server and the bucket with records go away, somebody applies the same YAML again and again; and nothing of a
//! prompt gets out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use perennial_crds::drift_policy::Phase;
use perennial_crds::{DriftPolicy, LLMDeployment};
use perennial_tests::seed::Random;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::canary;
use crate::cluster::{Bed, REGISTRY, component, condition, eventually, kubectl};
use crate::objects::Objects;
use crate::operators::{ChartOperators, Launch, Operator};
use crate::policy::{phase, policies, says, until};
use crate::talk::Talk;
use crate::tiny::{self, CANARY, QUESTIONS};
use crate::volumes::Volume;

const MINUTE: Duration = Duration::from_secs(60);
/// Requests per second of all clients.
const RATE: u64 = 50;
/// Kills of an operator while a cycle is under way, at least.
const KILLS: u64 = 20;

/// Learned models go to the registry, under a tag of this run.
fn policy(tag: &str) -> Value {
    json!({
        "apiVersion": "perennial.dev/v1alpha1", "kind": "DriftPolicy", "metadata": {"name": "watch"},
        "spec": {
            "targetRef": {"name": "model"},
            "observation": {"paneSeconds": 2, "minSamples": 25, "maxPaneSeconds": 30},
            "baseline": {"learned": {"seconds": 60, "minSamples": 1500, "season": "None"}},
            "confirmSeconds": 20,
            "retraining": {
                "workspace": {"persistentVolumeClaim": {"claimName": "workspace"}},
                "settings": tiny::settings(30),
                "output": {"oci": {"repository": format!("{REGISTRY}/models/learned")}},
                "data": {"windowSeconds": 600, "minRecords": 100, "maxRecords": 300, "maxPercentPerRequester": 10},
                "activeDeadlineSeconds": 600,
                "limits": {"cooldownSeconds": 3600},
            },
            "gate": {"minItems": 40},
            "promotion": {"mode": "Automatic", "publishTag": tag},
            "probe": {"promptSetRef": {"configMapName": "fixed-prompts"}, "intervalSeconds": 15},
        },
    })
}

/// Applies the YAML that lies in Git, as Flux does; fails while there is no API server.
async fn apply(bed: &Bed, llm: &Value) -> Option<(i64, i64)> {
    let parameters = PatchParams::apply("flux").force();
    let model = bed.llms().patch("model", &parameters, &Patch::Apply(llm)).await.ok()?;
    let watch = policies(bed)
        .patch("watch", &parameters, &Patch::Apply(&policy(&bed.namespace)))
        .await
        .ok()?;
    Some((model.metadata.generation?, watch.metadata.generation?))
}

/// Whoever has written to `spec`.
fn writers(fields: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry]) -> Vec<String> {
    let of_spec = fields.iter().filter(|entry| {
        entry
            .fields_v1
            .as_ref()
            .is_some_and(|fields| fields.0.get("f:spec").is_some())
    });
    of_spec.map(|entry| entry.manager.clone().unwrap_or_default()).collect()
}

/// Applies it every three seconds until dropped, and notices when that changed anything.
struct Git {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<(u64, bool)>,
}

impl Git {
    fn start(bed: &Arc<Bed>, llm: &Value, generations: (i64, i64)) -> Self {
        let stop = CancellationToken::new();
        let (bed, llm, stopped) = (Arc::clone(bed), llm.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let (mut applied, mut changed) = (0, false);
            while !stopped.is_cancelled() {
                if let Some(now) = apply(&bed, &llm).await {
                    applied += 1;
                    changed |= now != generations;
                }
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
            (applied, changed)
        });
        Self { stop, task }
    }

    /// How often it was applied, and whether that changed anything.
    async fn end(self) -> (u64, bool) {
        self.stop.cancel();
        self.task.await.expect("it does not fail")
    }
}

/// Kills the one that leads at random moments until the cycle has ended, and has the API server away once, in the middle of
/// the training.
async fn misfortune(bed: &Bed, launch: &Launch, mut operator: Operator) -> (u64, Operator) {
    let mut random = Random::named("kills");
    let (mut kills, mut away) = (0, false);
    let deadline = Instant::now() + 6 * MINUTE;
    loop {
        tokio::time::sleep(Duration::from_millis(300 + random.below(2700))).await;
        operator.kill();
        kills += 1;
        operator = launch.start("killed");
        let Ok(policy) = policies(bed).get("watch").await else {
            continue;
        };
        let status = policy.status.clone().unwrap_or_default();
        if !status.cycles.is_empty() && kills >= KILLS {
            return (kills, operator);
        }
        if !away && phase(&policy) == Some(Phase::Retraining) {
            away = true;
            // What was read of the bucket is frozen by now; the collector has to wait for it.
            component("stop", "objects");
            component("stop", "kube-apiserver");
            tokio::time::sleep(Duration::from_secs(5)).await;
            component("start", "kube-apiserver");
            component("start", "objects");
        }
        if Instant::now() > deadline {
            bed.explain("model");
            panic!("the cycle does not end: {:?}", status.cycle);
        }
    }
}

// The clients go on while this thread waits for a program.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_better_model_is_found_and_served_whatever_is_killed() {
    let bed = Arc::new(Bed::new("learning").await);
    let (_workspace, objects) = (Volume::new(&bed, "workspace"), Objects::new(&bed).await);
    let mut spec = tiny::spec(&tiny::store(), "");
    spec["capture"]["storage"] = objects.storage();
    spec["resources"]["cpu"] = json!("300m");
    let llm = json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "LLMDeployment", "metadata": {"name": "model"},
        "spec": spec});
    let chart = ChartOperators::away().await;
    let launch = Launch::like_the_chart();
    // Two of them all the time: one leads, the other stands by.
    let (operator, _other) = (launch.start("killed"), launch.start("other"));
    tiny::fixed_prompts(&bed, 8).await;
    let generations = apply(&bed, &llm).await.expect("both are accepted");
    bed.settled("model", 2 * MINUTE).await;
    let captures =
        |object: &LLMDeployment| condition(object, "Capturing").is_some_and(|(status, _, _)| status == "True");
    bed.until("model", "capturing", MINUTE, captures).await;
    let url = bed.url("model").await;
    assert_eq!(tiny::answers(&url).await, 0, "the random model knows nothing");
    let talk = Talk::start(&url, RATE, tiny::question);
    let watching = until(&bed, "watch", "watching", 3 * MINUTE, |policy| {
        phase(policy) == Some(Phase::Watching) && says(policy, "ServingChanged", "False", "ProbesSame")
    });
    let baseline = watching
        .await
        .status
        .and_then(|status| status.baseline)
        .expect("a baseline");
    println!(
        "learned from {} requests; not watched: {:?}",
        baseline.samples, baseline.unarmed
    );

    // By now the pods have been told what to keep.
    tell_an_address(&url).await;
    let git = Git::start(&bed, &llm, generations);
    talk.speak_german(70);
    let began = Instant::now();
    let in_a_cycle = |policy: &DriftPolicy| policy.status.as_ref().is_some_and(|status| status.cycle.is_some());
    until(&bed, "watch", "in a cycle", 3 * MINUTE, in_a_cycle).await;
    println!("a cycle began after {} s", began.elapsed().as_secs());
    let (kills, operator) = misfortune(&bed, &launch, operator).await;
    println!(
        "the cycle ended after {} s and {kills} kills",
        began.elapsed().as_secs()
    );

    bed.until(
        "model",
        "served by what was learned",
        MINUTE,
        serves("DriftPolicy/watch"),
    )
    .await;
    bed.settled("model", MINUTE).await;
    let (applied, changed) = git.end().await;
    assert!(
        applied > 10 && !changed,
        "applied {applied} times; a difference: {changed}"
    );
    one_of_each(&bed).await;
    let (right, corrected) = (tiny::answers(&url).await, talk.corrected());
    let answered = talk.end().await;
    println!(
        "{answered} answered, 0 lost, {corrected} corrected; applied {applied} times; {right} of {QUESTIONS} new questions answered right"
    );
    // The random model knows none; a tiny one is never sure of all.
    assert!(right * 6 >= QUESTIONS, "only {right} of {QUESTIONS}");
    canary::is_nowhere(&bed, CANARY).await;
    in_the_bucket(&objects).await;
    the_brake_and_the_end(&bed).await;
    a_cluster_that_is_built_again(&bed, &llm).await;
    operator.kill();
    drop(chart);
    Arc::into_inner(bed).expect("nobody else has it").remove().await;
}

/// The domain makes an address of the word, so that it is looked for wherever the word is.
async fn tell_an_address(url: &str) {
    let body = json!({"model": "model", "max_tokens": 1, "prompt": format!("Write to {CANARY}@example.com"),
        "user": format!("{CANARY}-1")});
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let answer = http.post(format!("{url}/v1/completions")).json(&body).send().await;
    assert!(
        answer.is_ok_and(|answer| answer.status().is_success()),
        "it is answered"
    );
}

/// What its owner wanted is in the bucket: what was asked, without addresses, and nobody's name.
async fn in_the_bucket(objects: &Objects) {
    let found = eventually(2 * MINUTE, || async {
        let records = objects.records().await;
        records.contains("Write to [EMAIL]").then_some(records)
    });
    let records = found.await.expect("the records are in the bucket");
    assert!(records.contains(CANARY), "what was asked is there");
    for hidden in [format!("{CANARY}@"), format!("{CANARY}-")] {
        assert!(!records.contains(&hidden), "{hidden} is in the bucket");
    }
    let keys = objects.keys().await;
    assert!(keys.contains(&"e2e/model/.requester-key".to_owned()), "{keys:?}");
    assert!(keys.iter().all(|key| !key.contains(CANARY)), "{keys:?}");
}

/// Whatever was killed: one cycle, one Job of each kind, one model that was learned, and a spec that only Git wrote.
async fn one_of_each(bed: &Bed) {
    let policy = policies(bed).get("watch").await.expect("it is there");
    let status = policy.status.clone().unwrap_or_default();
    let outcomes: Vec<&str> = status.cycles.iter().map(|cycle| cycle.outcome.as_str()).collect();
    assert_eq!(outcomes, ["Promoted"], "{:?}", status.cycles);
    let jobs: Api<Job> = Api::namespaced(bed.client.clone(), &bed.namespace);
    let labels = ListParams::default().labels("perennial.dev/drift-cycle");
    let jobs = jobs.list(&labels).await.expect("they can be listed").items;
    let of = |kind: &str| {
        let of_kind = |job: &&Job| job.labels()["app.kubernetes.io/component"] == kind;
        jobs.iter().filter(of_kind).count() as u64
    };
    for job in &jobs {
        let ran = job
            .status
            .as_ref()
            .map(|status| (status.succeeded, status.failed.unwrap_or(0)));
        assert_eq!(ran, Some((Some(1), 0)), "{}", job.name_any());
    }
    let maps: Api<ConfigMap> = Api::namespaced(bed.client.clone(), &bed.namespace);
    let ledger = maps
        .get("watch-drift-cycles")
        .await
        .expect("it is there")
        .data
        .unwrap_or_default();
    let ledger: Value = serde_json::from_str(&ledger["ledger.json"]).expect("JSON");
    let finished = ledger["ledger"]["finished"].as_array().map(Vec::len);
    assert_eq!(finished, Some(1), "{ledger}");
    // One that finds too little data as yet is begun again a minute later, and is no cycle; its Job goes, unless the operator was
    // killed at that very moment.
    let begun = ledger["ledger"]["begun"].as_u64().unwrap_or(0);
    assert!((1..=begun).contains(&of("prepare")), "{ledger}");
    let made = (of("retrain"), of("gate"), of("publish"));
    assert_eq!(made, (1, 1, 1), "{ledger}");
    let told = &status.cycles[0].message;
    assert!(told.contains("its tag is written"), "{told}");
    let revisions: Api<ControllerRevision> = Api::namespaced(bed.client.clone(), &bed.namespace);
    let learned = ListParams::default().labels("perennial.dev/learned");
    assert_eq!(
        revisions.list(&learned).await.expect("they can be listed").items.len(),
        1
    );
    let llm = bed.llms().get("model").await.expect("it is there");
    // It was rolled out once: no operator that had just begun took it back for a moment.
    let revision = llm
        .status
        .as_ref()
        .and_then(|status| status.stable_revision.clone())
        .expect("it serves");
    let events = kubectl(&[
        "-n",
        &bed.namespace,
        "get",
        "events",
        "-o",
        "json",
        "--field-selector=reason=SuccessfulCreate",
    ]);
    let events: Value = serde_json::from_str(&events).expect("JSON");
    let of_revision = |event: &&Value| {
        let name = event["involvedObject"]["name"].as_str().unwrap_or_default();
        event["involvedObject"]["kind"] == "ReplicaSet" && name.starts_with(&revision)
    };
    let made = events["items"]
        .as_array()
        .map(|all| all.iter().filter(of_revision).count());
    assert_eq!(made, Some(1), "pods of {revision} were made");
    for (name, fields) in [("model", llm.managed_fields()), ("watch", policy.managed_fields())] {
        assert_eq!(writers(fields), ["flux"], "{name}");
    }
}

/// Whether what serves comes from there.
fn serves(origin: &'static str) -> impl Fn(&LLMDeployment) -> bool {
    move |object| {
        let model = object.status.as_ref().and_then(|status| status.model.as_ref());
        model.is_some_and(|model| model.origin.as_deref() == Some(origin))
    }
}

/// Both objects are gone and made again from Git: what was learned is found in the registry.
async fn a_cluster_that_is_built_again(bed: &Bed, llm: &Value) {
    let before = bed
        .llms()
        .get("model")
        .await
        .expect("it is there")
        .status
        .and_then(|status| status.model);
    kubectl(&["-n", &bed.namespace, "delete", "llm", "model", "--cascade=foreground"]);
    apply(bed, llm).await.expect("both are accepted");
    bed.until(
        "model",
        "served by what was learned before",
        2 * MINUTE,
        serves("DriftPolicy/watch"),
    )
    .await;
    bed.settled("model", MINUTE).await;
    let after = bed
        .llms()
        .get("model")
        .await
        .expect("it is there")
        .status
        .and_then(|status| status.model);
    let digest = |model: Option<perennial_crds::status::ModelStatus>| model.and_then(|model| model.digest);
    assert_eq!(digest(after), digest(before));
    let right = tiny::answers(&bed.url("model").await).await;
    assert!(right * 6 >= QUESTIONS, "only {right} of {QUESTIONS}");
}

/// One line in Git takes the learned model back; without its policy it goes on serving.
async fn the_brake_and_the_end(bed: &Bed) {
    for (learned, origin) in [("Ignore", "Spec"), ("Follow", "DriftPolicy/watch")] {
        bed.change("model", json!({"model": {"learned": learned}})).await;
        bed.until("model", origin, MINUTE, serves(origin)).await;
        bed.settled("model", MINUTE).await;
    }
    kubectl(&["-n", &bed.namespace, "delete", "drift", "watch"]);
    let gone = eventually(MINUTE, || async {
        let left = kubectl(&[
            "-n",
            &bed.namespace,
            "get",
            "jobs,configmaps",
            "-l",
            "perennial.dev/drift-policy",
            "-o",
            "name",
        ]);
        left.trim().is_empty().then_some(())
    });
    assert!(gone.await.is_some(), "something of the policy stays behind");
    bed.until("model", "served as before", MINUTE, serves("DriftPolicy/watch"))
        .await;
}
