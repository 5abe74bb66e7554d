//! A baseline from the first of the input, or from an earlier run; and the state that goes with it.

use std::path::Path;

use anyhow::{Context, Result, bail};
use perennial_drift::baseline::Baseline;
use perennial_drift::decision::State;
use perennial_drift::observe::Interval;
use perennial_drift::pane::Pane;
use perennial_drift::pane::layout::Layout;
use perennial_drift::policy::{Policy, Season};

use crate::words::{Clock, duration, thousands};

pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

pub fn read_baseline(path: &Path, layout: &Layout, policy: &mut Policy) -> Result<Baseline> {
    let name = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("cannot read the baseline {name}"))?;
    let baseline = Baseline::decode(layout, &bytes).with_context(|| format!("the baseline {name} cannot be used"))?;
    if baseline.pane_seconds != policy.pane_seconds {
        bail!(
            "the baseline {name} has panes of {} s and the policy's observation.paneSeconds is {}: they must be the same",
            baseline.pane_seconds,
            policy.pane_seconds
        );
    }
    policy.season = baseline.season;
    Ok(baseline)
}

pub fn read_state(path: &Path, layout: &Layout) -> Result<State> {
    let name = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("cannot read the state {name}"))?;
    State::decode(layout, &bytes).with_context(|| format!("the state {name} cannot be used"))
}

/// Learns from the first intervals, as soon as there are enough. Gives the panes learned from, too.
pub fn learn(
    intervals: &mut impl Iterator<Item = Result<Interval>>,
    policy: &Policy,
    clock: Clock,
    gaps: &mut u64,
) -> Result<(Baseline, Vec<Pane>)> {
    let mut panes: Vec<Pane> = Vec::new();
    let mut requests = 0;
    let cycle = if policy.season == Season::None {
        0
    } else {
        policy.season.cycle()
    };
    let want = i64::from(policy.baseline_seconds).max(cycle);
    let enough = want - want / 20 - i64::from(policy.pane_seconds);
    for interval in intervals {
        let Some(pane) = interval?.pane else {
            *gaps += 1;
            continue;
        };
        requests += pane.requests();
        panes.push(pane);
        let span = panes.last().map_or(0, Pane::end) - panes.first().map_or(0, Pane::start);
        if requests >= policy.baseline_min_samples && span >= enough {
            let baseline = Baseline::learn(&panes, policy).context("the baseline cannot be learned")?;
            return Ok((baseline, panes));
        }
    }
    let span = panes.last().map_or(0, Pane::end) - panes.first().map_or(0, Pane::start);
    let mut what = Vec::new();
    if requests < policy.baseline_min_samples {
        what.push(format!(
            "lower baseline.learned.minSamples ({})",
            policy.baseline_min_samples
        ));
    }
    if span < enough && i64::from(policy.baseline_seconds) > span {
        what.push(format!("lower baseline.learned.seconds ({})", policy.baseline_seconds));
    }
    if span < enough && cycle > span {
        what.push(format!(
            "set baseline.learned.season to None ({:?} needs {})",
            policy.season,
            duration(cycle)
        ));
    }
    bail!(
        "there never was enough for a baseline: {} requests in {}, and the policy wants {} in {}. Give more input, or {}",
        thousands(requests),
        clock.span(span),
        thousands(policy.baseline_min_samples),
        match clock {
            Clock::Time => duration(want),
            Clock::Count(..) => "any time".to_owned(),
        },
        what.join(", and ")
    )
}
