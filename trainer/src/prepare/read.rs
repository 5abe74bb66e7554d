//! Reads what the collector wrote, while it may be writing.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use perennial_crds::capture::{ExchangeRecord, Record};
use perennial_crds::retrain::{Include, PrepareSettings};

use super::error::PrepareError;
use super::join::Opinions;
use crate::collect::list;
use crate::collect::segment::{Content, Name, State};
use crate::contract::Sha256Sum;

/// Records come to the collector after they are made, and its clock may be another one: segments that were begun so much before the
/// window are read, too, seconds.
pub(super) const SLACK_SECONDS: i64 = 86_400;

/// What was read.
#[derive(Debug, Default)]
pub struct Read {
    /// Records of the window that may be trained on.
    pub exchanges: Vec<ExchangeRecord>,
    /// What people thought of them.
    pub opinions: Opinions,
    /// Records of the window that nobody thought anything of, and that are not needed.
    pub unlabelled: u64,
    /// Segments that were left out, because their bytes are not those that were written.
    pub damaged: u64,
    /// Segments that were read.
    pub segments: u64,
}

/// Reads all segments that may hold records of the window.
///
/// Feedback is read first: records that nobody thought anything of are counted and not kept, if prompts alone are not trained
/// on. A directory that is not there has no records.
///
/// # Errors
/// What the system says.
pub fn read(directory: &Path, settings: &PrepareSettings) -> Result<Read, PrepareError> {
    let mut names = match list(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Read::default()),
        names => names.map_err(PrepareError::io("read", directory))?,
    };
    names.retain(|(name, _)| name.opened >= settings.from.saturating_sub(SLACK_SECONDS));
    names.sort_unstable_by_key(|(name, _)| *name);
    let window = settings.from..settings.to;
    let mut read = Read::default();
    let mut good = Vec::new();
    for (name, state) in names {
        match segment(directory, name, state)? {
            Segment::Gone => {}
            Segment::Damaged => read.damaged += 1,
            Segment::Records(records) => {
                good.push((name, state));
                for record in records {
                    // What was thought later is for the next cycle: a second run must find the same.
                    if let Record::Feedback(feedback) = record
                        && feedback.time < settings.to
                    {
                        let opinion = read.opinions.entry(feedback.request_id.clone()).or_default();
                        opinion.add(feedback);
                    }
                }
            }
        }
    }
    read.segments = good.len() as u64;
    let prompts = settings.include.contains(&Include::UserPrompts);
    let mut unlabelled: BTreeSet<String> = BTreeSet::new();
    for (name, state) in good {
        let Segment::Records(records) = segment(directory, name, state)? else {
            continue;
        };
        for record in records {
            let Record::Exchange(mut exchange) = record else {
                continue;
            };
            if !window.contains(&exchange.time) {
                continue;
            }
            if read.opinions.contains_key(&exchange.request_id) {
                read.exchanges.push(exchange);
            } else if prompts {
                // Nobody vouches for it, so it is never learned.
                exchange.answer.clear();
                read.exchanges.push(exchange);
            } else {
                unlabelled.insert(exchange.request_id);
            }
        }
    }
    read.unlabelled = unlabelled.len() as u64;
    Ok(read)
}

enum Segment {
    Records(Vec<Record>),
    Damaged,
    /// It was deleted for its age in the meantime.
    Gone,
}

fn segment(directory: &Path, name: Name, state: State) -> Result<Segment, PrepareError> {
    let path = |state| directory.join(name.day()).join(name.file(state));
    if state == State::Open
        && let Some(bytes) = content(&path(State::Open))?
    {
        // What is behind the last whole batch is being written or was never acknowledged.
        return Ok(Segment::Records(Content::read(&bytes).records));
    }
    // One that was open may be finished by now.
    let path = path(State::Closed);
    let Some(bytes) = content(&path)? else {
        return Ok(Segment::Gone);
    };
    let listing: PathBuf = path.with_file_name(name.listing());
    if let Some(text) = content(&listing)? {
        let said = text.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        if said != Sha256Sum::of(&bytes).as_bytes() {
            tracing::warn!(
                day = name.day(),
                sequence = name.sequence,
                "a segment was changed after it was written; it is left out"
            );
            return Ok(Segment::Damaged);
        }
    }
    let read = Content::read(&bytes);
    if read.whole < bytes.len() {
        tracing::warn!(
            day = name.day(),
            sequence = name.sequence,
            "a segment cannot be read; it is left out"
        );
        return Ok(Segment::Damaged);
    }
    Ok(Segment::Records(read.records))
}

fn content(path: &Path) -> Result<Option<Vec<u8>>, PrepareError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some).map_err(PrepareError::io("read", path)),
    }
}
