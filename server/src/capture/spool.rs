//! Records that wait for the collector, in memory and in order. Pure: knows neither clock nor network.
//!
//! All records have numbers, lost ones too, so that the collector sees what is missing. A batch that was once on its way stays
//! as it is until it is taken or dropped: whoever got it already and could not say so knows it by its first number.

use std::collections::VecDeque;
use std::sync::Arc;

use perennial_crds::capture::{BATCH_VERSION, Batch, Record};

/// Most bytes of a batch.
pub const BATCH_BYTES: usize = 1 << 20;
/// Most records of a batch.
pub const BATCH_RECORDS: usize = 500;
/// What a batch holds besides records: far more than its few numbers.
const ENVELOPE_BYTES: usize = 256;
/// What a record costs besides its text.
const OVERHEAD_BYTES: usize = 64;

struct Waiting {
    number: u64,
    json: Box<str>,
}

struct OnItsWay {
    body: Arc<str>,
    records: u64,
    /// Whether an attempt to bring it is being made now.
    travels: bool,
}

/// Records that wait for the collector.
pub struct Spool {
    boot_id: String,
    capacity: usize,
    bytes: usize,
    /// Number of the next record.
    next: u64,
    dropped: u64,
    on_its_way: Option<OnItsWay>,
    waiting: VecDeque<Waiting>,
}

impl Spool {
    /// An empty one that holds so many bytes. The id is to be new with each start of the process.
    #[must_use]
    pub fn new(boot_id: String, capacity: usize) -> Self {
        Self {
            boot_id,
            capacity,
            bytes: 0,
            next: 0,
            dropped: 0,
            on_its_way: None,
            waiting: VecDeque::new(),
        }
    }

    /// Adds a record, for which the oldest make room. Tells how many were dropped, which may be this one.
    pub fn push(&mut self, record: &Record) -> u64 {
        let number = self.next;
        self.next += 1;
        let before = self.dropped;
        // What cannot be written cannot be sent; numbers and texts always can.
        match serde_json::to_string(record) {
            Ok(json) if json.len() + ENVELOPE_BYTES <= BATCH_BYTES && self.make_room(json.len()) => {
                self.bytes += cost(json.len());
                self.waiting.push_back(Waiting {
                    number,
                    json: json.into_boxed_str(),
                });
            }
            _ => self.dropped += 1,
        }
        self.dropped - before
    }

    fn make_room(&mut self, bytes: usize) -> bool {
        while self.bytes + cost(bytes) > self.capacity {
            let oldest = self.on_its_way.take_if(|batch| !batch.travels);
            if let Some(batch) = oldest {
                self.bytes -= cost(batch.body.len());
                self.dropped += batch.records;
            } else if let Some(record) = self.waiting.pop_front() {
                self.bytes -= cost(record.json.len());
                self.dropped += 1;
            } else {
                return false;
            }
        }
        true
    }

    /// Whether so many bytes more find room without dropping anything.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        self.bytes + cost(bytes) <= self.capacity
    }

    /// Whether there is as much as a batch can hold.
    #[must_use]
    pub fn fills_a_batch(&self) -> bool {
        self.waiting.len() >= BATCH_RECORDS || self.bytes >= BATCH_BYTES
    }

    /// Whether nothing waits and nothing is on its way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.on_its_way.is_none() && self.waiting.is_empty()
    }

    /// Bytes that are held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The batch to bring now: the one that was not taken before, or the oldest records.
    pub fn batch(&mut self) -> Option<Arc<str>> {
        if self.on_its_way.is_none() {
            self.on_its_way = self.gather();
        }
        let batch = self.on_its_way.as_mut()?;
        batch.travels = true;
        Some(Arc::clone(&batch.body))
    }

    fn gather(&mut self) -> Option<OnItsWay> {
        let first = self.waiting.front()?.number;
        let empty = Batch {
            version: BATCH_VERSION,
            boot_id: self.boot_id.clone(),
            first,
            dropped: self.dropped,
            records: Vec::new(),
        };
        let envelope = serde_json::to_string(&empty).ok()?;
        // Records are written already: they go between the brackets at its end.
        let mut body = envelope.strip_suffix("]}")?.to_owned();
        let mut records = 0;
        while let Some(record) = self.waiting.front() {
            let consecutive = record.number == first + records;
            let fits = body.len() + record.json.len() + 3 <= BATCH_BYTES && records < BATCH_RECORDS as u64;
            if !(consecutive && fits) {
                break;
            }
            if records > 0 {
                body.push(',');
            }
            body.push_str(&record.json);
            self.bytes -= cost(record.json.len());
            self.waiting.pop_front();
            records += 1;
        }
        body.push_str("]}");
        self.bytes += cost(body.len());
        Some(OnItsWay {
            body: body.into(),
            records,
            travels: false,
        })
    }

    /// The batch was taken. Tells how many records were in it.
    pub fn taken(&mut self) -> u64 {
        let Some(batch) = self.on_its_way.take() else { return 0 };
        self.bytes -= cost(batch.body.len());
        batch.records
    }

    /// The batch was not taken, as far as is known; it will be brought again.
    pub fn not_taken(&mut self) {
        if let Some(batch) = &mut self.on_its_way {
            batch.travels = false;
        }
    }

    /// Forgets everything. Tells how many records that were.
    pub fn clear(&mut self) -> u64 {
        let on_its_way = self.on_its_way.take().map_or(0, |batch| batch.records);
        let waiting = self.waiting.len() as u64;
        self.waiting = VecDeque::new();
        self.bytes = 0;
        on_its_way + waiting
    }
}

fn cost(bytes: usize) -> usize {
    bytes + OVERHEAD_BYTES
}

#[cfg(test)]
#[path = "spool_tests.rs"]
mod tests;
