//! The thread that turns ended requests into counts, away from the cores' requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use parking_lot::Mutex;
use perennial_crds::serving::{Observation, PanesPage};
use perennial_drift::features::refusal::RefusalError;

use super::encoder::StaticEncoder;
use super::extraction::Extraction;
use super::panes::{ObservationError, Panes};
use super::rated::Rated;
use super::record::Record;
use crate::metrics::ObservationCounters;
use crate::shared::seconds_since_1970;

/// Ended requests that may wait to be counted: some 10 MiB if all are as long as can be. One takes about 0.2 ms,
/// with an encoder up to 1 ms.
const WAITING: usize = 256;

/// Why nothing can be observed.
#[derive(Debug, thiserror::Error)]
pub enum ObserverError {
    /// A list of refusals is malformed, which is a bug.
    #[error("the observer of requests cannot be prepared: {0}")]
    Refusals(#[from] RefusalError),
    /// The system gave no thread.
    #[error("no thread for the observer of requests ({0}); allow the container more processes")]
    Thread(#[from] std::io::Error),
}

/// Where requests are counted.
struct Counts {
    panes: Mutex<Panes>,
    /// How often all was forgotten. Changes only while panes are locked.
    forgotten: AtomicU64,
}

/// An ended request, and how often all had been forgotten by then.
struct Ended(Record, u64);

/// Takes ended requests, and tells what they were as counts.
pub struct Observer {
    ended: SyncSender<Ended>,
    counts: Arc<Counts>,
    rated: Mutex<Rated>,
    encoder_bytes: u64,
    counters: ObservationCounters,
}

impl Observer {
    /// Starts the thread, which ends with the observer. Prompts are embedded by the encoder, without one by their n-grams.
    ///
    /// # Errors
    /// When the features or the thread cannot be made.
    pub fn start(counters: ObservationCounters, encoder: Option<StaticEncoder>) -> Result<Self, ObserverError> {
        let extraction = Extraction::new(encoder)?;
        let encoder_bytes = extraction.encoder_bytes();
        let counts = Arc::new(Counts {
            panes: Mutex::new(Panes::new(extraction.layout(), random())),
            forgotten: AtomicU64::new(0),
        });
        let (ended, waiting) = sync_channel(WAITING);
        let (counted, observed) = (Arc::clone(&counts), counters.observed.clone());
        std::thread::Builder::new()
            .name("observer".to_owned())
            .spawn(move || run(&waiting, &extraction, &counted, &observed))?;
        Ok(Self {
            ended,
            counts,
            rated: Mutex::default(),
            encoder_bytes,
            counters,
        })
    }

    /// Hands over a request that ended. Never waits: while too many are waiting it is dropped and counted as such.
    pub fn hand_over(&self, record: Record) {
        let forgotten = self.counts.forgotten.load(Ordering::Relaxed);
        if self.ended.try_send(Ended(record, forgotten)).is_err() {
            self.counters.dropped.inc();
        }
    }

    /// Counts what a person thought of an answer: once for each request, so that feedback may be sent again.
    pub fn rate(&self, request: &str, bad: bool) {
        if self.rated.lock().is_new(request) {
            let now = now();
            self.counts.panes.lock().rate(now, bad);
        }
    }

    /// Whether anything is counted from now on. If not, all that was counted is forgotten at once, with what waits for it.
    pub fn set_counting(&self, counting: bool) {
        self.set_counting_of(&mut self.counts.panes.lock(), counting);
    }

    fn set_counting_of(&self, panes: &mut Panes, counting: bool) {
        if !counting {
            self.counts.forgotten.fetch_add(1, Ordering::Relaxed);
        }
        panes.set_counting(counting);
    }

    /// What the encoder of prompts takes of memory; 0 without one.
    #[must_use]
    pub fn encoder_bytes(&self) -> u64 {
        self.encoder_bytes
    }

    /// The closed panes behind `after`, all that are kept for `None`.
    #[must_use]
    pub fn page(&self, after: Option<u64>) -> PanesPage {
        let now = now();
        self.counts.panes.lock().page(after, now)
    }

    /// Changes the length of panes.
    ///
    /// # Errors
    /// A length that panes cannot have.
    pub fn observe(&self, observation: Observation) -> Result<(), ObservationError> {
        self.counts.panes.lock().observe(observation)
    }
}

fn run(ended: &Receiver<Ended>, extraction: &Extraction, counts: &Counts, observed: &prometheus::IntCounter) {
    while let Ok(Ended(record, forgotten)) = ended.recv() {
        let features = extraction.features(&record);
        // Not kept any longer than needed, and not under the lock.
        drop(record);
        let now = now();
        let mut panes = counts.panes.lock();
        if counts.forgotten.load(Ordering::Relaxed) == forgotten && panes.record(now, &features) {
            observed.inc();
        }
    }
}

fn now() -> i64 {
    i64::try_from(seconds_since_1970()).unwrap_or(i64::MAX)
}

/// The standard library seeds its hashers from the system; all that is needed is another number at another start.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::metrics::{Metrics, Outcome};
    use crate::observation::{End, Question, Recording};

    fn record() -> Record {
        let question = Question::new("1".to_owned(), None, Some("Why?"), Some(4));
        Recording::new(question, &[1, 2]).end(End {
            outcome: Outcome::Stop,
            output_tokens: 1,
            first_token: None,
            between_tokens: None,
            logprob: None,
            entropy: None,
        })
    }

    #[test]
    fn what_waits_is_not_counted_any_more_when_counting_ends() {
        let counters = Metrics::new("m", false).expect("metrics").observation;
        let observer = Observer::start(counters.clone(), None).expect("an observer");
        let boot = observer.page(None).boot_id;
        let mut held = observer.counts.panes.lock();
        for _ in 0..3 {
            observer.hand_over(record());
        }
        observer.set_counting_of(&mut held, false);
        observer.set_counting_of(&mut held, true);
        drop(held);
        // They are counted in the order in which they came.
        observer.hand_over(record());
        let deadline = Instant::now() + Duration::from_secs(20);
        while counters.observed.get() == 0 {
            assert!(Instant::now() < deadline, "the last is counted");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(counters.observed.get(), 1);
        assert_ne!(observer.page(None).boot_id, boot);
    }

    #[test]
    fn what_finds_no_place_is_dropped_and_counted_and_nobody_waits() {
        let counters = Metrics::new("m", false).expect("metrics").observation;
        let observer = Observer::start(counters.clone(), None).expect("an observer");
        // The thread stops at its first record while this is held.
        let held = observer.counts.panes.lock();
        for _ in 0..WAITING + 10 {
            observer.hand_over(record());
        }
        let dropped = counters.dropped.get();
        assert!((9..=10).contains(&dropped), "{dropped}");
        drop(held);
        let deadline = Instant::now() + Duration::from_secs(20);
        while counters.observed.get() + dropped < WAITING as u64 + 10 {
            assert!(Instant::now() < deadline, "not all were counted");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_ne!(
            observer.page(None).boot_id,
            Observer::start(counters, None).expect("another").page(None).boot_id
        );
    }
}
