//! Segments: files of records as the collector writes them and the Job that prepares reads them. Pure.
//!
//! A segment is JSON Lines. The first line says how far every process has been heard; then come batches, each a line that
//! says whose they are and how many records follow. So a segment alone tells what was taken, and a batch of which the end is
//! missing was never acknowledged and counts for nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use perennial_crds::capture::{ExchangeRecord, FeedbackRecord, Record};
use serde::{Deserialize, Serialize};

/// Version of segments that this code writes.
pub const VERSION: u32 = 1;

/// A line of a segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Line {
    /// The first one.
    Segment(Head),
    /// Records follow.
    Batch(BatchHead),
    /// A request and its answer.
    Exchange(ExchangeRecord),
    /// What somebody thought of an answer.
    Feedback(FeedbackRecord),
}

/// The first line of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// When it was begun, seconds since 1970.
    pub opened: i64,
    /// How far each process was heard before it.
    pub boots: BTreeMap<String, Position>,
}

/// How far a process was heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// Number of its first record that was not taken.
    pub next: u64,
    /// Records that it dropped before.
    pub dropped: u64,
    /// When it was last heard, seconds since 1970.
    pub seen: i64,
}

/// What stands before the records of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchHead {
    /// Of which process.
    pub boot_id: String,
    /// Number of the first record.
    pub first: u64,
    /// How many follow.
    pub records: u64,
    /// Records that the process dropped before.
    pub dropped: u64,
    /// When it was taken, seconds since 1970.
    pub time: i64,
}

/// The name of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Counts up over all segments of a directory.
    pub sequence: u64,
    /// When it was begun, seconds since 1970.
    pub opened: i64,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It grows.
    Open,
    /// It is finished.
    Closed,
}

impl Name {
    fn time(self) -> DateTime {
        let time = Timestamp::from_second(self.opened).unwrap_or_default();
        TimeZone::UTC.to_datetime(time)
    }

    /// Folder: `YYYY-MM-DD`, of the moment when it was begun, UTC.
    #[must_use]
    pub fn day(self) -> String {
        self.time().strftime("%Y-%m-%d").to_string()
    }

    fn stem(self) -> String {
        format!("{}-{:08}", self.time().strftime("%H%M%S"), self.sequence)
    }

    /// Name of the file in its folder.
    #[must_use]
    pub fn file(self, state: State) -> String {
        match state {
            State::Open => format!("{}.open", self.stem()),
            State::Closed => format!("{}.jsonl", self.stem()),
        }
    }

    /// Name of the file beside a closed one with its hash, as `sha256sum` writes it.
    #[must_use]
    pub fn listing(self) -> String {
        format!("{}.sha256", self.file(State::Closed))
    }

    /// Whether a folder may hold segments.
    #[must_use]
    pub fn is_day(folder: &str) -> bool {
        Date::strptime("%Y-%m-%d", folder).is_ok_and(|date| date.to_string() == folder)
    }

    /// Reads the name of a file in a folder; nothing for other files.
    #[must_use]
    pub fn parse(day: &str, file: &str) -> Option<(Self, State)> {
        let (stem, state) = match (file.strip_suffix(".open"), file.strip_suffix(".jsonl")) {
            (Some(stem), _) => (stem, State::Open),
            (_, Some(stem)) => (stem, State::Closed),
            _ => return None,
        };
        let (time, sequence) = stem.split_once('-')?;
        let time = DateTime::strptime("%Y-%m-%d %H%M%S", format!("{day} {time}")).ok()?;
        let name = Self {
            sequence: sequence.parse().ok()?,
            opened: TimeZone::UTC.to_timestamp(time).ok()?.as_second(),
        };
        // Only names as they are made, so that a file has one name.
        (name.day() == day && name.file(state) == file).then_some((name, state))
    }
}

/// What is in a segment as far as it is whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    /// Bytes up to the end of the last whole batch; what follows was never acknowledged.
    pub whole: usize,
    /// How far each process was heard at that point.
    pub boots: BTreeMap<String, Position>,
    /// The records of whole batches.
    pub records: Vec<Record>,
}

impl Content {
    /// Reads a segment. Nothing of it is whole if it is of a version that is not known.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Self {
        let mut content = Self::default();
        let mut lines = Lines { bytes, at: 0 };
        match lines.next() {
            Some(Line::Segment(head)) if head.version == VERSION => content.boots = head.boots,
            _ => return content,
        }
        while let Some(Line::Batch(head)) = lines.next() {
            let whole = content.records.len();
            for _ in 0..head.records {
                match lines.next() {
                    Some(Line::Exchange(record)) => content.records.push(Record::Exchange(record)),
                    Some(Line::Feedback(record)) => content.records.push(Record::Feedback(record)),
                    _ => {
                        content.records.truncate(whole);
                        return content;
                    }
                }
            }
            content.whole = lines.at;
            let position = Position {
                next: head.first.saturating_add(head.records),
                dropped: head.dropped,
                seen: head.time,
            };
            content.boots.insert(head.boot_id, position);
        }
        content
    }
}

struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Iterator for Lines<'_> {
    type Item = Line;

    /// The next line that ends and can be read.
    fn next(&mut self) -> Option<Line> {
        let rest = self.bytes.get(self.at..)?;
        let length = rest.iter().position(|byte| *byte == b'\n')?;
        let line = serde_json::from_slice(&rest[..length]).ok()?;
        self.at += length + 1;
        Some(line)
    }
}

/// Adds a line.
///
/// # Errors
/// Never for what is known: numbers and texts can always be written.
pub fn push(bytes: &mut Vec<u8>, line: &Line) -> serde_json::Result<()> {
    serde_json::to_writer(&mut *bytes, line)?;
    bytes.push(b'\n');
    Ok(())
}

#[cfg(test)]
#[path = "segment_tests.rs"]
mod tests;
