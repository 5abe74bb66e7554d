//! How a Job and its pods are. Pure.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;

use super::answers::reason;
use super::jobs::{VERIFY, gpus, speaker};
use super::step::{End, Seen, State};

/// What is seen of a Job, with all of its pods. `now`: seconds since 1970.
#[must_use]
pub fn seen(job: &Job, pods: &[Pod], now: i64) -> Seen {
    let pod = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    Seen {
        uid: job.uid().unwrap_or_default(),
        made: job.creation_timestamp().map_or(now, |time| time.0.as_second()),
        deadline: pod.and_then(|pod| pod.active_deadline_seconds).unwrap_or(i64::MAX / 2),
        gpu_seconds: gpu_seconds(job, pods, now),
        state: state(job, pods),
    }
}

/// Seconds that pods of a Job have held devices so far, times their number.
fn gpu_seconds(job: &Job, pods: &[Pod], now: i64) -> i64 {
    let of_pod = |pod: &Pod| {
        let until = if running_since(pod).is_some() {
            Some(now)
        } else {
            ended_at(pod).map(Timestamp::as_second)
        };
        Some((until? - began(pod)?).max(0))
    };
    let seconds: i64 = pods.iter().filter_map(of_pod).sum();
    seconds.saturating_mul(gpus_of(job))
}

/// Where the pod of a Job that runs can be asked.
#[must_use]
pub fn address(pods: &[Pod]) -> Option<IpAddr> {
    let running = pods.iter().find(|pod| running_since(pod).is_some())?;
    running.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

/// Whether a Job has ended.
#[must_use]
pub fn has_ended(job: &Job) -> bool {
    ended(job).is_some()
}

/// How a Job is.
#[must_use]
pub fn state(job: &Job, pods: &[Pod]) -> State {
    if let Some((succeeded, why)) = ended(job) {
        return State::Ended(end(job, pods, succeeded, why));
    }
    // A pod that has done its work waits for nothing; a moment later the Job says so, too.
    let done = pods.iter().filter(|pod| phase(pod) == "Succeeded").filter_map(began);
    let started = pods.iter().filter_map(running_since).chain(done).min();
    if let Some(since) = started {
        return State::Running(since);
    }
    let suspended = job.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or(false);
    let why = if suspended {
        "its queue has not let it in".to_owned()
    } else {
        pods.iter()
            .find_map(waiting_for)
            .or_else(|| between_tries(pods))
            .unwrap_or_else(|| "its pod is being made".to_owned())
    };
    State::Waiting(why)
}

/// Whether it succeeded, and Kubernetes' words, once it has ended.
fn ended(job: &Job) -> Option<(bool, String)> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let end = conditions
        .iter()
        .find(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True")?;
    let words = [end.reason.as_deref(), end.message.as_deref()];
    let words: Vec<&str> = words.into_iter().flatten().filter(|word| !word.is_empty()).collect();
    Some((end.type_ == "Complete", words.join(": ")))
}

fn end(job: &Job, pods: &[Pod], succeeded: bool, why: String) -> End {
    // The pod that ended last, of those that ended as the Job did.
    let mut of_outcome: Vec<&Pod> = pods
        .iter()
        .filter(|pod| (phase(pod) == "Succeeded") == succeeded)
        .collect();
    of_outcome.sort_by_key(|pod| ended_at(pod));
    let last = of_outcome.last().copied();
    let speaker = job.spec.as_ref().and_then(|spec| speaker(spec.template.spec.as_ref()?));
    let main = last.and_then(|pod| statuses(pod, false).find(|status| Some(status.name.as_str()) == speaker));
    let verification = last.and_then(|pod| statuses(pod, true).find(|status| status.name == VERIFY));
    let why = match last.and_then(ending) {
        Some(ending) if !succeeded => format!("{ending} ({why})"),
        _ => why,
    };
    End {
        succeeded,
        message: main.and_then(message),
        verification: verification.and_then(message),
        why,
        gpu_seconds: gpu_seconds(job, pods, ended_last(pods)),
    }
}

/// How a pod ended, in Kubernetes' words.
fn ending(pod: &Pod) -> Option<String> {
    let ended = statuses(pod, false)
        .chain(statuses(pod, true))
        .find_map(|status| terminated(status).filter(|ended| ended.exit_code != 0))?;
    // That of the pod says more, such as DeadlineExceeded.
    let of_pod = pod.status.as_ref().and_then(|status| status.reason.clone());
    let reason = of_pod.or_else(|| ended.reason.clone()).unwrap_or_default();
    Some(format!("{reason} with exit code {}", ended.exit_code))
}

/// What the last try came to, while the next one is waited for.
fn between_tries(pods: &[Pod]) -> Option<String> {
    let failed = pods.iter().filter(|pod| phase(pod) == "Failed");
    let (count, last) = (failed.clone().count(), failed.max_by_key(|pod| ended_at(pod))?);
    let words = statuses(last, false).chain(statuses(last, true)).find_map(message);
    let said = reason(words.as_deref())
        .map(|said| format!(": {said}"))
        .unwrap_or_default();
    let ending = ending(last).unwrap_or_else(|| "no words".to_owned());
    Some(format!("try {count} ended with {ending}{said}; the next one follows"))
}

fn gpus_of(job: &Job) -> i64 {
    let pod = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    pod.map_or(0, gpus)
}

fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

fn statuses(pod: &Pod, init: bool) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let found = status.and_then(|status| {
        if init {
            status.init_container_statuses.as_ref()
        } else {
            status.container_statuses.as_ref()
        }
    });
    found.into_iter().flatten()
}

