//! The inference engine: what a server may ask of it, how requests share its steps, and the runners that compute.
//!
//! The parts, from the outside in: [`Engine`] is all that a server knows; [`EngineHandle`] implements it with one
//! thread that schedules, steps and samples; a [`ModelRunner`] computes logits for a flat batch and knows nothing of
//! requests. Nothing here knows HTTP, Kubernetes or where a model came from.

mod batch;
mod blocks;
mod confidence;
mod contract;
mod error;
mod gauges;
pub mod memory;
pub mod model;
pub mod plan;
mod sampler;
mod scheduler;
pub mod simulated;
pub mod template;
mod thread;
pub mod threads;
pub mod tokenizer;

pub use batch::{ModelRunner, RunnerError, RunnerSpec, StepBatch, StepOut};
pub use confidence::{Confidence, MEASURED_EVERY, confidence};
pub use contract::{
    Engine, EngineInfo, FinishReason, LoadSnapshot, Queued, Rejected, RequestControl, RequestId, Sampling,
    SequenceUpdate, StepUpdate,
};
pub use error::ModelError;
pub use sampler::sample;
pub use scheduler::Limits;
pub use thread::{EngineHandle, Updates};
