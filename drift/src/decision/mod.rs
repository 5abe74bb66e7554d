//! From one pane to the next: `Learning -> Watching -> Suspected -> Drifted`.
//!
//! [`step`] is a function of the old state, one stretch of time, the baseline and the policy, and of nothing else. A run
//! that was cut anywhere and went on from the stored state ends in the same bytes. What was not seen (gaps, masked or
//! scarce traffic) neither raises nor lowers the evidence.

pub(crate) mod halves;
pub mod watch;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::baseline::Baseline;
use crate::cause::Mask;
use crate::effect::{self, Effect};
use crate::envelope::{self, Content, EnvelopeError};
use crate::observe::Interval;
use crate::pane::Pane;
use crate::pane::layout::Layout;
use crate::pane::requesters::Requesters;
use crate::policy::{MinEffect, Policy};
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

/// A drift is over by the word of so many times the requests that a pane needs: few requests that look as ever are chance.
const RECOVERY: u64 = 10;

/// What of a policy decides about evidence.
fn fingerprint(policy: &Policy) -> u64 {
    envelope::fingerprint(format!("{policy:?}").as_bytes())
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

    /// Takes the next stretch of time.
    ///
    /// # Errors
    /// [`StepError`]; then nothing has changed.
    pub fn step(
        &mut self,
        interval: &Interval,
        mask: Option<Mask>,
        baseline: &Baseline,
        policy: &Policy,
    ) -> Result<Step, StepError> {
        self.check(interval, baseline, policy)?;
        let before = self.phase;
        let taken = self.take(interval, mask, baseline, policy);
        self.until = interval.start + i64::from(baseline.pane_seconds);
        let log_evidence = self.watch.log_evidence(policy);
        if taken == Taken::Weighed {
            self.decide(log_evidence, baseline, policy);
        }
        Ok(Step {
            taken,
            left_phase: (self.phase != before).then_some(before),
            log_evidence: if self.phase == before {
                log_evidence
            } else {
                self.watch.log_evidence(policy)
            },
        })
    }

    fn check(&self, interval: &Interval, baseline: &Baseline, policy: &Policy) -> Result<(), StepError> {
        let armed = watch::armed(baseline, policy).map(|signal| signal.signal);
        if self.phase == Phase::Learning || !armed.eq(self.watch.signals.iter().map(|evidence| evidence.signal)) {
            return Err(StepError::Foreign("baseline"));
        }
        if self.policy != fingerprint(policy) {
            return Err(StepError::Foreign("policy"));
        }
        if interval.start < self.until {
            return Err(StepError::Order {
                got: interval.start,
                until: self.until,
            });
        }
        let fits = |pane: &Pane| pane.layout == baseline.layout && pane.seconds == baseline.pane_seconds;
        if !interval.pane.as_ref().is_none_or(fits) {
            return Err(StepError::Layout);
        }
        Ok(())
    }

    fn take(&mut self, interval: &Interval, mask: Option<Mask>, baseline: &Baseline, policy: &Policy) -> Taken {
        if mask.is_some() {
            self.left.masked += 1;
            return Taken::LeftOut;
        }
        let Some(pane) = &interval.pane else {
            self.left.gaps += 1;
            return Taken::LeftOut;
        };
        let cell = usize::from(baseline.season.cell(interval.start));
        if !baseline.known.get(cell).copied().unwrap_or(false) {
            self.left.unlearned += 1;
            return Taken::LeftOut;
        }
        if self
            .pending
            .as_ref()
            .is_some_and(|pending| interval.start - pending.start >= i64::from(policy.max_pane_seconds))
        {
            self.left.insufficient += 1;
            self.pending = None;
        }
        if matches!(self.phase, Phase::Suspected | Phase::Drifted) {
            self.requesters.merge(&pane.requesters);
        }
        let mut pending = self.pending.take().unwrap_or(Pending {
            start: interval.start,
            ..Pending::default()
        });
        pending.requests += pane.requests;
        join(&mut pending.tallies, Watch::tallies(baseline, policy, pane));
        if pending.requests < policy.min_samples {
            self.pending = Some(pending);
            return Taken::Joined;
        }
        self.watch.update(baseline, policy, &pending.tallies, pending.start);
        self.updates += 1;
        if self.phase == Phase::Drifted {
            let recent = self.recent.get_or_insert(Pending {
                start: pending.start,
                ..Pending::default()
            });
            recent.requests += pending.requests;
            join(&mut recent.tallies, pending.tallies);
        }
        Taken::Weighed
    }

    fn decide(&mut self, log_evidence: f64, baseline: &Baseline, policy: &Policy) {
        let confirm = i64::from(policy.confirm_seconds);
        match self.phase {
            Phase::Learning => {}
            Phase::Watching => {
                if log_evidence >= Self::log_threshold(policy) {
                    self.enter(Phase::Suspected);
                    self.requesters = Requesters::default();
                    self.weigh_effect(baseline, policy);
                    self.confirm(confirm);
                }
            }
            Phase::Suspected => {
                self.weigh_effect(baseline, policy);
                self.confirm(confirm);
                if self
                    .matters_not_since
                    .is_some_and(|since| self.until - since >= (2 * confirm).max(1))
                {
                    self.left.cleared += 1;
                    self.clear(baseline, policy);
                }
            }
            Phase::Drifted => self.look_for_recovery(baseline, policy),
        }
    }

    /// Three ways: it certainly matters, by its best guess it does not, or it is not known yet. The last one waits.
    fn weigh_effect(&mut self, baseline: &Baseline, policy: &Policy) {
        self.drifted = self.moved_where(baseline, policy, effect::matters);
        let seeming = !self.moved_where(baseline, policy, effect::seems_to_matter).is_empty();
        let now = self.until;
        self.matters_since = (!self.drifted.is_empty()).then(|| self.matters_since.unwrap_or(now));
        let not = self.drifted.is_empty() && !seeming;
        self.matters_not_since = not.then(|| self.matters_not_since.unwrap_or(now));
    }

    fn confirm(&mut self, confirm: i64) {
        if self.matters_since.is_some_and(|since| self.until - since >= confirm) {
            self.enter(Phase::Drifted);
            self.recent = None;
        }
    }

    /// Signals that have moved, with an effect of which this holds.
    fn moved_where(
        &self,
        baseline: &Baseline,
        policy: &Policy,
        holds: impl Fn(&[Effect], &MinEffect) -> bool,
    ) -> Vec<Signal> {
        let signals = watch::armed(baseline, policy).zip(&self.watch.signals);
        signals
            .filter(|(signal, evidence)| {
                let Some(line) = evidence.winner() else { return false };
                moved(evidence.log_evidence(), policy)
                    && holds(&effect::effects(signal, &line.tally), &policy.min_effect(signal.signal))
            })
            .map(|(signal, _)| signal.signal)
            .collect()
    }

    /// A drift is over when, in a whole window of its own, none of its signals can still be beyond what matters.
    fn look_for_recovery(&mut self, baseline: &Baseline, policy: &Policy) {
        let window = i64::from(2 * policy.confirm_seconds).max(i64::from(policy.pane_seconds));
        let Some(recent) = &self.recent else { return };
        if self.until - recent.start < window || recent.requests < RECOVERY * policy.min_samples {
            return;
        }
        let still = watch::armed(baseline, policy)
            .zip(&recent.tallies)
            .any(|(signal, tally)| {
                self.drifted.contains(&signal.signal)
                    && (tally.count == 0
                        || effect::may_matter(&effect::effects(signal, tally), &policy.min_effect(signal.signal)))
            });
        self.recent = None;
        if !still {
            self.left.recovered += 1;
            self.clear(baseline, policy);
        }
    }

    fn clear(&mut self, baseline: &Baseline, policy: &Policy) {
        self.enter(Phase::Watching);
        self.watch = Watch::new(baseline, policy);
        self.drifted = Vec::new();
        self.recent = None;
        self.requesters = Requesters::default();
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.phase_since = self.until;
        self.matters_since = None;
        self.matters_not_since = None;
    }
}

/// Whether a signal's own evidence is worth a place among the causes: half of what an alarm takes.
pub(crate) fn moved(log_evidence: f64, policy: &Policy) -> bool {
    log_evidence >= State::log_threshold(policy) / 2.0
}
