//! One stretch of time: taken, weighed, decided on.

use crate::baseline::Baseline;
use crate::cause::Mask;
use crate::effect::{self, Effect};
use crate::observe::Interval;
use crate::pane::Pane;
use crate::pane::requesters::Requesters;
use crate::policy::{MinEffect, Policy};
use crate::signal::Signal;

use super::watch::{self, Watch};
use super::{Pending, Phase, State, Step, StepError, Taken, fingerprint, join, moved};

/// A drift is over by the word of so many times the requests that a pane needs: few requests that look as ever are chance.
const RECOVERY: u64 = 10;

/// How often the time until a suspicion is dropped doubles, with each one that came to nothing.
const PATIENCE: u64 = 6;

impl State {
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
                // A lasting change that does not matter is suspected anew each time: it is let go of ever more slowly, so
                // that a reader sees one long suspicion and not a hundred short ones.
                let patience = (2 * confirm).max(1) << self.left.cleared.min(PATIENCE);
                if self
                    .matters_not_since
                    .is_some_and(|since| self.until - since >= patience)
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
