//! API types of Perennial and the small contracts between its parts.
//!
//! Everything here is data: no client, no I/O, no clock. The generated YAML lies at the top level of this folder.

pub mod autoscaling;
pub mod capture;
pub mod capture_spec;
pub mod conditions;
pub mod drift_policy;
#[cfg(test)]
mod drift_policy_tests;
pub mod generate;
pub mod llm_deployment;
#[cfg(test)]
mod llm_deployment_tests;
pub mod probe;
pub mod probe_spec;
pub mod publish;
pub mod quantity;
pub mod reference;
pub mod retrain;
pub mod retraining;
pub mod serving;
pub mod status;

pub use drift_policy::{DriftPolicy, DriftPolicySpec, DriftPolicyStatus};
pub use llm_deployment::{LLMDeployment, LLMDeploymentSpec};
pub use status::LLMDeploymentStatus;

/// API group of all resources.
pub const GROUP: &str = "perennial.dev";
/// Label on every child: the name of its LLMDeployment.
pub const NAME_LABEL: &str = "perennial.dev/name";
/// Label on every child of one revision: the revision's name.
pub const REVISION_LABEL: &str = "perennial.dev/revision";
/// Annotation on an LLMDeployment: any new value resolves an unpinned source once more.
pub const RESOLVE_AGAIN_ANNOTATION: &str = "perennial.dev/resolve-again";
/// Label on every ConfigMap of a DriftPolicy: the policy's name.
pub const POLICY_LABEL: &str = "perennial.dev/drift-policy";
/// Label on a ControllerRevision that holds a learned model and where it comes from, not a revision of pods.
pub const LEARNED_LABEL: &str = "perennial.dev/learned";
/// Annotation on a DriftPolicy: any new value forgets the baseline and learns a new one.
pub const LEARN_AGAIN_ANNOTATION: &str = "perennial.dev/learn-again";
