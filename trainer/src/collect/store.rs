//! The directory of segments: batches go in once, are on the disk before they are acknowledged, and are deleted when they are
//! old.
//!
//! One process writes to it. Whatever goes wrong while it writes, what was acknowledged is there afterwards, and what is brought
//! again is not there twice.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use perennial_crds::capture::{Batch, Record};

use super::begin::Start;
use super::metrics::Metrics;
use super::requester::Requesters;
use super::retention::{Closed, Keep};
use super::segment::{self, BatchHead, Head, Line, Name, Position, State, VERSION};
use crate::contract::{Sha256Sum, sync_directory_of, write_bytes};

/// Room that is left for what does not ask for it, bytes.
pub(super) const RESERVE_BYTES: u64 = 1 << 20;
/// Processes that were not heard for so long are forgotten, seconds.
const FORGET_SECONDS: i64 = 86_400;
/// Most processes that are remembered.
const MOST_BOOTS: usize = 1024;
/// Longest id of a process, bytes.
const MOST_ID_BYTES: usize = 64;

/// Tells how many bytes may be written below a directory.
pub type Room = Box<dyn Fn(&Path) -> io::Result<u64> + Send>;

/// When segments are finished and deleted.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Seconds after which one is finished.
    pub segment_seconds: i64,
    /// Bytes beyond which one is finished.
    pub segment_bytes: u64,
    /// How much is kept for how long.
    pub keep: Keep,
    /// Bytes that may be in the directory, if segments only wait in it for the bucket.
    pub spool: Option<u64>,
}

/// Why nothing was written. Holds nothing of a record.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no room.
    #[error("there is no room on the volume: make it larger, or lower spec.capture.maxBytes")]
    Full,
    /// There is no room until segments are in the bucket.
    #[error(
        "records wait for the bucket, and there is no room for more: see why it takes none in the log of the collector"
    )]
    SpoolFull,
    /// It is no batch.
    #[error("{0}")]
    Invalid(&'static str),
    /// The disk failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StoreError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io { action, path, source },
        }
    }
}

/// The segment that grows.
pub(super) struct Open {
    name: Name,
    path: PathBuf,
    file: File,
    /// What is in it for certain.
    pub(super) bytes: u64,
    sum: Sha256Sum,
}

/// The directory of segments.
pub struct Store {
    pub(super) directory: PathBuf,
    pub(super) limits: Limits,
    room: Room,
    requesters: Requesters,
    pub(super) metrics: Arc<Metrics>,
    pub(super) boots: BTreeMap<String, Position>,
    pub(super) closed: Vec<Closed>,
    pub(super) next_sequence: u64,
    pub(super) open: Option<Open>,
    /// A segment was left as it was when writing failed.
    damaged: bool,
}

