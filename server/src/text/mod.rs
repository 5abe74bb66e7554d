//! From text to tokens and back: everything between HTTP and the engine.

mod demux;
mod generation;
mod mailbox;
mod service;
mod stop;
mod traces;

pub use demux::Demux;
pub use generation::{Finish, Generation, Piece};
pub use perennial_engine::template::{ChatTemplate, Message, TemplateError};
pub use service::{Service, SubmitError, TextOptions};
pub use stop::StopStrings;
pub use traces::Asked;
