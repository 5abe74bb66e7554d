//! The state machine of a cycle: what was seen and what is remembered give what to remember and what to do. Pure.
//!
//! What is to be remembered is stored before anything is done, and what is to be done follows from what is remembered and seen,
//! so an operator that was killed at any moment goes on to the same end: it creates a Job under the name that it would have
//! had, and counts nothing twice.

use std::collections::{BTreeMap, BTreeSet};

use perennial_crds::DriftPolicySpec;
use perennial_crds::conditions::Reason;
use perennial_crds::retraining::{LimitsSpec, PromotionMode, Response, RetrainingSpec};
use perennial_drift::cause::Cause;
use sha2::{Digest, Sha256};

use super::answers::{self, Answer};
use super::ledger::{Cycle, Finished, JobRecord, Kind, Ledger, Model, Outcome, Stage, Wait};
use super::lineage::Lineage;
use super::report::Report;

/// Seconds beyond its deadline after which a Job that does not end is given up.
const DEADLINE_GRACE: i64 = 300;
/// Seconds after which it is looked again whether there is enough data, at least and at most.
const WAIT: (i64, i64) = (60, 3600);

/// A confirmed drift.
#[derive(Clone, Debug, PartialEq)]
pub struct Drift {
    /// Where it comes from.
    pub cause: Cause,
    /// Its likely beginning, seconds since 1970.
    pub since: i64,
    /// What has moved, in words and figures.
    pub report: String,
}

/// The target as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    /// The model that the spec asks for; unknown while it is being resolved.
    pub base: Option<Model>,
    /// The model that serves.
    pub champion: Option<Model>,
    /// Nothing is being rolled out.
    pub settled: bool,
    /// Digests of models whose revisions did not come up.
    pub failed: BTreeSet<String>,
    /// It keeps records.
    pub captures: bool,
    /// It lets learned models serve.
    pub follows: bool,
    /// Digests of learned models that this policy stored with it.
    pub learned: BTreeSet<String>,
}

/// How a Job ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct End {
    /// Kubernetes says it succeeded.
    pub succeeded: bool,
    /// Last words of its container.
    pub message: Option<String>,
    /// Last words of the container that checks the candidate.
    pub verification: Option<String>,
    /// Why it failed, in Kubernetes' words.
    pub why: String,
    /// Seconds that it held GPUs, times their number.
    pub gpu_seconds: i64,
}

/// A Job as it is.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// It waits for room; why.
    Waiting(String),
    /// Its pod runs, since then, seconds since 1970.
    Running(i64),
    /// It ended.
    Ended(End),
}

/// A Job of the cycle that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Its UID.
    pub uid: String,
    /// How it is.
    pub state: State,
}

/// Everything that is seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The time, seconds since 1970.
    pub now: i64,
    /// Generation of the policy's spec.
    pub generation: i64,
    /// The drift, while it is confirmed.
    pub drift: Option<Drift>,
    /// The traffic is the baseline's, and everybody was heard: silence does not end a drift.
    pub calm: bool,
    /// The target.
    pub target: Target,
    /// Jobs of the cycle that is under way. Read from the API server, not from a cache: what is missing is not there.
    pub jobs: BTreeMap<Kind, Seen>,
    /// Unfinished Jobs of this policy that belong to no cycle that is under way.
    pub strays: Vec<String>,
    /// Cycles whose reports were written just now.
    pub reported: BTreeSet<String>,
    /// GPUs that a training Job asks for; an error if its template cannot be used.
    pub gpus: Result<i64, String>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make this Job of the cycle.
    Create(Kind),
    /// Remove the Job of this name.
    Delete(String),
    /// Store the candidate with the target, which rolls it out.
    Learn(Box<Lineage>),
    /// Take the learned model of this digest back.
    Withdraw(String),
    /// Write the report of a finished cycle.
    Report(Box<Report>),
}

/// Where that leaves us, for the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No cycle runs.
    Idle {
        /// Why not.
        reason: Reason,
        /// In words.
        message: String,
        /// A drift goes unanswered.
        blocked: bool,
    },
    /// A cycle runs.
    Running {
        /// What it does.
        message: String,
        /// What it waits for, if it waits for others.
        waits: Option<(Reason, String)>,
    },
}

/// What to remember and what to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// To be stored before anything is done.
    pub ledger: Ledger,
    /// To be done, in order.
    pub actions: Vec<Action>,
    /// For the status.
    pub standing: Standing,
}

