//! What a pod gets to know of the object, and what is refused with which words.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{COMMIT, DIGEST, PINNED, object, valid};
use perennial_operator::deployment::validate::{Error, validate};

struct Case {
    source: &'static str,
    uri: String,
    pinned: bool,
}

#[test]
fn every_source_has_an_address() {
    for case in [
        Case {
            source: "huggingFace: {repository: org/tiny}",
            uri: "hf://org/tiny@main".to_owned(),
            pinned: false,
        },
        Case {
            source: "huggingFace: {repository: org/tiny, revision: refs/pr/1, file: a/b.gguf}",
            uri: "hf://org/tiny@refs/pr/1#a/b.gguf".to_owned(),
            pinned: false,
        },
        Case {
            source: "huggingFace: {repository: org/tiny, revision: 0123456789abcdef0123456789abcdef01234567}",
            uri: format!("hf://org/tiny@{COMMIT}"),
            pinned: true,
        },
        Case {
            source: "oci: {reference: 'r.example:5000/m/tiny:1'}",
            uri: "oci://r.example:5000/m/tiny:1".to_owned(),
            pinned: false,
        },
        Case {
            source: "oci: {reference: 'r.example/m/tiny@sha256:5555555555555555555555555555555555555555555555555555555555555555'}",
            uri: format!("oci://r.example/m/tiny@{DIGEST}"),
            pinned: true,
        },
        Case {
            source: "http: {url: 'https://example.com/tiny.gguf?x=1'}",
            uri: "https://example.com/tiny.gguf?x=1".to_owned(),
            pinned: false,
        },
        Case {
            source: "persistentVolumeClaim: {claimName: models}",
            uri: "file:///mnt/model".to_owned(),
            pinned: false,
        },
        Case {
            source: "persistentVolumeClaim: {claimName: models, path: llama/}",
            uri: "file:///mnt/model/llama".to_owned(),
            pinned: false,
        },
    ] {
        let source = valid(&format!("model: {{source: {{{}}}}}", case.source)).source;
        assert_eq!((source.uri, source.pinned), (case.uri, case.pinned), "{}", case.source);
        let with_digest = format!("model: {{digest: '{DIGEST}', source: {{{}}}}}", case.source);
        assert!(valid(&with_digest).source.pinned, "{with_digest}");
    }
}

#[test]
fn credentials_come_from_the_users_secrets() {
    let hub = valid(
        "model: {source: {huggingFace: {repository: a/b, endpoint: 'https://m.example', tokenSecretRef: {name: hub, key: token}}}}",
    );
    let names: Vec<&str> = hub
        .source
        .environment
        .iter()
        .map(|variable| variable.name.as_str())
        .collect();
    assert_eq!(names, ["HF_ENDPOINT", "HF_TOKEN"]);
    let token = hub.source.environment[1]
        .value_from
        .clone()
        .unwrap()
        .secret_key_ref
        .unwrap();
    assert_eq!((token.name.as_str(), token.key.as_str()), ("hub", "token"));
    assert!(hub.source.environment[1].value.is_none());
}

#[test]
fn defaults_are_filled_in() {
    let valid = valid(PINNED);
    assert_eq!(valid.model_name, "tiny");
    assert_eq!(valid.replicas, 1);
    assert_eq!((valid.drain_seconds, valid.startup_deadline_seconds), (120, 1800));
    assert_eq!(valid.progress_deadline_seconds, 3600);
    assert!(!valid.suspended && !valid.paused && valid.accelerator.is_none() && valid.overlay.is_none());
    let suspended = common::valid(&format!("{PINNED}\nreplicas: 3\nsuspend: true"));
    assert_eq!((suspended.replicas, suspended.suspended), (0, true));
}

#[test]
fn an_overlay_that_is_no_pod_template_is_refused() {
    for overlay in [
        "{spec: {containers: 7}}",
        "{spec: {tolerations: {key: gpu}}}",
        "{spec: 1}",
    ] {
        let error = validate(&object(&format!("{PINNED}\npodTemplate: {overlay}"))).unwrap_err();
        assert!(matches!(error, Error::PodTemplate(_)), "{overlay}");
        let message = error.to_string();
        assert!(
            message.contains("spec.podTemplate") && message.contains("Deployment"),
            "{message}"
        );
    }
}

#[test]
fn an_overlay_cannot_take_over_the_server() {
    for (field, instead) in [
        ("image: 'example.com/other:1'", "spec.runtime.image"),
        ("args: [serve]", "spec.runtime.extraArgs"),
    ] {
        let overlay = format!("{{spec: {{containers: [{{name: server, {field}}}]}}}}");
        let error = validate(&object(&format!("{PINNED}\npodTemplate: {overlay}"))).unwrap_err();
        assert!(error.to_string().contains(instead), "{error}");
        let sidecar = overlay.replace("name: server", "name: sidecar");
        assert!(validate(&object(&format!("{PINNED}\npodTemplate: {sidecar}"))).is_ok());
    }
}

#[test]
fn an_object_without_identity_is_refused() {
    let mut object = object(PINNED);
    object.metadata.uid = None;
    assert_eq!(validate(&object).unwrap_err().to_string(), "the object has no uid");
}
