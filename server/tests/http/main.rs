//! The HTTP layers on the simulated engine, called without a socket.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that fails is a failed test"
)]

mod api;
mod capture;
mod collector;
mod encoder;
#[path = "../encoder/mod.rs"]
mod encoder_files;
mod feedback;
mod lifecycle;
mod panes;
mod support;
