//! Whether a cycle begins.

use std::collections::BTreeMap;

use perennial_crds::conditions::Reason;
use perennial_crds::retraining::{PromotionMode, Response, RetrainingSpec};
use perennial_drift::cause::Cause;

use super::{Action, Machine, Standing, running};
use crate::cycle::ledger::{Cycle, Kind, Stage};
use crate::cycle::leftovers::leftovers;

impl Machine<'_> {
    pub(super) fn idle(&mut self) -> Standing {
        let none = |reason, message: &str, blocked| Standing::Idle {
            reason,
            message: message.to_owned(),
            blocked,
        };
        let (observed, now) = (self.observed, self.observed.now);
        let Some(retraining) = &self.spec.retraining else {
            return none(Reason::AlertOnly, "spec.retraining is not given", false);
        };
        if let Some(message) = self.restore(retraining) {
            return none(Reason::Restoring, &message, observed.drift.is_some());
        }
        let Some(drift) = &observed.drift else {
            if observed.calm {
                self.ledger.wait = None;
            }
            return none(Reason::NoDrift, "there is nothing to retrain for", false);
        };
        if observed.regressed {
            let why = "the service answers fixed prompts otherwise than it did: mend that first";
            return none(Reason::ServingRegression, why, true);
        }
        if observed.awaits_probes {
            let why = "fixed prompts are being asked, to tell whether the service or the traffic has changed";
            return none(Reason::ProbesAwaited, why, true);
        }
        let response = match drift.cause {
            Cause::InputDrift => self.spec.responses.input_drift,
            Cause::OutputShift => self.spec.responses.output_shift,
            Cause::QualityDrop => self.spec.responses.quality_drop,
            _ => Response::Alert,
        };
        if response != Response::Retrain {
            return none(Reason::AlertOnly, "the response to this cause is to say so", false);
        }
        if let Some((reason, message)) = self.in_the_way(retraining) {
            return none(reason, &message, true);
        }
        let (Some(base), Some(champion), true) = (
            &observed.target.base,
            &observed.target.champion,
            observed.target.settled,
        ) else {
            return none(
                Reason::TargetNotSettled,
                "the target is being rolled out, or its model is not known by a digest",
                true,
            );
        };
        if self.ledger.begun == 0 {
            self.ledger.first = now;
        }
        self.ledger.begun += 1;
        self.ledger.cycle = Some(Cycle {
            id: self.policy.cycle_id(self.ledger.begun, self.ledger.first),
            target: observed.target.uid.clone(),
            cause: drift.cause,
            started: now,
            drifted_since: drift.since,
            from: now - retraining.data.window_seconds,
            report: drift.report.clone(),
            leftovers: leftovers(&self.ledger, self.policy.name, &observed.target, &observed.places),
            base: base.clone(),
            champion: champion.clone(),
            stage: Stage::Preparing,
            jobs: BTreeMap::new(),
            manifest: None,
            records: 0,
            suites: None,
            training: None,
            candidate: None,
            repository: retraining.output.as_ref().map(|output| output.oci.repository.clone()),
            published: None,
            verdicts: Vec::new(),
            unheeded_since: None,
            gpu_seconds: 0,
            reserved_gpu_seconds: observed.gpu_seconds.clone().unwrap_or(0),
        });
        self.actions.push(Action::Create(Kind::Prepare));
        running("what may be trained on is being frozen".to_owned())
    }

    /// Why no cycle may begin.
    fn in_the_way(&self, retraining: &RetrainingSpec) -> Option<(Reason, String)> {
        let (observed, ledger, now) = (self.observed, &self.ledger, self.observed.now);
        let limits = &retraining.limits;
        let since = |days: u32| now - i64::from(days) * 86_400;
        if self.spec.suspend {
            return Some((Reason::Suspended, "spec.suspend is set".to_owned()));
        }
        if ledger.stalled_at.is_some() {
            return Some((
                Reason::NoProgress,
                format!(
                    "{} cycles in a row brought nothing better: look at status.cycles, and change the policy to try again",
                    ledger.unpromoted
                ),
            ));
        }
        if !observed.target.captures {
            return Some((
                Reason::CaptureOff,
                "the target keeps nothing to train on: give its spec.capture the level Payload and a volume or bucket"
                    .to_owned(),
            ));
        }
        if !observed.target.follows && self.spec.promotion.mode != PromotionMode::Propose {
            return Some((
                Reason::LearnedIgnored,
                "the target has spec.model.learned: Ignore".to_owned(),
            ));
        }
        let gpus = match &observed.gpu_seconds {
            Ok(reserved) => *reserved,
            Err(why) => return Some((Reason::JobTemplateInvalid, why.clone())),
        };
        if let Some(wait) = ledger.wait.as_ref().filter(|wait| now < wait.until) {
            return Some((Reason::DataInsufficient, wait.message.clone()));
        }
        if now < ledger.cooldown_until {
            return Some((
                Reason::CoolingDown,
                "the last cycle is not long enough ago: see status.cooldownUntil".to_owned(),
            ));
        }
        let cycles = ledger.cycles_since(since(limits.max_cycles.per_days));
        if cycles >= limits.max_cycles.count as usize {
            return Some((
                Reason::CycleLimit,
                format!(
                    "{cycles} cycles were begun in the last {} days, as many as limits.maxCycles allows",
                    limits.max_cycles.per_days
                ),
            ));
        }
        if let Some(limit) = &limits.max_gpu_seconds {
            let used = ledger.gpu_seconds_since(since(limit.per_days));
            if used.saturating_add(gpus) > limit.count {
                return Some((
                    Reason::GPUSecondsLimit,
                    format!(
                        "{used} GPU seconds were used in the last {} days and a cycle may take {gpus}: limits.maxGPUSeconds allows {}",
                        limit.per_days, limit.count
                    ),
                ));
            }
        }
        None
    }
}
