//! The controller of DriftPolicies: reads the panes of a model's replicas, learns what is normal, weighs what is new.
//!
//! `memory` decides and is pure, as are `terms`, `target`, `record` and `status`; `pane_reader` asks pods, `wheel` turns.
//! What must survive a crash lies in ConfigMaps (`record`), written before the status says so.

pub mod look;
pub mod memory;
pub mod notice;
pub mod pane_reader;
pub mod record;
pub mod status;
pub mod target;
pub mod terms;
pub mod wheel;
pub mod words;
