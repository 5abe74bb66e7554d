//! What keeps pods from getting ready, as a reason and a sentence that says what to do.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use kube::ResourceExt;
use perennial_crds::conditions::Reason;
use perennial_crds::serving::Termination;

/// Why a pod is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Reason for the condition.
    pub reason: Reason,
    /// What happened and what to do.
    pub message: String,
    /// Whether only a change by somebody can help.
    pub permanent: bool,
}

impl Finding {
    fn new(reason: Reason, message: String) -> Self {
        let permanent = matches!(
            reason,
            Reason::ModelNotFound
                | Reason::Unauthorized
                | Reason::DigestMismatch
                | Reason::InsufficientMemory
                | Reason::UnsupportedModel
                | Reason::InvalidModel
                | Reason::InvalidArguments
                | Reason::NoSpaceLeft
        );
        Self {
            reason,
            message: one_line(&message),
            permanent,
        }
    }

    /// Whether the cluster lacks room, rather than the pod being broken.
    #[must_use]
    pub fn is_capacity(&self) -> bool {
        matches!(
            self.reason,
            Reason::Unschedulable | Reason::InsufficientAccelerator | Reason::PodForbidden
        )
    }
}

/// What to do, which depends on where what a pod is made of comes from.
struct Advice {
    claim: &'static str,
    secret: &'static str,
    room: &'static str,
    image: &'static str,
    memory: &'static str,
    policy: &'static str,
}

/// About pods that serve, and those that resolve for them.
const SERVING: Advice = Advice {
    claim: "Make the claim, or correct spec.model.source.persistentVolumeClaim.claimName",
    secret: "Make the Secret with that key in this namespace, or correct the reference in spec.model.source",
    room: "Add room, or lower spec.resources, or correct spec.accelerator.nodeSelector",
    image: "Correct spec.runtime.image, or give pull credentials in spec.podTemplate.spec.imagePullSecrets",
    memory: "Raise spec.resources.memory or lower spec.model.maxContextTokens",
    policy: "Raise the quota or change what the policy refuses (spec.resources, spec.podTemplate)",
};

/// About the pod that keeps records.
const COLLECTOR: Advice = Advice {
    claim: "Make the claim, or correct spec.capture.storage.persistentVolumeClaim.claimName",
    secret: "Make the Secret with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in this namespace, or correct spec.capture.storage.s3.credentialsSecretName",
    room: "Add room on a node that can mount the volume",
    image: "Correct trainer.image of the operator's chart, or give pull credentials in spec.podTemplate.spec.imagePullSecrets",
    memory: "Lower spec.capture.maxSamplePerMille",
    policy: "Raise the quota, or change the policy",
};

/// The most telling finding on a set of pods, the newest first; `None` if nothing is wrong.
#[must_use]
pub fn pods<'a>(pods: impl IntoIterator<Item = &'a Pod>, accelerator: Option<&str>) -> Option<Finding> {
    newest(pods, accelerator, &SERVING)
}

/// As [`pods`], of those of a collector.
#[must_use]
pub fn collector<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> Option<Finding> {
    newest(pods, None, &COLLECTOR)
}

fn newest<'a>(pods: impl IntoIterator<Item = &'a Pod>, accelerator: Option<&str>, advice: &Advice) -> Option<Finding> {
    let mut pods: Vec<&Pod> = pods
        .into_iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .collect();
    pods.sort_by_key(|pod| std::cmp::Reverse((pod.creation_timestamp().map(|time| time.0), pod.name_any())));
    pods.into_iter()
        .filter(|pod| !is_ready(pod))
        .find_map(|pod| of_pod(pod, accelerator, advice))
}

/// What a Deployment says when not even a pod can be made: a quota, a policy, Pod Security.
#[must_use]
pub fn deployment(deployment: &Deployment) -> Option<Finding> {
    replica_failure(deployment, &SERVING)
}

/// As [`deployment`], of a collector.
#[must_use]
pub fn collector_deployment(deployment: &Deployment) -> Option<Finding> {
    replica_failure(deployment, &COLLECTOR)
}

fn replica_failure(deployment: &Deployment, advice: &Advice) -> Option<Finding> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let failure = conditions
        .iter()
        .find(|c| c.type_ == "ReplicaFailure" && c.status == "True")?;
    let message = failure.message.clone().unwrap_or_default();
    Some(Finding::new(
        Reason::PodForbidden,
        format!("no pod may be made: {message}. {}", advice.policy),
    ))
}

/// Whether a pod answers requests.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|(status, _, _)| status == "True") && pod.metadata.deletion_timestamp.is_none()
}

