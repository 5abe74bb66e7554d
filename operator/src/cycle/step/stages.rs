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
/// Seconds in which a target takes up what is stored with it.
const PATIENCE: i64 = 600;
const FROM_SPEC: &str = "the better model was put into the spec and is being rolled out";

impl Machine<'_> {
    pub(super) fn advance(&mut self, cycle: &mut Cycle) -> Turn {
        let Some(retraining) = &self.spec.retraining else {
            return over(Outcome::Withdrawn, "RetrainingRemoved", "spec.retraining was removed");
        };
        if let Some(ending) = self.overtaken(cycle) {
            return Turn::Over(ending);
        }
        if self.spec.suspend {
            return self.stand_still(cycle, retraining);
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

    /// Nothing is begun. A Job that is under way goes on, and how it ended is read before anybody removes it.
    fn stand_still(&mut self, cycle: &mut Cycle, retraining: &RetrainingSpec) -> Turn {
        let is_there = |kind: &Kind| self.observed.jobs.contains_key(kind);
        let turn = match cycle.stage.job().filter(is_there) {
            Some(Kind::Publish) => Some(self.publishing(cycle)),
            Some(kind) => Some(self.job(cycle, kind, retraining)),
            None => None,
        };
        match turn {
            None | Some(Turn::Stay(_)) => Turn::Stay(Standing::Running {
                message: "the cycle stands still".to_owned(),
                waits: Some((Reason::Suspended, "spec.suspend is set".to_owned())),
            }),
            Some(turn) => turn,
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
        if !cycle.target.is_empty() && cycle.target != target.uid {
            return Some(Ending(
                Outcome::Superseded,
                "TargetChanged",
                "the policy has another target than the one that this cycle began for".to_owned(),
            ));
        }
        if self.is_put_into_spec(cycle) {
            return self.served_from_spec(cycle);
        }
        if let Some(base) = &target.base
            && base.digest != cycle.base.digest
        {
            return Some(Ending(
                Outcome::Superseded,
                "ModelChanged",
                "the spec asks for another model than the one that this cycle began with".to_owned(),
            ));
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
        let judged = matches!(cycle.stage, Stage::Proposed | Stage::RollingOut);
        if self.observed.regressed && !judged {
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

    /// Whether somebody took the proposal: the spec asks for the candidate itself. Only what passed the gate counts.
    fn is_put_into_spec(&self, cycle: &Cycle) -> bool {
        let passed = matches!(cycle.stage, Stage::Proposed | Stage::RollingOut);
        let wanted = self.observed.target.base.as_ref().map(|base| &base.digest);
        passed && wanted.is_some() && wanted == cycle.candidate.as_ref().map(|candidate| &candidate.digest)
    }

    /// What came of a candidate that was put into the spec, once that is known.
    fn served_from_spec(&self, cycle: &Cycle) -> Option<Ending> {
        let digest = &cycle.candidate.as_ref()?.digest;
        if self.serves(digest) {
            let message = "the candidate was put into the spec, and serves";
            return Some(Ending(Outcome::Promoted, "PutIntoSpec", message.to_owned()));
        }
        self.observed.target.failed.contains(digest).then(|| {
            let message = "the candidate was put into the spec and did not come up in time";
            Ending(Outcome::RolledBack, "NotReadyInTime", message.to_owned())
        })
    }

    /// Whether this model answers requests, and nothing is being rolled out any more.
    fn serves(&self, digest: &String) -> bool {
        let target = &self.observed.target;
        let champion = target.champion.as_ref().map(|champion| &champion.digest);
        champion == Some(digest) && target.settled && target.served.contains(digest)
    }

    /// Whether the target has left a model that is stored with it alone for too long, all settled on another one.
    pub(super) fn is_unheeded(&self, digest: &String, since: &mut Option<i64>) -> bool {
        let (target, now) = (&self.observed.target, self.observed.now);
        let champion = target.champion.as_ref().map(|champion| &champion.digest);
        let unheeded = target.settled && target.runs && target.learned.contains(digest) && champion != Some(digest);
        *since = unheeded.then(|| since.unwrap_or(now));
        since.is_some_and(|since| now > since + PATIENCE)
    }

    fn job(&mut self, cycle: &mut Cycle, kind: Kind, retraining: &RetrainingSpec) -> Turn {
        // What an older version began had less reserved.
        let counts = retraining.limits.max_gpu_seconds.is_some() && !cycle.target.is_empty();
        let Some(seen) = self.observed.jobs.get(&kind) else {
            if cycle.jobs.contains_key(&kind) {
                return over(
                    Outcome::Failed,
                    "JobGone",
                    format!("somebody removed the {} Job", kind.word()),
                );
            }
            if let (true, Ok(asked)) = (counts, &self.observed.gpu_seconds)
                && *asked > cycle.reserved_gpu_seconds
            {
                return over(
                    Outcome::Withdrawn,
                    "GPUSecondsLimit",
                    format!(
                        "the Job template asks for more than the {} GPU seconds that were reserved when the cycle began",
                        cycle.reserved_gpu_seconds
                    ),
                );
            }
            self.actions.push(Action::Create(kind));
            return Turn::Stay(running(doing(cycle)));
        };
        let used = cycle.gpu_seconds + seen.gpu_seconds;
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
        let goes_on = !matches!(seen.state, State::Ended(_));
        if goes_on && counts && used > cycle.reserved_gpu_seconds {
            return over(
                Outcome::Failed,
                "GPUSecondsLimit",
                format!(
                    "the tries of the {} Job took more than the {} GPU seconds that were reserved for the cycle",
                    kind.word(),
                    cycle.reserved_gpu_seconds
                ),
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
                if self.observed.now > since + seen.deadline + DEADLINE_GRACE {
                    return over(
                        Outcome::Failed,
                        "DeadlineExceeded",
                        format!(
                            "the {} Job did not end within its {} s (activeDeadlineSeconds)",
                            kind.word(),
                            seen.deadline
                        ),
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
                self.ledger.wait = None;
                Turn::On
            }
            // Its place among the learned models is that of its first time, behind the one that serves.
            Answer::Trained { digest, .. } if self.observed.target.learned.contains(&digest) => over(
                Outcome::Rejected,
                "KnownCandidate",
                "the training Job made a model again that was learned before",
            ),
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
        if self.is_put_into_spec(cycle) {
            return Turn::Stay(running(FROM_SPEC.to_owned()));
        }
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
        if allowed && self.observed.regressed {
            // Whatever answers otherwise than it did would do so with another model, too.
            let why = "the service answers fixed prompts otherwise than it did: mend that first";
            return Turn::Stay(Standing::Running {
                message: "a better model waits until the service is mended".to_owned(),
                waits: Some((Reason::ServingRegression, why.to_owned())),
            });
        }
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
        if self.is_put_into_spec(cycle) {
            return Turn::Stay(running(FROM_SPEC.to_owned()));
        }
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
        if self.serves(&candidate.digest) {
            cycle.stage = Stage::Publishing;
            return Turn::On;
        }
        if !target.runs {
            // Without a replica nobody can see whether it comes up, and there would be no way back.
            let message = "the better model is rolled out when the target has replicas again";
            return Turn::Stay(running(message.to_owned()));
        }
        if !target.learned.contains(&candidate.digest) {
            self.actions
                .push(Action::Learn(Box::new(Lineage::of(cycle, candidate, self.policy))));
        }
        if self.is_unheeded(&candidate.digest, &mut cycle.unheeded_since) {
            return over(
                Outcome::Withdrawn,
                "NotTakenUp",
                "the target did not take up the better model that was stored with it",
            );
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
