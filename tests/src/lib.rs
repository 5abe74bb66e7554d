//! What the tests that cross crates stand on: a real control plane, a player of pods, an operator in this process, a
//! layer of faults in its client, and waiting with deadlines.
//!
//! A test is `run("name", async |world| ...)`: it gets a namespace of its own on the one cluster of its test program and
//! says on failure what a person would look at. Nothing here imitates the API server; the real one starts in seconds.

pub mod cluster;
pub mod cycles;
pub mod drifted;
pub mod faults;
pub mod figures;
pub mod ledger;
pub mod log;
pub mod normal;
pub mod objects;
pub mod operator;
pub mod player;
pub mod seed;
pub mod waiting;
pub mod world;

pub use cluster::Cluster;
pub use faults::{Fault, Wire};
pub use ledger::Ledger;
pub use operator::Operator;
pub use player::{Play, Player};
pub use world::{World, run};
