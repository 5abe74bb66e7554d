//! What replicas say when they are asked, and what it is worth. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use perennial_crds::serving::PanesPage;
use perennial_drift::observe::{Assembler, Interval};
use perennial_drift::pane::Pane;
use perennial_drift::pane::key::{PaneKey, Source};
use perennial_drift::pane::layout::Layout;

use super::pane_reader::ReadError;
use super::status::Hearing;
use super::target::Replica;

/// Clocks that differ by less than this many seconds are the same, however short panes are.
const SAME_CLOCK: i64 = 2;

/// What a replica said.
pub(super) enum Answer {
    /// Its panes; `whole` if all that it keeps were asked for.
    Page { page: PanesPage, whole: bool },
    /// It has just been told how to observe.
    Told,
    /// Nothing.
    Failed(ReadError),
}

/// Fingerprint of the layout in which a replica counts.
pub(super) fn layout(answer: &Answer) -> Option<u64> {
    match answer {
        Answer::Page { page, .. } => u64::from_str_radix(&page.layout, 16).ok(),
        Answer::Told | Answer::Failed(_) => None,
    }
}

/// How well the replicas that answer clients are heard.
pub(super) fn hearing(answers: &[(&Replica, Answer)], layouts: usize, now: i64, pane_seconds: u32) -> Hearing {
    let ready: Vec<&Answer> = answers
        .iter()
        .filter(|(replica, _)| replica.ready)
        .map(|(_, answer)| answer)
        .collect();
    if ready.is_empty() {
        return Hearing::NoReplica;
    }
    if layouts > 1 {
        return Hearing::Incompatible;
    }
    let failed = ready.iter().find_map(|answer| match answer {
        Answer::Failed(error) => Some(error.to_string()),
        _ => None,
    });
    if let Some(why) = failed {
        let heard = ready
            .iter()
            .filter(|answer| !matches!(answer, Answer::Failed(_)))
            .count();
        return Hearing::Partly(heard, ready.len(), why);
    }
    let skew = ready.iter().filter_map(|answer| match answer {
        Answer::Page { page, .. } => Some(page.now - now),
        _ => None,
    });
    let tolerated = i64::from(pane_seconds / 2).max(SAME_CLOCK);
    match skew.max_by_key(|skew| skew.abs()) {
        Some(skew) if skew.abs() > tolerated => Hearing::Skewed(skew),
        _ => Hearing::All(ready.len()),
    }
}

/// Hands the panes of a page to the assembler.
pub(super) fn accept(assembler: &mut Assembler, layout: &Layout, replica: &Replica, page: &PanesPage, now: i64) {
    let source = Source {
        pod: replica.uid.clone(),
        boot: page.boot_id.clone(),
    };
    for record in &page.panes {
        // Panes from before this reader began were looked at by the one before it, or are counted as a gap.
        if record.start < assembler.closed_until() && assembler.last_of(&source).is_none() {
            continue;
        }
        let pane = STANDARD
            .decode(&record.bytes)
            .map_err(|error| error.to_string())
            .and_then(|bytes| Pane::decode(layout, &bytes).map_err(|error| error.to_string()));
        let key = PaneKey {
            source: source.clone(),
            sequence: record.sequence,
        };
        let outcome = pane.and_then(|pane| assembler.accept(key, &pane, now).map_err(|error| error.to_string()));
        if let Err(why) = outcome {
            tracing::warn!(
                pod = replica.uid,
                sequence = record.sequence,
                why,
                "A pane was left out."
            );
        }
    }
}

/// A time without panes is a time without requests where replicas were heard all the time.
pub(super) fn fill(interval: &mut Interval, covered_from: i64, layout: &Layout, seconds: u32) {
    if interval.pane.is_none() && interval.start >= covered_from {
        interval.pane = Some(Pane::new(layout, interval.start, seconds));
    }
}