fn terminated(status: &ContainerStatus) -> Option<&k8s_openapi::api::core::v1::ContainerStateTerminated> {
    status.state.as_ref()?.terminated.as_ref()
}

fn message(status: &ContainerStatus) -> Option<String> {
    terminated(status)?
        .message
        .clone()
        .filter(|message| !message.trim().is_empty())
}

fn second(time: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>) -> Option<i64> {
    Some(time?.0.as_second())
}

fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let ends = statuses(pod, false).chain(statuses(pod, true)).filter_map(terminated);
    ends.filter_map(|ended| Some(ended.finished_at.as_ref()?.0)).max()
}

fn began(pod: &Pod) -> Option<i64> {
    second(pod.status.as_ref()?.start_time.as_ref())
}

/// When the last of these pods ended, seconds since 1970.
fn ended_last(pods: &[Pod]) -> i64 {
    pods.iter().filter_map(ended_at).max().map_or(0, Timestamp::as_second)
}

fn running_since(pod: &Pod) -> Option<i64> {
    let running = |status: &ContainerStatus| second(status.state.as_ref()?.running.as_ref()?.started_at.as_ref());
    statuses(pod, false).chain(statuses(pod, true)).find_map(running)
}

/// What a pod that does not run yet waits for.
fn waiting_for(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref();
    let unscheduled = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) = unscheduled {
        return condition.message.clone().or_else(|| condition.reason.clone());
    }
    let mut all = statuses(pod, false).chain(statuses(pod, true));
    all.find_map(|status| {
        let waiting = status.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.clone()?;
        (reason != "PodInitializing" && reason != "ContainerCreating")
            .then(|| format!("{reason}: {}", waiting.message.clone().unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A minute into 2026.
    const NOW: i64 = 1_767_225_660;

    fn job(conditions: serde_json::Value) -> Job {
        serde_json::from_value(json!({
            "metadata": {"name": "j", "uid": "u"},
            "spec": {"template": {"spec": {"containers": [{"name": "trainer", "resources": {"limits": {"nvidia.com/gpu": "2"}}}]}}},
            "status": {"conditions": conditions},
        }))
        .expect("a Job")
    }

    fn pod(status: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).expect("a pod")
    }

    fn terminated(code: i32, message: &str, second: u32) -> serde_json::Value {
        json!({"terminated": {"exitCode": code, "reason": "Error", "message": message, "startedAt": "2026-01-01T00:00:00Z",
            "finishedAt": format!("2026-01-01T00:00:{second:02}Z")}})
    }

    #[test]
    fn a_job_that_waits_says_for_what() {
        let waits = |pods: &[Pod]| seen(&job(json!([])), pods, NOW).state;
        assert_eq!(waits(&[]), State::Waiting("its pod is being made".to_owned()));
        let pending = pod(json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: Insufficient nvidia.com/gpu"}]}));
        assert_eq!(
            waits(&[pending]),
            State::Waiting("0/1 nodes: Insufficient nvidia.com/gpu".to_owned())
        );
    }

    #[test]
    fn between_two_tries_the_last_one_is_told() {
        let failed = |message: &str, second: u32| {
            pod(
                json!({"phase": "Failed", "containerStatuses": [{"name": "trainer", "state": terminated(75, message, second),
                "image": "", "imageID": "", "ready": false, "restartCount": 0}]}),
            )
        };
        let words = r#"{"schema": "prepare/v1", "message": "write /x: No space left on device"}"#;
        let pods = [failed(words, 20), failed("{}", 10)];
        let told = "try 2 ended with Error with exit code 75: write /x: No space left on device; the next one follows";
        assert_eq!(seen(&job(json!([])), &pods, NOW).state, State::Waiting(told.to_owned()));
        // Words that are no object of the contract are not told on.
        let pods = [failed("a secret", 20)];
        let told = "try 1 ended with Error with exit code 75; the next one follows";
        assert_eq!(seen(&job(json!([])), &pods, NOW).state, State::Waiting(told.to_owned()));
    }

    #[test]
    fn a_pod_that_has_done_its_work_does_not_wait_for_room() {
        let done = pod(
            json!({"phase": "Succeeded", "startTime": "2026-01-01T00:00:00Z", "containerStatuses": [{"name": "trainer",
            "state": terminated(0, "{}", 20), "image": "", "imageID": "", "ready": false, "restartCount": 0}]}),
        );
        assert_eq!(seen(&job(json!([])), &[done], NOW).state, State::Running(1_767_225_600));
    }

    #[test]
    fn devices_count_while_pods_run_and_those_of_earlier_tries_stay_counted() {
        let failed = pod(
            json!({"phase": "Failed", "startTime": "2026-01-01T00:00:00Z", "containerStatuses": [{"name": "trainer",
            "state": terminated(75, "", 10), "image": "", "imageID": "", "ready": false, "restartCount": 0}]}),
        );
        let runs = pod(
            json!({"phase": "Running", "startTime": "2026-01-01T00:00:40Z", "containerStatuses": [{"name": "trainer",
            "state": {"running": {"startedAt": "2026-01-01T00:00:45Z"}}, "image": "", "imageID": "", "ready": true, "restartCount": 0}]}),
        );
        let pending = pod(json!({"phase": "Pending"}));
        assert_eq!(
            seen(&job(json!([])), &[failed.clone(), runs], NOW).gpu_seconds,
            2 * (10 + 20)
        );
        assert_eq!(seen(&job(json!([])), &[failed, pending], NOW).gpu_seconds, 2 * 10);
        assert_eq!(seen(&job(json!([])), &[], NOW).gpu_seconds, 0);
    }

    #[test]
    fn the_words_are_those_of_the_container_that_speaks_the_contract_and_not_of_one_beside_it() {
        let of = |name: &str, message: &str| {
            json!({"name": name, "state": terminated(0, message, 20), "image": "", "imageID": "",
            "ready": false, "restartCount": 0})
        };
        let words = |containers: serde_json::Value| {
            let mut job = job(json!([{"type": "Complete", "status": "True"}]));
            let pod_spec = job
                .spec
                .as_mut()
                .and_then(|spec| spec.template.spec.as_mut())
                .expect("a pod");
            pod_spec.containers = serde_json::from_value(containers).expect("containers");
            // As the kubelet does, by name.
            let ended = pod(json!({"phase": "Succeeded", "startTime": "2026-01-01T00:00:00Z",
                "containerStatuses": [of("metrics", "other words"), of("trainer", "the words"), of("zeta", "more words")]}));
            match seen(&job, &[ended], NOW).state {
                State::Ended(end) => end.message,
                other => panic!("it has ended: {other:?}"),
            }
        };
        assert_eq!(
            words(json!([{"name": "zeta"}, {"name": "metrics"}, {"name": "trainer"}])).as_deref(),
            Some("the words")
        );
        assert_eq!(
            words(json!([{"name": "zeta"}, {"name": "metrics"}])).as_deref(),
            Some("more words")
        );
    }

    #[test]
    fn a_pod_that_was_ended_says_why() {
        let ended = pod(
            json!({"phase": "Failed", "reason": "DeadlineExceeded", "containerStatuses": [{"name": "trainer",
            "state": terminated(137, "", 20), "image": "", "imageID": "", "ready": false, "restartCount": 0}]}),
        );
        let failed = job(json!([{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]));
        let State::Ended(end) = seen(&failed, &[ended], NOW).state else {
            panic!("it has ended");
        };
        assert_eq!(end.why, "DeadlineExceeded with exit code 137 (BackoffLimitExceeded)");
    }

    #[test]
    fn the_words_of_the_pod_that_ended_as_the_job_did_count() {
        let failed = pod(
            json!({"phase": "Failed", "startTime": "2026-01-01T00:00:00Z", "containerStatuses": [
            {"name": "trainer", "state": terminated(75, "first", 10), "image": "", "imageID": "", "ready": false, "restartCount": 0}]}),
        );
        let good = pod(
            json!({"phase": "Succeeded", "startTime": "2026-01-01T00:00:10Z", "initContainerStatuses": [
            {"name": "verify", "state": terminated(0, "checked", 12), "image": "", "imageID": "", "ready": false, "restartCount": 0}],
            "containerStatuses": [
            {"name": "trainer", "state": terminated(0, "second", 40), "image": "", "imageID": "", "ready": false, "restartCount": 0}]}),
        );
        let complete = job(json!([{"type": "Complete", "status": "True"}]));
        let State::Ended(end) = seen(&complete, &[good.clone(), failed.clone()], NOW).state else {
            panic!("it has ended");
        };
        assert!(end.succeeded);
        assert_eq!(end.message.as_deref(), Some("second"));
        assert_eq!(end.verification.as_deref(), Some("checked"));
        // Both pods held two devices: 10 and 30 seconds.
        assert_eq!(end.gpu_seconds, 80);
        let broken = job(json!([{"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": "m"}]));
        let State::Ended(end) = seen(&broken, &[failed, good], NOW).state else {
            panic!("it has ended");
        };
        assert!(!end.succeeded && end.message.as_deref() == Some("first"));
        assert_eq!(end.why, "Error with exit code 75 (PodFailurePolicy: m)");
    }
}
