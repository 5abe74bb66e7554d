//! Capture: what pods are told to keep, the collector beside them, and that nothing takes it for a revision.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;

use common::{PINNED, ago, container, environment, now, object, valid, wanted};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{Resource, ResourceExt};
use perennial_crds::capture::{CAPTURE_ANNOTATION, Level, Terms};
use perennial_crds::capture_spec::{Place, StorageClaim};
use perennial_crds::conditions::Reason;
use perennial_crds::{NAME_LABEL, REVISION_LABEL};
use perennial_operator::autoscaling::pods::{initial, replicas};
use perennial_operator::deployment::build::{self, collector_name};
use perennial_operator::deployment::capture::{Capturing, Orders, capturing, orders, terms};
use perennial_operator::deployment::observe::{Children, Indexes, children};
use perennial_operator::deployment::plan::plan;
use perennial_operator::deployment::revision;
use perennial_operator::deployment::validate::Validated;
use perennial_operator::drift::target::target;
use serde_json::{Value, json};

const NONE: &str = "capture: {level: None}";
const FEATURES: &str = "capture: {level: Features}";
const PAYLOAD: &str = "capture: {level: Payload, storage: {persistentVolumeClaim: {claimName: records}}}";
const FULL: &str = "
capture:
  level: Payload
  maxSamplePerMille: 200
  redaction: {builtin: [Email], patterns: [{name: CUSTOMER, regex: 'C-[0-9]{6}'}]}
  storage: {persistentVolumeClaim: {claimName: records}}
  retentionDays: 7
  maxBytes: 2G";

const BUCKET: &str = "
capture:
  level: Payload
  storage: {s3: {bucket: archive, endpoint: 'http://minio.storage.svc:9000', credentialsSecretName: archive-keys}}";

fn a_claim() -> StorageClaim {
    StorageClaim {
        claim_name: "records".to_owned(),
    }
}

fn with(capture: &str) -> Validated {
    valid(&format!("{PINNED}\n{capture}"))
}

fn revision_of(valid: &Validated) -> String {
    revision::name(valid, &revision::pinned_model(valid).unwrap())
}

/// What the API server adds to what is applied.
fn stored<K: Resource<DynamicType = ()>>(mut child: K, uid: &str) -> K {
    let meta = child.meta_mut();
    meta.uid = Some(uid.to_owned());
    meta.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(ago(60)));
    child
}

/// The collector's Service with this address.
fn service(valid: &Validated, uid: &str, address: Option<&str>) -> Service {
    let mut service = stored(build::collector_service(valid), uid);
    service.spec.as_mut().unwrap().cluster_ip = address.map(str::to_owned);
    service
}

fn a_pod(name: &str, labels: &[(&str, &str)], status: Value) -> Pod {
    let labels: BTreeMap<_, _> = [(NAME_LABEL, "tiny")].iter().chain(labels).copied().collect();
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "models", "uid": name, "creationTimestamp": ago(30), "labels": labels},
        "status": status,
    }))
    .unwrap()
}

fn ready() -> Value {
    json!({
        "podIP": "127.0.0.1",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": ago(20)}],
    })
}

/// A pod of this revision that answers.
fn replica(name: &str, revision: &str) -> Pod {
    a_pod(name, &[(REVISION_LABEL, revision)], ready())
}

fn collecting(status: Value) -> Pod {
    a_pod("collecting", &[("app.kubernetes.io/component", "capture")], status)
}

/// One revision that serves with a replica, beside other children.
struct World {
    valid: Validated,
    indexes: Indexes,
}

impl World {
    fn new(capture: &str) -> Self {
        let valid = with(capture);
        let indexes = Indexes::default();
        let model = revision::pinned_model(&valid).unwrap();
        let name = revision_of(&valid);
        let frozen = build::freeze(&valid, &environment(), &name, &model);
        indexes.revisions.wrote(revision::store(&valid, &name, 1, &frozen));
        indexes
            .deployments
            .wrote(stored(build::deployment(&valid, &name, &frozen, 1), "serving"));
        indexes.services.wrote(stored(build::service(&valid, &name), "leading"));
        indexes.pods.wrote(replica("one", &name));
        Self { valid, indexes }
    }

