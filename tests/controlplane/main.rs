//! The operator against a real API server, real controllers and a real scheduler; pods are played.

mod api;
mod capture;
mod children;
mod cycles;
mod drift;
mod examples;
mod leadership;
mod left_behind;
mod lifecycle;
mod names;
mod probes;
mod quiet;
mod reasons;
mod registry;
mod resolve;
mod rollout;
mod scaling;
