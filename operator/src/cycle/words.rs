//! What the status of a policy says of its cycles. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use perennial_crds::conditions::Reason;
use perennial_crds::drift_policy::{DriftPolicyStatus, Phase};
use perennial_crds::retraining::{CandidateStatus, CycleStatus, FinishedCycle, SuiteStatus};

use super::answers::volume_uri;
use super::gate::Verdict;
use super::ledger::{Cycle, Finished, Ledger, Model, Stage};
use super::step::{Standing, job_name};
use crate::conditions::{Statement, statement};

/// Where cycles stand.
#[derive(Clone, Copy)]
pub struct Cycles<'a> {
    /// What is remembered.
    pub ledger: &'a Ledger,
    /// What the last look said.
    pub standing: &'a Standing,
}

/// The phase while a cycle is under way.
#[must_use]
pub fn phase(cycles: Cycles<'_>) -> Option<Phase> {
    Some(match cycles.ledger.cycle.as_ref()?.stage {
        Stage::Preparing => Phase::Preparing,
        Stage::Retraining => Phase::Retraining,
        Stage::Evaluating => Phase::Evaluating,
        Stage::Proposed => Phase::Proposed,
        Stage::RollingOut | Stage::Publishing => Phase::RollingOut,
    })
}

/// Fills in what the status says of cycles.
pub fn tell(status: &mut DriftPolicyStatus, cycles: Cycles<'_>, policy: &str, told: u32) {
    let Cycles { ledger, standing } = cycles;
    status.cycle = ledger.cycle.as_ref().map(|cycle| running(cycle, standing, policy));
    let newest = ledger.finished.iter().rev().take(told as usize);
    status.cycles = newest.map(finished).collect();
    status.cooldown_until = (ledger.cooldown_until > 0).then(|| time(ledger.cooldown_until));
    status.unpromoted_in_a_row = i32::try_from(ledger.unpromoted).unwrap_or(i32::MAX);
}

/// `RetrainingBlocked`.
#[must_use]
pub(crate) fn blocked(standing: &Standing) -> Statement {
    match standing {
        Standing::Idle {
            reason,
            message,
            blocked,
        } => statement(*blocked, *reason, message),
        Standing::Running {
            waits: Some((reason, message)),
            ..
        } if *reason != Reason::Proposed => statement(true, *reason, message),
        Standing::Running { message, .. } => statement(false, Reason::CycleRunning, message),
    }
}

/// `CandidateAvailable`.
#[must_use]
pub(crate) fn candidate(cycles: Cycles<'_>) -> Statement {
    let stage = cycles.ledger.cycle.as_ref().map(|cycle| cycle.stage);
    match (stage, cycles.standing) {
        (
            Some(Stage::Proposed),
            Standing::Running {
                waits: Some((_, message)),
                ..
            },
        ) => statement(true, Reason::Proposed, message),
        (Some(Stage::Proposed), _) => statement(true, Reason::Proposed, "a better model passed the gate"),
        (Some(Stage::RollingOut | Stage::Publishing), _) => {
            statement(true, Reason::RollingOut, "a better model is being rolled out")
        }
        _ => statement(false, Reason::NoCandidate, "there is no candidate"),
    }
}

fn running(cycle: &Cycle, standing: &Standing, policy: &str) -> CycleStatus {
    CycleStatus {
        id: cycle.id.clone(),
        cause: format!("{:?}", cycle.cause),
        started: Some(time(cycle.started)),
        job_name: cycle.stage.job().map(|kind| job_name(policy, kind, &cycle.id)),
        message: match standing {
            Standing::Running {
                waits: Some((_, message)),
                ..
            }
            | Standing::Running { message, .. }
            | Standing::Idle { message, .. } => message.clone(),
        },
        manifest_digest: cycle.manifest.clone(),
        records: cycle
            .manifest
            .is_some()
            .then(|| i64::try_from(cycle.records).unwrap_or(i64::MAX)),
        candidate: cycle.candidate.as_ref().map(|model| told_candidate(cycle, model)),
        gate: cycle.verdicts.iter().map(suite).collect(),
    }
}

fn told_candidate(cycle: &Cycle, model: &Model) -> CandidateStatus {
    let below = model.uri.strip_prefix(&volume_uri());
    CandidateStatus {
        digest: model.digest.clone(),
        base_digest: cycle.base.digest.clone(),
        uri: below.is_none().then(|| model.uri.clone()),
        claim_name: model.claim.clone().unwrap_or_default(),
        path: below
            .map(|below| format!("{}{below}", model.claim_path.clone().unwrap_or_default()))
            .unwrap_or_default(),
    }
}

fn suite(verdict: &Verdict) -> SuiteStatus {
    let milli = |value: f64| (value * 1000.0).round() as i64;
    SuiteStatus {
        suite: verdict.suite.clone(),
        items: i64::try_from(verdict.items).unwrap_or(i64::MAX),
        champion_per_mille: milli(verdict.champion),
        candidate_per_mille: milli(verdict.candidate),
        lower_per_mille: milli(verdict.lower),
        passed: verdict.passed,
    }
}

fn finished(cycle: &Finished) -> FinishedCycle {
    FinishedCycle {
        id: cycle.id.clone(),
        cause: format!("{:?}", cycle.cause),
        outcome: format!("{:?}", cycle.outcome),
        message: format!("{}: {}", cycle.reason, cycle.message),
        started: time(cycle.started),
        ended: time(cycle.ended),
        candidate_digest: cycle.candidate.clone(),
        gpu_seconds: cycle.gpu_seconds,
    }
}

fn time(seconds: i64) -> Time {
    Time(Timestamp::from_second(seconds).unwrap_or_default())
}
