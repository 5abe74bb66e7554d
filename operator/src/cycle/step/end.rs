//! How a cycle ends, and what is counted of it.

use perennial_crds::DriftPolicySpec;
use perennial_crds::retraining::LimitsSpec;

use super::{Action, Ending, Machine, State, job_name};
use crate::cycle::ledger::{Cycle, Finished, Ledger, Outcome, Stage};
use crate::cycle::report::Report;

impl Machine<'_> {
    pub(super) fn end(&mut self, mut cycle: Cycle, Ending(outcome, reason, message): Ending) {
        cycle.gpu_seconds = self.gpu_seconds(&cycle);
        // Others that nobody sees now go as strays.
        let at_work = cycle.stage.job().filter(|kind| {
            let seen = self.observed.jobs.get(kind);
            seen.is_some_and(|seen| !matches!(seen.state, State::Ended(_)))
        });
        if let Some(kind) = at_work {
            self.actions
                .push(Action::Delete(job_name(self.policy.name, kind, &cycle.id)));
        }
        let now = self.observed.now;
        let limits = limits(self.spec);
        if outcome.brought_nothing() {
            self.ledger.unpromoted += 1;
            if self.ledger.unpromoted >= limits.stop_after_unpromoted {
                self.ledger.stalled_at = Some(self.observed.generation);
            }
        } else if outcome == Outcome::Promoted {
            self.ledger.unpromoted = 0;
        }
        let candidate = cycle.candidate.as_ref().map(|candidate| candidate.digest.clone());
        if let Some(digest) = &candidate {
            if outcome.brought_nothing() {
                self.ledger.reject(digest);
            }
            if outcome != Outcome::Promoted && cycle.stage == Stage::RollingOut {
                self.ledger.withdrawn.insert(digest.clone(), message.clone());
            }
        }
        let gpu_days = limits.max_gpu_seconds.as_ref().map_or(0, |limit| limit.per_days);
        let finished = Finished {
            id: cycle.id.clone(),
            cause: cycle.cause,
            outcome,
            reason: reason.to_owned(),
            message,
            started: cycle.started,
            ended: now,
            candidate,
            in_registry: cycle.candidate.as_ref().is_some_and(|model| model.claim.is_none()),
            verdicts: cycle.verdicts.clone(),
            gpu_seconds: cycle.gpu_seconds,
        };
        if self.spec.history.cycles > 0 {
            self.ledger.reports.push(Report::of(cycle, &finished));
        }
        self.ledger.finish(finished, limits.max_cycles.per_days.max(gpu_days));
        self.ledger.cooldown_until = rest_until(&self.ledger, &limits);
    }

    /// GPU seconds that a cycle has used so far, with those of the Job that is at work.
    fn gpu_seconds(&self, cycle: &Cycle) -> i64 {
        // Others get no GPUs.
        let Some(kind) = cycle.stage.job().filter(|kind| kind.is_of_users()) else {
            return cycle.gpu_seconds;
        };
        let record = cycle.jobs.get(&kind);
        let ended = record.is_some_and(|record| record.ended.is_some());
        match self.observed.jobs.get(&kind) {
            _ if ended => cycle.gpu_seconds,
            // One that runs is stopped as soon as anybody is there to do it; until then it may use all that is left.
            Some(seen) if matches!(seen.state, State::Running(_)) => {
                (cycle.gpu_seconds + seen.gpu_seconds).max(cycle.reserved_gpu_seconds)
            }
            Some(seen) => cycle.gpu_seconds + seen.gpu_seconds,
            // And one that was seen, and whose end nobody saw, may have done so.
            None if record.is_some() => cycle.gpu_seconds.max(cycle.reserved_gpu_seconds),
            None => cycle.gpu_seconds,
        }
    }
}

/// Limits of a policy; the defaults if it does not retrain.
pub(super) fn limits(spec: &DriftPolicySpec) -> LimitsSpec {
    spec.retraining
        .as_ref()
        .map_or_else(LimitsSpec::default, |retraining| retraining.limits.clone())
}

/// End of the rest after the last cycle, seconds since 1970; 0 before the first. It doubles with each in a row that brought nothing.
pub(super) fn rest_until(ledger: &Ledger, limits: &LimitsSpec) -> i64 {
    let Some(last) = ledger.finished.back() else { return 0 };
    let doubled = match ledger.unpromoted {
        0 => 0,
        _ if !last.outcome.brought_nothing() => 0,
        times => limits
            .backoff
            .initial_seconds
            .saturating_mul(1_i64 << (times - 1).min(40)),
    };
    last.ended + limits.cooldown_seconds.max(doubled.min(limits.backoff.max_seconds))
}
