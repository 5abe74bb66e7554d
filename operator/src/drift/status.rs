//! The status of a DriftPolicy, from what is remembered and what was heard. Pure: same inputs, same bytes.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use perennial_crds::conditions::{ConditionType, Reason};
use perennial_crds::drift_policy::{
    BaselineStatus, DriftPolicyStatus, EvidenceStatus, ObservationStatus, Phase, SignalStatus, UnarmedSignal,
};
use perennial_crds::{DriftPolicy, LEARN_AGAIN_ANNOTATION};
use perennial_drift::cause::Cause;
use perennial_drift::decision;
use perennial_drift::explain::{Report, SignalReport};
use perennial_drift::policy::Policy;

use super::memory::{Memory, Stage, learned_percent};
use super::record::baseline_name;
use crate::conditions::{Conditions, Statement, statement};
use crate::cycle::words::{self, Cycles};
use crate::probes;
use crate::probes::memory::Said;

/// Sentences of signals in a message.
const TOLD: usize = 3;

/// Whether the target's traffic is heard of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Hearing {
    /// Nobody was asked yet.
    #[default]
    Unknown,
    /// There is nobody to ask.
    NoReplica,
    /// They are to count nothing.
    CaptureOff,
    /// All that answer clients tell their panes; how many they are.
    All(usize),
    /// Some do not; how many of how many, and why the first of them does not.
    Partly(usize, usize, String),
    /// They tell panes that do not add.
    Incompatible,
    /// Their clocks are off by so many seconds.
    Skewed(i64),
}

/// Why a policy can do nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Its target is not there.
    TargetNotFound,
    /// That policy watches the target already.
    TargetTaken(String),
    /// Its memory cannot be read or written.
    Store(String),
}

/// Everything that a status is made from.
pub struct View<'a> {
    /// The policy.
    pub policy: &'a DriftPolicy,
    /// Its terms.
    pub terms: &'a Policy,
    /// What is remembered.
    pub memory: Option<&'a Memory>,
    /// Whether its target is heard of.
    pub hearing: &'a Hearing,
    /// Why it can do nothing.
    pub trouble: Option<&'a Trouble>,
    /// What its probes say.
    pub probes: Option<probes::words::View<'a>>,
    /// Where its cycles stand.
    pub cycles: Option<Cycles<'a>>,
}

/// The status after a look.
#[must_use]
pub fn status(old: &DriftPolicyStatus, view: &View<'_>, now: Timestamp) -> DriftPolicyStatus {
    let report = view.memory.and_then(Memory::report);
    let said = view.probes.map_or(Said::Nothing, |probes| probes.said);
    let cause = view
        .memory
        .filter(|_| said != Said::Awaited)
        .and_then(|memory| memory.cause(said.probes()));
    let stalled = stalled(view, report.as_ref());
    let phase = if stalled.is_some() {
        Phase::Stalled
    } else {
        view.cycles
            .and_then(words::phase)
            .unwrap_or_else(|| phase(report.as_ref()))
    };
    let changed = !matches!(phase, Phase::Learning | Phase::Watching | Phase::Stalled);
    let since = match &report {
        Some(report) if phase == self::phase(Some(report)) => Some(time(report.phase_since)),
        _ if old.phase == Some(phase) => old.phase_since.clone(),
        _ => Some(time(now.as_second())),
    };
    let mut conditions = Conditions {
        old: &old.conditions,
        new: Vec::new(),
        generation: view.policy.metadata.generation.unwrap_or(0),
        now,
    };
    conditions.set(ConditionType::BaselineReady, &baseline_ready(view, report.as_ref()));
    conditions.set(ConditionType::Drifted, &drifted(report.as_ref(), cause));
    if let Some(probes) = view.probes {
        conditions.set(ConditionType::ServingChanged, &probes::words::condition(probes));
    }
    let observing = observing(view);
    conditions.set(ConditionType::Observing, &observing);
    conditions.set(ConditionType::Ready, &ready(view, stalled.as_ref(), &observing));
    if let Some(cycles) = view.cycles {
        conditions.set(ConditionType::RetrainingBlocked, &words::blocked(cycles.standing));
        conditions.set(ConditionType::CandidateAvailable, &words::candidate(cycles));
    }
    conditions.set_if(ConditionType::Stalled, stalled.as_ref());
    let mut status = DriftPolicyStatus {
        observed_generation: conditions.generation,
        phase: Some(phase),
        phase_since: since,
        top_signal: report
            .as_ref()
            .filter(|_| changed)
            .and_then(|report| report.signals.first())
            .map(|signal| signal.name.clone()),
        cause: cause.map(|cause| format!("{cause:?}")),
        baseline: view.memory.map(|memory| baseline(view, memory, report.as_ref())),
        observation: view.memory.map(|memory| observation(memory, report.as_ref())),
        evidence: report.as_ref().and_then(|report| evidence(view, report)),
        signals: report
            .iter()
            .flat_map(|report| &report.signals)
            .map(signal)
            .take(16)
            .collect(),
        probe: view
            .probes
            .map(|probes| probes::words::status(probes, &view.policy.name_any())),
        conditions: conditions.new,
        ..DriftPolicyStatus::default()
    };
    if let Some(cycles) = view.cycles {
        words::tell(
            &mut status,
            cycles,
            &view.policy.name_any(),
            view.policy.spec.history.cycles,
        );
    }
    status
}