/// Decides.
#[must_use]
pub fn step(ledger: &Ledger, observed: &Observed, spec: &DriftPolicySpec, policy: &Policy<'_>) -> Step {
    let mut ledger = ledger.clone();
    if ledger.stalled_at.is_some_and(|stalled| stalled != observed.generation) {
        ledger.stalled_at = None;
        ledger.unpromoted = 0;
    }
    // What the caches do not show yet is asked for once more: taking back what is gone costs nothing.
    ledger
        .withdrawn
        .retain(|digest, _| observed.target.learned.contains(digest));
    ledger.reports.retain(|report| !observed.reported.contains(&report.id));
    // By the limits as they are now: whoever shortens the rest need not wait for the longer one.
    ledger.cooldown_until = rest_until(&ledger, &limits(spec));
    let mut machine = Machine {
        ledger,
        observed,
        spec,
        policy,
        actions: Vec::new(),
    };
    let standing = machine.turn();
    let Machine {
        ledger, mut actions, ..
    } = machine;
    actions.extend(ledger.withdrawn.keys().cloned().map(Action::Withdraw));
    actions.extend(observed.strays.iter().cloned().map(Action::Delete));
    actions.extend(
        ledger
            .reports
            .iter()
            .cloned()
            .map(|report| Action::Report(Box::new(report))),
    );
    Step {
        ledger,
        actions,
        standing,
    }
}

/// Whose cycles they are.
#[derive(Clone, Copy, Debug)]
pub struct Policy<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its UID.
    pub uid: &'a str,
}

