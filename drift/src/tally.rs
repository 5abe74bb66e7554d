//! What was seen of one signal in some panes, in the baseline's groups.

use serde::{Deserialize, Serialize};

/// Counts that add. Which fields are used depends on the signal's kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Requests for which the signal is known.
    pub count: u64,
    /// Counts by group of values; for a rate the events alone.
    pub groups: Vec<u64>,
    /// Sum of transformed values, or of Fourier features; 2^24 is one.
    pub sums: Vec<i128>,
    /// `count` by cell of the season, cells ascending.
    pub cells: Vec<(u16, u64)>,
}

impl Tally {
    /// Adds another one.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        if self.groups.len() < other.groups.len() {
            self.groups.resize(other.groups.len(), 0);
        }
        for (into, from) in self.groups.iter_mut().zip(&other.groups) {
            *into = into.saturating_add(*from);
        }
        if self.sums.len() < other.sums.len() {
            self.sums.resize(other.sums.len(), 0);
        }
        for (into, from) in self.sums.iter_mut().zip(&other.sums) {
            *into = into.saturating_add(*from);
        }
        for (cell, count) in &other.cells {
            match self.cells.binary_search_by_key(cell, |(cell, _)| *cell) {
                Ok(position) => self.cells[position].1 = self.cells[position].1.saturating_add(*count),
                Err(position) => self.cells.insert(position, (*cell, *count)),
            }
        }
    }

    /// Counts by group as numbers.
    pub(crate) fn group_counts(&self, groups: usize) -> Vec<f64> {
        let mut counts: Vec<f64> = self.groups.iter().map(|count| *count as f64).collect();
        counts.resize(groups, 0.0);
        counts
    }

    /// Each cell's share of the requests.
    pub(crate) fn shares(&self) -> impl Iterator<Item = (u16, f64)> + '_ {
        let total = self.cells.iter().map(|(_, count)| *count).sum::<u64>().max(1) as f64;
        self.cells
            .iter()
            .map(move |(cell, count)| (*cell, *count as f64 / total))
    }
}
