//! The shell around [`perennial_autoscaler`]: asks pods for their load, has the decision made, tells the reconciliation.
//!
//! `load_client` and `scrape` read, `terms` translates between the API and the autoscaler, `scaler` holds the state and turns
//! the wheel, `board` is where reconciliations find the numbers. Nothing here writes to the cluster: replicas are written with
//! everything else by the reconciliation, so that a rollout and a change of scale cannot contradict each other.

pub mod board;
pub mod load_client;
pub mod pods;
pub mod scaler;
pub mod scrape;
pub mod terms;