impl Policy<'_> {
    /// The id of its cycle of this number.
    #[must_use]
    pub fn cycle_id(&self, number: u64) -> String {
        let digest = Sha256::digest(format!("{}/{number}", self.uid));
        digest.iter().take(4).fold(String::new(), |mut hex, byte| {
            use std::fmt::Write as _;
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

/// Name of a Job of a cycle.
#[must_use]
pub fn job_name(policy: &str, kind: Kind, cycle: &str) -> String {
    // 63 characters are a label's and a pod's limit; the hash at the end tells them apart.
    let policy = &policy[..policy.floor_char_boundary(40)];
    format!("{policy}-{}-{cycle}", kind.word())
}

struct Machine<'a> {
    ledger: Ledger,
    observed: &'a Observed,
    spec: &'a DriftPolicySpec,
    policy: &'a Policy<'a>,
    actions: Vec<Action>,
}

/// How a cycle ends, and why.
struct Ending(Outcome, &'static str, String);

/// What came of looking at a stage.
enum Turn {
    /// It stays.
    Stay(Standing),
    /// It went on.
    On,
    /// It is over.
    Over(Ending),
    /// It never really began, for want of data.
    NoData(String),
}

impl Machine<'_> {
    fn turn(&mut self) -> Standing {
        // A cycle may go through several stages at once, as after a time away; each is looked at once.
        for _ in 0..8 {
            let Some(mut cycle) = self.ledger.cycle.take() else {
                return self.idle();
            };
            let turn = self.advance(&mut cycle);
            match turn {
                Turn::Stay(standing) => {
                    self.ledger.cycle = Some(cycle);
                    return standing;
                }
                Turn::On => self.ledger.cycle = Some(cycle),
                Turn::Over(ending) => self.end(cycle, ending),
                Turn::NoData(message) => {
                    let pause = i64::from(self.spec.confirm_seconds).clamp(WAIT.0, WAIT.1);
                    self.ledger.wait = Some(Wait {
                        until: self.observed.now + pause,
                        message,
                    });
                }
            }
        }
        running("a cycle is under way".to_owned())
    }

    fn idle(&mut self) -> Standing {
        let none = |reason, message: &str, blocked| Standing::Idle {
            reason,
            message: message.to_owned(),
            blocked,
        };
        let (observed, now) = (self.observed, self.observed.now);
        let Some(retraining) = &self.spec.retraining else {
            return none(Reason::AlertOnly, "spec.retraining is not given", false);
        };
        let Some(drift) = &observed.drift else {
            if observed.calm {
                self.ledger.wait = None;
            }
            return none(Reason::NoDrift, "there is nothing to retrain for", false);
        };
        if drift.cause != Cause::InputDrift || self.spec.responses.input_drift != Response::Retrain {
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
        self.ledger.begun += 1;
        self.ledger.wait = None;
        self.ledger.cycle = Some(Cycle {
            id: self.policy.cycle_id(self.ledger.begun),
            cause: drift.cause,
            started: now,
            drifted_since: drift.since,
            from: now - retraining.data.window_seconds,
            report: drift.report.clone(),
            base: base.clone(),
            champion: champion.clone(),
            stage: Stage::Preparing,
            jobs: BTreeMap::new(),
            manifest: None,
            records: 0,
            suites: None,
            training: None,
            candidate: None,
            verdicts: Vec::new(),
            gpu_seconds: 0,
            reserved_gpu_seconds: reserve(observed, retraining),
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
                "the target keeps nothing to train on: give its spec.capture the level Payload and a volume".to_owned(),
            ));
        }
        if !observed.target.follows && self.spec.promotion.mode != PromotionMode::Propose {
            return Some((
                Reason::LearnedIgnored,
                "the target has spec.model.learned: Ignore".to_owned(),
            ));
        }
        let gpus = match &observed.gpus {
            Ok(_) => reserve(observed, retraining),
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
            if used + gpus > limit.count {
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

    fn advance(&mut self, cycle: &mut Cycle) -> Turn {
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
            Stage::Preparing => self.job(cycle, Kind::Prepare, retraining),
            Stage::Retraining => self.job(cycle, Kind::Retrain, retraining),
            Stage::Evaluating => self.job(cycle, Kind::Gate, retraining),
        }
    }

    /// The world has gone on without the cycle.
    fn overtaken(&self, cycle: &Cycle) -> Option<Ending> {
        let target = &self.observed.target;
        let candidate = cycle.candidate.as_ref().map(|candidate| candidate.digest.as_str());
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
            Kind::Gate => answers::judged(end, cycle, &self.spec.gate),
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
                cycle.candidate = Some(Model {
                    uri,
                    digest,
                    claim: self
                        .spec
                        .retraining
                        .as_ref()
                        .map(|retraining| retraining.workspace.persistent_volume_claim.claim_name.clone()),
                    claim_path: Some(output_path(self.policy.name, &cycle.id)),
                });
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

    fn proposed(&self, cycle: &mut Cycle) -> Turn {
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
            _ => "put it into spec.model of the LLMDeployment: status.cycle.candidate names it".to_owned(),
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
            return over(Outcome::Promoted, "GatePassed", "the better model serves");
        }
        if !target.learned.contains(&candidate.digest) {
            self.actions
                .push(Action::Learn(Box::new(Lineage::of(cycle, candidate, self.policy))));
        }
        Turn::Stay(running("the better model is being rolled out".to_owned()))
    }

    fn end(&mut self, mut cycle: Cycle, Ending(outcome, reason, message): Ending) {
        // A training Job whose end nobody saw may have used all that it was given.
        let seen = cycle.jobs.get(&Kind::Retrain).is_some_and(|job| job.ended.is_some());
        if cycle.stage == Stage::Retraining && !seen {
            cycle.gpu_seconds = cycle.reserved_gpu_seconds;
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
            verdicts: cycle.verdicts.clone(),
            gpu_seconds: cycle.gpu_seconds,
        };
        if self.spec.history.cycles > 0 {
            self.ledger.reports.push(Report::of(cycle, &finished));
        }
        self.ledger.finish(finished, limits.max_cycles.per_days.max(gpu_days));
        self.ledger.cooldown_until = rest_until(&self.ledger, &limits);
    }
}

fn limits(spec: &DriftPolicySpec) -> LimitsSpec {
    spec.retraining
        .as_ref()
        .map_or_else(LimitsSpec::default, |retraining| retraining.limits.clone())
}

/// End of the rest after the last cycle, seconds since 1970; 0 before the first. It doubles with each in a row that brought nothing.
fn rest_until(ledger: &Ledger, limits: &LimitsSpec) -> i64 {
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

/// Folder of a cycle on the workspace volume.
#[must_use]
pub fn cycle_path(policy: &str, cycle: &str) -> String {
    format!("perennial-cycles/{policy}/{cycle}")
}

/// Folder of what a cycle trained.
#[must_use]
pub fn output_path(policy: &str, cycle: &str) -> String {
    format!("{}/output", cycle_path(policy, cycle))
}

fn reserve(observed: &Observed, retraining: &RetrainingSpec) -> i64 {
    observed
        .gpus
        .clone()
        .unwrap_or(0)
        .saturating_mul(retraining.active_deadline_seconds)
}

fn running(message: String) -> Standing {
    Standing::Running { message, waits: None }
}

fn over(outcome: Outcome, reason: &'static str, message: impl Into<String>) -> Turn {
    Turn::Over(Ending(outcome, reason, message.into()))
}

fn doing(cycle: &Cycle) -> String {
    match cycle.stage {
        Stage::Preparing => "what may be trained on is being frozen".to_owned(),
        Stage::Retraining => format!("a model is being trained on {} records", cycle.records),
        Stage::Evaluating => "the candidate is being judged beside the model that serves".to_owned(),
        Stage::Proposed => "a better model waits for you".to_owned(),
        Stage::RollingOut => "the better model is being rolled out".to_owned(),
    }
}
