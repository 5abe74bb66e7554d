use std::collections::BTreeSet;

use object_store::ObjectStoreExt;
use object_store::path::Path as Key;
use perennial_crds::capture::Record;
use tempfile::TempDir;

use super::*;
use crate::collect::begin::begin;
use crate::collect::fixture::{NOW, Unreliable, batch, named};
use crate::collect::metrics::Surplus;
use crate::collect::requester::KEY_BYTES;
use crate::collect::segment::Content;
use crate::collect::store::{Limits, RESERVE_BYTES, Room, StoreError};
use crate::contract::Sha256Sum;

const KEEP: Keep = Keep {
    seconds: 86_400,
    bytes: 1 << 30,
};
const LIMITS: Limits = Limits {
    segment_seconds: 60,
    segment_bytes: 1 << 20,
    keep: KEEP,
    spool: Some(1 << 30),
};

/// A node with a disk, beside a bucket that outlives it.
struct Site {
    directory: TempDir,
    store: Arc<Unreliable>,
    bucket: Bucket,
    metrics: Arc<Metrics>,
}

impl Site {
    fn new() -> Self {
        Self::of(Arc::default())
    }

    fn of(store: Arc<Unreliable>) -> Self {
        Self {
            directory: TempDir::new().expect("a directory"),
            bucket: Bucket::new(store.clone(), Key::from("records/tiny"), "archive"),
            store,
            metrics: Arc::new(Metrics::new().expect("metrics")),
        }
    }

    /// The pod comes up on another node: what was on the disk is gone.
    fn moved(self) -> Self {
        Self::of(self.store)
    }

    async fn open(&self, key: u8) -> Shelf {
        self.with(key, LIMITS).await
    }

    async fn with(&self, key: u8, limits: Limits) -> Shelf {
        let start = begin(&self.bucket, [key; KEY_BYTES]).await.expect("a start");
        let room: Room = Box::new(|_| Ok(u64::MAX));
        let store = Store::go_on(self.directory.path(), limits, room, Arc::clone(&self.metrics), start);
        Arc::new(Mutex::new(Some(store.expect("a store"))))
    }

    fn uploader(&self, keep: Keep) -> Uploader {
        Uploader::new(
            self.bucket.clone(),
            self.directory.path(),
            keep,
            Arc::clone(&self.metrics),
        )
    }

    async fn send(&self, shelf: &Shelf) -> Result<(), BucketError> {
        self.uploader(KEEP).send(shelf).await
    }

    /// Ids of all requests in finished segments of the bucket, in their order.
    async fn kept(&self) -> Vec<String> {
        let mut kept = Vec::new();
        for one in self.bucket.list().await.expect("a list") {
            if one.is_finished() {
                let (bytes, listing) = (self.bucket.segment(one.name), self.bucket.listing_of(one.name));
                let bytes = bytes.await.expect("an answer").expect("a segment");
                let listing = listing.await.expect("an answer").expect("a listing");
                let said = format!("{}  {}\n", Sha256Sum::of(&bytes), one.name.file(State::Closed));
                assert_eq!(String::from_utf8_lossy(&listing), said);
                let content = Content::read(&bytes);
                assert_eq!(content.whole, bytes.len());
                kept.extend(content.records.into_iter().map(|record| match record {
                    Record::Exchange(record) => record.request_id,
                    Record::Feedback(record) => record.request_id,
                }));
            }
        }
        kept
    }

    async fn requesters(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for one in self.bucket.list().await.expect("a list") {
            let bytes = self.bucket.segment(one.name).await.expect("an answer");
            for record in Content::read(&bytes.expect("a segment")).records {
                if let Record::Exchange(record) = record {
                    found.extend(record.requester);
                }
            }
        }
        found
    }

    fn on_the_disk(&self) -> usize {
        crate::collect::list(self.directory.path()).expect("a listing").len()
    }
}

fn take(shelf: &Shelf, boot: &str, numbers: std::ops::Range<u64>, now: i64) -> Result<(), StoreError> {
    shelf.lock().as_mut().expect("a store").take(batch(boot, numbers), now)
}

fn close(shelf: &Shelf) {
    shelf.lock().as_mut().expect("a store").close().expect("closed");
}

/// Taken, finished, not sent.
fn finished(shelf: &Shelf, boot: &str, numbers: std::ops::Range<u64>, now: i64) {
    take(shelf, boot, numbers, now).expect("taken");
    close(shelf);
}

fn ids(boot: &str, numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(|number| format!("{boot}-{number}")).collect()
}

