//! What is remembered of one policy, and how a stretch of time changes it. Pure: no clock, no cluster.
//!
//! A memory that was stored after any stretch, and read back, goes on to the same bytes as one that was never away.

use std::collections::VecDeque;

use perennial_crds::drift_policy::MAX_BASELINE_PANES;
use perennial_drift::baseline::{Baseline, BaselineError};
use perennial_drift::cause::{self, Cause, Findings, Mask, Probes};
use perennial_drift::decision::{Phase, State, StepError};
use perennial_drift::envelope::{EnvelopeError, digest};
use perennial_drift::explain::{self, Report};
use perennial_drift::observe::Interval;
use perennial_drift::pane::Pane;
use perennial_drift::pane::layout::Layout;
use perennial_drift::policy::{Policy, Season};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::terms::About;

/// What was seen since the baseline was begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// Requests.
    pub requests: u64,
    /// Panes of replicas that were lost before they were read.
    pub lost: u64,
    /// Stretches of which no replica was heard.
    pub gaps: u64,
    /// Stretches that were left out because the service was just starting.
    pub masked: u64,
}

/// A merged pane that a baseline will be learned from, encoded: a tenth of its size in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its beginning, seconds since 1970.
    pub start: i64,
    /// Requests that it counts.
    pub requests: u64,
    /// [`Pane::encode`].
    pub bytes: Vec<u8>,
}

/// A frozen baseline, and what speaks against it.
#[derive(Clone, Debug, PartialEq)]
pub struct Watching {
    /// What traffic is compared with.
    pub baseline: Baseline,
    /// Digest of its bytes.
    pub digest: String,
    /// The evidence.
    pub state: State,
    /// The terms under which it is weighed.
    pub terms: Policy,
    /// Since when, seconds since 1970.
    pub since: i64,
}

/// How far a policy is.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// Panes are collected.
    Learning(VecDeque<Stored>),
    /// They are compared.
    Watching(Box<Watching>),
}

/// All that is remembered of one policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// What it is about.
    pub about: About,
    /// Fingerprint of the layout of its panes.
    pub layout: u64,
    /// The revision that served when it was last looked.
    pub revision: Option<String>,
    /// When another revision was first seen to serve, seconds since 1970.
    pub moved: i64,
    /// All until then was looked at, seconds since 1970.
    pub until: i64,
    /// What was seen.
    pub seen: Seen,
    /// How far it is.
    pub stage: Stage,
}

/// What changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Beginnings of panes that are new to the collection.
    pub collected: Vec<i64>,
    /// Beginnings of panes that left it, because there were too many.
    pub dropped: Vec<i64>,
    /// The baseline was frozen.
    pub frozen: bool,
    /// Evidence was begun anew, because the policy's terms changed.
    pub restarted: bool,
}

/// Why a stretch of time could not be taken.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// Something could not be written as bytes, or read from them.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The drift core refuses.
    #[error(transparent)]
    Step(#[from] StepError),
}

impl Memory {
    /// Of a policy that is just beginning.
    #[must_use]
    pub fn new(about: About, layout: u64, now: i64) -> Self {
        let seconds = i64::from(about.pane_seconds.max(1));
        Self {
            // The pane that is open at this moment was not seen from its beginning.
            until: now + (seconds - now.rem_euclid(seconds)) % seconds,
            about,
            layout,
            revision: None,
            moved: i64::MIN,
            seen: Seen::default(),
            stage: Stage::Learning(VecDeque::new()),
        }
    }

    /// Notes which revision serves. What is seen within a pane of a change is left out.
    pub fn serves(&mut self, revision: Option<&str>, now: i64) {
        if revision.is_none() || self.revision.as_deref() == revision {
            return;
        }
        if self.revision.is_some() {
            self.moved = now;
        }
        self.revision = revision.map(str::to_owned);
    }