/// Whether a pod has no node yet because none has room for it.
#[must_use]
pub fn waits_for_room(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
        && condition(pod, "PodScheduled")
            .is_some_and(|(status, reason, _)| status == "False" && reason == "Unschedulable")
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((
        found.status.as_str(),
        found.reason.as_deref().unwrap_or_default(),
        found.message.as_deref().unwrap_or_default(),
    ))
}

fn of_pod(pod: &Pod, accelerator: Option<&str>, advice: &Advice) -> Option<Finding> {
    if let Some((status, reason, message)) = condition(pod, "PodScheduled")
        && status == "False"
        && reason == "Unschedulable"
    {
        return Some(unschedulable(pod, message, accelerator, advice));
    }
    let status = pod.status.as_ref()?;
    if status.reason.as_deref() == Some("Evicted") {
        let message = status.message.as_deref().unwrap_or_default();
        let reason = if message.contains("ephemeral-storage") || message.contains("DiskPressure") {
            Reason::NoSpaceLeft
        } else {
            Reason::PodSetupFailed
        };
        return Some(Finding::new(
            reason,
            format!("{} was evicted: {message}", pod.name_any()),
        ));
    }
    let containers = status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten());
    containers
        .filter_map(|container| of_container(&pod.name_any(), container, advice))
        .next()
}

fn unschedulable(pod: &Pod, message: &str, accelerator: Option<&str>, advice: &Advice) -> Finding {
    let pod = pod.name_any();
    if message.contains("persistentvolumeclaim") || message.contains("PersistentVolumeClaim") {
        return Finding::new(
            Reason::VolumeClaimNotFound,
            format!("{pod} cannot be scheduled: {message}. {}", advice.claim),
        );
    }
    match accelerator {
        Some(resource) if message.contains(&format!("Insufficient {resource}")) => Finding::new(
            Reason::InsufficientAccelerator,
            format!(
                "{pod} waits for {resource}: {message}. Free or add accelerators, or lower spec.accelerator.count or spec.replicas"
            ),
        ),
        _ => Finding::new(
            Reason::Unschedulable,
            format!("{pod} cannot be scheduled: {message}. {}", advice.room),
        ),
    }
}

fn of_container(pod: &str, container: &ContainerStatus, advice: &Advice) -> Option<Finding> {
    let state = container.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let message = waiting.message.as_deref().unwrap_or_default();
        match waiting.reason.as_deref().unwrap_or_default() {
            "ImagePullBackOff" | "ErrImagePull" | "InvalidImageName" | "ErrImageNeverPull" | "RegistryUnavailable" => {
                return Some(Finding::new(
                    Reason::ImagePullBackOff,
                    format!("{pod} cannot pull {}: {message}. {}", container.image, advice.image),
                ));
            }
            // A node that has not heard of its Secrets yet says nothing of the one that is missing.
            "CreateContainerConfigError"
                if message.to_lowercase().contains("secret") && !message.contains("failed to sync") =>
            {
                return Some(Finding::new(
                    Reason::SecretNotFound,
                    format!("{pod} cannot start: {message}. {}", advice.secret),
                ));
            }
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                return Some(Finding::new(
                    Reason::PodSetupFailed,
                    format!("{pod} cannot be set up: {message}"),
                ));
            }
            _ => {}
        }
    }
    let last = container.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    let ended = state.terminated.as_ref().or(last)?;
    ended_badly(pod, container, ended, advice)
}

fn ended_badly(
    pod: &str,
    container: &ContainerStatus,
    ended: &ContainerStateTerminated,
    advice: &Advice,
) -> Option<Finding> {
    if ended.reason.as_deref() == Some("OOMKilled") {
        return Some(Finding::new(
            Reason::OOMKilled,
            format!("{pod} used more memory than its limit and was ended. {}", advice.memory),
        ));
    }
    if ended.exit_code == 0 {
        return None;
    }
    let again = match container.restart_count {
        0 => String::new(),
        1 => " (restarted once)".to_owned(),
        times => format!(" (restarted {times} times)"),
    };
    let last_words = ended.message.as_deref().unwrap_or_default();
    if let Ok(termination) = serde_json::from_str::<Termination>(last_words.trim()) {
        return Some(Finding::new(
            termination.reason.into(),
            format!("{}{again}", termination.message),
        ));
    }
    let tail = last_line(last_words);
    let said = if tail.is_empty() {
        String::new()
    } else {
        format!(": {tail}")
    };
    Some(Finding::new(
        Reason::CrashLoopBackOff,
        format!(
            "{pod} ended with exit code {}{again}{said}. See kubectl logs --previous {pod}",
            ended.exit_code
        ),
    ))
}

fn last_line(text: &str) -> &str {
    text.trim().lines().next_back().unwrap_or_default().trim()
}

/// Conditions take up to 32 KiB; a page is what people read.
fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(1000) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line,
    }
}
