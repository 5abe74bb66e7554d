//! Evidence over time, for a change that may have begun at any pane.

use serde::{Deserialize, Serialize};

use crate::tally::Tally;

/// One line of evidence: a shift, a ratio, or a length of blocks of one signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// ln M of `M <- (M + 1) e`: the sum over all beginnings.
    pub log_m: f64,
    /// `G <- max(G, 0) + ln e`: the best beginning alone.
    pub log_g: f64,
    /// The best beginning, seconds since 1970.
    pub since: i64,
    /// What was seen since then.
    pub tally: Tally,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            log_m: f64::NEG_INFINITY,
            log_g: 0.0,
            since: 0,
            tally: Tally::default(),
        }
    }
}

impl Line {
    /// Requests since the best beginning; none when the next pane is a new one.
    #[must_use]
    pub fn run(&self) -> u64 {
        if self.log_g > 0.0 { self.tally.count } else { 0 }
    }

    /// Takes the e-value of what was seen from `start` on.
    pub fn update(&mut self, log_e: f64, start: i64, seen: &Tally) {
        // ln(M + 1), for M from nothing to more than a float can hold.
        let plus_one = if self.log_m > 0.0 {
            self.log_m + libm::log1p(libm::exp(-self.log_m))
        } else {
            libm::log1p(libm::exp(self.log_m))
        };
        self.log_m = plus_one + log_e;
        if self.log_g <= 0.0 {
            self.log_g = 0.0;
            self.since = start;
            self.tally = Tally::default();
        }
        self.log_g += log_e;
        self.tally.merge(seen);
    }
}
