//! Where requests leave what is kept of them, and the thread that takes personal data out of it.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use parking_lot::Mutex;
use perennial_crds::capture::{FeedbackRecord, Level, Record};
use tokio::sync::{Notify, oneshot, watch};

use super::counters::CaptureCounters;
use super::draft::{Draft, Ended, Texts, clean_feedback};
use super::rules::Rules;
use super::spool::Spool;

/// Exchanges that may wait to be redacted. The longest takes some ten milliseconds.
const WAITING: usize = 64;
/// What a feedback record takes besides its texts.
const FEEDBACK_BYTES: usize = 1 << 10;

/// Why nothing can be kept.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The system gave no thread.
    #[error("no thread for what is kept of requests ({0}); allow the container more processes")]
    Thread(#[from] std::io::Error),
    /// There is no client for HTTP.
    #[error("no client for the collector: {0}")]
    Client(#[from] reqwest::Error),
}

/// Why feedback was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotKept {
    /// Nothing of the kind is kept.
    Off,
    /// There is no room for it now.
    Full,
}

enum Work {
    Exchange(Box<Ended>),
    Feedback(Box<FeedbackRecord>),
    /// Says when all that was handed over before is in the spool.
    Settle(oneshot::Sender<()>),
}

/// What is kept of requests.
pub struct Capture {
    work: SyncSender<Work>,
    state: Arc<State>,
}

struct State {
    rules: watch::Sender<Arc<Rules>>,
    /// Whoever changes rules holds this, so that nothing is put in by rules of before.
    spool: Mutex<Spool>,
    /// There is as much as a batch can hold.
    enough: Notify,
    counters: CaptureCounters,
}

impl Capture {
    /// Starts the thread, which ends with this. At most `bytes` wait for the collector.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(counters: CaptureCounters, bytes: usize) -> Result<Self, CaptureError> {
        let boot_id = format!("{:016x}", RandomState::new().hash_one(0));
        let state = Arc::new(State {
            rules: watch::Sender::new(Arc::default()),
            spool: Mutex::new(Spool::new(boot_id, bytes)),
            enough: Notify::new(),
            counters,
        });
        let (work, waiting) = sync_channel(WAITING);
        let keeper = Arc::clone(&state);
        std::thread::Builder::new()
            .name("capture".to_owned())
            .spawn(move || keeper.run(&waiting))?;
        Ok(Self { work, state })
    }

    /// What is to be kept now.
    #[must_use]
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.state.rules.borrow())
    }

    /// How much may be kept now.
    #[must_use]
    pub fn level(&self) -> Level {
        self.state.rules.borrow().level()
    }

    /// From now on this is kept. If that is less than texts, those that wait for the collector are forgotten.
    pub fn apply(&self, rules: Rules) {
        let level = rules.level();
        let mut spool = self.state.spool.lock();
        self.state.rules.send_replace(Arc::new(rules));
        if level < Level::Payload {
            self.state.counters.dropped.inc_by(spool.clear());
        }
        self.state.show(&spool);
        self.state.counters.set_level(level);
    }

    /// The terms were not understood.
    pub(super) fn refused(&self) {
        self.state.counters.refused_terms.inc();
    }

    /// Begins to keep a request, if it is one of the sample.
    #[must_use]
    pub fn draft(&self, id: &str, requester: Option<&str>, texts: Texts<'_>) -> Option<Draft> {
        let weight = self.state.rules.borrow().weight(id)?;
        Some(Draft::new(id.to_owned(), requester.map(str::to_owned), weight, texts))
    }

    /// Hands over an exchange that ended. Never waits: while too many are waiting it is dropped and counted as such.
    pub fn hand_over(&self, ended: Ended) {
        if self.level() < Level::Payload {
            return;
        }
        self.state.counters.sampled.inc();
        if self.work.try_send(Work::Exchange(Box::new(ended))).is_err() {
            self.state.counters.dropped.inc();
        }
    }

    /// Keeps what somebody thought of an answer. Tells whether that answer is in the sample; else there is nothing that the
    /// feedback could be joined with, and it is not kept.
    ///
    /// # Errors
    /// [`NotKept`].
    pub fn feedback(&self, feedback: FeedbackRecord) -> Result<bool, NotKept> {
        let rules = self.rules();
        if rules.level() < Level::Payload {
            return Err(NotKept::Off);
        }
        if rules.weight(&feedback.request_id).is_none() {
            return Ok(false);
        }
        let bytes = FEEDBACK_BYTES + feedback.corrected_output.as_ref().map_or(0, String::len);
        if !self.state.spool.lock().has_room(bytes) {
            return Err(NotKept::Full);
        }
        let work = Work::Feedback(Box::new(feedback));
        self.work.try_send(work).map_err(|_| NotKept::Full)?;
        self.state.counters.sampled.inc();
        Ok(true)
    }

    /// Waits until all that was handed over so far is in the spool.
    pub(super) async fn settle(&self) {
        let (settle, settled) = oneshot::channel();
        let work = self.work.clone();
        // There may be no place for it yet, so it is not sent from a thread that answers requests.
        let sent = tokio::task::spawn_blocking(move || work.send(Work::Settle(settle)));
        if matches!(sent.await, Ok(Ok(()))) {
            let _ = settled.await;
        }
    }

    /// Waits until there is as much as a batch can hold.
    pub(super) async fn enough(&self) {
        self.state.enough.notified().await;
    }

    /// What is to be kept, and whatever it will be.
    pub(super) fn follow_rules(&self) -> watch::Receiver<Arc<Rules>> {
        self.state.rules.subscribe()
    }

    /// Works on what waits for the collector.
    pub(super) fn with_spool<T>(&self, work: impl FnOnce(&mut Spool, &CaptureCounters) -> T) -> T {
        let mut spool = self.state.spool.lock();
        let done = work(&mut spool, &self.state.counters);
        self.state.show(&spool);
        done
    }
}

impl State {
    fn run(&self, work: &Receiver<Work>) {
        while let Ok(work) = work.recv() {
            let rules = Arc::clone(&self.rules.borrow());
            let (record, finds) = match work {
                Work::Exchange(ended) => {
                    let record = ended.record(&rules);
                    let finds = record.redactions.clone();
                    (Record::Exchange(record), finds)
                }
                Work::Feedback(feedback) => {
                    let (feedback, finds) = clean_feedback(*feedback, &rules);
                    (Record::Feedback(feedback), finds)
                }
                Work::Settle(settled) => {
                    // Whoever asked may have gone.
                    let _ = settled.send(());
                    continue;
                }
            };
            self.counters.redacted(&finds);
            self.put(&record);
        }
    }

    fn put(&self, record: &Record) {
        let mut spool = self.spool.lock();
        if self.rules.borrow().level() < Level::Payload {
            self.counters.dropped.inc();
            return;
        }
        self.counters.dropped.inc_by(spool.push(record));
        self.show(&spool);
        if spool.fills_a_batch() {
            self.enough.notify_one();
        }
    }

    fn show(&self, spool: &Spool) {
        self.counters
            .spool_bytes
            .set(i64::try_from(spool.bytes()).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
#[path = "recorder_tests.rs"]
mod tests;
