use std::sync::atomic::{AtomicU64, Ordering};

use perennial_crds::capture::{BATCH_VERSION, ExchangeRecord, FeedbackRecord, Finish, Message};
use tempfile::TempDir;

use super::*;
use crate::collect::recover::list;
use crate::collect::segment::Content;

const NOW: i64 = 1_796_000_461;
const LIMITS: Limits = Limits {
    segment_seconds: 60,
    segment_bytes: 1 << 20,
    keep: Keep {
        seconds: 86_400,
        bytes: 1 << 30,
    },
    spool: None,
};

fn exchange(number: u64) -> Record {
    Record::Exchange(ExchangeRecord {
        request_id: format!("req-{number}"),
        time: NOW,
        revision: None,
        requester: Some("alice".to_owned()),
        messages: vec![Message {
            role: "user".to_owned(),
            content: format!("question {number}"),
        }],
        prompt: None,
        answer: "answer".to_owned(),
        finish: Finish::Stop,
        prompt_tokens: 1,
        output_tokens: 1,
        sampling_weight: 1.0,
        redactions: BTreeMap::new(),
        truncated: false,
    })
}

fn feedback(number: u64) -> Record {
    Record::Feedback(FeedbackRecord {
        request_id: format!("req-{number}"),
        time: NOW,
        score: Some(1.0),
        corrected_output: None,
    })
}

fn batch(boot: &str, first: u64, records: u64) -> Batch {
    Batch {
        version: BATCH_VERSION,
        boot_id: boot.to_owned(),
        first,
        dropped: 0,
        records: (first..first + records).map(exchange).collect(),
    }
}

struct Site {
    directory: TempDir,
    room: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
}

impl Site {
    fn new() -> Self {
        Self {
            directory: TempDir::new().expect("a directory"),
            room: Arc::new(AtomicU64::new(u64::MAX)),
            metrics: Arc::new(Metrics::new().expect("metrics")),
        }
    }

    fn open(&self) -> Store {
        self.with(LIMITS)
    }

    fn with(&self, limits: Limits) -> Store {
        let room = Arc::clone(&self.room);
        let room: Room = Box::new(move |_| Ok(room.load(Ordering::Relaxed)));
        Store::open(self.directory.path(), limits, room, Arc::clone(&self.metrics)).expect("a store")
    }

    fn segments(&self) -> Vec<(Name, State)> {
        let mut segments = list(self.directory.path()).expect("a listing");
        segments.sort_unstable_by_key(|(name, _)| *name);
        segments
    }

    fn paths(&self, state: State) -> Vec<PathBuf> {
        let of_state = self.segments().into_iter().filter(|(_, found)| *found == state);
        let path = |(name, state): (Name, State)| self.directory.path().join(name.day()).join(name.file(state));
        of_state.map(path).collect()
    }

    /// Ids of all requests that are kept, in order, whatever the state of their segments.
    fn kept(&self) -> Vec<String> {
        let mut kept = Vec::new();
        for (name, state) in self.segments() {
            let path = self.directory.path().join(name.day()).join(name.file(state));
            let bytes = fs::read(&path).expect("a segment");
            let content = Content::read(&bytes);
            assert_eq!(content.whole, bytes.len(), "{} is whole", path.display());
            for record in content.records {
                kept.push(match record {
                    Record::Exchange(record) => record.request_id,
                    Record::Feedback(record) => format!("{} feedback", record.request_id),
                });
            }
        }
        kept
    }
}

fn numbers(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("req-{number}")).collect()
}

/// As when the process is killed: nothing is finished.
fn kill(store: Store) {
    drop(store);
}

#[test]
fn what_is_brought_again_is_not_written_again() {
    let site = Site::new();
    let mut store = site.open();
    store.take(batch("a", 0, 3), NOW).expect("taken");
    store.take(batch("a", 0, 3), NOW).expect("taken");
    store.take(batch("b", 0, 1), NOW).expect("taken");
    // Part of it was there already.
    store.take(batch("a", 2, 3), NOW).expect("taken");
    assert_eq!(site.kept(), [numbers(0..3), numbers(0..1), numbers([3, 4])].concat());
    assert_eq!((site.metrics.duplicates.get(), site.metrics.batches.get()), (4, 3));
}

#[test]
fn nor_after_a_restart_however_the_process_ended() {
    let site = Site::new();
    let mut store = site.open();
    store.take(batch("a", 0, 3), NOW).expect("taken");
    kill(store);
    let mut store = site.open();
    store.take(batch("a", 0, 3), NOW + 1).expect("taken");
    assert_eq!(site.kept(), numbers(0..3));
    store.take(batch("b", 0, 2), NOW + 2).expect("taken");
    store.close().expect("closed");
    kill(store);
    // How far `a` was heard is in the head of the segment of `b`.
    let mut store = site.open();
    store.take(batch("a", 0, 3), NOW + 3).expect("taken");
    store.take(batch("b", 0, 2), NOW + 3).expect("taken");
    assert_eq!(site.kept(), [numbers(0..3), numbers(0..2)].concat());
    assert_eq!(site.paths(State::Open), Vec::<PathBuf>::new(), "nothing new was begun");
}

