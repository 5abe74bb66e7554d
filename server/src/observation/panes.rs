//! Requests counted in panes of time: what is decided. Takes the time, knows no clock.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use perennial_crds::serving::{
    DEFAULT_PANE_SECONDS, LONGEST_PANE_SECONDS, Observation, PANES_VERSION, PaneRecord, PanesPage,
};
use perennial_drift::features::Features;
use perennial_drift::pane::Pane;
use perennial_drift::pane::key::{RING, Ring};
use perennial_drift::pane::layout::Layout;

/// A clock that was set back by more than this was wrong before.
const SET_BACK_SECONDS: i64 = 3600;

/// Why an observation was not begun; the one before goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObservationError {
    /// A length that panes cannot have.
    #[error("`paneSeconds` is {0}, but must be from 1 to {LONGEST_PANE_SECONDS}")]
    Length(u32),
}

/// The open pane, and the last ones that were closed. A pane is closed by whoever comes first after its end.
pub struct Panes {
    layout: Layout,
    boot: u64,
    seconds: u32,
    open: Option<Pane>,
    /// No pane begins before: the beginning of the open one, or the end of the one before.
    earliest: i64,
    ring: Ring,
    /// Beginnings of the panes in the ring.
    starts: VecDeque<i64>,
    counting: bool,
}

impl Panes {
    /// None yet, of the default length. `boot` is a random number.
    #[must_use]
    pub fn new(layout: Layout, boot: u64) -> Self {
        Self::of_length(layout, boot, DEFAULT_PANE_SECONDS)
    }

    fn of_length(layout: Layout, boot: u64, seconds: u32) -> Self {
        Self {
            layout,
            boot,
            seconds,
            open: None,
            earliest: i64::MIN,
            ring: Ring::default(),
            starts: VecDeque::new(),
            counting: true,
        }
    }

    /// Counts a request that ended at `now`, seconds since 1970, if anything is counted; tells whether. If the clock was set
    /// back, in the pane that is open, and never in one that is closed.
    pub fn record(&mut self, now: i64, features: &Features) -> bool {
        if self.counting {
            self.open(now).add(features);
        }
        self.counting
    }

    /// Counts what a person thought of an answer, at the time at which it was heard, if anything is counted.
    pub fn rate(&mut self, now: i64, bad: bool) {
        if self.counting {
            self.open(now).add_rating(bad);
        }
    }

    /// Whether anything is counted from now on. If not, all that was counted is forgotten.
    pub fn set_counting(&mut self, counting: bool) {
        if self.counting && !counting {
            self.begin_anew(self.seconds);
        }
        self.counting = counting;
    }

    fn begin_anew(&mut self, seconds: u32) {
        *self = Self {
            counting: self.counting,
            // As good as another random number: nobody else counts on from this one.
            ..Self::of_length(self.layout.clone(), self.boot.wrapping_add(1), seconds)
        };
    }

    fn open(&mut self, now: i64) -> &mut Pane {
        self.advance(now);
        let pane = self
            .open
            .get_or_insert_with(|| Pane::new(&self.layout, now.max(self.earliest), self.seconds));
        self.earliest = pane.start();
        pane
    }

    /// The closed panes behind `after`, all that are kept for `None`.
    #[must_use]
    pub fn page(&mut self, after: Option<u64>, now: i64) -> PanesPage {
        self.advance(now);
        let page = self.ring.after(after);
        let starts = self.starts.iter().skip(self.starts.len() - page.panes.len());
        let records = page
            .panes
            .iter()
            .zip(starts)
            .map(|((sequence, bytes), start)| PaneRecord {
                sequence: *sequence,
                start: *start,
                bytes: STANDARD.encode(bytes),
            });
        PanesPage {
            version: PANES_VERSION,
            boot_id: format!("{:016x}", self.boot),
            pane_seconds: self.seconds,
            layout: format!("{:016x}", self.layout.fingerprint()),
            now,
            lost: page.lost,
            panes: records.collect(),
        }
    }

    /// Changes the length of panes, which begins everything anew; the same length changes nothing.
    ///
    /// # Errors
    /// A length that panes cannot have.
    pub fn observe(&mut self, observation: Observation) -> Result<(), ObservationError> {
        let seconds = observation.pane_seconds;
        if !(1..=LONGEST_PANE_SECONDS).contains(&seconds) {
            return Err(ObservationError::Length(seconds));
        }
        if seconds != self.seconds {
            self.begin_anew(seconds);
        }
        Ok(())
    }

    fn advance(&mut self, now: i64) {
        // A pane that a wrong clock has opened ahead would stay open until it is that late.
        let was_wrong = now < self.earliest.saturating_sub(SET_BACK_SECONDS);
        if let Some(pane) = self.open.take_if(|pane| was_wrong || now >= pane.end()) {
            self.earliest = pane.end();
            // What a pane counts is within the bounds of its encoding.
            if let Ok(bytes) = pane.encode() {
                self.ring.push(bytes);
                self.starts.push_back(pane.start());
                while self.starts.len() > RING {
                    self.starts.pop_front();
                }
            }
        }
        if was_wrong {
            self.earliest = i64::MIN;
        }
    }
}

#[cfg(test)]
#[path = "panes_tests.rs"]
mod tests;
