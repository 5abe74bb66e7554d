//! Has the traffic of a model changed, since when, in what, by how much, and how sure are we?
//!
//! Many replicas fill [`pane`]s from [`features`] of requests; a reader merges them exactly ([`observe`]), learns a
//! [`baseline`], and lets [`decision`] weigh the [`evidence`] of each new pane against a stated budget of false alarms.
//! [`effect`] says how large a change is, [`cause`] what it comes from, [`explain`] says it in words. The crate is pure:
//! values in, values out. It must never know Kubernetes, HTTP, a clock or a thread, and nothing in it keeps a prompt.

pub mod baseline;
pub mod cause;
pub mod classical;
pub mod decision;
pub mod effect;
pub mod envelope;
pub mod evidence;
pub mod explain;
pub mod features;
pub mod math;
pub mod observe;
pub mod pane;
pub mod policy;
pub mod probe;
pub mod signal;
pub mod tally;
