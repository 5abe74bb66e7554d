//! From pods to a reason and a sentence that says what to do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{ago, container, pod, pod_in_state};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use perennial_crds::conditions::Reason;
use perennial_operator::deployment::diagnose::{self, Finding};
use serde_json::{Value, json};

const GPU: Option<&str> = Some("nvidia.com/gpu");

fn of(pod: &Pod) -> Option<Finding> {
    diagnose::pods([pod], GPU)
}

/// The finding has this reason and its message these words.
#[track_caller]
fn check(pod: &Pod, reason: Reason, words: &[&str]) -> Finding {
    let finding = of(pod).unwrap_or_else(|| panic!("nothing found instead of {reason}"));
    assert_eq!(finding.reason, reason, "{}", finding.message);
    for word in words {
        assert!(
            finding.message.contains(word),
            "{word:?} is not in: {}",
            finding.message
        );
    }
    assert!(!finding.message.contains('\n'));
    finding
}

fn unschedulable(message: &str) -> Pod {
    pod(
        "pod-1",
        json!({"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message},
        ]}),
    )
}

fn waiting(reason: &str, message: &str) -> Pod {
    pod_in_state(json!({"waiting": {"reason": reason, "message": message}}))
}

/// Restarted so many times, with these last words.
fn ended(exit_code: i32, message: &str, restarts: i32) -> Pod {
    let last = json!({"terminated": {"exitCode": exit_code, "reason": "Error", "message": message}});
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting"}});
    pod(
        "pod-1",
        json!({"containerStatuses": [container(waiting, last, restarts)]}),
    )
}