fn time(seconds: i64) -> Time {
    Time(Timestamp::from_second(seconds).unwrap_or_default())
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Thousandths.
fn milli(value: f64) -> i64 {
    (value * 1_000.0).round() as i64
}

fn phase(report: Option<&Report>) -> Phase {
    match report.map(|report| report.phase) {
        None | Some(decision::Phase::Learning) => Phase::Learning,
        Some(decision::Phase::Watching) => Phase::Watching,
        Some(decision::Phase::Suspected) => Phase::Suspected,
        Some(decision::Phase::Drifted) => Phase::Drifted,
    }
}

fn stalled(view: &View<'_>, report: Option<&Report>) -> Option<Statement> {
    if let Some(Trouble::TargetTaken(other)) = view.trouble {
        let target = &view.policy.spec.target_ref.name;
        return Some(statement(
            true,
            Reason::TargetTaken,
            format!("the older DriftPolicy {other} watches the LLMDeployment {target} already: remove one of the two"),
        ));
    }
    if let Some(cycles) = view.cycles.filter(|cycles| cycles.ledger.stalled_at.is_some()) {
        return Some(statement(
            true,
            Reason::NoProgress,
            format!(
                "{} cycles in a row brought nothing better, and no more are tried: look at status.cycles, and change the policy to go on",
                cycles.ledger.unpromoted
            ),
        ));
    }
    let report = report?;
    report.signals.is_empty().then(|| {
        statement(
            true,
            Reason::BaselineUnstable,
            format!(
                "no signal can be watched: the halves of the baseline contradict each other, or hold too few requests. Give \
                 spec.baseline.learned more seconds, minSamples or another season, or set the annotation {LEARN_AGAIN_ANNOTATION} \
                 to a new value"
            ),
        )
    })
}

fn ready(view: &View<'_>, stalled: Option<&Statement>, observing: &Statement) -> Statement {
    match view.trouble {
        Some(Trouble::TargetNotFound) => {
            return statement(
                false,
                Reason::TargetNotFound,
                format!(
                    "there is no LLMDeployment {} in this namespace: create it, or correct spec.targetRef.name",
                    view.policy.spec.target_ref.name
                ),
            );
        }
        Some(Trouble::Store(why)) => return statement(false, Reason::StoreFailed, why),
        Some(Trouble::TargetTaken(_)) | None => {}
    }
    if let Some(stalled) = stalled {
        return statement(false, stalled.reason, &stalled.message);
    }
    // A model that is switched off has no traffic to watch; nothing is wrong with the policy.
    if observing.holds || observing.reason == Reason::NoReplicaReady {
        statement(
            true,
            Reason::PolicyActive,
            "the traffic of the target is watched as the spec asks",
        )
    } else {
        statement(false, observing.reason, &observing.message)
    }
}

fn observing(view: &View<'_>) -> Statement {
    match view.hearing {
        _ if view.trouble.is_some() => {
            let reason = match view.trouble {
                Some(Trouble::TargetTaken(_)) => Reason::TargetTaken,
                Some(Trouble::Store(_)) => Reason::StoreFailed,
                Some(Trouble::TargetNotFound) | None => Reason::TargetNotFound,
            };
            statement(false, reason, "nothing is being watched; see Ready")
        }
        Hearing::Unknown => statement(false, Reason::Learning, "the replicas have not been asked yet"),
        Hearing::NoReplica => statement(
            false,
            Reason::NoReplicaReady,
            "no replica of the target answers requests, so there is no traffic to watch; what is known stays",
        ),
        Hearing::CaptureOff => statement(
            false,
            Reason::CaptureOff,
            "the target has spec.capture.level: None, so its replicas count nothing and there is nothing to watch; what is known stays",
        ),
        Hearing::All(replicas) => statement(
            true,
            Reason::PanesRead,
            format!("all {replicas} replicas that answer requests tell what they count"),
        ),
        Hearing::Partly(heard, of, why) => statement(
            *heard > 0,
            Reason::PanesUnavailable,
            format!(
                "{heard} of {of} replicas tell what they count; one of the others {why}. Does a NetworkPolicy keep the operator \
                 from port 9090, or is their server older than this operator? Then a change of spec.runtime.image helps"
            ),
        ),
        Hearing::Incompatible => statement(
            false,
            Reason::PanesIncompatible,
            "the replicas run different versions of the server, whose counts do not add, as when the tag of an image was moved: \
             name spec.runtime.image by its digest",
        ),
        Hearing::Skewed(seconds) => statement(
            false,
            Reason::ClockSkew,
            format!(
                "the clock of a replica's node is {seconds} s off from the operator's, more than half of paneSeconds: let the \
                 nodes keep time by NTP"
            ),
        ),
    }
}

fn baseline_ready(view: &View<'_>, report: Option<&Report>) -> Statement {
    let Some(report) = report else {
        let learned = &view.policy.spec.baseline.learned;
        let (percent, requests) = match view.memory.map(|memory| &memory.stage) {
            Some(Stage::Learning(panes)) => (
                learned_percent(panes, view.terms),
                panes.iter().map(|pane| pane.requests).sum::<u64>(),
            ),
            _ => (0, 0),
        };
        return statement(
            false,
            Reason::Learning,
            format!(
                "{percent} % learned: {requests} of {} requests, within {} s of traffic",
                learned.min_samples, learned.seconds
            ),
        );
    };
    if report.signals.is_empty() {
        return statement(false, Reason::BaselineUnstable, "no signal can be watched; see Stalled");
    }
    let watched = report.signals.len();
    let message = match report.unarmed.len() {
        0 => format!("all {watched} signals are watched"),
        left => format!("{watched} signals are watched, {left} cannot be: status.baseline.unarmed says which and why"),
    };
    statement(true, Reason::Learned, message)
}

fn drifted(report: Option<&Report>, cause: Option<Cause>) -> Statement {
    let Some(report) = report else {
        return statement(false, Reason::Learning, "there is no baseline yet to compare with");
    };
    let evidence = format!("evidence e^{:.1} of e^{:.1}", report.log_evidence, report.log_threshold);
    match report.phase {
        decision::Phase::Learning | decision::Phase::Watching => statement(false, Reason::WithinBudget, evidence),
        decision::Phase::Suspected => statement(
            false,
            Reason::Suspected,
            format!(
                "{evidence}; whether it matters is being measured. {}",
                sentences(report)
            ),
        ),
        decision::Phase::Drifted => {
            let (reason, sentence) = match cause {
                None => (
                    Reason::ProbesAwaited,
                    "Fixed prompts are being asked, to tell whether the service or the traffic has changed.",
                ),
                Some(cause) => (reason(cause), cause.sentence()),
            };
            let words = format!("{sentence} {} ({evidence})", sentences(report));
            statement(true, reason, words)
        }
    }
}

fn reason(cause: Cause) -> Reason {
    match cause {
        Cause::InputDrift => Reason::InputDrift,
        Cause::SingleSource => Reason::SingleSource,
        Cause::ServingRegression => Reason::ServingRegression,
        Cause::OutputShift => Reason::OutputShift,
        Cause::QualityDrop => Reason::QualityDrop,
        _ => Reason::Undetermined,
    }
}

/// What the signals with the most evidence say.
#[must_use]
pub fn sentences(report: &Report) -> String {
    let moved = report.signals.iter().filter(|signal| signal.moved).take(TOLD);
    moved
        .map(|signal| signal.sentence.as_str())
        .collect::<Vec<_>>()
        .join(" ")
}

fn baseline(view: &View<'_>, memory: &Memory, report: Option<&Report>) -> BaselineStatus {
    match &memory.stage {
        Stage::Learning(panes) => BaselineStatus {
            learned_percent: learned_percent(panes, view.terms),
            samples: signed(panes.iter().map(|pane| pane.requests).sum()),
            from: panes.front().map(|pane| time(pane.start)),
            ..BaselineStatus::default()
        },
        Stage::Watching(watching) => {
            let unarmed = report.iter().flat_map(|report| &report.unarmed);
            BaselineStatus {
                learned_percent: 100,
                samples: signed(watching.baseline.requests),
                from: Some(time(watching.baseline.from)),
                to: Some(time(watching.baseline.to)),
                digest: Some(watching.digest.clone()),
                config_map_name: Some(baseline_name(&view.policy.name_any(), &watching.digest)),
                unarmed: unarmed
                    .map(|(signal, why)| UnarmedSignal {
                        name: watching.terms.name(*signal),
                        reason: format!("{why:?}"),
                    })
                    .collect(),
            }
        }
    }
}

fn observation(memory: &Memory, report: Option<&Report>) -> ObservationStatus {
    ObservationStatus {
        last_pane: Some(time(memory.until)),
        requests: signed(memory.seen.requests),
        panes_lost: signed(memory.seen.lost),
        gaps: signed(memory.seen.gaps),
        masked: signed(memory.seen.masked),
        insufficient: report.map_or(0, |report| signed(report.left.insufficient)),
    }
}

fn evidence(view: &View<'_>, report: &Report) -> Option<EvidenceStatus> {
    let Stage::Watching(watching) = &view.memory?.stage else {
        return None;
    };
    Some(EvidenceStatus {
        since: Some(time(watching.since)),
        log_evidence_milli: milli(report.log_evidence),
        log_threshold_milli: milli(report.log_threshold),
    })
}

fn signal(report: &SignalReport) -> SignalStatus {
    SignalStatus {
        name: report.name.clone(),
        class: format!("{:?}", report.class),
        share_of_evidence_percent: report.share_of_evidence_percent.round() as i32,
        moved: report.moved,
        matters: report.matters,
        since: report.moved.then(|| time(report.since)),
        message: report.sentence.clone(),
    }
}
