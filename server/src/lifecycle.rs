//! Whether the server takes work.

use std::sync::atomic::{AtomicU8, Ordering};

/// Phases of a server's life, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The model is not loaded: 503.
    Starting,
    /// Takes work.
    Ready,
    /// Told to stop, but clients may not know yet: takes work, asks them to connect elsewhere.
    LameDuck,
    /// Finishes what it has: 503 for new work.
    Draining,
}

const PHASES: [Phase; 4] = [Phase::Starting, Phase::Ready, Phase::LameDuck, Phase::Draining];

/// The present phase; it never goes back.
#[derive(Debug, Default)]
pub struct Lifecycle(AtomicU8);

impl Lifecycle {
    /// The present phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        PHASES[usize::from(self.0.load(Ordering::Acquire)).min(PHASES.len() - 1)]
    }

    /// Enters `phase`, unless a later one was reached.
    pub fn advance(&self, phase: Phase) {
        self.0.fetch_max(phase as u8, Ordering::AcqRel);
    }

    /// Whether new work is accepted.
    #[must_use]
    pub fn accepts_work(&self) -> bool {
        matches!(self.phase(), Phase::Ready | Phase::LameDuck)
    }

    /// Whether clients should connect elsewhere.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.phase() >= Phase::LameDuck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_never_taken_back() {
        let lifecycle = Lifecycle::default();
        assert_eq!(lifecycle.phase(), Phase::Starting);
        lifecycle.advance(Phase::LameDuck);
        lifecycle.advance(Phase::Ready);
        assert_eq!(lifecycle.phase(), Phase::LameDuck);
        assert!(lifecycle.accepts_work() && lifecycle.is_closing());
        lifecycle.advance(Phase::Draining);
        assert!(!lifecycle.accepts_work());
    }
}
