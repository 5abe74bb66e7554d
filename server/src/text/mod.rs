//! From text to tokens and back: everything between HTTP and the engine.

mod demux;
mod generation;
mod mailbox;
mod service;
mod stop;
mod template;

pub use demux::Demux;
pub use generation::{Finish, Generation, Piece};
pub use service::{Service, SubmitError, TextOptions};
pub use stop::StopStrings;
pub use template::{ChatTemplate, Message, TemplateError};
