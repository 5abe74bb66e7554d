//! What happens beside the operator: traffic, Jobs, rollouts, people, and time.

use std::collections::BTreeSet;

use perennial_drift::cause::Cause;
use perennial_operator::cycle::ledger::{Kind, Ledger, Stage};
use perennial_operator::cycle::step::{Drift, End, State};

use crate::ends::failed;
use crate::world::{World, model, spec};

impl World {
    /// Something happens, or nothing.
    pub fn happen(&mut self) {
        self.now += self.dice.of(&[3, 30, 300, 3600]);
        if self.dice.one_in(50) {
            // Another operator's clock.
            self.now -= 120;
        }
        for name in self.jobs.keys().cloned().collect::<Vec<_>>() {
            if self.dice.one_in(2) {
                self.advance(&name);
            }
        }
        if let Some(state) = self.restore.take() {
            self.restore = Some(self.asked(state));
        }
        let event = self.dice.below(64);
        let bad = (8..20).contains(&event);
        if bad && !self.dice.one_in(self.peace) {
            return;
        }
        match event {
            0..8 => self.drift_begins(),
            8..11 => self.drift = None,
            11 => self.heard = !self.heard,
            12 => {
                // Git asks for another model.
                self.made += 1;
                self.base = model(self.made);
                self.quality.insert(self.base.digest.clone(), 0.5);
            }
            13 => self.follows = !self.follows,
            14 => self.captures = !self.captures,
            15 => self.spec.suspend = !self.spec.suspend,
            16 => {
                self.generation += 1;
                let suspend = self.spec.suspend;
                self.spec = spec(&mut self.dice);
                self.spec.suspend = suspend;
            }
            17 => self.remove_a_job(),
            18 => self.approve(),
            19 => self.put_into_git(),
            20..45 => self.roll_out(),
            45 => {
                // What was switched off is switched on again.
                (self.heard, self.captures, self.follows, self.spec.suspend) = (true, true, true, false);
                (self.awaits_probes, self.regressed, self.runs) = (false, false, true);
            }
            46 => self.awaits_probes = !self.awaits_probes,
            47 => self.regressed = self.dice.one_in(2),
            48 if self.dice.one_in(4) => self.built_again(),
            49 => self.runs = !self.runs,
            50 if self.dice.one_in(4) => self.another_target(),
            _ => {}
        }
    }

    /// Everything goes well from now on, and nobody interferes.
    pub fn calm_down(&mut self) {
        self.now += 3600;
        self.drift = None;
        self.heard = true;
        self.spec.suspend = false;
        (self.awaits_probes, self.regressed, self.runs) = (false, false, true);
        if let Some(state) = self.restore.take() {
            self.restore = Some(self.asked(state));
        }
        for name in self.jobs.keys().cloned().collect::<Vec<_>>() {
            self.advance(&name);
        }
        self.roll_out();
    }

    fn drift_begins(&mut self) {
        let cause = self.dice.of(&[
            Cause::InputDrift,
            Cause::InputDrift,
            Cause::InputDrift,
            Cause::ServingRegression,
            Cause::OutputShift,
            Cause::QualityDrop,
            Cause::Undetermined,
            Cause::SingleSource,
            Cause::Masked,
        ]);
        self.drift = Some(Drift {
            cause,
            since: self.now - 1000,
            report: "{}".to_owned(),
        });
    }

    /// The cluster is lost and built again from Git; the registry remembers.
    fn built_again(&mut self) {
        self.made += 1;
        self.uid = format!("0000-{}", self.made);
        self.ledger = Ledger::default();
        self.jobs.clear();
        self.learned.clear();
        self.failed.clear();
        self.reported.clear();
        self.restore = None;
        self.champion = self.base.clone();
        self.served = BTreeSet::from([self.base.digest.clone()]);
        // What counted towards limits was counted in the cluster that is gone.
        self.log.begun.clear();
        self.log.ended.clear();
        self.log.gpu_seconds.clear();
        self.log.finished.clear();
        self.log.reported.clear();
        self.log.built_again += 1;
    }

    /// The policy is given to another LLMDeployment, which has the same model in its spec and was taught nothing.
    fn another_target(&mut self) {
        self.made += 1;
        self.target = format!("target-{}", self.made);
        self.learned.clear();
        self.failed.clear();
        self.champion = self.base.clone();
        self.served = BTreeSet::from([self.base.digest.clone()]);
    }

    fn remove_a_job(&mut self) {
        let name = self.jobs.keys().next_back().cloned();
        if let Some(job) = name.and_then(|name| self.jobs.remove(&name)) {
            self.log.removed_by_hand += 1;
            // What a Job used that nobody has looked at before it was removed, nobody can know.
            let seen = self
                .ledger
                .cycle
                .as_ref()
                .is_some_and(|cycle| cycle.jobs.contains_key(&job.kind));
            if let State::Ended(end) = &job.state
                && !seen
            {
                let used = (job.cycle.started, end.gpu_seconds);
                let at = self.log.gpu_seconds.iter().rposition(|one| *one == used);
                at.map(|at| self.log.gpu_seconds.remove(at));
            }
        }
    }

    fn approve(&mut self) {
        let candidate = self.ledger.cycle.as_ref().and_then(|cycle| cycle.candidate.as_ref());
        if let Some(candidate) = candidate {
            self.spec.promotion.approved_digests.push(candidate.digest.clone());
            self.generation += 1;
        }
    }

    /// Somebody takes the proposal.
    fn put_into_git(&mut self) {
        let cycle = self
            .ledger
            .cycle
            .as_ref()
            .filter(|cycle| cycle.stage == Stage::Proposed);
        if let Some(candidate) = cycle.and_then(|cycle| cycle.candidate.clone()) {
            self.base = candidate;
        }
    }

    fn roll_out(&mut self) {
        let wanted = self.wanted();
        // A mark of failure goes with the wish for that revision.
        self.failed.retain(|digest| *digest == wanted.digest);
        if wanted.digest != self.champion.digest {
            let fails = self.failed.contains(&wanted.digest) || (self.dice.one_in(self.peace) && self.dice.one_in(3));
            let is_new = self.log.passed.iter().any(|(digest, _)| *digest == wanted.digest);
            if self.runs && is_new && fails {
                self.failed.insert(wanted.digest);
                return;
            }
            self.champion = wanted;
        }
        if self.runs {
            self.served.insert(self.champion.digest.clone());
            self.log.served.insert(self.champion.digest.clone());
        }
    }

    fn advance(&mut self, name: &str) {
        let Some(job) = self.jobs.get(name) else { return };
        let (kind, cycle) = (job.kind, job.cycle.clone());
        let is_current = self.ledger.cycle.as_ref().is_some_and(|current| current.id == cycle.id);
        let state = match &job.state {
            // One of no cycle is removed before it finds room.
            State::Waiting(_) if !is_current || self.dice.one_in(3) => return,
            State::Waiting(_) => State::Running(self.now),
            State::Ended(_) => return,
            State::Running(since) => {
                // A node's kubelet ends it at its deadline.
                let late = self.now - since > 3600;
                let gpu_seconds = self.gpu_seconds(job);
                self.log.gpu_seconds.push((cycle.started, gpu_seconds));
                State::Ended(End {
                    gpu_seconds,
                    ..if late && kind != Kind::Prepare {
                        failed("DeadlineExceeded")
                    } else {
                        self.end(kind, &cycle)
                    }
                })
            }
        };
        if let Some(job) = self.jobs.get_mut(name) {
            job.state = state;
        }
    }
}
