//! What the status of a policy says of its probes. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use perennial_crds::conditions::Reason;
use perennial_crds::probe_spec::{ProbeStatus, ProbeVerdict};
use perennial_drift::cause::Probes;
use perennial_drift::probe::{REFERENCE_RUNS, Verdict};

use super::job::name;
use super::memory::{Memory, Said};
use crate::conditions::{Statement, statement};

/// Runs in a row that could not be asked, from which on that is told as a reason of its own.
const TROUBLE: u32 = 2;

/// What probes say at this moment.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// What is remembered.
    pub memory: &'a Memory,
    /// What it says of the revision that serves.
    pub said: Said,
}

/// `status.probe`.
#[must_use]
pub fn status(view: View<'_>, policy: &str) -> ProbeStatus {
    let View { memory, .. } = view;
    let known = &memory.known;
    let verdict = memory.verdict();
    ProbeStatus {
        verdict: match (&known.watch, verdict) {
            (None, _) => ProbeVerdict::Learning,
            (Some(_), Some(verdict)) if verdict.probes == Probes::Changed => ProbeVerdict::Changed,
            _ => ProbeVerdict::Same,
        },
        prompts: i32::try_from(known.prompts).unwrap_or(i32::MAX),
        runs: i64::try_from(known.runs).unwrap_or(i64::MAX),
        last_run: (known.last > 0).then(|| Time(Timestamp::from_second(known.last).unwrap_or_default())),
        agreement_percent: verdict.map(|verdict| (verdict.agreement * 100.0).round() as i32),
        job_name: memory.asking.as_ref().map(|asking| name(policy, asking.number)),
        message: message(view),
    }
}

/// `ServingChanged`.
#[must_use]
pub(crate) fn condition(view: View<'_>) -> Statement {
    let reason = match (view.said, &view.memory.failure) {
        (Said::Changed, _) => Reason::ServingRegression,
        (_, Some(failure)) if failure.in_a_row >= TROUBLE => Reason::ProbesFailed,
        (Said::Nothing, _) => Reason::Learning,
        (Said::Awaited, _) => Reason::ProbesAwaited,
        (Said::Same, _) => Reason::ProbesSame,
    };
    statement(view.said == Said::Changed, reason, message(view))
}

fn message(View { memory, said }: View<'_>) -> String {
    let failed = memory
        .failure
        .as_ref()
        .map(|failure| format!("; the last run could not be asked: {}", failure.message))
        .unwrap_or_default();
    let known = &memory.known;
    let words = match (said, memory.verdict()) {
        (Said::Changed, Some(verdict)) => format!(
            "the same revision answers {} otherwise than it did: look at its replicas, their nodes and drivers, and what \
             was changed outside the spec",
            differing(verdict, known.prompts)
        ),
        (Said::Nothing, _) => format!(
            "how this revision answers {} is being learned: {} of {REFERENCE_RUNS} runs",
            prompts(known.prompts),
            known.first.len()
        ),
        (Said::Awaited, _) => {
            "fixed prompts are being asked, to tell whether the service or the traffic has changed".to_owned()
        }
        (_, Some(verdict)) if verdict.agreement < 1.0 => {
            format!(
                "{} are answered otherwise, as many as by chance",
                differing(verdict, known.prompts)
            )
        }
        _ => format!("{} are answered as ever", prompts(known.prompts)),
    };
    words + &failed
}

fn prompts(count: usize) -> String {
    match count {
        0 => "fixed prompts".to_owned(),
        1 => "1 fixed prompt".to_owned(),
        count => format!("{count} fixed prompts"),
    }
}

fn differing(verdict: Verdict, prompts: usize) -> String {
    let other = ((1.0 - verdict.agreement) * prompts as f64).round();
    format!("{other} of {prompts} fixed prompts")
}
