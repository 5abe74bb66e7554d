//! The operator under injected faults, against the real API server: the same end, the same objects made and removed,
//! then silence.

mod chaos;
mod cycle;
mod every_write;
mod play;
mod scenario;
