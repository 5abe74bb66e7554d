//! What the requests of this server were, counted in panes of time, so that a reader can tell whether traffic has changed.
//!
//! [`record`] is what is known of one request, kept only until it is counted; [`extraction`] makes features of it, with an
//! [`encoder`] of prompts if there is one; [`panes`] counts, and is pure;
//! [`observer`] is the thread between the two, which reads the clock. No request ever waits for any of it, and no text
//! leaves it: panes hold counts, sums and hashes.

pub mod encoder;
pub mod extraction;
pub mod observer;
pub mod panes;
mod rated;
pub mod record;

pub use encoder::{EncoderError, StaticEncoder};
pub use extraction::Extraction;
pub use observer::{Observer, ObserverError};
pub use panes::{ObservationError, Panes};
pub use record::{End, Question, Record, Recording};
