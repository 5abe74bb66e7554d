//! A baseline is judged before it judges: its halves must not alarm against each other.

use std::collections::BTreeSet;

use crate::baseline::learn;
use crate::decision::watch::Watch;
use crate::pane::Pane;
use crate::policy::{Policy, Season};
use crate::signal::{Class, Signal};

/// Signals of which one half of the panes is evidence against the other.
pub(crate) fn unstable(panes: &[&Pane], policy: &Policy) -> BTreeSet<Signal> {
    let span = panes.last().map_or(0, |pane| pane.end()) - panes.first().map_or(0, |pane| pane.start());
    let (first, second): (Vec<&Pane>, Vec<&Pane>) =
        if policy.season == Season::None || span >= 2 * policy.season.cycle() {
            let (first, second) = panes.split_at(panes.len() / 2);
            (first.to_vec(), second.to_vec())
        } else {
            // One cycle cannot be halved in time: each hour would miss from one half.
            let halves = |rest| panes.iter().copied().enumerate().filter(move |(at, _)| at % 2 == rest);
            (
                halves(0).map(|(_, pane)| pane).collect(),
                halves(1).map(|(_, pane)| pane).collect(),
            )
        };
    let mut unstable = judged(&first, &second, policy);
    unstable.extend(judged(&second, &first, policy));
    unstable
}

fn judged(learned_from: &[&Pane], panes: &[&Pane], policy: &Policy) -> BTreeSet<Signal> {
    let Ok(baseline) = learn::learn(learned_from, policy) else {
        return BTreeSet::new();
    };
    // Signals without a weight are judged, too: a report shows them.
    let mut policy = policy.clone();
    policy.signals = Signal::ALL
        .into_iter()
        .filter(|signal| signal.class() != Class::Operational)
        .map(crate::policy::Watched::new)
        .collect();
    let threshold = libm::log(policy.capacity());
    let mut watch = Watch::new(&baseline, &policy);
    let mut alarmed = BTreeSet::new();
    let (mut joined, mut requests, mut start) = (Vec::new(), 0, None);
    for pane in panes {
        let cell = usize::from(baseline.season.cell(pane.start()));
        if !baseline.known.get(cell).copied().unwrap_or(false) {
            continue;
        }
        let tallies = Watch::tallies(&baseline, &policy, pane);
        super::join(&mut joined, tallies);
        requests += pane.requests();
        let from = *start.get_or_insert(pane.start());
        if requests >= policy.min_samples {
            watch.update(&baseline, &policy, &joined, from);
            (joined, requests, start) = (Vec::new(), 0, None);
            for signal in &watch.signals {
                if signal.log_evidence() >= threshold {
                    alarmed.insert(signal.signal);
                }
            }
        }
    }
    alarmed
}
