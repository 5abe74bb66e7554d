//! The state machine of a cycle: what was seen and what is remembered give what to remember and what to do. Pure.
//!
//! What is to be remembered is stored before anything is done, and what is to be done follows from what is remembered and seen,
//! so an operator that was killed at any moment goes on to the same end: it creates a Job under the name that it would have
//! had, and counts nothing twice.
//!
//! `idle` is whether a cycle begins, `stages` how it goes on, `publish` the tag of what it found, `restore` what was found before
//! this cluster was built, `end` what is counted.

mod end;
mod idle;
mod publish;
mod restore;
mod stages;

use std::collections::{BTreeMap, BTreeSet};

use perennial_crds::DriftPolicySpec;
use perennial_crds::conditions::Reason;
use perennial_drift::cause::Cause;
use sha2::{Digest, Sha256};

use self::end::{limits, rest_until};
use super::ledger::{Cycle, Kind, Ledger, Model, Outcome, Stage, Wait};
use super::lineage::Lineage;
use super::report::Report;

/// Seconds after which it is looked again whether there is enough data, at least and at most.
const WAIT: (i64, i64) = (60, 21_600);
/// Times in a row that it is looked again as soon as that.
const SOON: u32 = 3;

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
    /// UID of the LLMDeployment.
    pub uid: String,
    /// It is to have replicas.
    pub runs: bool,
    /// The model that the spec asks for; unknown while it is being resolved.
    pub base: Option<Model>,
    /// The model that serves.
    pub champion: Option<Model>,
    /// Nothing is being rolled out.
    pub settled: bool,
    /// Digests of models whose revisions did not come up.
    pub failed: BTreeSet<String>,
    /// Digests of models that have answered requests.
    pub served: BTreeSet<String>,
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
    /// When it was made, seconds since 1970.
    pub made: i64,
    /// Seconds that one of its pods may run.
    pub deadline: i64,
    /// Seconds that its pods have held GPUs so far, times their number.
    pub gpu_seconds: i64,
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
    /// Fixed prompts are being asked: until they are answered nobody knows the cause.
    pub awaits_probes: bool,
    /// The service answers fixed prompts otherwise than it did.
    pub regressed: bool,
    /// The traffic is the baseline's, and everybody was heard: silence does not end a drift.
    pub calm: bool,
    /// The target.
    pub target: Target,
    /// Paths on the workspace volume from which LLMDeployments of the namespace take models.
    pub places: BTreeSet<String>,
    /// Jobs of the cycle that is under way. Read from the API server, not from a cache: what is missing is not there.
    pub jobs: BTreeMap<Kind, Seen>,
    /// The Job that asks the registry what was learned before.
    pub restore: Option<State>,
    /// Unfinished Jobs of this policy that belong to no cycle that is under way.
    pub strays: Vec<String>,
    /// Cycles whose reports were written just now.
    pub reported: BTreeSet<String>,
    /// GPU seconds that the Jobs of a cycle may take, at one try each; an error if a template cannot be used.
    pub gpu_seconds: Result<i64, String>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make this Job of the cycle.
    Create(Kind),
    /// Make the Job that asks the registry what was learned before: the attempt of this number.
    Restore(u32),
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
    machine.let_go_of_restored();
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

/// Ends the cycle that is under way, if there is one, because it has no target any more.
#[must_use]
pub fn call_off(
    ledger: &Ledger,
    observed: &Observed,
    spec: &DriftPolicySpec,
    policy: &Policy<'_>,
    (reason, message): (&'static str, &str),
) -> Ledger {
    let mut machine = Machine {
        ledger: ledger.clone(),
        observed,
        spec,
        policy,
        actions: Vec::new(),
    };
    if let Some(cycle) = machine.ledger.cycle.take() {
        let ending = match cycle.stage {
            // All that was left to do was to write its tag.
            Stage::Publishing => Ending(
                Outcome::Promoted,
                "GatePassed",
                format!("the better model served, and then {message}"),
            ),
            _ => Ending(Outcome::Withdrawn, reason, message.to_owned()),
        };
        machine.end(cycle, ending);
    }
    machine.ledger
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
    /// The id of its cycle of this number, if its first began then, seconds since 1970.
    #[must_use]
    pub fn cycle_id(&self, number: u64, first: i64) -> String {
        self.id(&format!("{number}/{first}"))
    }

    /// The id of its question to the registry of this number.
    #[must_use]
    pub fn restore_id(&self, attempt: u32) -> String {
        self.id(&format!("restore/{attempt}"))
    }

    fn id(&self, what: &str) -> String {
        let digest = Sha256::digest(format!("{}/{what}", self.uid));
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
    format!("{}-{}-{cycle}", shortened(policy), kind.word())
}

/// Name of the Job that asks the registry what its tag names.
#[must_use]
pub fn restore_name(policy: &Policy<'_>, attempt: u32) -> String {
    format!("{}-restore-{}", shortened(policy.name), policy.restore_id(attempt))
}

/// The beginning of a policy's name, for names of Jobs, in which a dot and a hyphen may not stand side by side.
#[must_use]
pub fn shortened(policy: &str) -> &str {
    policy[..policy.floor_char_boundary(40)].trim_end_matches(['.', '-'])
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
                Turn::NoData(message) => self.wait(&cycle, message),
            }
        }
        running("a cycle is under way".to_owned())
    }

    /// There is too little data: it is looked again, a few times soon, and then after twice as long each time.
    fn wait(&mut self, cycle: &Cycle, message: String) {
        let in_a_row = self.ledger.wait.as_ref().map_or(0, |wait| wait.in_a_row);
        let pause = i64::from(self.spec.confirm_seconds).max(WAIT.0);
        self.ledger.wait = Some(Wait {
            until: self.observed.now
                + pause
                    .saturating_mul(1_i64 << in_a_row.saturating_sub(SOON).min(20))
                    .min(WAIT.1),
            in_a_row: in_a_row + 1,
            message,
        });
        self.ledger.went_without_data(&cycle.id);
        // Its message says all that there is to say, and there may be many of them.
        let name = job_name(self.policy.name, Kind::Prepare, &cycle.id);
        self.actions.push(Action::Delete(name));
    }
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

fn running(message: String) -> Standing {
    Standing::Running { message, waits: None }
}

fn over(outcome: Outcome, reason: &'static str, message: impl Into<String>) -> Turn {
    Turn::Over(Ending(outcome, reason, message.into()))
}
