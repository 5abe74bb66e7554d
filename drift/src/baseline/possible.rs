//! What a baseline from elsewhere must hold to before it is used.

use crate::baseline::embedding::Embedding;
use crate::baseline::means::Means;
use crate::baseline::numeric::{Numeric, Table};
use crate::baseline::{Baseline, Model, SignalBaseline};
use crate::features::FOURIER;
use crate::pane::layout::BINS;
use crate::signal::{Kind, Signal};

impl Baseline {
    /// What cannot be, if anything.
    pub(super) fn contradiction(&self) -> Option<&'static str> {
        let cells = usize::from(self.season.cells());
        if self.pane_seconds == 0 || self.from >= self.to || self.known.len() != cells {
            return Some("its times do not fit together");
        }
        let mut last: Option<Signal> = None;
        for signal in &self.signals {
            if last.is_some_and(|last| last >= signal.signal) {
                return Some("its signals are not in order");
            }
            last = Some(signal.signal);
            if let Some(why) = signal.contradiction(cells) {
                return Some(why);
            }
        }
        self.requesters.contradiction(u64::MAX)
    }
}

fn sensible(values: &[f64]) -> bool {
    values.iter().all(|value| value.is_finite())
}

impl SignalBaseline {
    fn contradiction(&self, cells: usize) -> Option<&'static str> {
        let fits = match (&self.model, self.signal.kind()) {
            (Model::Numeric(model), Kind::Numeric(_)) => model.possible(cells),
            (Model::Rate(model), Kind::Rate) => {
                let possible = |cell: &crate::baseline::rate::RateCell| {
                    0.0 <= cell.lower
                        && cell.lower <= cell.upper
                        && cell.upper <= 1.0
                        && (0.0..=1.0).contains(&cell.rate)
                        && cell.size >= 0.0
                        && cell.size.is_finite()
                };
                model.cells.len() == cells && model.cells.iter().all(possible) && at_least_one(model.phi)
            }
            (Model::Categories(table), Kind::Categories(count)) => table.possible(count, cells),
            (Model::Embedding(model), Kind::Embedding) => model.possible(cells),
            _ => return Some("a signal has the model of another kind"),
        };
        (!fits).then_some("a signal's figures are out of their bounds")
    }
}

fn at_least_one(phi: f64) -> bool {
    phi.is_finite() && phi >= 1.0
}

impl Table {
    fn possible(&self, groups: usize, cells: usize) -> bool {
        let width = self.width();
        self.groups.len() == groups
            && width > 0
            && self.groups.iter().all(|group| usize::from(*group) < width)
            && self.cells.len() == cells
            && self
                .cells
                .iter()
                .all(|counts| counts.len() == width && sensible(counts) && counts.iter().all(|count| *count >= 0.0))
            && at_least_one(self.phi)
    }
}

impl Numeric {
    fn possible(&self, cells: usize) -> bool {
        self.table.possible(BINS + 2, cells)
            && self.means.len() == cells
            && self
                .tails
                .iter()
                .all(|group| usize::from(*group) + 1 < self.table.width())
            && sensible(&self.means)
            && self.sigma.is_finite()
            && self.sigma >= 0.0
            && sensible(&self.kappa)
            && at_least_one(self.phi)
    }
}

impl Embedding {
    fn possible(&self, cells: usize) -> bool {
        let possible = |means: &Means| {
            means.by_cell.len() == cells
                && means.by_cell.iter().all(|mean| mean.len() == FOURIER && sensible(mean))
                && means.sizes.len() == cells
                && sensible(&means.sizes)
                && means.sizes.iter().all(|size| *size >= 0.0)
        };
        possible(&self.whole)
            && self.halves.iter().all(possible)
            && self.trace.is_finite()
            && self.trace > 0.0
            && self.trace_of_square.is_finite()
            && self.trace_of_square > 0.0
            && self.covariance.len() == FOURIER * (FOURIER + 1) / 2
            && self.covariance.iter().all(|value| value.is_finite())
            && at_least_one(self.phi)
            && sensible(&self.null.kappa)
            && sensible(&[self.null.largest, self.null.error])
    }
}
