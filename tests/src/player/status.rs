//! The status of a played pod. Pure.

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::Play;

/// The n-th address of a pod. Multicast, because the API server takes it for an address of a pod, while a connection to
/// it ends at once in the kernel and no packet ever leaves the machine.
pub(super) fn address(count: u32) -> String {
    let [_, a, b, c] = count.to_be_bytes();
    format!("239.{a}.{b}.{c}")
}

/// The status of a pod, as a merge patch.
pub(super) fn of(pod: &Pod, play: &Play, address: &str) -> Value {
    let since = pod.creation_timestamp().map(|time| time.0.to_string());
    let (phase, ready) = match play {
        Play::Ready(_) => ("Running", true),
        Play::Running(_) | Play::CrashLoop(..) | Play::OomKilled => ("Running", false),
        Play::Nothing | Play::ImagePullBackOff | Play::ConfigError(_) => ("Pending", false),
        Play::Evicted(_) => ("Failed", false),
        Play::Ended(code, _) => (if *code == 0 { "Succeeded" } else { "Failed" }, false),
        Play::Checked(..) => ("Succeeded", false),
    };
    let has_address = matches!(
        play,
        Play::Ready(_) | Play::Running(_) | Play::CrashLoop(..) | Play::OomKilled
    );
    let address = match play {
        Play::Running(Some(own)) => own,
        _ => address,
    };
    let condition = |kind: &str, holds: bool| json!({"type": kind, "status": if holds { "True" } else { "False" }, "lastTransitionTime": since});
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let first = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let first: Vec<Value> = match play {
        Play::Checked(words, _) => {
            let ended = Play::Ended(0, words.clone());
            first.map(|one| container(one, &ended, since.as_deref())).collect()
        }
        _ => Vec::new(),
    };
    let evicted = match play {
        Play::Evicted(message) => (Some("Evicted"), Some(message)),
        _ => (None, None),
    };
    json!({"status": {
        "phase": phase,
        "reason": evicted.0,
        "message": evicted.1,
        "hostIP": "192.0.2.1",
        "startTime": since,
        "podIP": has_address.then_some(address),
        "podIPs": has_address.then(|| json!([{"ip": address}])),
        "conditions": [
            condition("PodScheduled", true), condition("Initialized", true),
            condition("ContainersReady", ready), condition("Ready", ready),
        ],
        "initContainerStatuses": first,
        "containerStatuses": containers.map(|one| container(one, play, since.as_deref())).collect::<Vec<_>>(),
    }})
}

fn container(container: &Container, play: &Play, since: Option<&str>) -> Value {
    let image = container.image.clone().unwrap_or_default();
    let running = json!({"running": {"startedAt": since}});
    let waiting = |reason: &str, message: &str| json!({"waiting": {"reason": reason, "message": message}});
    let terminated = |reason: &str, code: i32, message: &str| {
        json!({"terminated": {
            "exitCode": code, "reason": reason, "message": message, "startedAt": since, "finishedAt": since,
        }})
    };
    let back_off = "back-off 10s restarting failed container";
    let (ready, restarts, state, last) = match play {
        Play::Ready(_) => (true, 0, running, json!({})),
        Play::Running(_) => (false, 0, running, json!({})),
        Play::Nothing => (false, 0, waiting("ContainerCreating", ""), json!({})),
        Play::ImagePullBackOff => {
            let message = format!("Back-off pulling image \"{image}\": not found");
            (false, 0, waiting("ImagePullBackOff", &message), json!({}))
        }
        Play::ConfigError(message) => (false, 0, waiting("CreateContainerConfigError", message), json!({})),
        Play::CrashLoop(code, words) => (
            false,
            2,
            waiting("CrashLoopBackOff", back_off),
            terminated("Error", *code, words),
        ),
        Play::OomKilled => (
            false,
            2,
            waiting("CrashLoopBackOff", back_off),
            terminated("OOMKilled", 137, ""),
        ),
        Play::Evicted(_) => (false, 0, terminated("Error", 137, ""), json!({})),
        Play::Ended(0, words) | Play::Checked(_, words) => (false, 0, terminated("Completed", 0, words), json!({})),
        Play::Ended(code, words) => (false, 0, terminated("Error", *code, words), json!({})),
    };
    json!({
        "name": container.name, "image": image, "imageID": "", "ready": ready, "started": ready,
        "restartCount": restarts, "state": state, "lastState": last,
    })
}
