//! What needs the cluster for itself: it takes parts of it away, kills operators all the time, or counts what they write.

mod away;
mod burst;
mod learning;
mod operator_killed;
mod quiet;
mod retraining_fails;