#[test]
fn pods_that_wait_for_a_node() {
    let gpu = check(
        &unschedulable("0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
        Reason::InsufficientAccelerator,
        &["pod-1 waits for nvidia.com/gpu", "0/3 nodes", "spec.accelerator.count"],
    );
    assert!(gpu.is_capacity() && !gpu.permanent);
    let memory = check(
        &unschedulable("0/3 nodes are available: 3 Insufficient memory."),
        Reason::Unschedulable,
        &["Insufficient memory", "lower spec.resources"],
    );
    assert!(memory.is_capacity() && !memory.permanent);
    let claim = check(
        &unschedulable("persistentvolumeclaim \"models\" not found"),
        Reason::VolumeClaimNotFound,
        &["\"models\" not found", "claimName"],
    );
    assert!(!claim.is_capacity());
    let on_the_cpu = diagnose::pods([&unschedulable("3 Insufficient nvidia.com/gpu")], None);
    assert_eq!(on_the_cpu.unwrap().reason, Reason::Unschedulable);
}

#[test]
fn pods_whose_containers_cannot_start() {
    for reason in [
        "ImagePullBackOff",
        "ErrImagePull",
        "InvalidImageName",
        "ErrImageNeverPull",
        "RegistryUnavailable",
    ] {
        check(
            &waiting(reason, "no such image"),
            Reason::ImagePullBackOff,
            &["registry.example/server:1", "spec.runtime.image", "imagePullSecrets"],
        );
    }
    check(
        &waiting("CreateContainerConfigError", "secret \"hub\" not found"),
        Reason::SecretNotFound,
        &["secret \"hub\" not found", "Make the Secret", "spec.model.source"],
    );
    check(
        &waiting(
            "CreateContainerConfigError",
            "couldn't find key token in Secret models/hub",
        ),
        Reason::SecretNotFound,
        &["key token", "spec.model.source"],
    );
    check(
        &waiting("CreateContainerConfigError", "configmap \"x\" not found"),
        Reason::PodSetupFailed,
        &["configmap \"x\" not found"],
    );
    for reason in ["CreateContainerError", "RunContainerError"] {
        check(
            &waiting(reason, "no such mount"),
            Reason::PodSetupFailed,
            &["no such mount"],
        );
    }
}

#[test]
fn servers_that_say_why_they_ended() {
    let cases = [
        ("ModelNotFound", Reason::ModelNotFound, true),
        ("Unauthorized", Reason::Unauthorized, true),
        ("SourceUnreachable", Reason::SourceUnreachable, false),
        ("DigestMismatch", Reason::DigestMismatch, true),
        ("NoSpaceLeft", Reason::NoSpaceLeft, true),
        ("InsufficientMemory", Reason::InsufficientMemory, true),
        ("UnsupportedModel", Reason::UnsupportedModel, true),
        ("InvalidModel", Reason::InvalidModel, true),
        ("InvalidArguments", Reason::InvalidArguments, true),
        ("DeviceFailed", Reason::DeviceFailed, false),
        ("Internal", Reason::ServerFailed, false),
        ("SomethingFromTheFuture", Reason::ServerFailed, false),
    ];
    for (word, reason, permanent) in cases {
        let words = json!({"reason": word, "message": "what to do"}).to_string();
        let finding = check(&ended(1, &words, 2), reason, &["what to do (restarted 2 times)"]);
        assert_eq!(finding.permanent, permanent, "{word}");
        assert!(!finding.is_capacity());
    }
}

#[test]
fn servers_that_end_without_words_of_ours() {
    check(
        &ended(101, "line one\nthread panicked\n", 1),
        Reason::CrashLoopBackOff,
        &[
            "exit code 101 (restarted once): thread panicked",
            "kubectl logs --previous pod-1",
        ],
    );
    check(
        &ended(1, "", 3),
        Reason::CrashLoopBackOff,
        &["exit code 1 (restarted 3 times). See"],
    );
    let killed = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    check(
        &pod_in_state(killed),
        Reason::OOMKilled,
        &["Raise spec.resources.memory", "spec.model.maxContextTokens"],
    );
    let again = container(
        json!({"running": {}}),
        json!({"terminated": {"exitCode": 1, "message": "x"}}),
        1,
    );
    check(
        &pod("pod-1", json!({"containerStatuses": [again]})),
        Reason::CrashLoopBackOff,
        &["restarted once"],
    );
}

#[test]
fn long_last_words_are_cut_between_letters() {
    let finding = of(&ended(1, &"ä".repeat(4000), 1)).unwrap();
    assert!(finding.message.chars().count() <= 1004);
    assert!(finding.message.ends_with(" ..."));
}

#[test]
fn pods_that_were_evicted() {
    let evicted = |message: &str| {
        pod(
            "pod-1",
            json!({"phase": "Failed", "reason": "Evicted", "message": message}),
        )
    };
    check(
        &evicted("Pod ephemeral local storage usage exceeds ... ephemeral-storage"),
        Reason::NoSpaceLeft,
        &["pod-1 was evicted"],
    );
    check(
        &evicted("The node was low on resource: memory."),
        Reason::PodSetupFailed,
        &["memory"],
    );
}

#[test]
fn init_containers_count() {
    let waiting = container(
        json!({"waiting": {"reason": "ErrImagePull", "message": "x"}}),
        Value::Null,
        0,
    );
    check(
        &pod("pod-1", json!({"initContainerStatuses": [waiting]})),
        Reason::ImagePullBackOff,
        &[],
    );
}

#[test]
fn nothing_is_wrong() {
    let deleted = |mut pod: Pod| {
        pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(ago(1)));
        pod
    };
    let ready = json!({
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [container(json!({"running": {}}), json!({"terminated": {"exitCode": 1}}), 4)],
    });
    for (what, pod) in [
        ("it was just made", pod("pod-1", json!({}))),
        ("it is being set up", waiting("ContainerCreating", "")),
        ("it runs", pod_in_state(json!({"running": {}}))),
        (
            "it ended as it was told to",
            pod_in_state(json!({"terminated": {"exitCode": 0}})),
        ),
        ("it is on its way out", deleted(ended(1, "x", 1))),
        ("it answers, whatever was before", pod("pod-1", ready.clone())),
    ] {
        assert_eq!(of(&pod), None, "{what}");
    }
    assert!(diagnose::is_ready(&pod("pod-1", ready.clone())));
    assert!(!diagnose::is_ready(&deleted(pod("pod-1", ready))));
}

#[test]
fn the_newest_pod_speaks_first() {
    let mut old = ended(1, "old", 1);
    old.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(ago(500)));
    let new = waiting("ErrImagePull", "new");
    for pods in [[&old, &new], [&new, &old]] {
        assert_eq!(diagnose::pods(pods, None).unwrap().reason, Reason::ImagePullBackOff);
    }
}

#[test]
fn a_deployment_that_may_make_no_pod() {
    let deployment = |status: &str| -> Deployment {
        serde_json::from_value(json!({"metadata": {}, "status": {"conditions": [
            {"type": "ReplicaFailure", "status": status, "message": "exceeded quota: small"},
        ]}}))
        .unwrap()
    };
    let finding = diagnose::deployment(&deployment("True")).unwrap();
    assert_eq!(finding.reason, Reason::PodForbidden);
    assert!(finding.message.contains("exceeded quota: small") && finding.message.contains("Raise the quota"));
    assert!(finding.is_capacity());
    assert_eq!(diagnose::deployment(&deployment("False")), None);
    assert_eq!(diagnose::deployment(&Deployment::default()), None);
}
