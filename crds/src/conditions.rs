//! Types and reasons of conditions. They are API: people and programs wait for them by name.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::serving::FailureReason;

/// Types of conditions of an LLMDeployment and of a DriftPolicy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// Requests to the URL are answered.
    Ready,
    /// As many replicas answer as are wanted.
    Available,
    /// A rollout moves on, or has come to its end.
    Progressing,
    /// The source is pinned to exact bytes.
    ModelResolved,
    /// The cluster has room for the replicas.
    CapacityAvailable,
    /// The autoscaler knows the load; present only with `spec.autoscaling`.
    ScalingActive,
    /// More replicas are needed than there may be or can be; present only with `spec.autoscaling`.
    ScalingLimited,
    /// Prompts and answers are kept; present only with the level `Payload` of `spec.capture`.
    Capturing,
    /// A DriftPolicy hears of its target's traffic.
    Observing,
    /// There is something that traffic can be compared with.
    BaselineReady,
    /// The traffic has changed, and the change matters.
    Drifted,
    /// The service answers fixed prompts otherwise than it did; present only with `spec.probe`.
    ServingChanged,
    /// A drift is not answered by retraining, and why; present only with `spec.retraining`.
    RetrainingBlocked,
    /// A better model waits for somebody, or is on its way; present only with `spec.retraining`.
    CandidateAvailable,
    /// Work is under way; present only when true (kstatus).
    Reconciling,
    /// Nothing more happens until somebody acts; present only when true (kstatus).
    Stalled,
}

