//! From a confirmed drift to a better model: one cycle after the other, each of three Jobs and a rollout.
//!
//! `step` decides and is pure, as are `answers` (what Jobs say), `gate`, `jobs`, `jobs_seen`, `lineage`, `progress`,
//! `record`, `report` and `words`;
//! `drive` reads, stores and does. What limits cycles and what must survive a crash is in the `ledger`, a ConfigMap that is
//! written before anything is done.

pub mod answers;
pub mod drive;
pub mod gate;
pub mod jobs;
pub mod jobs_seen;
pub mod ledger;
pub mod leftovers;
pub mod lineage;
pub mod progress;
pub mod record;
pub mod report;
pub mod step;
pub mod target;
pub mod words;
