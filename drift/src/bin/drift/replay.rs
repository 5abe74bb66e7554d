//! A policy played over recorded requests: panes, a baseline from the first of them, evidence and decision over the rest.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, bail};
use perennial_drift::baseline::Baseline;
use perennial_drift::cause::{self, Cause, Findings, Probes, Response};
use perennial_drift::decision::{Phase, State, Taken};
use perennial_drift::envelope;
use perennial_drift::explain::{self, Report};
use perennial_drift::observe::Interval;
use perennial_drift::pane::Pane;
use perennial_drift::policy::{Policy, Season};
use perennial_drift::signal::Signal;
use perennial_drift::tally::Tally;
use serde::Serialize;

use crate::arguments::{Input, Stored};
use crate::input::{Reader, Summary};
use crate::learning::{learn, read_baseline, read_state, write};
use crate::panes::Panes;
use crate::policy_file;
use crate::series::{Drawn, Series};
use crate::terminal::Style;
use crate::text;
use crate::words::Clock;

/// Why a stretch of time said nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Skipped {
    /// No request.
    Gap,
    /// Too little is known of this hour.
    HourNotLearned,
    /// Put aside until there are enough requests.
    Joined,
}

/// One stretch of time.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Moment {
    pub time: i64,
    pub requests: u64,
    /// After it, in logarithms, never below 0.
    pub log_evidence: f64,
    pub phase: Phase,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<Skipped>,
    /// By signal, in the order of `armed`.
    pub log_evidence_by_signal: Vec<f32>,
}

/// From a suspicion to its end.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Episode {
    pub suspected: i64,
    pub drifted: Option<i64>,
    pub ended: Option<i64>,
    /// Likely beginning of the change.
    pub since: i64,
    pub moved: Vec<Signal>,
    pub cause: Option<Cause>,
}

/// What was said of the cause.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    pub phase: Phase,
    pub phase_since: i64,
    pub log_evidence: f64,
    pub log_threshold: f64,
    /// Likely beginning of the change, where something moved.
    pub change_since: Option<i64>,
    pub cause: Option<Cause>,
    pub cause_in_words: Option<&'static str>,
    /// What a policy does by default.
    pub response: Option<Response>,
}

/// A run.
#[derive(Debug)]
pub struct Outcome {
    pub summary: Summary,
    pub policy: Policy,
    pub policy_name: String,
    pub clock: Clock,
    /// First pane's beginning, last pane's end.
    pub span: (i64, i64),
    pub panes: u64,
    pub gaps: u64,
    /// Panes from before the end of the given baseline or state; they are not looked at.
    pub before: u64,
    pub baseline: Baseline,
    pub baseline_digest: String,
    pub baseline_learned: bool,
    pub state: State,
    pub verdict: Verdict,
    pub report: Report,
    /// The moment that `report` speaks of, where it is not the end.
    pub report_of: Option<i64>,
    pub armed: Vec<Signal>,
    pub episodes: Vec<Episode>,
    pub timeline: Vec<Moment>,
    pub drawn: Vec<Drawn>,
    /// Seconds of one point of what is drawn.
    pub width: i64,
}

/// What was said when a drift was confirmed.
struct Snapshot {
    at: i64,
    report: Report,
    seen: BTreeMap<Signal, Tally>,
}

fn snapshot(state: &State, baseline: &Baseline, policy: &Policy) -> Snapshot {
    let seen = state
        .log_evidence_by_signal()
        .filter_map(|(signal, _)| Some((signal, state.seen_since_change(signal)?.clone())));
    Snapshot {
        at: state.until,
        report: explain::report(state, baseline, policy),
        seen: seen.collect(),
    }
}

