//! Whose pane it is, so that reading it twice changes nothing; and the ring in which a replica keeps its last ones.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Closed panes that a replica keeps for a reader that comes late.
pub const RING: usize = 64;

/// One life of one replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Source {
    /// UID of the pod.
    pub pod: String,
    /// New with each start of the process.
    pub boot: String,
}

/// One pane of one life of one replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PaneKey {
    /// Who made it.
    pub source: Source,
    /// Counts from 0 and by one.
    pub sequence: u64,
}

/// The last [`RING`] closed panes of one process, encoded.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    next: u64,
    panes: VecDeque<Vec<u8>>,
}

/// What a reader gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<'a> {
    /// Sequence and bytes, oldest first.
    pub panes: Vec<(u64, &'a [u8])>,
    /// Panes that the reader has not had and that are gone.
    pub lost: u64,
}

impl Ring {
    /// Keeps a closed pane, encoded, and drops the oldest one when there are too many. Gives its sequence.
    pub fn push(&mut self, pane: Vec<u8>) -> u64 {
        if self.panes.len() == RING {
            self.panes.pop_front();
        }
        self.panes.push_back(pane);
        self.next += 1;
        self.next - 1
    }

    /// Panes behind this sequence; all that are kept for `None`.
    #[must_use]
    pub fn after(&self, sequence: Option<u64>) -> Page<'_> {
        let oldest = self.next - self.panes.len() as u64;
        let wanted = sequence.map_or(0, |sequence| sequence.saturating_add(1));
        let panes = (oldest..)
            .zip(self.panes.iter().map(Vec::as_slice))
            .filter(|(sequence, _)| *sequence >= wanted)
            .collect();
        Page {
            panes,
            lost: oldest.saturating_sub(wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_gets_each_pane_once_and_is_told_what_is_gone() {
        let mut ring = Ring::default();
        assert_eq!(ring.after(None).panes.len(), 0);
        for pane in 0..100_u8 {
            assert_eq!(ring.push(vec![pane]), u64::from(pane));
        }
        let all = ring.after(None);
        assert_eq!((all.panes.len(), all.lost), (RING, 36));
        assert_eq!(all.panes[0], (36, [36].as_slice()));
        let late = ring.after(Some(30));
        assert_eq!((late.panes.len(), late.lost), (RING, 5));
        let next = ring.after(Some(97));
        assert_eq!(
            (next.panes, next.lost),
            (vec![(98, [98].as_slice()), (99, [99].as_slice())], 0)
        );
        assert!(ring.after(Some(99)).panes.is_empty());
        assert!(ring.after(Some(u64::MAX)).panes.is_empty());
    }
}
