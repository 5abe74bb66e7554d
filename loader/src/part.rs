//! The record of a partial download: which bytes of the `.part` file are there. Pure.

use serde::{Deserialize, Serialize};

/// Progress of one file, in ranges of equal size, each filled from its front.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Size of the whole file.
    size: u64,
    range_bytes: u64,
    /// What the server said identifies the content: its ETag, or the time of modification.
    pub(crate) tag: Option<String>,
    /// The boot of the machine: what an earlier boot recorded may not have reached the disk.
    pub(crate) boot: String,
    done: Vec<u64>,
}

impl Part {
    pub(crate) fn new(size: u64, range_bytes: u64, tag: Option<String>, boot: String) -> Self {
        let range_bytes = range_bytes.max(1);
        let ranges = usize::try_from(size.div_ceil(range_bytes)).unwrap_or(usize::MAX);
        Self {
            size,
            range_bytes,
            tag,
            boot,
            done: vec![0; ranges],
        }
    }

    /// Whether the figures fit together; a record from disk may be damaged.
    pub(crate) fn is_sound(&self) -> bool {
        self.range_bytes > 0
            && u64::try_from(self.done.len()) == Ok(self.size.div_ceil(self.range_bytes))
            && self
                .done
                .iter()
                .enumerate()
                .all(|(index, done)| *done <= self.length(index))
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that are there.
    pub(crate) fn present(&self) -> u64 {
        self.done.iter().sum()
    }

    /// Ranges that lack bytes.
    pub(crate) fn missing(&self) -> Vec<usize> {
        (0..self.done.len())
            .filter(|index| self.next(*index).is_some())
            .collect()
    }

    /// First and last byte (inclusive) that range `index` lacks.
    pub(crate) fn next(&self, index: usize) -> Option<(u64, u64)> {
        let start = self.start(index);
        let first = start + self.done.get(index)?;
        let end = start + self.length(index);
        (first < end).then(|| (first, end - 1))
    }

    /// Records `bytes` more of range `index`.
    pub(crate) fn advance(&mut self, index: usize, bytes: u64) {
        let length = self.length(index);
        if let Some(done) = self.done.get_mut(index) {
            *done = (*done + bytes).min(length);
        }
    }

    fn start(&self, index: usize) -> u64 {
        u64::try_from(index)
            .unwrap_or(u64::MAX)
            .saturating_mul(self.range_bytes)
    }

    fn length(&self, index: usize) -> u64 {
        self.size.saturating_sub(self.start(index)).min(self.range_bytes)
    }
}

/// First byte, last byte and size from `Content-Range: bytes FIRST-LAST/SIZE`.
pub(crate) fn content_range(value: &str) -> Option<(u64, u64, u64)> {
    let (range, size) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size) = (first.parse().ok()?, last.parse().ok()?, size.parse().ok()?);
    (first <= last && last < size).then_some((first, last, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_the_file_and_fill_from_the_front() {
        let mut part = Part::new(25, 10, None, "boot".into());
        assert_eq!(part.missing(), [0, 1, 2]);
        assert_eq!(
            [part.next(0), part.next(1), part.next(2), part.next(3)],
            [Some((0, 9)), Some((10, 19)), Some((20, 24)), None]
        );
        part.advance(1, 4);
        assert_eq!(part.next(1), Some((14, 19)));
        part.advance(2, 5);
        part.advance(0, 100);
        assert_eq!((part.missing(), part.present()), (vec![1], 19));
        assert!(part.is_sound());
        assert!(Part::new(0, 10, None, String::new()).missing().is_empty());
    }

    #[test]
    fn a_damaged_record_is_noticed() {
        let mut part = Part::new(25, 10, None, String::new());
        part.done = vec![10, 11, 0];
        assert!(!part.is_sound());
        part.done = vec![10, 10];
        assert!(!part.is_sound());
        part.range_bytes = 0;
        assert!(!part.is_sound());
    }

    #[test]
    fn content_ranges_are_read() {
        assert_eq!(content_range("bytes 0-9/25"), Some((0, 9, 25)));
        for wrong in [
            "bytes */25",
            "bytes 0-9/*",
            "bytes 9-0/25",
            "bytes 0-25/25",
            "0-9/25",
            "",
        ] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
    }
}