#[test]
fn a_torn_batch_is_cut_off_and_taken_when_it_comes_again() {
    let whole = {
        let site = Site::new();
        let mut store = site.open();
        store.take(batch("a", 0, 2), NOW).expect("taken");
        fs::metadata(&site.paths(State::Open)[0]).expect("a segment").len()
    };
    for torn in [1, 30, 200, 400] {
        let site = Site::new();
        let mut store = site.open();
        store.take(batch("a", 0, 2), NOW).expect("taken");
        store.take(batch("a", 2, 2), NOW).expect("taken");
        kill(store);
        let path = &site.paths(State::Open)[0];
        let file = OpenOptions::new().write(true).open(path).expect("the segment");
        file.set_len(whole + torn).expect("cut");
        let mut store = site.open();
        assert_eq!(site.kept(), numbers(0..2), "torn after {torn} bytes");
        store.take(batch("a", 2, 2), NOW).expect("taken");
        assert_eq!(site.kept(), numbers(0..4));
    }
}

#[test]
fn a_segment_of_which_not_even_the_head_is_whole_makes_nothing_forgotten() {
    let site = Site::new();
    let mut store = site.open();
    store.take(batch("a", 0, 2), NOW).expect("taken");
    store.close().expect("closed");
    store.take(batch("a", 2, 1), NOW + 1).expect("taken");
    kill(store);
    let open = site.paths(State::Open);
    OpenOptions::new()
        .write(true)
        .open(&open[0])
        .expect("the segment")
        .set_len(10)
        .expect("cut");
    let mut store = site.open();
    assert_eq!(site.paths(State::Open), Vec::<PathBuf>::new());
    store.take(batch("a", 0, 2), NOW + 2).expect("taken");
    store.take(batch("a", 2, 1), NOW + 2).expect("taken");
    assert_eq!(site.kept(), numbers(0..3));
}

#[test]
fn segments_end_with_their_time_and_their_size_and_have_a_hash() {
    let site = Site::new();
    let mut store = site.open();
    store.take(batch("a", 0, 1), NOW).expect("taken");
    store.tick(NOW + 59);
    assert_eq!(site.paths(State::Closed).len(), 0);
    store.tick(NOW + 60);
    assert_eq!((site.paths(State::Closed).len(), site.paths(State::Open).len()), (1, 0));
    store.take(batch("a", 1, 1), NOW + 61).expect("taken");
    // A clock that goes backwards.
    store.tick(NOW + 1);
    assert_eq!(site.paths(State::Closed).len(), 2);
    kill(store);
    let small = Limits {
        segment_bytes: 1,
        ..LIMITS
    };
    let mut store = site.with(small);
    store.take(batch("a", 2, 1), NOW + 62).expect("taken");
    let closed = site.paths(State::Closed);
    assert_eq!(closed.len(), 3);
    for path in closed {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let listing = fs::read_to_string(path.with_file_name(format!("{name}.sha256"))).expect("a hash");
        let sum = Sha256Sum::of(&fs::read(&path).expect("a segment"));
        assert_eq!(listing, format!("{sum}  {name}\n"));
    }
    assert_eq!(site.metrics.segments.get(), 3);
}

#[test]
fn the_hash_of_a_segment_that_another_process_finished_is_right_too() {
    let site = Site::new();
    let mut store = site.open();
    store.take(batch("a", 0, 1), NOW).expect("taken");
    kill(store);
    site.open();
    let closed = &site.paths(State::Closed)[0];
    let listing = fs::read_to_string(closed.with_extension("jsonl.sha256")).expect("a hash");
    assert!(listing.starts_with(&Sha256Sum::of(&fs::read(closed).expect("a segment"))));
}

#[test]
fn without_room_nothing_is_acknowledged_and_later_it_goes_on() {
    let site = Site::new();
    let mut store = site.open();
    store.take(batch("a", 0, 1), NOW).expect("taken");
    site.room.store(RESERVE_BYTES, Ordering::Relaxed);
    assert!(matches!(store.take(batch("a", 1, 1), NOW), Err(StoreError::Full)));
    assert!(matches!(store.take(batch("b", 0, 1), NOW), Err(StoreError::Full)));
    // What is there already needs no room.
    store.take(batch("a", 0, 1), NOW).expect("taken");
    assert_eq!(site.kept(), numbers(0..1));
    site.room.store(u64::MAX, Ordering::Relaxed);
    store.take(batch("a", 1, 1), NOW).expect("taken");
    assert_eq!(site.kept(), numbers(0..2));
    assert_eq!(site.metrics.write_errors.get(), 0);
}

#[test]
fn when_writing_fails_nothing_is_acknowledged_and_later_it_goes_on() {
    let site = Site::new();
    let mut store = site.open();
    store.take(batch("a", 0, 2), NOW).expect("taken");
    // Everything fails on a file that is open for reading.
    let open = store.open.as_mut().expect("a segment");
    open.file = File::open(&open.path).expect("the segment");
    assert!(matches!(store.take(batch("a", 2, 1), NOW), Err(StoreError::Io { .. })));
    assert_eq!((site.kept(), site.metrics.write_errors.get()), (numbers(0..2), 1));
    store.take(batch("a", 2, 1), NOW).expect("taken");
    store.take(batch("a", 0, 2), NOW).expect("taken");
    assert_eq!(site.kept(), numbers(0..3));
    // The one that failed was finished, and another one begun.
    assert_eq!((site.paths(State::Closed).len(), site.paths(State::Open).len()), (1, 1));
}