impl fmt::Display for ConditionType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Why a condition is as it is. `docs/troubleshooting.md` has a section for each that needs somebody to act.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Reason { $($(#[$doc])* $name),* }

        impl Reason {
            /// All reasons.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The stable CamelCase word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }
        }
    };
}

reasons! {
    /// At least one replica has produced a token and the endpoint leads to it.
    Routable,
    /// As many replicas as wanted answer.
    AllReplicasReady,
    /// The revision that the spec asks for serves.
    RevisionServes,
    /// The source is pinned.
    Resolved,
    /// No replica waits for room.
    Scheduled,
    /// `replicas` is 0.
    ScaledToZero,
    /// `suspend` is set.
    Suspended,
    /// `rollout.paused` holds a new revision back.
    Paused,
    /// A Job asks the source which bytes it has.
    Resolving,
    /// Pods are being made or wait for a node.
    StartingPods,
    /// The pod downloads the model.
    Downloading,
    /// The pod compares digests.
    Verifying,
    /// The pod reads weights into memory.
    LoadingWeights,
    /// The pod computes its first token.
    WarmingUp,
    /// The Service is being moved to the new revision.
    SwitchingTraffic,
    /// Replicas are being added or removed.
    Scaling,
    /// The old revision finishes its requests.
    DrainingOldRevision,
    /// All ready replicas tell their load.
    ValidMetricFound,
    /// Some ready replicas do not tell their load: they count as full, none is taken away on their account.
    MetricsIncomplete,
    /// No ready replica tells its load: the number of replicas is held.
    MetricsUnavailable,
    /// No replica is ready, so none can be asked.
    NoReplicaReady,
    /// As many replicas as the load needs are within the limits.
    DesiredWithinRange,
    /// The load needs more than `maxReplicas`.
    TooManyReplicas,
    /// The load needs more at once than `behavior.scaleUp` allows.
    ScaleUpLimit,
    /// The collector takes records.
    CollectorReady,
    /// The collector does not take records.
    CollectorNotReady,
    /// The serving pods cannot be told what to keep, or there can be no collector.
    CaptureUnavailable,
    /// The policy does what it asks for.
    PolicyActive,
    /// The LLMDeployment that the policy names is not there.
    TargetNotFound,
    /// Another DriftPolicy watches the same LLMDeployment already.
    TargetTaken,
    /// All replicas tell their panes.
    PanesRead,
    /// Replicas do not tell their panes.
    PanesUnavailable,
    /// Replicas count in different ways, so that their panes do not add.
    PanesIncompatible,
    /// A node's clock and the operator's differ by more than half a pane.
    ClockSkew,
    /// The baseline is being learned.
    Learning,
    /// The baseline is frozen.
    Learned,
    /// No signal can be watched against this baseline.
    BaselineUnstable,
    /// What a policy remembers cannot be read or written.
    StoreFailed,
    /// The traffic is the baseline's, as far as the budget of false alarms allows to tell.
    WithinBudget,
    /// The traffic is not the baseline's; whether it matters is being measured.
    Suspected,
    /// What is asked has changed.
    InputDrift,
    /// What is asked has changed for one group of requesters alone.
    SingleSource,
    /// The service answers fixed prompts otherwise than before.
    ServingRegression,
    /// Answers have changed although neither what is asked nor the service has.
    OutputShift,
    /// Answers are rated worse although neither what is asked nor the service has changed.
    QualityDrop,
    /// Answers have changed; without probes nobody can tell the model from the service.
    Undetermined,
    /// Fixed prompts are asked before anything is said of the cause.
    ProbesAwaited,
    /// Fixed prompts could not be asked.
    ProbesFailed,
    /// Fixed prompts are answered as ever.
    ProbesSame,
    /// The registry is asked for a model that was learned before.
    Restoring,
    /// There is nothing to retrain for.
    NoDrift,
    /// A cycle is under way.
    CycleRunning,
    /// The response to this cause is to say so.
    AlertOnly,
    /// The last cycle is not long enough ago.
    CoolingDown,
    /// As many cycles as are allowed were begun.
    CycleLimit,
    /// As many GPU seconds as are allowed were used.
    GPUSecondsLimit,
    /// Too many cycles in a row brought nothing better.
    NoProgress,
    /// The target keeps no records to train on.
    CaptureOff,
    /// The target ignores learned models.
    LearnedIgnored,
    /// The target is being rolled out, or its model is not known by a digest.
    TargetNotSettled,
    /// There are too few records to train on or to judge by.
    DataInsufficient,
    /// A Job waits for room, or for its next try.
    Queued,
    /// The Job template cannot be used.
    JobTemplateInvalid,
    /// A candidate passed and waits for a person.
    Proposed,
    /// A candidate is being rolled out.
    RollingOut,
    /// There is no candidate.
    NoCandidate,
    /// The object contradicts itself or the cluster refuses what was rendered from it.
    InvalidSpec,
    /// A Service, Deployment or the like of that name belongs to somebody else.
    NameConflict,
    /// The new revision did not get ready in time.
    ProgressDeadlineExceeded,
    /// The image cannot be pulled.
    ImagePullBackOff,
    /// The kernel ended the server for its memory.
    OOMKilled,
    /// No node takes the pod.
    Unschedulable,
    /// No node has the accelerator free.
    InsufficientAccelerator,
    /// The server keeps ending.
    CrashLoopBackOff,
    /// A Secret that the object names is not there.
    SecretNotFound,
    /// A PersistentVolumeClaim that the object names is not there, or not bound.
    VolumeClaimNotFound,
    /// A quota, a policy or Pod Security refuses the pod.
    PodForbidden,
    /// The pod cannot be set up.
    PodSetupFailed,
    /// The source has no such model.
    ModelNotFound,
    /// The source wants other credentials.
    Unauthorized,
    /// The source cannot be reached.
    SourceUnreachable,
    /// The bytes are not the ones asked for.
    DigestMismatch,
    /// The disk of the pod is full.
    NoSpaceLeft,
    /// The model does not fit the memory limit.
    InsufficientMemory,
    /// The engine does not know the architecture or format.
    UnsupportedModel,
    /// A file is truncated or damaged.
    InvalidModel,
    /// The server refuses its arguments.
    InvalidArguments,
    /// The accelerator is missing or failed.
    DeviceFailed,
    /// The server failed in a way it has no word for.
    ServerFailed,
    /// The API server refused or failed; the operator tries again.
    ApiFailed,
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl From<FailureReason> for Reason {
    fn from(reason: FailureReason) -> Self {
        match reason {
            FailureReason::ModelNotFound => Self::ModelNotFound,
            FailureReason::Unauthorized => Self::Unauthorized,
            FailureReason::SourceUnreachable => Self::SourceUnreachable,
            FailureReason::DigestMismatch => Self::DigestMismatch,
            FailureReason::NoSpaceLeft => Self::NoSpaceLeft,
            FailureReason::InsufficientMemory => Self::InsufficientMemory,
            FailureReason::UnsupportedModel => Self::UnsupportedModel,
            FailureReason::InvalidModel => Self::InvalidModel,
            FailureReason::InvalidArguments => Self::InvalidArguments,
            FailureReason::DeviceFailed => Self::DeviceFailed,
            FailureReason::Internal => Self::ServerFailed,
        }
    }
}
