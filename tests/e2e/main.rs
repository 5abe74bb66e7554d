//! What a user does, on a whole cluster: kubelet, containers, DNS, proxy, registry, Helm, and clients that count.
//!
//! `hack/cluster-up.sh` starts the cluster and installs Perennial once per run. Each test works in a namespace of its
//! own that enforces the restricted Pod Security Standard. Three may run beside each other with `--skip alone::`;
//! those in `alone` one after the other.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod alone;
mod canary;
mod clients;
mod cluster;
mod drift;
mod drift_unheard;
mod life;
mod misfortune;
mod objects;
mod operators;
mod policy;
mod rollout;
mod scaling;
mod stray;
mod talk;
mod tiny;
mod volumes;
