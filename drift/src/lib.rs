//! Has the traffic of a model changed, since when, in what, by how much, and how sure are we?
//!
//! Many replicas fill [`pane`]s from [`features`] of requests; a reader merges them exactly, learns a [`baseline`], and
//! lets [`decision`] weigh the [`evidence`] of each new pane against a stated budget of false alarms. The crate is pure:
//! values in, values out. It must never know Kubernetes, HTTP, a clock or a thread, and nothing in it keeps a prompt.

pub mod classical;
pub mod features;
pub mod math;
pub mod signal;