impl Store {
    /// Opens a directory; finishes what an earlier process left open.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(directory: &Path, limits: Limits, room: Room, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        fs::create_dir_all(directory).map_err(StoreError::io("create", directory))?;
        let requesters = Requesters::open(directory).map_err(StoreError::io("read", directory))?;
        Self::go_on(directory, limits, room, metrics, Start::new(requesters))
    }

    /// [`Self::open`], where what has to be known before is kept elsewhere.
    ///
    /// # Errors
    /// What the system says.
    pub fn go_on(
        directory: &Path,
        limits: Limits,
        room: Room,
        metrics: Arc<Metrics>,
        start: Start,
    ) -> Result<Self, StoreError> {
        fs::create_dir_all(directory).map_err(StoreError::io("create", directory))?;
        let mut store = Self {
            directory: directory.to_path_buf(),
            limits,
            room,
            requesters: start.requesters,
            metrics,
            boots: start.boots,
            closed: Vec::new(),
            next_sequence: start.next_sequence,
            open: None,
            damaged: false,
        };
        store.recover()?;
        store.measure();
        Ok(store)
    }

    /// Takes a batch: what of it was not there yet is on the disk when this returns.
    ///
    /// # Errors
    /// Nothing of it counts then.
    pub fn take(&mut self, mut batch: Batch, now: i64) -> Result<(), StoreError> {
        let end = check(&batch)?;
        let known = self.boots.get(&batch.boot_id).copied().unwrap_or_default();
        let there = known.next.saturating_sub(batch.first).min(batch.records.len() as u64);
        if there == batch.records.len() as u64 {
            self.metrics.duplicates.inc_by(there);
            return Ok(());
        }
        batch.records.drain(..usize::try_from(there).unwrap_or(usize::MAX));
        let head = BatchHead {
            boot_id: batch.boot_id,
            first: batch.first + there,
            records: batch.records.len() as u64,
            dropped: batch.dropped.max(known.dropped),
            time: now,
        };
        let position = Position {
            next: end,
            dropped: head.dropped,
            seen: now,
        };
        let boot_id = head.boot_id.clone();
        let feedback = batch.records.iter().filter(|record| is_feedback(record)).count() as u64;
        let records = head.records;
        let lines = self.lines(head, batch.records)?;
        self.append(&lines, now).inspect_err(|error| {
            if !matches!(error, StoreError::Full | StoreError::SpoolFull) {
                self.metrics.write_errors.inc();
            }
        })?;
        self.boots.insert(boot_id, position);
        self.metrics.duplicates.inc_by(there);
        self.metrics.lost.inc_by(position.dropped - known.dropped);
        self.metrics.written(records - feedback, feedback);
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.bytes >= self.limits.segment_bytes)
        {
            self.close_or_leave();
        }
        self.measure();
        Ok(())
    }

    fn lines(&self, head: BatchHead, records: Vec<Record>) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        let written = segment::push(&mut bytes, &Line::Batch(head)).and_then(|()| {
            records.into_iter().try_for_each(|record| {
                let line = match record {
                    Record::Exchange(mut exchange) => {
                        exchange.requester = exchange.requester.map(|name| self.requesters.hash(&name));
                        Line::Exchange(exchange)
                    }
                    Record::Feedback(feedback) => Line::Feedback(feedback),
                };
                segment::push(&mut bytes, &line)
            })
        });
        written.map_err(|_| StoreError::Invalid("the batch holds what cannot be written"))?;
        Ok(bytes)
    }

    fn append(&mut self, lines: &[u8], now: i64) -> Result<(), StoreError> {
        self.recover_if_damaged()?;
        let room = (self.room)(&self.directory).map_err(StoreError::io("measure", &self.directory))?;
        if room < lines.len() as u64 + RESERVE_BYTES {
            return Err(StoreError::Full);
        }
        let needed = self.bytes() + lines.len() as u64 + RESERVE_BYTES;
        if self.limits.spool.is_some_and(|most| needed > most) {
            return Err(StoreError::SpoolFull);
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin(now)?,
        };
        let written = open.file.write_all(lines).and_then(|()| open.file.sync_data());
        if let Err(error) = written {
            // What may be half there must not be there; if that cannot be done now, it is done before the next batch.
            let _ = open.file.set_len(open.bytes).and_then(|()| open.file.sync_data());
            self.damaged = true;
            return Err(StoreError::io("write", &open.path)(error));
        }
        open.bytes += lines.len() as u64;
        open.sum.update(lines);
        self.open = Some(open);
        Ok(())
    }

    fn begin(&mut self, now: i64) -> Result<Open, StoreError> {
        self.forget(now);
        let name = Name {
            sequence: self.next_sequence,
            opened: now,
        };
        let path = self.path(name, State::Open);
        let mut head = Vec::new();
        let line = Line::Segment(Head {
            version: VERSION,
            opened: now,
            boots: self.boots.clone(),
        });
        segment::push(&mut head, &line).map_err(|_| StoreError::Invalid("the head cannot be written"))?;
        let begun = begin(&path, &head).map_err(|error| {
            // It may be there already, half written.
            self.damaged = true;
            StoreError::io("create", &path)(error)
        })?;
        self.next_sequence += 1;
        let mut sum = Sha256Sum::default();
        sum.update(&head);
        Ok(Open {
            name,
            path,
            file: begun,
            bytes: head.len() as u64,
            sum,
        })
    }

    /// Forgets processes that will not be heard any more.
    fn forget(&mut self, now: i64) {
        self.boots
            .retain(|_, position| now.saturating_sub(position.seen) <= FORGET_SECONDS);
        while self.boots.len() > MOST_BOOTS {
            let oldest = self.boots.iter().min_by_key(|(_, position)| position.seen);
            let Some(oldest) = oldest.map(|(id, _)| id.clone()) else {
                break;
            };
            self.boots.remove(&oldest);
        }
    }

    /// What has to be done from time to time.
    pub fn tick(&mut self, now: i64) {
        if let Err(error) = self.recover_if_damaged() {
            tracing::warn!(%error, "what was left open cannot be finished yet");
        }
        let age = self
            .open
            .as_ref()
            .map(|open| now.checked_sub(open.name.opened).unwrap_or(i64::MAX));
        // A clock that goes backwards ends a segment, too.
        if age.is_some_and(|age| age < 0 || age >= self.limits.segment_seconds) {
            self.close_or_leave();
        }
        self.delete_surplus(now);
        self.measure();
    }

    /// Finishes the open segment.
    ///
    /// # Errors
    /// What the system says; it is finished by the next process then.
    pub fn close(&mut self) -> Result<(), StoreError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let outcome = self.finish(open.name, &open.sum.hex(), open.bytes);
        self.damaged |= outcome.is_err();
        self.measure();
        outcome
    }

    fn close_or_leave(&mut self) {
        if let Err(error) = self.close() {
            self.metrics.write_errors.inc();
            tracing::warn!(%error, "a segment cannot be finished yet");
        }
    }

    /// Gives a segment, whose bytes are on the disk, its hash and its name. The hash comes first, so that each finished segment
    /// has one.
    pub(super) fn finish(&mut self, name: Name, hash: &str, bytes: u64) -> Result<(), StoreError> {
        let path = self.path(name, State::Closed);
        let text = format!("{hash}  {}\n", name.file(State::Closed));
        let listing = path.with_file_name(name.listing());
        write_bytes(&listing, text.as_bytes()).map_err(StoreError::io("write", &listing))?;
        fs::rename(self.path(name, State::Open), &path)
            .and_then(|()| sync_directory_of(&path))
            .map_err(StoreError::io("rename", &path))?;
        self.closed.push(Closed {
            name,
            bytes: bytes + text.len() as u64,
        });
        Ok(())
    }

    fn recover_if_damaged(&mut self) -> Result<(), StoreError> {
        if self.damaged {
            self.recover()?;
            self.damaged = false;
        }
        Ok(())
    }

    pub(super) fn path(&self, name: Name, state: State) -> PathBuf {
        self.directory.join(name.day()).join(name.file(state))
    }

    fn bytes(&self) -> u64 {
        let open = self.open.as_ref().map_or(0, |open| open.bytes);
        open + self.closed.iter().map(|segment| segment.bytes).sum::<u64>()
    }

    pub(super) fn measure(&self) {
        let segments = self.closed.len() + usize::from(self.open.is_some());
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.bytes.set(number(self.bytes()));
        if self.limits.spool.is_some() {
            self.metrics.waiting.set(number(self.closed.len() as u64));
        }
        self.metrics.segments.set(i64::try_from(segments).unwrap_or(i64::MAX));
    }
}

/// The number behind the last record.
fn check(batch: &Batch) -> Result<u64, StoreError> {
    let id = batch.boot_id.as_bytes();
    let clean = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    if id.is_empty() || id.len() > MOST_ID_BYTES || !id.iter().all(clean) {
        return Err(StoreError::Invalid("bootId must be 1 to 64 letters, digits, -, _ or ."));
    }
    let end = batch.first.checked_add(batch.records.len() as u64);
    end.ok_or(StoreError::Invalid("first is too large"))
}

fn is_feedback(record: &Record) -> bool {
    matches!(record, Record::Feedback(_))
}

fn begin(path: &Path, head: &[u8]) -> io::Result<File> {
    if let Some(day) = path.parent()
        && !day.exists()
    {
        fs::create_dir_all(day)?;
        sync_directory_of(day)?;
    }
    let mut file = OpenOptions::new().append(true).create_new(true).open(path)?;
    file.write_all(head)?;
    sync_directory_of(path)?;
    Ok(file)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