    fn children(&self) -> Children {
        children(&self.indexes, &self.valid.owner).unwrap()
    }

    fn orders(&self) -> Orders {
        orders(&self.valid, &self.children(), &environment())
    }

    /// As if the orders were carried out.
    fn obey(&self) {
        let Orders {
            collector,
            old_service,
            old_deployment,
            tell,
        } = self.orders();
        assert!(old_service.is_none() && old_deployment.is_none(), "nothing is removed");
        for pod in self.indexes.pods.of(&self.valid.owner) {
            if let Some(Some(terms)) = tell.get(&pod.name_any()) {
                let mut pod = pod.as_ref().clone();
                pod.annotations_mut()
                    .insert(CAPTURE_ANNOTATION.to_owned(), terms.clone());
                self.indexes.pods.wrote(pod);
            }
        }
        let collector = collector.expect("a collector is wanted");
        if self.orders().collector.unwrap().deployment.is_none() {
            let mut service = stored(collector.service, "collecting");
            service.spec.as_mut().unwrap().cluster_ip = Some("10.0.0.7".to_owned());
            self.indexes.services.wrote(service);
        }
        if let Some(deployment) = collector.deployment {
            self.indexes.deployments.wrote(stored(deployment, "collecting"));
        }
    }

    /// With everything as it is wanted.
    fn settled(capture: &str) -> Self {
        let world = Self::new(capture);
        for _ in 0..2 {
            world.obey();
        }
        assert!(world.orders().tell.is_empty(), "{:?}", world.orders().tell);
        world
    }

    fn capturing(&self, failed: Option<&str>) -> Option<Capturing> {
        let stable = revision_of(&self.valid);
        capturing(&self.valid, &self.children(), Some(&stable), failed)
    }
}

#[test]
fn the_collector() {
    let valid = valid(&format!(
        "{PINNED}{FULL}
podTemplate:
  spec:
    tolerations: [{{key: gpu, operator: Exists, effect: NoSchedule}}]
    imagePullSecrets: [{{name: images}}]
    priorityClassName: models
    containers: [{{name: server, env: [{{name: RUST_LOG, value: debug}}]}}]"
    ));
    let mut children = Children::default();
    children.current.services = vec![service(&valid, "service-uid", Some("10.0.0.7")).into()];
    let collector = orders(&valid, &children, &environment()).collector.unwrap();
    let both = json!({"service": collector.service, "deployment": collector.deployment});
    insta::assert_snapshot!(serde_yaml::to_string(&both).unwrap());
}

#[test]
fn the_collector_of_a_bucket() {
    let valid = with(BUCKET);
    let mut children = Children::default();
    children.current.services = vec![service(&valid, "service-uid", Some("10.0.0.7")).into()];
    let collector = orders(&valid, &children, &environment()).collector.unwrap();
    insta::assert_snapshot!(serde_yaml::to_string(&collector.deployment).unwrap());
}

#[test]
fn of_the_bucket_only_the_name_is_said_and_a_missing_secret_is_told() {
    let world = World::settled(BUCKET);
    let starts = ["being started", "archive", "kubectl logs deployment/tiny-capture"];
    says(&world, None, false, Reason::CollectorNotReady, &starts);
    for message in [
        "secret \"archive-keys\" not found",
        "couldn't find key AWS_ACCESS_KEY_ID in Secret models/archive-keys",
    ] {
        let waiting = json!({"waiting": {"reason": "CreateContainerConfigError", "message": message}});
        world.indexes.pods.wrote(collecting(
            json!({"containerStatuses": [container(waiting, Value::Null, 0)]}),
        ));
        let words = [
            "SecretNotFound",
            message,
            "spec.capture.storage.s3.credentialsSecretName",
        ];
        says(&world, None, false, Reason::CollectorNotReady, &words);
    }
    world.indexes.pods.wrote(collecting(ready()));
    let kept = ["50 of 1000", "in the bucket archive", "30 days"];
    says(&world, None, true, Reason::CollectorReady, &kept);
}

