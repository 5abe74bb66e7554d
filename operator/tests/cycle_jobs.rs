//! The Jobs of a cycle, as they are sent to the API server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{Job, JobTemplateSpec};
use perennial_crds::capture_spec::{Place, StorageBucket, StorageClaim};
use perennial_crds::retrain::EndedCycle;
use perennial_crds::{DriftPolicy, LLMDeployment};
use perennial_drift::cause::Cause;
use perennial_operator::cycle::jobs::registry::restore;
use perennial_operator::cycle::jobs::{Site, gpus, job};
use perennial_operator::cycle::ledger::{Cycle, Kind, Model, Stage};
use perennial_operator::deployment::build::Environment;
use perennial_operator::deployment::validate::validate;
use serde_json::{Value, json};

fn digest(digit: char) -> String {
    format!("sha256:{}", digit.to_string().repeat(64))
}

fn policy(more: &Value) -> DriftPolicy {
    let mut spec = json!({
        "targetRef": {"name": "tiny"},
        "retraining": {
            "workspace": {"persistentVolumeClaim": {"claimName": "work"}},
            "resources": {"cpu": "2", "memory": "4Gi"},
            "settings": [{"name": "PERENNIAL_TRAIN_EPOCHS", "value": "2"}],
        },
        "gate": {"minItems": 40, "suites": [
            {"name": "recent", "purpose": "Improvement"},
            {"name": "golden", "purpose": "NoRegression", "configMapName": "golden-items"},
        ]},
    });
    for (key, value) in more.as_object().unwrap() {
        spec["retraining"][key] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "perennial.dev/v1alpha1", "kind": "DriftPolicy",
        "metadata": {"name": "watch", "namespace": "models", "uid": "policy-uid"}, "spec": spec,
    }))
    .unwrap()
}

fn deployment() -> LLMDeployment {
    serde_json::from_value(json!({
        "apiVersion": "perennial.dev/v1alpha1", "kind": "LLMDeployment",
        "metadata": {"name": "tiny", "namespace": "models", "uid": "llm-uid"},
        "spec": {"model": {"source": {"huggingFace": {"repository": "org/tiny", "revision": "0123456789012345678901234567890123456789",
            "tokenSecretRef": {"name": "hub", "key": "token"}}}}},
    }))
    .unwrap()
}

fn cycle() -> Cycle {
    Cycle {
        id: "0badcafe".to_owned(),
        target: "target-1".to_owned(),
        cause: Cause::InputDrift,
        started: 1_800_000_000,
        drifted_since: 1_799_990_000,
        from: 1_798_790_400,
        report: "{\"signals\":[]}".to_owned(),
        leftovers: vec![EndedCycle {
            cycle_id: "00000002".to_owned(),
            discard: true,
        }],
        base: Model {
            uri: "hf://org/tiny@0123456789012345678901234567890123456789".to_owned(),
            digest: digest('a'),
            claim: None,
            claim_path: None,
            pull_secret: None,
        },
        champion: Model {
            uri: "file:///mnt/model/model.gguf".to_owned(),
            digest: digest('b'),
            claim: Some("work".to_owned()),
            claim_path: Some("perennial-cycles/watch/00000001/output".to_owned()),
            pull_secret: None,
        },
        stage: Stage::Evaluating,
        jobs: BTreeMap::new(),
        manifest: Some(digest('d')),
        records: 300,
        suites: Some(digest('e')),
        training: None,
        candidate: Some(Model {
            uri: "file:///mnt/model/model.gguf".to_owned(),
            digest: digest('c'),
            claim: Some("work".to_owned()),
            claim_path: Some("perennial-cycles/watch/0badcafe/output".to_owned()),
            pull_secret: None,
        }),
        repository: None,
        published: None,
        verdicts: Vec::new(),
        unheeded_since: None,
        gpu_seconds: 0,
        reserved_gpu_seconds: 0,
    }
}

fn environment() -> Environment {
    Environment {
        server_image: "registry.example/server:1".to_owned(),
        trainer_image: "registry.example/trainer:1".to_owned(),
        plain_http_registries: vec!["registry.example".to_owned()],
    }
}

fn make(kind: Kind, policy: &DriftPolicy, template: Option<&JobTemplateSpec>) -> Result<Job, String> {
    make_of(kind, policy, template, cycle())
}

fn make_of(kind: Kind, policy: &DriftPolicy, template: Option<&JobTemplateSpec>, cycle: Cycle) -> Result<Job, String> {
    let claim = StorageClaim {
        claim_name: "records".to_owned(),
    };
    make_with(kind, policy, template, cycle, Place::Claim(&claim))
}

fn make_with(
    kind: Kind,
    policy: &DriftPolicy,
    template: Option<&JobTemplateSpec>,
    cycle: Cycle,
    records: Place<'_>,
) -> Result<Job, String> {
    let (valid, environment) = (validate(&deployment()).unwrap(), environment());
    let site = Site {
        policy,
        retraining: policy.spec.retraining.as_ref().unwrap(),
        target: &valid,
        records: Some(records),
        environment: &environment,
        cycle: &cycle,
    };
    job(kind, &site, template)
}

