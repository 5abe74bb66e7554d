//! The Kubernetes operator: LLMDeployments rolled out, changed safely, reported truthfully.
//!
//! `deployment` decides and builds and is pure but for its shell; `drift` watches the traffic of deployments;
//! `probes` asks fixed prompts; `cycle` finds better models; `apply` is the one place that writes; `index` and
//! `controller` keep caches and say what to look at; `run` wires it all.

pub mod admin;
pub mod apply;
pub mod args;
pub mod autoscaling;
pub mod backoff;
mod bucket;
mod changes;
pub mod client;
mod conditions;
pub mod controller;
pub mod cycle;
pub mod deployment;
pub mod disposition;
pub mod drift;
pub mod index;
mod job_pod;
pub mod lease;
pub mod loading;
pub mod metrics;
pub mod outage;
pub mod pod_http;
pub mod probes;
pub mod remember;
pub mod run;
mod tally;