/// Plays files through a policy.
pub fn replay(files: &[PathBuf], input: &Input, stored: &Stored) -> Result<Outcome> {
    let loaded = policy_file::load(input.policy.as_deref())?;
    if !loaded.unused.is_empty() {
        eprintln!(
            "drift: only the operator acts on these, they are not used here: {}",
            loaded.unused.join(", ")
        );
    }
    let mut policy = loaded.policy;
    let clock = match input.panes_of {
        None => Clock::Time,
        Some(count) => {
            if stored.state.is_some() {
                bail!("--panes-of begins to count anew, a --state goes on from a time: give one of them");
            }
            policy.season = Season::None;
            policy.baseline_seconds = policy.pane_seconds;
            Clock::Count(count, policy.pane_seconds)
        }
    };
    let mut reader = Reader::new(input)?;
    let layout = reader.layout.clone();
    let kept = stored
        .baseline
        .as_deref()
        .map(|path| read_baseline(path, &layout, &mut policy))
        .transpose()?;
    let mut panes = Panes::new(&layout, policy.pane_seconds);
    let mut position = 0_i64;
    reader.read(files, |request| {
        let time = match clock {
            Clock::Time => request.time.floor() as i64,
            Clock::Count(count, seconds) => position / i64::from(count) * i64::from(seconds),
        };
        position += 1;
        panes.add(time, &request.features)
    })?;
    let policy_name = input
        .policy
        .as_ref()
        .map_or_else(|| "default".to_owned(), |path| path.display().to_string());
    let state = stored
        .state
        .as_deref()
        .map(|path| read_state(path, &layout))
        .transpose()?;
    // What was wrong with the input may be why the rest fails.
    let mut read = String::new();
    if reader.summary.bad_lines > 0 {
        text::input(&mut read, &reader.summary, Style::of_terminal());
    }
    let outcome =
        play(panes, reader.summary, policy, policy_name, clock, kept, state).inspect_err(|_| eprint!("{read}"))?;
    if let Some(path) = &stored.baseline_out {
        write(path, &outcome.baseline.encode()?)?;
    }
    if let Some(path) = &stored.state_out {
        write(path, &outcome.state.encode()?)?;
    }
    Ok(outcome)
}

fn play(
    panes: Panes,
    summary: Summary,
    policy: Policy,
    policy_name: String,
    clock: Clock,
    kept: Option<Baseline>,
    state: Option<State>,
) -> Result<Outcome> {
    let (first, end) = panes.span().unwrap_or_default();
    let (mut gaps, baseline_learned) = (0, kept.is_none());
    let begin = match (&state, &kept, clock) {
        (Some(state), _, _) => Some(state.until),
        // A run by counts begins anew: its panes have no place in the baseline's time.
        (None, Some(baseline), Clock::Time) => Some(baseline.to),
        _ => None,
    };
    let before = begin.map_or(0, |begin| panes.before(begin));
    let mut intervals = panes.intervals(begin)?;
    let (baseline, learned) = match kept {
        Some(baseline) => (baseline, Vec::new()),
        None => learn(&mut intervals, &policy, clock, &mut gaps)?,
    };
    let baseline_digest = envelope::digest(&baseline.encode()?);
    let mut series = Series::new(first, end, i64::from(policy.pane_seconds));
    for pane in &learned {
        series.add(pane, &baseline);
    }
    let begin = match (clock, baseline_learned) {
        (Clock::Count(..), false) => first,
        _ => baseline.to,
    };
    let mut state = state.unwrap_or_else(|| State::watching(&baseline, &baseline_digest, &policy, begin));
    let armed: Vec<Signal> = state.log_evidence_by_signal().map(|(signal, _)| signal).collect();
    let (mut timeline, mut episodes, mut last) = (Vec::new(), Vec::new(), None);
    let mut seen = learned.len() as u64;
    drop(learned);
    for interval in intervals {
        let interval = interval?;
        if let Some(pane) = &interval.pane {
            series.add(pane, &baseline);
            seen += 1;
        } else {
            gaps += 1;
        }
        let step = state.step(&interval, None, &baseline, &policy)?;
        if let Some(before) = step.left_phase {
            changed(&mut episodes, &mut last, before, &state, &baseline, &policy);
        }
        timeline.push(moment(&interval, step.taken, step.log_evidence, &state));
    }
    if timeline.is_empty() && !baseline_learned {
        bail!(
            "nothing of the input is later than {}, where the baseline or the state ends",
            clock.at(state.until)
        );
    }
    let now = snapshot(&state, &baseline, &policy);
    let verdict = verdict(&state, &now.report, &baseline, &policy);
    if let (Some(episode), Some(cause)) = (episodes.last_mut(), verdict.cause) {
        refresh(episode, &now.report, cause);
    }
    let (shown, report_of) = match last {
        Some(last) if state.phase == Phase::Watching => {
            let at = last.at;
            (last, Some(at))
        }
        _ => (now, None),
    };
    let drawn = drawn(&series, &baseline, &shown);
    Ok(Outcome {
        summary,
        policy,
        policy_name,
        clock,
        span: (first, end),
        panes: seen,
        gaps,
        before,
        baseline,
        baseline_digest,
        baseline_learned,
        state,
        verdict,
        report: shown.report,
        report_of,
        armed,
        episodes,
        timeline,
        drawn,
        width: series.width(),
    })
}

