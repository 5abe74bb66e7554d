//! Fixed prompts that are asked of the model that serves, again and again: they tell a change of the service from a change of
//! the traffic.
//!
//! A Job in the object's namespace asks them and tells fingerprints of the answers; the operator sees neither. `step` decides and
//! is pure, as are `job`, `memory`, `record` and `words`; `drive` reads, stores and does.

pub mod drive;
pub mod job;
pub mod memory;
pub mod record;
pub mod step;
pub mod words;
