//! Which answers were rated not long ago, so that none is counted twice.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

/// Requests that are remembered: 128 KiB or so.
const REMEMBERED: usize = 4096;

/// The last requests that were rated, as hashes that nobody can turn back into ids.
#[derive(Debug, Default)]
pub(super) struct Rated {
    hasher: RandomState,
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Rated {
    /// Notes a request; tells whether it was not known.
    pub(super) fn is_new(&mut self, request: &str) -> bool {
        let hash = self.hasher.hash_one(request);
        if !self.known.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_new_once_and_again_when_it_is_forgotten() {
        let mut rated = Rated::default();
        assert!(rated.is_new("first"));
        assert!(!rated.is_new("first"));
        for number in 1..REMEMBERED {
            assert!(rated.is_new(&number.to_string()));
        }
        assert!(!rated.is_new("first"));
        assert!(rated.is_new("one more"));
        assert!(rated.is_new("first"), "it is the oldest, and there is no room for it");
        assert_eq!((rated.known.len(), rated.order.len()), (REMEMBERED, REMEMBERED));
    }
}
