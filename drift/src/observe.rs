//! Panes of many replicas put together, pane of time by pane of time. Gaps are counted, never guessed.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::pane::key::{PaneKey, Source};
use crate::pane::layout::Layout;
use crate::pane::{MergeError, Pane};

/// What became of a pane that was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Added.
    Merged,
    /// Was there already.
    Duplicate,
    /// Came after its stretch of time had been closed; counted as lost.
    Late,
}

/// Why a pane was not taken. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ObserveError {
    /// Does not add to what is there.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// Another length.
    #[error("a pane of {got} s where panes have {expected} s: the server was told another length of panes")]
    Length {
        /// Its own.
        got: u32,
        /// Wanted.
        expected: u32,
    },
    /// From the future.
    #[error("a pane that begins {0} s from now: the clocks of the nodes differ")]
    Future(i64),
}

/// One stretch of time, closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Beginning, seconds since 1970.
    pub start: i64,
    /// All replicas' requests; `None` when no replica was heard of: a gap.
    pub pane: Option<Pane>,
}

/// What was counted on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Panes that were added.
    pub merged: u64,
    /// Panes that were read twice.
    pub duplicates: u64,
    /// Panes that came late, or that a replica had dropped before they were read.
    pub lost: u64,
}

/// Puts panes together until they are closed.
#[derive(Clone, Debug)]
pub struct Assembler {
    layout: Layout,
    seconds: u32,
    closed_until: i64,
    open: BTreeMap<i64, (Pane, BTreeSet<PaneKey>)>,
    last: BTreeMap<Source, (u64, i64)>,
    counts: Counts,
}

impl Assembler {
    /// Begins at this time, rounded up to a whole pane; what is older is late.
    #[must_use]
    pub fn new(layout: &Layout, seconds: u32, from: i64) -> Self {
        let seconds = seconds.max(1);
        let behind = from.rem_euclid(i64::from(seconds));
        Self {
            layout: layout.clone(),
            seconds,
            closed_until: if behind == 0 {
                from
            } else {
                from - behind + i64::from(seconds)
            },
            open: BTreeMap::new(),
            last: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    /// Up to where all is closed: what a restarted reader begins at.
    #[must_use]
    pub fn closed_until(&self) -> i64 {
        self.closed_until
    }

    /// What was counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The last sequence that is known of a replica: what to ask it for panes after.
    #[must_use]
    pub fn last_of(&self, source: &Source) -> Option<u64> {
        self.last.get(source).map(|(sequence, _)| *sequence)
    }

    /// Adds a replica's pane.
    ///
    /// # Errors
    /// [`ObserveError`]; then nothing has changed.
    pub fn accept(&mut self, key: PaneKey, pane: &Pane, now: i64) -> Result<Accepted, ObserveError> {
        if pane.seconds != self.seconds {
            return Err(ObserveError::Length {
                got: pane.seconds,
                expected: self.seconds,
            });
        }
        // Half a pane of difference between clocks is taken.
        if pane.start > now + i64::from(self.seconds) / 2 {
            return Err(ObserveError::Future(pane.start - now));
        }
        let known = self.open.get(&pane.start).is_some_and(|(_, keys)| keys.contains(&key));
        let read = self
            .last
            .get(&key.source)
            .is_some_and(|(last, _)| key.sequence <= *last);
        if known || (read && pane.start < self.closed_until) {
            self.counts.duplicates += 1;
            return Ok(Accepted::Duplicate);
        }
        if pane.start < self.closed_until {
            self.heard(&key, pane.start);
            self.counts.lost += 1;
            return Ok(Accepted::Late);
        }
        match self.open.get_mut(&pane.start) {
            Some((merged, keys)) => {
                merged.merge(pane)?;
                keys.insert(key.clone());
            }
            None => {
                let mut merged = Pane::new(&self.layout, pane.start, self.seconds);
                merged.merge(pane)?;
                self.open.insert(pane.start, (merged, BTreeSet::from([key.clone()])));
            }
        }
        self.heard(&key, pane.start);
        self.counts.merged += 1;
        Ok(Accepted::Merged)
    }

    /// Notes a sequence; a step of more than one is a loss, except that a reader may begin anywhere.
    fn heard(&mut self, key: &PaneKey, start: i64) {
        match self.last.get_mut(&key.source) {
            Some((last, at)) if key.sequence > *last => {
                self.counts.lost += key.sequence - *last - 1;
                (*last, *at) = (key.sequence, start);
            }
            Some(_) => {}
            None => {
                self.last.insert(key.source.clone(), (key.sequence, start));
            }
        }
    }

    /// Closes all that ends up to this time, in order, gaps included.
    pub fn close(&mut self, until: i64) -> Vec<Interval> {
        let seconds = i64::from(self.seconds);
        let mut closed = Vec::new();
        while self.closed_until + seconds <= until {
            let start = self.closed_until;
            let pane = self.open.remove(&start).map(|(pane, _)| pane);
            closed.push(Interval { start, pane });
            self.closed_until += seconds;
        }
        // A replica that was not heard of for a day is gone.
        let horizon = self.closed_until - 86_400.max(seconds * 2);
        self.last.retain(|_, (_, at)| *at >= horizon);
        closed
    }
}
