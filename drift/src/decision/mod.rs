//! From one pane to the next: `Learning -> Watching -> Suspected -> Drifted`.
//!
//! [`State::step`] is a function of the old state, one stretch of time, the baseline and the policy, and of nothing else. A run
//! that was cut anywhere and went on from the stored state ends in the same bytes. What was not seen (gaps, masked or
//! scarce traffic) neither raises nor lowers the evidence.

pub(crate) mod halves;
mod step;
pub mod watch;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::baseline::Baseline;
use crate::envelope::{self, Content, EnvelopeError};
use crate::pane::layout::Layout;
use crate::pane::requesters::Requesters;
use crate::policy::Policy;
use crate::signal::Signal;
use crate::tally::Tally;
use watch::Watch;

/// Version of the encoding of states.
pub const VERSION: u16 = 1;

/// Where a policy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// There is no baseline yet.
    Learning,
    /// Nothing that the budget would allow to be called a change.
    Watching,
    /// The traffic is not the baseline's; whether it matters is being measured.
    Suspected,
    /// It is not, and it matters, and has for the time of confirmation.
    Drifted,
}

/// What was left out, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Stretches of time of which no replica was heard.
    pub gaps: u64,
    /// Stretches masked by own rollouts, wake-ups and restarts.
    pub masked: u64,
    /// Joined panes that never got enough requests.
    pub insufficient: u64,
    /// Panes of hours that the baseline knows too little of.
    pub unlearned: u64,
    /// Suspicions that came to nothing.
    pub cleared: u64,
    /// Drifts that went away by themselves.
    pub recovered: u64,
}

/// Panes that are being joined.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Pending {
    start: i64,
    requests: u64,
    tallies: Vec<Tally>,
}

/// All that is remembered from one pane to the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Where it stands.
    pub phase: Phase,
    /// Since when, seconds since 1970.
    pub phase_since: i64,
    /// End of the last stretch of time that was seen.
    pub until: i64,
    /// Joined panes that were weighed.
    pub updates: u64,
    /// What was left out.
    pub left: Left,
    baseline: String,
    policy: u64,
    pub(crate) watch: Watch,
    pending: Option<Pending>,
    /// Since when the effect has mattered, or has not, without a break.
    matters_since: Option<i64>,
    matters_not_since: Option<i64>,
    /// Signals whose change was confirmed.
    pub(crate) drifted: Vec<Signal>,
    /// While drifted: the present window, to see whether it is over.
    recent: Option<Pending>,
    /// Who asked since the suspicion.
    pub(crate) requesters: Requesters,
    #[serde(skip)]
    layout: u64,
}

/// Why a step was refused. The state is as it was.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StepError {
    /// A state of something else.
    #[error("the state belongs to another {0}: begin a new one")]
    Foreign(&'static str),
    /// Not the next stretch.
    #[error("a stretch of time from {got} where all until {until} has been seen")]
    Order {
        /// Its beginning.
        got: i64,
        /// Seen.
        until: i64,
    },
    /// A pane of another layout or length than the baseline's.
    #[error("the pane is of another layout or length than the baseline: learn a new baseline")]
    Layout,
}

/// What became of a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Weighed.
    Weighed,
    /// Put aside until there are enough requests.
    Joined,
    /// Left out.
    LeftOut,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// What became of the stretch of time.
    pub taken: Taken,
    /// The phase before, where it changed.
    pub left_phase: Option<Phase>,
    /// Evidence of all signals together, in logarithms; at [`State::log_threshold`] it is a suspicion.
    pub log_evidence: f64,
}

pub(crate) fn join(into: &mut Vec<Tally>, from: Vec<Tally>) {
    if into.is_empty() {
        *into = from;
        return;
    }
    for (into, from) in into.iter_mut().zip(&from) {
        into.merge(from);
    }
}

/// Equal for equal policies, also of other versions of this program: by the names of fields.
fn fingerprint(policy: &Policy) -> u64 {
    envelope::fingerprint(&serde_json::to_vec(policy).unwrap_or_default())
}

impl State {
    /// Before there is a baseline.
    #[must_use]
    pub fn learning(layout: &Layout, policy: &Policy, now: i64) -> Self {
        Self::empty(layout.fingerprint(), policy, now)
    }

    fn empty(layout: u64, policy: &Policy, now: i64) -> Self {
        Self {
            phase: Phase::Learning,
            phase_since: now,
            until: now,
            updates: 0,
            left: Left::default(),
            baseline: String::new(),
            policy: fingerprint(policy),
            watch: Watch::default(),
            pending: None,
            matters_since: None,
            matters_not_since: None,
            drifted: Vec::new(),
            recent: None,
            requesters: Requesters::default(),
            layout,
        }
    }

    /// With a new baseline, whose digest names it; from its end on.
    #[must_use]
    pub fn watching(baseline: &Baseline, digest: &str, policy: &Policy, now: i64) -> Self {
        Self {
            phase: Phase::Watching,
            baseline: digest.to_owned(),
            watch: Watch::new(baseline, policy),
            ..Self::empty(baseline.layout, policy, now)
        }
    }

    /// Digest of the baseline that it watches against.
    #[must_use]
    pub fn baseline(&self) -> &str {
        &self.baseline
    }

    /// The logarithm of what the evidence is held against.
    #[must_use]
    pub fn log_threshold(policy: &Policy) -> f64 {
        libm::log(policy.capacity())
    }

    /// Each armed signal's own evidence, in logarithms: comparable with [`State::log_threshold`].
    pub fn log_evidence_by_signal(&self) -> impl Iterator<Item = (Signal, f64)> + '_ {
        self.watch
            .signals
            .iter()
            .map(|evidence| (evidence.signal, evidence.log_evidence()))
    }

    /// What was seen of an armed signal since the likely beginning of its change.
    #[must_use]
    pub fn seen_since_change(&self, signal: Signal) -> Option<&Tally> {
        let evidence = self.watch.signals.iter().find(|evidence| evidence.signal == signal)?;
        evidence.winner().map(|line| &line.tally)
    }

    /// Its bytes, in the form of [`crate::envelope`].
    ///
    /// # Errors
    /// [`EnvelopeError::TooLarge`].
    pub fn encode(&self) -> Result<Vec<u8>, EnvelopeError> {
        envelope::seal(Content::State, VERSION, self.layout, self)
    }

    /// A state of this layout from its bytes.
    ///
    /// # Errors
    /// [`EnvelopeError`] when it is not one, or was damaged.
    pub fn decode(layout: &Layout, bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let mut state: Self = envelope::open(Content::State, VERSION, layout.fingerprint(), bytes)?;
        state.layout = layout.fingerprint();
        Ok(state)
    }
}

/// Whether a signal's own evidence is worth a place among the causes: half of what an alarm takes.
pub(crate) fn moved(log_evidence: f64, policy: &Policy) -> bool {
    log_evidence >= State::log_threshold(policy) / 2.0
}