#[tokio::test]
async fn what_is_in_the_bucket_is_not_on_the_disk_any_more() {
    let site = Site::new();
    let shelf = site.open(1).await;
    take(&shelf, "a", 0..2, NOW).expect("taken");
    site.send(&shelf).await.expect("nothing to send");
    assert_eq!(
        (site.kept().await, site.on_the_disk()),
        (Vec::new(), 1),
        "it still grows"
    );
    close(&shelf);
    assert_eq!(site.metrics.waiting.get(), 1);
    site.send(&shelf).await.expect("sent");
    assert_eq!((site.kept().await, site.on_the_disk()), (ids("a", 0..2), 0));
    assert_eq!((site.metrics.uploads.get(), site.metrics.waiting.get()), (1, 0));
    // What is brought again is known without the disk.
    take(&shelf, "a", 0..3, NOW + 1).expect("taken");
    close(&shelf);
    site.send(&shelf).await.expect("sent");
    assert_eq!(site.kept().await, ids("a", 0..3));
}

#[tokio::test]
async fn while_the_bucket_is_away_records_wait_and_then_no_more_are_taken() {
    let site = Site::new();
    let small = Limits {
        spool: Some(RESERVE_BYTES + 3000),
        ..LIMITS
    };
    let shelf = site.with(1, small).await;
    site.store.fail_from(0);
    let mut taken = 0;
    let full = loop {
        match take(&shelf, "a", taken..taken + 1, NOW) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        close(&shelf);
        site.send(&shelf).await.expect_err("away");
    };
    assert!(
        matches!(full, StoreError::SpoolFull) && taken > 1,
        "{full} after {taken}"
    );
    assert_eq!(
        (site.metrics.write_errors.get(), site.on_the_disk()),
        (0, taken as usize)
    );
    // Much of it is no reason to delete what nobody has yet.
    shelf.lock().as_mut().expect("a store").tick(NOW + 1);
    assert_eq!(site.on_the_disk(), taken as usize);
    site.store.works();
    site.send(&shelf).await.expect("sent");
    finished(&shelf, "a", taken..taken + 1, NOW + 2);
    site.send(&shelf).await.expect("sent");
    assert_eq!(site.kept().await, ids("a", 0..taken + 1));
}

#[tokio::test]
async fn wherever_sending_breaks_off_it_ends_with_the_same() {
    for requests in 0..4 {
        for restarts in [false, true] {
            let site = Site::new();
            let mut shelf = site.open(1).await;
            finished(&shelf, "a", 0..2, NOW);
            finished(&shelf, "b", 0..1, NOW + 1);
            site.store.fail_from(requests);
            site.send(&shelf).await.expect_err("it breaks off");
            site.store.works();
            if restarts {
                shelf = site.open(2).await;
            }
            take(&shelf, "a", 0..2, NOW + 2).expect("taken");
            take(&shelf, "b", 0..2, NOW + 2).expect("taken");
            close(&shelf);
            site.send(&shelf).await.expect("sent");
            let expected = [ids("a", 0..2), ids("b", 0..2)].concat();
            assert_eq!(site.kept().await, expected, "after {requests}, restarts: {restarts}");
            assert_eq!(site.on_the_disk(), 0);
        }
    }
}

#[tokio::test]
async fn a_collector_that_moved_takes_nothing_twice_and_knows_requesters() {
    let site = Site::new();
    let shelf = site.open(1).await;
    finished(&shelf, "a", 0..3, NOW);
    finished(&shelf, "b", 0..2, NOW + 1);
    site.send(&shelf).await.expect("sent");
    let site = site.moved();
    let shelf = site.open(2).await;
    // How far `a` was heard is in the head of the segment of `b`.
    take(&shelf, "a", 0..3, NOW + 2).expect("taken");
    take(&shelf, "b", 0..2, NOW + 2).expect("taken");
    assert_eq!(site.on_the_disk(), 0, "nothing new was begun");
    take(&shelf, "a", 2..4, NOW + 2).expect("taken");
    close(&shelf);
    site.send(&shelf).await.expect("sent");
    assert_eq!(
        site.kept().await,
        [ids("a", 0..3), ids("b", 0..2), ids("a", 3..4)].concat()
    );
    assert_eq!(site.metrics.duplicates.get(), 6);
    assert_eq!(site.requesters().await.len(), 1, "alice has one hash");
}

