//! Builders of what the tests look at.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use perennial_crds::LLMDeployment;
use perennial_crds::conditions::Reason;
use perennial_operator::deployment::build::{self, Environment};
use perennial_operator::deployment::diagnose::Finding;
use perennial_operator::deployment::plan::{Known, Observed, Running, Wanted};
use perennial_operator::deployment::revision::{self, Failure, Revision};
use perennial_operator::deployment::validate::{Validated, validate};
use serde_json::{Value, json};

/// A commit of 40 digits.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Some digest.
pub const DIGEST: &str = "sha256:5555555555555555555555555555555555555555555555555555555555555555";
/// Spec of the smallest pinned model.
pub const PINNED: &str =
    "model: {source: {huggingFace: {repository: org/tiny, revision: 0123456789abcdef0123456789abcdef01234567}}}";
/// Spec of the smallest model that has to be resolved.
pub const BRANCH: &str = "model: {source: {huggingFace: {repository: org/tiny}}}";

/// The time in all tests.
pub fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

/// So many seconds before [`now`].
pub fn ago(seconds: i64) -> Timestamp {
    now() - jiff::SignedDuration::from_secs(seconds)
}

/// An object called `tiny` with this spec in YAML, as the API server would hand it out.
pub fn object(spec: &str) -> LLMDeployment {
    object_with_annotations(spec, &[])
}

/// As [`object`], with annotations.
pub fn object_with_annotations(spec: &str, annotations: &[(&str, &str)]) -> LLMDeployment {
    let spec: Value = serde_yaml::from_str(spec).unwrap();
    let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
    serde_json::from_value(json!({
        "apiVersion": "perennial.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {
            "name": "tiny",
            "namespace": "models",
            "uid": "11111111-2222-3333-4444-555555555555",
            "generation": 3,
            "annotations": annotations,
        },
        "spec": spec,
    }))
    .unwrap()
}

/// The checked object with this spec.
pub fn valid(spec: &str) -> Validated {
    validate(&object(spec)).unwrap()
}

/// Settings of an operator.
pub fn environment() -> Environment {
    Environment {
        server_image: "registry.example/perennial-server:1.0.0".to_owned(),
        trainer_image: "registry.example/perennial-trainer:1.0.0".to_owned(),
        plain_http_registries: Vec::new(),
    }
}

/// The revision of a pinned object as it is read back from the cluster.
pub fn stored(valid: &Validated, number: i64) -> Revision {
    let model = revision::pinned_model(valid).expect("only pinned objects");
    let name = revision::name(valid, &model);
    let frozen = build::freeze(valid, &environment(), &name, &model);
    revision::read(&revision::store(valid, &name, number, &frozen)).unwrap()
}

/// A pod from JSON of its status.
pub fn pod(name: &str, status: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "models", "creationTimestamp": ago(30)},
        "status": status,
    }))
    .unwrap()
}

/// A pod whose container `server` is in this state.
pub fn pod_in_state(state: Value) -> Pod {
    pod(
        "pod-1",
        json!({"containerStatuses": [container(state, Value::Null, 0)]}),
    )
}

/// Status of the container `server`.
pub fn container(state: Value, last_state: Value, restarts: i32) -> Value {
    json!({
        "name": "server", "image": "registry.example/server:1", "imageID": "", "ready": false,
        "restartCount": restarts, "state": state, "lastState": last_state,
    })
}

/// A pod of the resolving Job of this object.
pub fn job_pod(valid: &Validated, status: Value) -> Pod {
    let mut pod = pod("resolve-1", status);
    pod.metadata.labels = Some(BTreeMap::from([(
        build::RESOLVE_LABEL.to_owned(),
        revision::source_hash(&valid.source),
    )]));
    pod
}

/// The resolving Job of this object, ended so many seconds ago with this condition.
pub fn job(valid: &Validated, ended: Option<(&str, i64)>) -> Job {
    let mut job = build::resolve_job(valid, &environment());
    if let Some((kind, seconds)) = ended {
        let status = json!({"conditions": [
            {"type": kind, "status": "True", "lastTransitionTime": ago(seconds), "message": "said the Job"},
        ]});
        job.status = serde_json::from_value(status).unwrap();
    }
    job
}

/// Something in the way.
pub fn finding(reason: Reason, permanent: bool) -> Finding {
    Finding {
        reason,
        message: format!("something with {reason}"),
        permanent,
    }
}

/// A revision that was given up.
pub fn failure(retry: Option<&str>) -> Failure {
    Failure {
        reason: "ProgressDeadlineExceeded".to_owned(),
        message: "it took too long".to_owned(),
        retry: retry.map(str::to_owned),
    }
}

/// A stored revision without a Deployment.
pub fn known() -> Known {
    Known::default()
}

/// What tests say of a revision.
pub trait KnownExt: Sized {
    /// It has a Deployment of this age with so many pods, of which some are ready.
    fn running(self, age: i64, ready: i32, replicas: i32) -> Self;
    /// It has served.
    fn served(self) -> Self;
    /// It was given up while the retry annotation had this value.
    fn failed(self, retry: Option<&str>) -> Self;
}

impl KnownExt for Known {
    fn running(mut self, age: i64, ready: i32, replicas: i32) -> Self {
        self.running = Some(Running {
            created: ago(age),
            ready,
            replicas,
        });
        self
    }

    fn served(mut self) -> Self {
        self.served = true;
        self
    }

    fn failed(mut self, retry: Option<&str>) -> Self {
        self.failed = Some(failure(retry));
        self
    }
}

/// A cluster whose Service leads to `stable`, with all of its ready pods behind it.
pub fn cluster<const N: usize>(stable: Option<&str>, revisions: [(&str, Known); N]) -> Observed {
    let revisions: BTreeMap<String, Known> = revisions
        .into_iter()
        .map(|(name, known)| (name.to_owned(), known))
        .collect();
    let ready = stable
        .and_then(|stable| revisions.get(stable)?.running.as_ref())
        .map_or(0, |running| running.ready);
    Observed {
        stable: stable.map(str::to_owned),
        endpoints_moved: ready > 0,
        ready_endpoints: usize::try_from(ready).unwrap(),
        revisions,
    }
}

/// So many replicas of this revision within 100 s.
pub fn wanted(target: Option<&str>, replicas: i32) -> Wanted {
    Wanted {
        target: target.map(str::to_owned),
        replicas,
        paused: false,
        progress_deadline: std::time::Duration::from_secs(100),
        nodes_may_lag: std::time::Duration::ZERO,
        retry: None,
        now: now(),
    }
}
