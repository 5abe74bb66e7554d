//! The controller of DriftPolicies: reads the panes of a model's replicas, learns what is normal, weighs what is new.
//!
//! `memory` decides and is pure, as are `terms`, `target`, `heard`, `record` and `status`; `pane_reader` asks pods, `store`
//! reads and writes, `look` does all of it for one policy, `wheel` turns.
//! What must survive a crash lies in ConfigMaps (`record`), written before the status says so.

mod heard;
pub mod look;
pub mod memory;
pub mod notice;
pub mod pane_reader;
pub mod record;
pub mod status;
mod store;
pub mod target;
pub mod terms;
pub mod wheel;
pub mod words;