#[tokio::test]
async fn a_segment_whose_listing_nobody_put_is_not_lost_with_the_disk() {
    let site = Site::new();
    let shelf = site.open(1).await;
    finished(&shelf, "a", 0..2, NOW);
    site.store.fail_from(1);
    site.send(&shelf).await.expect_err("the listing is not there");
    site.store.works();
    assert_eq!(site.kept().await, Vec::<String>::new());
    let site = site.moved();
    let shelf = site.open(2).await;
    assert_eq!(site.kept().await, ids("a", 0..2));
    take(&shelf, "a", 0..2, NOW + 1).expect("taken");
    assert_eq!(site.on_the_disk(), 0);
    // One that somebody cut is left alone, and the one before it is asked.
    let key = Key::from(format!(
        "records/tiny/{}/{}",
        named(9, NOW).day(),
        named(9, NOW).file(State::Closed)
    ));
    site.store.put(&key, "{}\n".into()).await.expect("put");
    let site = site.moved();
    let shelf = site.open(3).await;
    assert_eq!(site.kept().await, ids("a", 0..2));
    finished(&shelf, "a", 0..3, NOW + 2);
    site.send(&shelf).await.expect("sent");
    assert_eq!(site.kept().await, ids("a", 0..3));
}

#[tokio::test]
async fn without_an_answer_of_the_bucket_there_is_no_start() {
    let site = Site::new();
    for requests in 0..4 {
        site.store.fail_from(requests);
        let outcome = begin(&site.bucket, [1; KEY_BYTES]).await;
        let Err(error) = outcome else {
            panic!("a start after {requests}")
        };
        assert!(error.to_string().contains("archive"), "{error}");
        site.store.works();
    }
}

#[tokio::test]
async fn the_old_go_from_the_bucket_and_the_oldest_when_there_is_too_much() {
    let site = Site::new();
    let shelf = site.open(1).await;
    for number in 0..4 {
        finished(
            &shelf,
            "a",
            number..number + 1,
            NOW + 100 * i64::try_from(number).expect("small"),
        );
    }
    site.send(&shelf).await.expect("sent");
    let age = Keep { seconds: 1000, ..KEEP };
    site.uploader(age).tidy(NOW + 1000).await.expect("tidy");
    assert_eq!(site.kept().await, ids("a", 0..4));
    // It breaks off between the listing and the segment.
    site.store.fail_from(2);
    site.uploader(age).tidy(NOW + 1150).await.expect_err("half of it");
    site.store.works();
    assert_eq!(site.kept().await, ids("a", 1..4));
    site.uploader(age).tidy(NOW + 1150).await.expect("tidy");
    assert_eq!(site.bucket.list().await.expect("a list").len(), 2);
    assert_eq!(site.kept().await, ids("a", 2..4));
    assert_eq!(site.metrics.bucket_segments.get(), 2);
    let size = Keep { bytes: 1, ..KEEP };
    site.uploader(size).tidy(NOW + 1150).await.expect("tidy");
    // The newest tells how far processes were heard.
    assert_eq!(site.kept().await, ids("a", 3..4));
    let removed = site.metrics.render();
    let line = format!("removed_segments_total{{reason=\"{}\"}} 2", Surplus::Age.label());
    assert!(removed.contains(&line), "{removed}");
}

#[tokio::test]
async fn at_the_end_nobody_waits_for_ever() {
    let site = Site::new();
    let shelf = site.open(1).await;
    finished(&shelf, "a", 0..1, NOW);
    let soon = || Instant::now() + Duration::from_millis(50);
    site.store.hangs();
    assert!(!site.uploader(KEEP).finish(&shelf, soon()).await);
    site.store.works();
    site.store.fail_from(0);
    assert!(!site.uploader(KEEP).finish(&shelf, soon()).await);
    assert!(site.metrics.upload_errors.get() > 0);
    site.store.works();
    let later = Instant::now() + Duration::from_secs(60);
    assert!(site.uploader(KEEP).finish(&shelf, later).await);
    assert_eq!(site.kept().await, ids("a", 0..1));
}

#[tokio::test]
async fn it_goes_on_by_itself_when_the_bucket_is_back() {
    let site = Site::new();
    let shelf = site.open(1).await;
    finished(&shelf, "a", 0..1, NOW);
    site.store.fail_from(0);
    let (mut uploader, stop) = (site.uploader(KEEP), CancellationToken::new());
    let watching = async {
        until(|| site.metrics.upload_errors.get() > 0).await;
        site.store.works();
        until(|| site.on_the_disk() == 0).await;
        stop.cancel();
    };
    tokio::join!(uploader.run(&shelf, &stop), watching);
    assert_eq!(site.kept().await, ids("a", 0..1));
}

async fn until(done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "it happens");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn waits_grow_up_to_a_minute() {
    let waits: Vec<u64> = (1..9).map(|failures| wait(failures).as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(wait(u32::MAX), LONGEST_WAIT);
}
