//! How a cycle goes on.

use perennial_crds::conditions::Reason;
use perennial_crds::retraining::{PromotionMode, RetrainingSpec};

use super::publish::tag_told;
use super::{Action, End, Ending, Machine, Standing, State, Turn, output_path, over, running};
use crate::cycle::answers::{self, Answer};
use crate::cycle::ledger::{Cycle, JobRecord, Kind, Model, Outcome, Stage};
use crate::cycle::lineage::Lineage;

/// Seconds beyond its deadline after which a Job that does not end is given up.
const DEADLINE_GRACE: i64 = 300;

impl Machine<'_> {
    pub(super) fn advance(&mut self, cycle: &mut Cycle) -> Turn {
        let Some(retraining) = &self.spec.retraining else {
            return over(Outcome::Withdrawn, "RetrainingRemoved", "spec.retraining was removed");
        };
        if let Some(ending) = self.overtaken(cycle) {
            return Turn::Over(ending);
        }
        if self.spec.suspend {
            return Turn::Stay(Standing::Running {
                message: "the cycle stands still".to_owned(),
                waits: Some((Reason::Suspended, "spec.suspend is set".to_owned())),
            });
        }
        match cycle.stage {
            Stage::Proposed => self.proposed(cycle),
            Stage::RollingOut => self.rolling_out(cycle),
            Stage::Publishing => self.publishing(cycle),
            Stage::Preparing => self.job(cycle, Kind::Prepare, retraining),
            Stage::Retraining => self.job(cycle, Kind::Retrain, retraining),
            Stage::Evaluating => self.job(cycle, Kind::Gate, retraining),
        }
    }

    /// The world has gone on without the cycle.
    fn overtaken(&self, cycle: &Cycle) -> Option<Ending> {
        let target = &self.observed.target;
        let candidate = cycle.candidate.as_ref().map(|candidate| candidate.digest.as_str());
        if cycle.stage == Stage::Publishing {
            let serves = target.champion.as_ref().map(|champion| champion.digest.as_str()) == candidate;
            let same = target.base.as_ref().is_none_or(|base| base.digest == cycle.base.digest);
            // The tag is for what serves.
            let message = "the better model served, and another was asked for before its tag was written";
            return (!serves || !same).then(|| Ending(Outcome::Promoted, "GatePassed", message.to_owned()));
        }
        if let Some(base) = &target.base
            && base.digest != cycle.base.digest
        {
            // Only what passed the gate counts as the winner that was put into the spec.
            let passed = matches!(cycle.stage, Stage::Proposed | Stage::RollingOut);
            return Some(if passed && candidate == Some(&base.digest) {
                Ending(
                    Outcome::Promoted,
                    "PutIntoSpec",
                    "the candidate was put into the spec".to_owned(),
                )
            } else {
                Ending(
                    Outcome::Superseded,
                    "ModelChanged",
                    "the spec asks for another model than the one that this cycle began with".to_owned(),
                )
            });
        }
        if let Some(champion) = &target.champion
            && champion.digest != cycle.champion.digest
            && !(cycle.stage == Stage::RollingOut && candidate == Some(&champion.digest))
        {
            return Some(Ending(
                Outcome::Superseded,
                "ChampionChanged",
                "another model serves than the one that the candidate was to be judged against".to_owned(),
            ));
        }
        // Training does not mend a service; nor is a model to be compared with one that answers otherwise than it did.
        if self.observed.regressed && cycle.stage != Stage::RollingOut {
            return Some(Ending(
                Outcome::Withdrawn,
                "ServingRegression",
                "the service answers fixed prompts otherwise than it did: mend that first".to_owned(),
            ));
        }
        (cycle.stage == Stage::RollingOut && !target.follows).then(|| {
            Ending(
                Outcome::Withdrawn,
                "LearnedIgnored",
                "the target has spec.model.learned: Ignore".to_owned(),
            )
        })
    }

    fn job(&mut self, cycle: &mut Cycle, kind: Kind, retraining: &RetrainingSpec) -> Turn {
        let Some(seen) = self.observed.jobs.get(&kind) else {
            if cycle.jobs.contains_key(&kind) {
                return over(
                    Outcome::Failed,
                    "JobGone",
                    format!("somebody removed the {} Job", kind.word()),
                );
            }
            self.actions.push(Action::Create(kind));
            return Turn::Stay(running(doing(cycle)));
        };
        let record = cycle.jobs.entry(kind).or_insert_with(|| JobRecord {
            uid: seen.uid.clone(),
            ended: None,
        });
        if record.uid != seen.uid {
            return over(
                Outcome::Failed,
                "JobGone",
                format!("somebody replaced the {} Job", kind.word()),
            );
        }
        match &seen.state {
            State::Waiting(why) => {
                let over_by_now = self.observed.calm && self.observed.drift.is_none();
                if over_by_now && kind != Kind::Gate {
                    return over(
                        Outcome::Withdrawn,
                        "DriftOver",
                        "the drift was over before the Job found room",
                    );
                }
                Turn::Stay(Standing::Running {
                    message: doing(cycle),
                    waits: Some((Reason::Queued, format!("the {} Job waits: {why}", kind.word()))),
                })
            }
            State::Running(since) => {
                if self.observed.now > since + retraining.active_deadline_seconds + DEADLINE_GRACE {
                    return over(
                        Outcome::Failed,
                        "DeadlineExceeded",
                        format!("the {} Job did not end within activeDeadlineSeconds", kind.word()),
                    );
                }
                Turn::Stay(running(doing(cycle)))
            }
            State::Ended(end) => {
                if record.ended.is_none() {
                    record.ended = Some(self.observed.now);
                    cycle.gpu_seconds += end.gpu_seconds;
                }
                self.ended(cycle, kind, end)
            }
        }
    }

    fn ended(&mut self, cycle: &mut Cycle, kind: Kind, end: &End) -> Turn {
        let answer = match kind {
            Kind::Prepare => answers::prepared(end, &self.spec.gate),
            Kind::Retrain => answers::trained(end, cycle, &self.ledger.rejected),
            // The tag has a way of its own: whatever comes of it, the cycle is what it is.
            Kind::Gate | Kind::Publish => answers::judged(end, cycle, &self.spec.gate),
        };
        match answer {
            Answer::Prepared {
                manifest,
                suites,
                records,
            } => {
                cycle.manifest = Some(manifest);
                cycle.suites = Some(suites);
                cycle.records = records;
                cycle.stage = Stage::Retraining;
                Turn::On
            }
            Answer::Trained { uri, digest, training } => {
                cycle.training = Some(training);
                cycle.candidate = Some(self.model(cycle, uri, digest));
                cycle.stage = Stage::Evaluating;
                Turn::On
            }
            Answer::Judged(verdicts) => {
                cycle.verdicts = verdicts;
                if let Some(lost) = cycle.verdicts.iter().find(|verdict| !verdict.passed) {
                    let message = format!(
                        "the candidate did not pass {}: {:+.1} thousandths are certain, {:+.1} were needed",
                        lost.suite,
                        lost.lower * 1000.0,
                        lost.needed * 1000.0
                    );
                    return over(Outcome::Rejected, "GateNotPassed", message);
                }
                cycle.stage = Stage::Proposed;
                Turn::On
            }
            Answer::NoData(message) => Turn::NoData(message),
            Answer::Over(outcome, reason, message) => Turn::Over(Ending(outcome, reason, message)),
        }
    }

    /// What the training Job made, as serving pods will know it.
    fn model(&self, cycle: &Cycle, uri: String, digest: String) -> Model {
        let retraining = self.spec.retraining.as_ref();
        if cycle.repository.is_some() {
            let output = retraining.and_then(|retraining| retraining.output.as_ref());
            let secret = output.and_then(|output| output.oci.pull_secret_ref.as_ref());
            return Model {
                uri,
                digest,
                claim: None,
                claim_path: None,
                pull_secret: secret.map(|secret| secret.name.clone()),
            };
        }
        Model {
            uri,
            digest,
            claim: retraining.map(|retraining| retraining.workspace.persistent_volume_claim.claim_name.clone()),
            claim_path: Some(output_path(self.policy.name, &cycle.id)),
            pull_secret: None,
        }
    }

    fn proposed(&mut self, cycle: &mut Cycle) -> Turn {
        if self.spec.promotion.mode == PromotionMode::Propose
            && let Some(standing) = self.publish(cycle)
        {
            return Turn::Stay(standing);
        }
        let Some(candidate) = &cycle.candidate else {
            return over(
                Outcome::Failed,
                "Internal",
                "a candidate was proposed that is not there",
            );
        };
        let promotion = &self.spec.promotion;
        let allowed = match promotion.mode {
            PromotionMode::Propose => false,
            PromotionMode::Approve => promotion.approved_digests.contains(&candidate.digest),
            PromotionMode::Automatic => true,
        };
        if allowed && self.observed.target.follows {
            cycle.stage = Stage::RollingOut;
            return Turn::On;
        }
        let ask = match promotion.mode {
            PromotionMode::Approve => format!("put {} into spec.promotion.approvedDigests", candidate.digest),
            _ => format!(
                "put it into spec.model of the LLMDeployment: status.cycle.candidate names it{}",
                tag_told(cycle)
            ),
        };
        Turn::Stay(Standing::Running {
            message: "a better model waits for you".to_owned(),
            waits: Some((
                Reason::Proposed,
                format!("a better model passed the gate: to serve it, {ask}"),
            )),
        })
    }

    fn rolling_out(&mut self, cycle: &mut Cycle) -> Turn {
        let Some(candidate) = &cycle.candidate else {
            return over(
                Outcome::Failed,
                "Internal",
                "a candidate was rolled out that is not there",
            );
        };
        let target = &self.observed.target;
        if target.failed.contains(&candidate.digest) {
            return over(
                Outcome::RolledBack,
                "NotReadyInTime",
                "the candidate did not come up in time; the model that served before serves",
            );
        }
        let serves = target
            .champion
            .as_ref()
            .is_some_and(|champion| champion.digest == candidate.digest);
        if serves && target.settled {
            cycle.stage = Stage::Publishing;
            return Turn::On;
        }
        if !target.learned.contains(&candidate.digest) {
            self.actions
                .push(Action::Learn(Box::new(Lineage::of(cycle, candidate, self.policy))));
        }
        Turn::Stay(running("the better model is being rolled out".to_owned()))
    }
}

fn doing(cycle: &Cycle) -> String {
    match cycle.stage {
        Stage::Preparing => "what may be trained on is being frozen".to_owned(),
        Stage::Retraining => format!("a model is being trained on {} records", cycle.records),
        Stage::Evaluating => "the candidate is being judged beside the model that serves".to_owned(),
        Stage::Proposed => "a better model waits for you".to_owned(),
        Stage::RollingOut | Stage::Publishing => "the better model is being rolled out".to_owned(),
    }
}
