//! The inference server: OpenAI's API on the engine contract.
//!
//! Layers, each knowing only the one below: `api` (HTTP, requests and responses), `text` (templates, tokens, stop
//! strings, one generation), and `perennial_engine` (steps). `lifecycle` says whether work is taken, `startup` brings
//! everything up, `probes` answers Kubernetes and Prometheus on a port and thread of its own, `observation` counts on another
//! thread what requests were, `capture` keeps a sample of them for retraining.

pub mod api;
pub mod capture;
pub mod cli;
pub mod lifecycle;
pub mod load;
pub mod metrics;
pub mod observation;
pub mod probes;
pub mod serve;
pub mod shared;
pub mod startup;
pub mod termination;
pub mod text;
