//! What a user does, on a whole cluster: kubelet, containers, DNS, proxy, registry, Helm, and clients that count.
//!
//! `hack/cluster-up.sh` starts the cluster and installs Perennial once per run. Each test works in a namespace of its
//! own that enforces the restricted Pod Security Standard. Run with `--test-threads=1`: some tests take parts of the
//! cluster away.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod canary;
mod clients;
mod cluster;
mod drift;
mod learning;
mod life;
mod misfortune;
mod operator_killed;
mod operators;
mod policy;
mod quiet;
mod retraining_fails;
mod rollout;
mod scaling;
mod talk;
mod tiny;
mod volumes;
