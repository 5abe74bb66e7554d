//! What the traffic was like when it was as it should be, frozen.
//!
//! Learned from merged panes over at least one full cycle. Bins, means and design effects never change afterwards: the
//! same bytes, and so the same digest, wherever they are read.

pub(crate) mod design_effect;
pub mod embedding;
pub(crate) mod groups;
pub(crate) mod learn;
pub mod means;
pub mod numeric;
pub(crate) mod possible;
pub mod rate;
pub(crate) mod season;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::decision::halves;
use crate::envelope::{self, Content, EnvelopeError};
use crate::pane::Pane;
use crate::pane::layout::Layout;
use crate::pane::requesters::Requesters;
use crate::policy::{Policy, Season};
use crate::signal::Signal;

/// Version of the encoding of baselines.
pub const VERSION: u16 = 1;

/// What is expected of one signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Model {
    /// Of a number.
    Numeric(Box<numeric::Numeric>),
    /// Of a rate.
    Rate(rate::Rate),
    /// Of categories.
    Categories(numeric::Table),
    /// Of an embedding.
    Embedding(embedding::Embedding),
}

/// One signal of a baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignalBaseline {
    /// Which.
    pub signal: Signal,
    /// What is expected of it.
    pub model: Model,
    /// Its halves do not alarm against each other. A signal that is not stable is never armed.
    pub stable: bool,
}

/// A frozen baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Its rhythm.
    pub season: Season,
    /// Length of the panes that it was learned from.
    pub pane_seconds: u32,
    /// Beginning, seconds since 1970.
    pub from: i64,
    /// End.
    pub to: i64,
    /// Requests that it was learned from.
    pub requests: u64,
    /// Panes that it was learned from.
    pub panes: u64,
    /// By cell: whether enough was seen in that hour to compare with.
    pub known: Vec<bool>,
    /// Signals of which enough was seen.
    pub signals: Vec<SignalBaseline>,
    /// By requester, to see whether one alone moved.
    pub(crate) requesters: Requesters,
    #[serde(skip)]
    pub(crate) layout: u64,
}

/// Why there is no baseline yet.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BaselineError {
    /// Too few requests.
    #[error("{have} requests were seen and a baseline needs {want}: wait, or lower baseline.learned.minSamples")]
    Insufficient {
        /// Seen.
        have: u64,
        /// Needed.
        want: u64,
    },
    /// Too short a time.
    #[error("the panes span {have} s and a baseline needs {want} s, at least one full cycle of its season")]
    Short {
        /// Spanned.
        have: i64,
        /// Needed.
        want: i64,
    },
    /// Panes that do not belong together.
    #[error("the panes are of different layouts or lengths, or not in order of time")]
    Mixed,
}

impl Baseline {
    /// Learns from merged panes in order of time, and lets the two halves of them judge each other.
    ///
    /// # Errors
    /// [`BaselineError`] when there is not enough, or not of one kind.
    pub fn learn(panes: &[Pane], policy: &Policy) -> Result<Self, BaselineError> {
        let panes: Vec<&Pane> = panes.iter().filter(|pane| pane.requests > 0).collect();
        let ordered = panes.windows(2).all(|pair| {
            pair[0].start < pair[1].start && pair[0].layout == pair[1].layout && pair[0].seconds == pair[1].seconds
        });
        if !ordered || panes.first().is_some_and(|pane| pane.seconds != policy.pane_seconds) {
            return Err(BaselineError::Mixed);
        }
        let have = panes.iter().map(|pane| pane.requests).sum();
        if have < policy.baseline_min_samples {
            return Err(BaselineError::Insufficient {
                have,
                want: policy.baseline_min_samples,
            });
        }
        let span = panes.last().map_or(0, |pane| pane.end()) - panes.first().map_or(0, |pane| pane.start);
        let cycle = if policy.season == Season::None {
            0
        } else {
            policy.season.cycle()
        };
        let want = i64::from(policy.baseline_seconds).max(cycle);
        // The first and the last hour of a cycle may have been quiet.
        if span < want - want / 20 - i64::from(policy.pane_seconds) {
            return Err(BaselineError::Short { have: span, want });
        }
        let mut baseline = learn::learn(&panes, policy)?;
        let unstable = halves::unstable(&panes, policy);
        for signal in &mut baseline.signals {
            signal.stable = !unstable.contains(&signal.signal);
        }
        Ok(baseline)
    }

    /// Signals whose halves alarm against each other: the cause of `BaselineUnstable`.
    pub fn unstable(&self) -> impl Iterator<Item = Signal> + '_ {
        self.signals
            .iter()
            .filter(|signal| !signal.stable)
            .map(|signal| signal.signal)
    }

    /// What is expected of a signal.
    #[must_use]
    pub fn signal(&self, signal: Signal) -> Option<&SignalBaseline> {
        self.signals.iter().find(|baseline| baseline.signal == signal)
    }

    /// Its bytes, in the form of [`crate::envelope`]. Their [`envelope::digest`] names it.
    ///
    /// # Errors
    /// [`EnvelopeError::TooLarge`].
    pub fn encode(&self) -> Result<Vec<u8>, EnvelopeError> {
        envelope::seal(Content::Baseline, VERSION, self.layout, self)
    }

    /// A baseline of this layout from its bytes.
    ///
    /// # Errors
    /// [`EnvelopeError`] when it is not one, was damaged, or contradicts itself.
    pub fn decode(layout: &Layout, bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let mut baseline: Self = envelope::open(Content::Baseline, VERSION, layout.fingerprint(), bytes)?;
        baseline.layout = layout.fingerprint();
        match baseline.contradiction() {
            Some(why) => Err(EnvelopeError::Impossible { what: "baseline", why }),
            None => Ok(baseline),
        }
    }
}
