//! What the names of objects say of the segments in a bucket. Pure.

use std::collections::BTreeMap;

use super::retention::Closed;
use super::segment::{Name, State};

/// A segment of which at least one of its two objects is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub name: Name,
    /// Size of the records.
    pub segment: Option<u64>,
    /// Size of the listing with its hash, which is put last and deleted first.
    pub listing: Option<u64>,
}

impl Stored {
    /// Whether it may be read.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.segment.is_some() && self.listing.is_some()
    }

    /// Whether it is there and only its listing is missing.
    #[must_use]
    pub fn lacks_listing(&self) -> bool {
        self.segment.is_some() && self.listing.is_none()
    }
}

/// The segments of objects, each a folder, a file and a size, in their order.
#[must_use]
pub fn stored(objects: &[(String, String, u64)]) -> Vec<Stored> {
    let mut found: BTreeMap<Name, Stored> = BTreeMap::new();
    for (day, file, size) in objects {
        let (stem, is_listing) = match file.strip_suffix(".sha256") {
            Some(stem) => (stem, true),
            None => (file.as_str(), false),
        };
        let Some((name, State::Closed)) = Name::parse(day, stem) else {
            continue;
        };
        let entry = found.entry(name).or_insert(Stored {
            name,
            segment: None,
            listing: None,
        });
        let part = if is_listing {
            &mut entry.listing
        } else {
            &mut entry.segment
        };
        *part = Some(*size);
    }
    found.into_values().collect()
}

/// As [`super::retention::surplus`] wants them. Halves count, too: they have to go some day.
#[must_use]
pub fn closed(stored: &[Stored]) -> Vec<Closed> {
    let of = |one: &Stored| Closed {
        name: one.name,
        bytes: one.segment.unwrap_or(0) + one.listing.unwrap_or(0),
    };
    stored.iter().map(of).collect()
}

/// The number of the next segment.
#[must_use]
pub fn next_sequence(stored: &[Stored]) -> u64 {
    let last = stored.iter().map(|one| one.name.sequence).max();
    last.map_or(0, |last| last.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(keys: &[&str]) -> Vec<(String, String, u64)> {
        let split = |key: &&str| {
            let (day, file) = key.split_once('/').expect("a key");
            (day.to_owned(), file.to_owned(), 10)
        };
        keys.iter().map(split).collect()
    }

    #[test]
    fn a_segment_is_finished_with_its_listing() {
        let found = stored(&objects(&[
            "2026-11-30/010101-00000002.jsonl",
            "2026-11-30/010001-00000001.jsonl.sha256",
            "2026-11-30/010001-00000001.jsonl",
            "2026-11-30/010201-00000003.jsonl.sha256",
            "2026-11-30/010301-00000009.open",
            "2026-11-30/notes.txt",
            "others/010001-00000001.jsonl",
        ]));
        let numbers: Vec<u64> = found.iter().map(|one| one.name.sequence).collect();
        assert_eq!(numbers, [1, 2, 3]);
        let finished: Vec<bool> = found.iter().map(Stored::is_finished).collect();
        assert_eq!(finished, [true, false, false]);
        let lacking: Vec<bool> = found.iter().map(Stored::lacks_listing).collect();
        assert_eq!(lacking, [false, true, false]);
        let bytes: Vec<u64> = closed(&found).iter().map(|one| one.bytes).collect();
        assert_eq!(bytes, [20, 10, 10]);
        assert_eq!((next_sequence(&found), next_sequence(&[])), (4, 0));
    }
}