#[test]
fn when_no_segment_can_be_begun_it_is_tried_again() {
    let site = Site::new();
    let mut store = site.open();
    let day = Name {
        sequence: 0,
        opened: NOW,
    }
    .day();
    // A file where the folder should be.
    fs::write(site.directory.path().join(&day), "").expect("written");
    assert!(store.take(batch("a", 0, 1), NOW).is_err());
    fs::remove_file(site.directory.path().join(&day)).expect("removed");
    store.take(batch("a", 0, 1), NOW).expect("taken");
    assert_eq!(site.kept(), numbers(0..1));
}

#[test]
fn old_segments_are_deleted_with_their_hashes_and_folders() {
    let site = Site::new();
    let mut store = site.open();
    store.take(batch("a", 0, 1), NOW).expect("taken");
    store.tick(NOW + 60);
    store.take(batch("a", 1, 1), NOW + 86_000).expect("taken");
    store.tick(NOW + 86_400);
    assert_eq!(site.kept(), numbers(0..2));
    store.tick(NOW + 86_401);
    assert_eq!(site.kept(), numbers(1..2));
    let day = Name {
        sequence: 0,
        opened: NOW,
    }
    .day();
    assert!(!site.directory.path().join(day).exists());
    let bytes = fs::metadata(&site.paths(State::Closed)[0]).expect("a segment").len();
    assert!(site.metrics.bytes.get() as u64 > bytes && site.metrics.segments.get() == 1);
}

#[test]
fn beyond_the_size_the_oldest_are_deleted_first() {
    let site = Site::new();
    let mut store = site.with(Limits {
        segment_bytes: 1,
        keep: Keep {
            bytes: 1500,
            ..LIMITS.keep
        },
        ..LIMITS
    });
    for number in 0..6 {
        store.take(batch("a", number, 1), NOW + number as i64).expect("taken");
    }
    store.tick(NOW + 6);
    let kept = site.kept();
    assert!(kept.len() < 6 && kept.ends_with(&numbers(5..6)), "{kept:?}");
    assert!(site.metrics.bytes.get() <= 1500);
    // What was deleted is not taken again.
    store.take(batch("a", 0, 1), NOW + 7).expect("taken");
    assert_eq!(site.kept(), kept);
}

#[test]
fn requesters_are_stored_as_hashes_and_counts_are_told() {
    let site = Site::new();
    let mut store = site.open();
    let mixed = Batch {
        dropped: 4,
        records: vec![exchange(4), feedback(4)],
        ..batch("a", 4, 0)
    };
    store.take(mixed, NOW).expect("taken");
    let text = fs::read_to_string(&site.paths(State::Open)[0]).expect("a segment");
    assert!(!text.contains("alice"), "{text}");
    assert!(text.contains(&format!("\"requester\":\"{}\"", store.requesters.hash("alice"))));
    assert_eq!(site.kept(), ["req-4", "req-4 feedback"]);
    assert_eq!(site.metrics.lost.get(), 4);
    let rendered = site.metrics.render();
    assert!(rendered.contains("records_total{kind=\"feedback\"} 1"), "{rendered}");
}

#[test]
fn what_is_no_batch_is_refused() {
    let site = Site::new();
    let mut store = site.open();
    let long = "a".repeat(65);
    for (boot, first) in [("", 0), ("../a", 0), ("a b", 0), (long.as_str(), 0), ("a", u64::MAX)] {
        let batch = Batch {
            first,
            ..batch(boot, 0, 1)
        };
        assert!(matches!(store.take(batch, NOW), Err(StoreError::Invalid(_))), "{boot}");
    }
    assert_eq!(site.segments(), []);
}

#[test]
fn processes_that_are_gone_are_forgotten() {
    let site = Site::new();
    let mut store = site.open();
    store.take(batch("a", 0, 1), NOW).expect("taken");
    for number in 0..2000 {
        let position = Position {
            next: 1,
            dropped: 0,
            seen: NOW + number,
        };
        store.boots.insert(format!("b{number}"), position);
    }
    store.forget(NOW + FORGET_SECONDS + 1);
    assert!(!store.boots.contains_key("a") && store.boots.len() == MOST_BOOTS);
    assert!(store.boots.contains_key("b1999") && !store.boots.contains_key("b500"));
}

#[test]
fn other_files_are_left_alone() {
    let site = Site::new();
    let folder = site.directory.path().join("lost+found");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("000000-00000001.open"), "?").expect("written");
    let mut store = site.open();
    store.take(batch("a", 0, 1), NOW).expect("taken");
    store.tick(NOW + 10 * 86_400);
    store.tick(NOW + 10 * 86_400);
    assert!(folder.join("000000-00000001.open").exists());
}
