//! How many replicas a model needs, from what its pods say of their own load.
//!
//! Pure: no clock, no client, no randomness. A shell feeds samples into a [`History`], asks [`decide`], carries the
//! [`Decision`] out and tells the history what it did. All times are seconds on one clock of the shell's choice, all
//! rates are per second.
//!
//! Three rules stand above all formulas: never fewer replicas because a pod could not be asked; never more for a load
//! that starting pods will carry; a restart of the shell changes nothing by itself.

pub mod decide;
pub mod history;
pub mod need;
pub mod pod;
pub mod policy;
pub mod sample;
pub mod surprise;
pub mod totals;
pub mod trend;
pub mod window;

pub use decide::{Decision, Limit, Replicas, Sight, decide};
pub use history::History;
pub use policy::{Missing, Policy, Target};
pub use sample::Sample;