    /// Takes closed stretches of time, in order. `steady_since`: since when a replica has answered without a break.
    ///
    /// # Errors
    /// [`MemoryError`]; stretches before the one that failed are taken.
    pub fn take(
        &mut self,
        intervals: Vec<Interval>,
        steady_since: Option<i64>,
        policy: &Policy,
    ) -> Result<Changes, MemoryError> {
        let mut changes = Changes::default();
        let seconds = i64::from(self.about.pane_seconds);
        for interval in intervals {
            if interval.start < self.until {
                continue;
            }
            let starting = steady_since.is_none_or(|since| interval.start < since.max(self.moved) + seconds);
            let mask = (starting && interval.pane.is_some()).then_some(Mask::Rollout);
            self.seen.masked += u64::from(mask.is_some());
            self.seen.gaps += u64::from(interval.pane.is_none());
            self.seen.requests += interval.pane.as_ref().map_or(0, Pane::requests);
            self.until = interval.start + seconds;
            match &mut self.stage {
                Stage::Learning(panes) => {
                    let Some(pane) = interval.pane.filter(|pane| mask.is_none() && pane.requests() > 0) else {
                        continue;
                    };
                    if panes.len() >= MAX_BASELINE_PANES as usize {
                        changes.dropped.extend(panes.pop_front().map(|pane| pane.start));
                    }
                    panes.push_back(Stored {
                        start: pane.start(),
                        requests: pane.requests(),
                        bytes: pane.encode()?,
                    });
                    changes.collected.push(pane.start());
                    if learned_percent(panes, policy) >= 100
                        && let Some(watching) = freeze(panes, self.layout, policy, self.until)?
                    {
                        self.stage = Stage::Watching(Box::new(watching));
                        changes.frozen = true;
                    }
                }
                Stage::Watching(watching) => changes.restarted |= step(watching, &interval, mask, policy)?,
            }
        }
        Ok(changes)
    }

    /// Where the policy stands; nothing while it learns.
    #[must_use]
    pub fn report(&self) -> Option<Report> {
        match &self.stage {
            Stage::Learning(_) => None,
            Stage::Watching(watching) => Some(explain::report(&watching.state, &watching.baseline, &watching.terms)),
        }
    }

    /// When a change was confirmed, while it is, seconds since 1970.
    #[must_use]
    pub fn drifted_since(&self) -> Option<i64> {
        let report = self.report()?;
        (report.phase == Phase::Drifted).then_some(report.phase_since)
    }

    /// Where a confirmed change comes from, by what fixed prompts say of the service.
    #[must_use]
    pub fn cause(&self, probes: Probes) -> Option<Cause> {
        let Stage::Watching(watching) = &self.stage else {
            return None;
        };
        if watching.state.phase != Phase::Drifted {
            return None;
        }
        let moved = cause::moved_signals(&watching.state, &watching.terms);
        Some(cause::cause(&Findings {
            single_source: cause::single_source(&moved, &watching.baseline, &watching.state),
            moved: &moved,
            probes,
            mask: None,
        }))
    }
}

/// How much of what a baseline needs is there, in percent.
#[must_use]
pub fn learned_percent(panes: &VecDeque<Stored>, policy: &Policy) -> i32 {
    let requests: u64 = panes.iter().map(|pane| pane.requests).sum();
    let pane = i64::from(policy.pane_seconds);
    let span = match (panes.front(), panes.back()) {
        (Some(first), Some(last)) => last.start + pane - first.start,
        _ => 0,
    };
    let cycle = if policy.season == Season::None {
        0
    } else {
        policy.season.cycle()
    };
    let wanted = i64::from(policy.baseline_seconds).max(cycle);
    let by_requests = requests.saturating_mul(100) / policy.baseline_min_samples.max(1);
    let by_time = span.max(0).saturating_mul(100) / wanted.max(1);
    let percent = by_requests.min(u64::try_from(by_time).unwrap_or(0)).min(100);
    i32::try_from(percent).unwrap_or(100)
}

fn freeze(panes: &VecDeque<Stored>, layout: u64, policy: &Policy, until: i64) -> Result<Option<Watching>, MemoryError> {
    let layout = Layout::told(layout);
    let panes: Vec<Pane> = panes
        .iter()
        .map(|stored| Pane::decode(&layout, &stored.bytes))
        .collect::<Result<_, _>>()?;
    let baseline = match Baseline::learn(&panes, policy) {
        Ok(baseline) => baseline,
        Err(BaselineError::Insufficient { .. } | BaselineError::Short { .. } | BaselineError::Mixed) => {
            return Ok(None);
        }
    };
    let digest = digest(&baseline.encode()?);
    let state = State::watching(&baseline, &digest, policy, until);
    Ok(Some(Watching {
        baseline,
        digest,
        state,
        terms: policy.clone(),
        since: until,
    }))
}

/// Weighs a stretch; `true` if the terms of the policy have changed, so that the evidence was begun anew.
fn step(
    watching: &mut Watching,
    interval: &Interval,
    mask: Option<Mask>,
    policy: &Policy,
) -> Result<bool, MemoryError> {
    let restarted = watching.terms != *policy;
    if restarted {
        watching.since = watching.state.until;
        watching.terms = policy.clone();
        watching.state = State::watching(&watching.baseline, &watching.digest, policy, watching.since);
    }
    watching.state.step(interval, mask, &watching.baseline, policy)?;
    Ok(restarted)
}
