//! What is kept of requests for retraining, if the operator says so: a sample of prompts and answers, and what people thought
//! of them.
//!
//! [`rules`] is what is to be kept, as [`follow`] reads it from the pod's annotation; [`sample`] chooses requests; [`draft`]
//! grows with an answer; [`recorder`] is the thread that takes personal data out ([`redact`]) and puts records into the
//! [`spool`]; [`courier`] brings them to the collector. `given` knows feedback that is sent again. A request never waits for
//! any of it, nothing is copied of a request that is not sampled, nothing is written to a disk, and no text gets into a log, a
//! metric or an error.

pub mod counters;
pub mod courier;
pub mod draft;
pub mod follow;
mod given;
pub mod recorder;
pub mod redact;
pub mod rules;
pub mod sample;
pub mod spool;

use tokio_util::sync::CancellationToken;

pub use counters::CaptureCounters;
pub use courier::{Courier, Pace};
pub use draft::{Draft, Ended, Texts};
pub use follow::Follower;
pub use recorder::{Capture, CaptureError, NotKept};
pub use rules::{Rules, TermsError};

/// Bytes of records that wait for the collector, unless told otherwise.
pub const BUFFER_BYTES: usize = 16 << 20;

/// Follows the terms and sends records until `stop`; then sends what is left, not for long.
pub async fn run(capture: &Capture, follower: Follower, courier: Courier, stop: &CancellationToken) {
    tokio::join!(follower.follow(capture, stop), courier.run(capture, stop));
}
