//! The default Jobs of a retraining cycle, each a command of one program and a pure core behind a thin shell.
//!
//! `collect` keeps what the serving pods send, `prepare` freezes what may be trained on and holds out what is judged on,
//! `train` makes a better model, `verify` checks that it is what it claims to be, `evaluate` judges it beside the one that
//! serves. `probe` asks a serving model fixed prompts. `publish` tags the model that serves, and `restore` finds it again. What
//! they say to the operator is in `perennial_crds`.

pub mod collect;
pub mod contract;
pub mod evaluate;
pub mod prepare;
pub mod probe;
pub mod publish;
pub mod train;
pub mod verify;
