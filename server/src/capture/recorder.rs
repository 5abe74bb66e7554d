//! Where requests leave what is kept of them, and the thread that takes personal data out of it.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use parking_lot::Mutex;
use perennial_crds::capture::{FeedbackRecord, Level, Record};
use tokio::sync::{Notify, oneshot, watch};

use super::counters::CaptureCounters;
use super::draft::{Draft, Ended, Texts, clean_feedback};
use super::given::{Fate, Given};
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
    /// There is as much on that answer as is kept.
    Enough,
}

/// What still holds personal data.
enum Raw {
    Exchange(Box<Ended>),
    Feedback(Box<FeedbackRecord>),
}

enum Work {
    /// What began when the level had been lowered so often.
    Keep(Raw, u64),
    /// Says when all that was handed over before is in the spool.
    Settle(oneshot::Sender<()>),
}

/// What is kept of requests.
pub struct Capture {
    work: SyncSender<Work>,
    given: Mutex<Given>,
    state: Arc<State>,
}

struct State {
    rules: watch::Sender<Arc<Rules>>,
    /// Whoever changes rules holds this, so that nothing is put in by rules of before.
    spool: Mutex<Spool>,
    /// There is as much as a batch can hold.
    enough: Notify,
    counters: CaptureCounters,
    /// Hears of each level that comes into force.
    listener: Box<dyn Fn(Level) + Send + Sync>,
}

impl Capture {
    /// Starts the thread, which ends with this. At most `bytes` wait for the collector.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(counters: CaptureCounters, bytes: usize) -> Result<Self, CaptureError> {
        Self::telling(counters, bytes, |_| {})
    }

    /// The same, and `listener` hears of each level that comes into force, before others do.
    ///
    /// # Errors
    /// As [`Capture::start`].
    pub fn telling(
        counters: CaptureCounters,
        bytes: usize,
        listener: impl Fn(Level) + Send + Sync + 'static,
    ) -> Result<Self, CaptureError> {
        let boot_id = format!("{:016x}", RandomState::new().hash_one(0));
        let state = Arc::new(State {
            rules: watch::Sender::new(Arc::default()),
            spool: Mutex::new(Spool::new(boot_id, bytes)),
            enough: Notify::new(),
            counters,
            listener: Box::new(listener),
        });
        let (work, waiting) = sync_channel(WAITING);
        let keeper = Arc::clone(&state);
        std::thread::Builder::new()
            .name("capture".to_owned())
            .spawn(move || keeper.run(&waiting))?;
        Ok(Self {
            work,
            given: Mutex::default(),
            state,
        })
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
        self.state.put_into_force(rules, &mut self.state.spool.lock());
    }

    /// The terms were not understood.
    pub(super) fn refused(&self) {
        self.state.counters.refused_terms.inc();
    }

    /// Begins to keep a request, if it is one of the sample.
    #[must_use]
    pub fn draft(&self, id: &str, requester: Option<&str>, texts: Texts<'_>) -> Option<Draft> {
        let (weight, lowered) = {
            let rules = self.state.rules.borrow();
            (rules.weight(id)?, rules.lowered)
        };
        let draft = Draft::new(id.to_owned(), requester.map(str::to_owned), weight, texts);
        Some(draft.since(lowered))
    }

    /// Hands over an exchange that ended. Never waits: while too many are waiting it is dropped and counted as such.
    pub fn hand_over(&self, ended: Ended) {
        let lowered = ended.lowered();
        if !self.state.rules.borrow().keep(lowered) {
            return;
        }
        self.state.counters.sampled.inc();
        let work = Work::Keep(Raw::Exchange(Box::new(ended)), lowered);
        if self.work.try_send(work).is_err() {
            self.state.counters.dropped.inc();
        }
    }

    /// Keeps what somebody thought of an answer, once if it is sent again. Tells whether that answer is in the sample; else
    /// there is nothing that the feedback could be joined with, and it is not kept.
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
        // Held until it is handed over, so that of two that come at the same time one is the repetition.
        let mut given = self.given.lock();
        let mark = given.mark(&feedback);
        match given.fate(mark, rules.lowered) {
            Fate::New => {}
            Fate::Repeated => return Ok(true),
            Fate::Enough => return Err(NotKept::Enough),
        }
        let bytes = FEEDBACK_BYTES + feedback.corrected_output.as_ref().map_or(0, String::len);
        if !self.state.spool.lock().has_room(bytes) {
            return Err(NotKept::Full);
        }
        let work = Work::Keep(Raw::Feedback(Box::new(feedback)), rules.lowered);
        self.work.try_send(work).map_err(|_| NotKept::Full)?;
        given.add(mark);
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
    fn put_into_force(&self, rules: Rules, spool: &mut Spool) {
        let level = rules.level();
        let rules = rules.after(&self.rules.borrow());
        (self.listener)(level);
        if level < Level::Payload {
            self.counters.dropped.inc_by(spool.clear());
        }
        self.show(spool);
        self.counters.set_level(level);
        // Last, so that whoever sees them sees what has become of the rest, too.
        self.rules.send_replace(Arc::new(rules));
    }

    fn run(&self, work: &Receiver<Work>) {
        while let Ok(work) = work.recv() {
            match work {
                Work::Keep(raw, lowered) => {
                    if let Some(record) = self.clean(raw, lowered) {
                        self.put(&record, lowered);
                    }
                }
                Work::Settle(settled) => {
                    // Whoever asked may have gone.
                    let _ = settled.send(());
                }
            }
        }
    }

    /// What is kept of it by the rules of now. Those of a lower level would find nothing, and leave everything in it.
    fn clean(&self, raw: Raw, lowered: u64) -> Option<Record> {
        let rules = Arc::clone(&self.rules.borrow());
        if !rules.keep(lowered) {
            self.counters.dropped.inc();
            return None;
        }
        let (record, finds) = match raw {
            Raw::Exchange(ended) => {
                let record = ended.record(&rules);
                let finds = record.redactions.clone();
                (Record::Exchange(record), finds)
            }
            Raw::Feedback(feedback) => {
                let (feedback, finds) = clean_feedback(*feedback, &rules);
                (Record::Feedback(feedback), finds)
            }
        };
        self.counters.redacted(&finds);
        Some(record)
    }

    /// Into the spool, unless the level was lowered in the meantime, which has emptied it.
    fn put(&self, record: &Record, lowered: u64) {
        let mut spool = self.spool.lock();
        if !self.rules.borrow().keep(lowered) {
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
