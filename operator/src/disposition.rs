//! What trying again can do about an error.

/// How a failed reconciliation goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Try again with growing pauses, and say so in the status.
    Retry,
    /// Only a change of the object or of the cluster helps; look again rarely.
    Permanent,
    /// A race that the next look settles; nothing to tell.
    Silent,
}