#[test]
fn a_storage_without_a_place_keeps_nothing() {
    // The API server refuses it; an operator without that rule has to be as careful.
    let world = World::new("capture: {level: Payload, storage: {}}");
    assert_eq!(world.capturing(None), None);
    assert!(world.orders().collector.is_none());
}

#[test]
fn capture_is_no_part_of_a_revision() {
    let plain = valid(PINNED);
    let model = revision::pinned_model(&plain).unwrap();
    let frozen = build::freeze(&plain, &environment(), "tiny-1", &model);
    for capture in [NONE, FEATURES, PAYLOAD, FULL, BUCKET] {
        let captured = with(capture);
        assert_eq!(revision_of(&captured), revision_of(&plain), "{capture}");
        assert_eq!(
            build::freeze(&captured, &environment(), "tiny-1", &model),
            frozen,
            "{capture}"
        );
    }
}

#[test]
fn a_pod_can_read_its_annotation_and_a_resolving_one_need_not() {
    let valid = valid(common::BRANCH);
    let job = build::resolve_job(&valid, &environment());
    let volumes = |template: &k8s_openapi::api::core::v1::PodTemplateSpec| -> Vec<String> {
        let volumes = template.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        volumes.map(|volume| volume.name.clone()).collect()
    };
    assert_eq!(volumes(&job.spec.unwrap().template), ["scratch"]);
    let plain = common::valid(PINNED);
    let frozen = build::freeze(
        &plain,
        &environment(),
        "tiny-1",
        &revision::pinned_model(&plain).unwrap(),
    );
    assert_eq!(volumes(&frozen.template), ["scratch", "pod-info"]);
}

#[test]
fn terms_are_those_of_the_spec() {
    let told = |capture: &str| {
        let valid = with(capture);
        let service = service(&valid, "s", Some("10.0.0.7"));
        terms(&valid, Some(&service.into()), "tiny-1")
    };
    assert_eq!(terms(&valid(PINNED), None, "tiny-1"), None);
    assert_eq!(told(FEATURES), None);
    let nothing = Terms {
        level: Level::None,
        ..Terms::default()
    };
    assert_eq!(told(NONE), Some(nothing.clone()));
    assert_eq!(terms(&with(NONE), None, "tiny-1"), Some(nothing));
    let full = told(FULL).unwrap();
    assert_eq!((full.level, full.sample_per_mille), (Level::Payload, 200));
    assert_eq!((full.redact.len(), full.patterns[0].name.as_str()), (1, "CUSTOMER"));
    assert_eq!(full.collector.as_deref(), Some("http://10.0.0.7:9091"));
    assert_eq!(full.revision.as_deref(), Some("tiny-1"));
    let usual = told(PAYLOAD).unwrap();
    assert_eq!(
        (usual.sample_per_mille, usual.redact.len(), usual.patterns.len()),
        (50, 3, 0)
    );
}

#[test]
fn nobody_is_sent_to_a_collector_without_an_address() {
    let valid = with(PAYLOAD);
    let at = |address: Option<&str>| {
        let service = service(&valid, "s", address);
        terms(&valid, Some(&service.into()), "tiny-1").and_then(|terms| terms.collector)
    };
    assert_eq!(terms(&valid, None, "tiny-1"), None);
    for address in [None, Some(""), Some("None")] {
        assert_eq!(at(address), None);
    }
    assert_eq!(at(Some("10.0.0.7")).as_deref(), Some("http://10.0.0.7:9091"));
    assert_eq!(at(Some("fd00::7")).as_deref(), Some("http://[fd00::7]:9091"));
}

