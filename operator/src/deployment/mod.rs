//! The controller of LLMDeployments: `observe -> validate -> decide -> build -> apply -> status`.
//!
//! Only the first and the last two touch the cluster. The status is written also when a stage failed.

pub mod build;
pub mod capture;
pub mod diagnose;
pub mod learned;
pub mod notice;
pub mod observe;
pub mod plan;
pub mod reconcile;
pub mod resolve;
pub mod revision;
mod scaling;
pub mod status;
pub mod validate;

/// Name of the server's container.
pub const SERVER: &str = "server";
/// Annotation on an LLMDeployment: any new value starts a rollout that was given up once more.
pub const RETRY_ANNOTATION: &str = "perennial.dev/retry";