fn template(variable: &str) -> JobTemplateSpec {
    serde_json::from_value(
        json!({"spec": {"backoffLimit": 1, "template": {"metadata": {"labels": {"team": "ml"}}, "spec": {
        "restartPolicy": "Never", "containers": [
            {"name": "sidecar", "image": "registry.example/sidecar"},
            {"name": "trainer", "image": "registry.example/mine", "env": [{"name": variable, "value": "1"}],
                "resources": {"limits": {"nvidia.com/gpu": "4"}}},
        ]}}}}),
    )
    .unwrap()
}

#[test]
fn the_default_jobs() {
    for kind in [Kind::Prepare, Kind::Retrain, Kind::Gate] {
        let job = make(kind, &policy(&json!({})), None).unwrap();
        insta::assert_yaml_snapshot!(format!("cycle_{}", kind.word()), job);
    }
}

#[test]
fn records_in_a_bucket_are_read_by_one_job() {
    let bucket: StorageBucket = serde_json::from_value(json!({
        "bucket": "archive", "prefix": "team-a", "region": "eu-central-1", "credentialsSecretName": "archive-keys",
    }))
    .unwrap();
    let place = Place::Bucket(&bucket);
    let prepare = make_with(Kind::Prepare, &policy(&json!({})), None, cycle(), place).unwrap();
    insta::assert_yaml_snapshot!("cycle_bucket_prepare", prepare);
    let theirs = policy(&json!({"jobTemplateRef": {"name": "mine"}}));
    for kind in [Kind::Retrain, Kind::Gate, Kind::Publish] {
        for template in [None, Some(&template("MINE"))] {
            let job = make_with(kind, &theirs, template, cycle(), place).unwrap();
            let text = serde_json::to_string(&job).unwrap();
            for word in ["archive", "AWS_", "_S3_"] {
                assert!(!text.contains(word), "{word} is in the Job {}: {text}", kind.word());
            }
        }
    }
}

/// A policy whose models go to a registry, and that has probes.
fn to_a_registry() -> DriftPolicy {
    let mut policy = policy(&json!({}));
    let output = json!({"oci": {"repository": "registry.example/models/tiny", "pushSecretRef": {"name": "push"},
        "pullSecretRef": {"name": "pull"}}});
    let retraining = policy.spec.retraining.as_mut().unwrap();
    retraining.output = serde_json::from_value(output).unwrap();
    policy.spec.promotion.publish_tag = Some("champion".to_owned());
    policy.spec.probe = serde_json::from_value(json!({"promptSetRef": {"configMapName": "fixed-prompts"}})).unwrap();
    policy
}

#[test]
fn models_that_go_to_a_registry() {
    let mut cycle = cycle();
    cycle.repository = Some("registry.example/models/tiny".to_owned());
    cycle.candidate = Some(Model {
        uri: format!("oci://registry.example/models/tiny@{}", digest('c')),
        digest: digest('c'),
        claim: None,
        claim_path: None,
        pull_secret: Some("pull".to_owned()),
    });
    for kind in Kind::ALL {
        let job = make_of(kind, &to_a_registry(), None, cycle.clone()).unwrap();
        insta::assert_yaml_snapshot!(format!("cycle_oci_{}", kind.word()), job);
    }
    let policy = to_a_registry();
    let output = policy.spec.retraining.as_ref().unwrap().output.as_ref().unwrap();
    let job = restore(&policy, &output.oci, "champion", &environment(), 1);
    insta::assert_yaml_snapshot!("cycle_restore", job);
}

#[test]
fn the_job_that_asks_fixed_prompts() {
    let (policy, valid) = (to_a_registry(), validate(&deployment()).unwrap());
    let job = perennial_operator::probes::job::job(
        &policy,
        "fixed-prompts",
        &valid,
        "http://tiny.models.svc",
        &environment(),
        1_800_000_000,
    );
    insta::assert_yaml_snapshot!("probe", job);
}

#[test]
fn a_template_keeps_what_it_says_and_gets_what_the_contract_gives() {
    let policy = policy(&json!({"jobTemplateRef": {"name": "mine"}, "queueName": "gpus"}));
    let template = template("MINE");
    assert_eq!(gpus(template.spec.as_ref().unwrap().template.spec.as_ref().unwrap()), 4);
    let job = make(Kind::Retrain, &policy, Some(&template)).unwrap();
    insta::assert_yaml_snapshot!("cycle_template", job);
}

#[test]
fn a_template_that_sets_what_the_contract_sets_is_refused() {
    let policy = policy(&json!({"jobTemplateRef": {"name": "mine"}}));
    let why = make(Kind::Retrain, &policy, Some(&template("RETRAIN_BASE_MODEL_DIGEST"))).unwrap_err();
    assert!(
        why.contains("RETRAIN_BASE_MODEL_DIGEST") && why.contains("remove it"),
        "{why}"
    );
}

#[test]
fn names_stay_short_and_no_secret_is_handed_to_a_template() {
    let mut long = policy(&json!({"jobTemplateRef": {"name": "mine"}}));
    long.metadata.name = Some("p".repeat(63));
    let job = make(Kind::Retrain, &long, Some(&template("MINE"))).unwrap();
    assert!(job.metadata.name.unwrap().len() <= 63);
    let text = serde_json::to_string(&job.spec).unwrap();
    assert!(!text.contains("secretKeyRef"), "{text}");
    let own = make(Kind::Retrain, &policy(&json!({})), None).unwrap();
    assert!(serde_json::to_string(&own.spec).unwrap().contains("secretKeyRef"));
}