#[test]
fn the_token_follows_from_both_uids() {
    let token = |valid: &Validated, uid: &str| {
        let service = service(valid, uid, Some("10.0.0.7"));
        terms(valid, Some(&service.into()), "tiny-1").unwrap().token.unwrap()
    };
    let valid = with(PAYLOAD);
    let one = token(&valid, "one");
    // printf %s 11111111-2222-3333-4444-555555555555:one | sha256sum
    assert_eq!(one, "9055aebb4df7ce7342bcc5fa9c42e71c");
    assert_ne!(token(&valid, "two"), one);
    let other = Validated {
        uid: "other".to_owned(),
        ..valid
    };
    assert_ne!(token(&other, "one"), one);
}

#[test]
fn pods_are_told_what_is_new_and_nothing_twice() {
    let mut world = World::settled(PAYLOAD);
    let annotation = |world: &World| {
        let pods = world.indexes.pods.of(&world.valid.owner);
        pods[0].annotations().get(CAPTURE_ANNOTATION).cloned()
    };
    let told = annotation(&world).unwrap();
    let read: Terms = serde_json::from_str(&told).unwrap();
    assert_eq!((read.level, read.sample_per_mille), (Level::Payload, 50));
    assert!(
        told.starts_with(r#"{"collector":"http://10.0.0.7:9091","level":"Payload","redact":["#),
        "{told}"
    );
    // Somebody else's hand is put right.
    let mut pod = world.indexes.pods.of(&world.valid.owner)[0].as_ref().clone();
    pod.annotations_mut()
        .insert(CAPTURE_ANNOTATION.to_owned(), "{}".to_owned());
    world.indexes.pods.wrote(pod);
    assert_eq!(world.orders().tell["one"].as_ref(), Some(&told));
    world.obey();
    // A change of the spec is told.
    world.valid = with(FULL);
    let tell = world.orders().tell;
    assert!(
        tell["one"].as_ref().unwrap().contains(r#""samplePerMille":200"#),
        "{tell:?}"
    );
    world.obey();
    // So is that nothing at all is to be kept, and that counts are enough.
    world.valid = with(NONE);
    assert_eq!(
        world.orders().tell["one"].as_deref(),
        Some(r#"{"level":"None","samplePerMille":0}"#)
    );
    for less in ["", FEATURES] {
        world.valid = with(less);
        assert_eq!(world.orders().tell, BTreeMap::from([("one".to_owned(), None)]));
    }
}

#[test]
fn only_pods_that_serve_are_told() {
    let world = World::new(NONE);
    let name = revision_of(&world.valid);
    let mut leaving = replica("leaving", &name);
    leaving.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    world.indexes.pods.wrote(leaving);
    world.indexes.pods.wrote(collecting(ready()));
    world
        .indexes
        .pods
        .wrote(a_pod("resolving", &[("perennial.dev/resolve", "x")], json!({})));
    world.indexes.pods.wrote(replica("older", "tiny-0"));
    let told: Vec<String> = world.orders().tell.into_keys().collect();
    assert_eq!(told, ["older", "one"]);
}

#[test]
fn a_pod_is_told_its_own_revision() {
    let world = World::settled(PAYLOAD);
    world.indexes.pods.wrote(replica("older", "tiny-0"));
    let tell = world.orders().tell;
    assert!(
        tell["older"].as_ref().unwrap().contains(r#""revision":"tiny-0""#),
        "{tell:?}"
    );
}

#[test]
fn the_collector_comes_when_its_service_has_an_address_and_goes_with_the_level() {
    let world = World::new(PAYLOAD);
    let first = world.orders();
    assert_eq!(first.collector.as_ref().unwrap().deployment, None);
    assert!(first.tell.is_empty());
    world.obey();
    let second = world.orders();
    let deployment = second.collector.unwrap().deployment.unwrap();
    assert_eq!(deployment.name_any(), "tiny-capture");
    let token = |text: &str| second.tell["one"].as_ref().unwrap().contains(text);
    let env = deployment.spec.unwrap().template.spec.unwrap().containers[0]
        .env
        .clone()
        .unwrap();
    let secret = env
        .iter()
        .find(|one| one.name == "COLLECT_TOKEN")
        .unwrap()
        .value
        .clone();
    assert!(token(&format!(r#""token":"{}""#, secret.unwrap())));
    for less in ["", NONE, FEATURES] {
        let mut world = World::settled(PAYLOAD);
        world.valid = with(less);
        let orders = world.orders();
        assert!(orders.collector.is_none(), "{less}");
        assert_eq!(orders.old_service.unwrap().name_any(), "tiny-capture");
        assert_eq!(orders.old_deployment.unwrap().name_any(), "tiny-capture");
    }
}

#[test]
fn what_is_somebody_elses_is_not_removed() {
    let mut world = World::settled(PAYLOAD);
    world.valid = Validated {
        uid: "another".to_owned(),
        ..with(FEATURES)
    };
    let orders = world.orders();
    assert!(orders.old_service.is_none() && orders.old_deployment.is_none());
}

#[test]
fn nothing_takes_the_collector_for_a_revision() {
    let world = World::settled(PAYLOAD);
    let no_room = json!({"conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room"},
    ]});
    world.indexes.pods.wrote(collecting(no_room));
    // An older operator, or a hand, could have scaled it.
    let claim = a_claim();
    let mut many = build::collector_deployment(
        &world.valid,
        &environment(),
        world.valid.capture.as_ref().unwrap(),
        Place::Claim(&claim),
        "token",
    );
    many.spec.as_mut().unwrap().replicas = Some(9);
    world.indexes.deployments.wrote(stored(many, "collecting"));
    let (owner, name) = (&world.valid.owner, revision_of(&world.valid));
    let children = world.children();
    let names: Vec<String> = children.current.deployments.iter().map(|one| one.name_any()).collect();
    assert!(names.contains(&collector_name("tiny")), "{names:?}");
    let observed = children.observed(owner);
    assert_eq!(observed.revisions.keys().collect::<Vec<_>>(), [&name]);
    assert_eq!(observed.stable.as_ref(), Some(&name));
    let plan = plan(&observed, &wanted(Some(&name), 1));
    assert!(plan.remove.is_empty() && plan.deployments.len() == 1, "{plan:?}");
    let serving: Vec<String> = children.serving_pods().iter().map(|pod| pod.name_any()).collect();
    assert_eq!(serving, ["one"]);
    let object = object(&format!("{PINNED}\n{PAYLOAD}"));
    let seen = replicas(&world.indexes, owner, &object.status.clone().unwrap_or_default(), 1, 1);
    assert!(!seen.rollout && !seen.without_room);
    assert_eq!(initial(&world.indexes, owner, &object, 1, 20), 1);
    assert_eq!(target(&world.indexes, owner, &object).replicas.len(), 1);
}

#[test]
fn no_selector_of_the_model_finds_the_collector() {
    let valid = with(PAYLOAD);
    let collector = collector_labels(&valid);
    assert!(!collector.contains_key(REVISION_LABEL));
    let leads = build::service(&valid, "tiny-1").spec.unwrap().selector.unwrap();
    assert!(!leads.iter().all(|(key, value)| collector.get(key) == Some(value)));
    let budget = build::disruption_budget(&valid).spec.unwrap().selector.unwrap();
    let expressions = budget.match_expressions.unwrap();
    assert!(
        expressions
            .iter()
            .any(|one| one.key == REVISION_LABEL && one.operator == "Exists")
    );
    // And none of the collector's finds the model.
    let pods = build::labels("tiny", Some("tiny-1"));
    let finds = build::collector_service(&valid).spec.unwrap().selector.unwrap();
    assert!(!finds.iter().all(|(key, value)| pods.get(key) == Some(value)));
    assert!(finds.iter().all(|(key, value)| collector.get(key) == Some(value)));
}

fn collector_labels(valid: &Validated) -> BTreeMap<String, String> {
    let capture = valid.capture.as_ref().unwrap();
    let claim = a_claim();
    let deployment: Deployment =
        build::collector_deployment(valid, &environment(), capture, Place::Claim(&claim), "token");
    deployment.spec.unwrap().template.metadata.unwrap().labels.unwrap()
}

/// The condition holds or does not, for this reason and with these words.
#[track_caller]
fn says(world: &World, failed: Option<&str>, works: bool, reason: Reason, words: &[&str]) {
    let said = world.capturing(failed).expect("something is said");
    assert_eq!((said.works, said.reason), (works, reason), "{}", said.message);
    for word in words {
        assert!(said.message.contains(word), "{word:?} is not in: {}", said.message);
    }
}

#[test]
fn it_is_said_whether_the_collector_takes_records() {
    for silent in ["", NONE, FEATURES] {
        assert_eq!(World::new(silent).capturing(Some("something")), None, "{silent}");
    }
    let world = World::settled(FULL);
    says(&world, None, false, Reason::CollectorNotReady, &["being started"]);
    world.indexes.pods.wrote(collecting(json!({"conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "persistentvolumeclaim \"records\" not found"},
    ]})));
    let claim = ["VolumeClaimNotFound", "\"records\" not found", "spec.capture.storage"];
    says(&world, None, false, Reason::CollectorNotReady, &claim);
    let pulling = json!({"waiting": {"reason": "ImagePullBackOff", "message": "denied"}});
    world.indexes.pods.wrote(collecting(
        json!({"containerStatuses": [container(pulling, Value::Null, 0)]}),
    ));
    says(
        &world,
        None,
        false,
        Reason::CollectorNotReady,
        &["ImagePullBackOff", "denied", "trainer.image"],
    );
    world.indexes.pods.wrote(collecting(ready()));
    let kept = ["200 of 1000", "records", "7 days", "2G"];
    says(&world, None, true, Reason::CollectorReady, &kept);
    says(
        &world,
        Some("the name is taken"),
        false,
        Reason::CaptureUnavailable,
        &["the name is taken"],
    );
}

#[test]
fn a_quota_that_keeps_the_collector_out_is_told() {
    let world = World::settled(PAYLOAD);
    let mut refused = world.children().deployment("tiny-capture").unwrap().as_ref().clone();
    refused.status = serde_json::from_value(json!({"conditions": [
        {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"},
    ]}))
    .unwrap();
    world.indexes.deployments.wrote(refused);
    says(
        &world,
        None,
        false,
        Reason::CollectorNotReady,
        &["PodForbidden", "exceeded quota"],
    );
}

#[test]
fn pods_of_an_older_release_cannot_be_told() {
    let world = World::settled(PAYLOAD);
    world.indexes.pods.wrote(collecting(ready()));
    let (valid, name) = (&world.valid, revision_of(&world.valid));
    let model = revision::pinned_model(valid).unwrap();
    let mut frozen = build::freeze(valid, &environment(), &name, &model);
    let pod = frozen.template.spec.as_mut().unwrap();
    pod.volumes.as_mut().unwrap().retain(|volume| volume.name != "pod-info");
    world.indexes.revisions.wrote(revision::store(valid, &name, 1, &frozen));
    let words = [name.as_str(), "older release", "next revision", "spec.runtime.image"];
    says(&world, None, false, Reason::CaptureUnavailable, &words);
    // Without its record what runs is looked at.
    let mut lost = world.children();
    lost.revisions.clear();
    let said = capturing(valid, &lost, Some(&name), None).unwrap();
    assert!(said.works, "what runs has the file: {}", said.message);
    let mut older = build::deployment(valid, &name, &frozen, 1);
    older.metadata.uid = Some("serving".to_owned());
    world.indexes.deployments.wrote(older);
    let mut lost = world.children();
    lost.revisions.clear();
    let said = capturing(valid, &lost, Some(&name), None).unwrap();
    assert_eq!(said.reason, Reason::CaptureUnavailable);
}