fn moment(interval: &Interval, taken: Taken, log_evidence: f64, state: &State) -> Moment {
    Moment {
        time: interval.start,
        requests: interval.pane.as_ref().map_or(0, Pane::requests),
        log_evidence: log_evidence.max(0.0),
        phase: state.phase,
        skipped: match (taken, &interval.pane) {
            (Taken::Weighed, _) => None,
            (Taken::Joined, _) => Some(Skipped::Joined),
            (Taken::LeftOut, None) => Some(Skipped::Gap),
            (Taken::LeftOut, Some(_)) => Some(Skipped::HourNotLearned),
        },
        log_evidence_by_signal: state
            .log_evidence_by_signal()
            .map(|(_, log)| log.max(0.0) as f32)
            .collect(),
    }
}

fn found(state: &State, baseline: &Baseline, policy: &Policy) -> (Vec<Signal>, Cause) {
    let moved = cause::moved_signals(state, policy);
    let single_source = cause::single_source(&moved, baseline, state);
    let cause = cause::cause(&Findings {
        moved: &moved,
        probes: Probes::Unknown,
        mask: None,
        single_source,
    });
    (moved, cause)
}

/// Notes a change of phase.
fn changed(
    episodes: &mut Vec<Episode>,
    last: &mut Option<Snapshot>,
    before: Phase,
    state: &State,
    baseline: &Baseline,
    policy: &Policy,
) {
    if state.phase == Phase::Watching {
        if let Some(episode) = episodes.last_mut() {
            episode.ended = Some(state.until);
        }
        return;
    }
    let now = snapshot(state, baseline, policy);
    let (moved, cause) = found(state, baseline, policy);
    if before == Phase::Watching {
        episodes.push(Episode {
            suspected: state.until,
            drifted: None,
            ended: None,
            since: since(&now.report).unwrap_or(state.until),
            moved,
            cause: None,
        });
    }
    if state.phase == Phase::Drifted
        && let Some(episode) = episodes.last_mut()
    {
        episode.drifted = Some(state.until);
        refresh(episode, &now.report, cause);
        *last = Some(now);
    }
}

fn refresh(episode: &mut Episode, report: &Report, cause: Cause) {
    episode.since = since(report).unwrap_or(episode.since);
    episode.moved = report
        .signals
        .iter()
        .filter(|signal| signal.moved)
        .map(|signal| signal.signal)
        .collect();
    episode.cause = Some(cause);
}

/// When the signal with the most evidence began to move.
fn since(report: &Report) -> Option<i64> {
    report
        .signals
        .iter()
        .find(|signal| signal.moved)
        .map(|signal| signal.since)
}

fn verdict(state: &State, report: &Report, baseline: &Baseline, policy: &Policy) -> Verdict {
    let cause = (state.phase == Phase::Drifted).then(|| found(state, baseline, policy).1);
    Verdict {
        phase: state.phase,
        phase_since: state.phase_since,
        log_evidence: report.log_evidence,
        log_threshold: report.log_threshold,
        change_since: if state.phase == Phase::Watching {
            None
        } else {
            since(report)
        },
        cause,
        cause_in_words: cause.map(Cause::sentence),
        response: cause.map(Cause::response),
    }
}

/// Armed signals by falling evidence, then those that are not armed.
fn drawn(series: &Series, baseline: &Baseline, shown: &Snapshot) -> Vec<Drawn> {
    let armed = shown.report.signals.iter().map(|report| report.signal);
    let others = baseline.signals.iter().map(|signal| signal.signal);
    let others = others.filter(|signal| !shown.report.signals.iter().any(|report| report.signal == *signal));
    armed
        .chain(others)
        .filter_map(|signal| series.drawn(baseline, signal, shown.seen.get(&signal)))
        .collect()
}
