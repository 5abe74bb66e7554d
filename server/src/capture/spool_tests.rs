use std::collections::BTreeMap;

use perennial_crds::capture::FeedbackRecord;
use proptest::prelude::*;

use super::*;

fn record(text: &str) -> Record {
    Record::Feedback(FeedbackRecord {
        request_id: "r".to_owned(),
        time: 0,
        score: None,
        corrected_output: Some(text.to_owned()),
    })
}

fn text_of(record: &Record) -> &str {
    match record {
        Record::Feedback(feedback) => feedback.corrected_output.as_deref().expect("a text"),
        Record::Exchange(_) => panic!("none was put in"),
    }
}

fn read(body: &str) -> Batch {
    serde_json::from_str(body).expect("a batch")
}

fn spool(capacity: usize) -> Spool {
    Spool::new("0123456789abcdef".to_owned(), capacity)
}

#[test]
fn a_batch_is_what_its_type_says() {
    let mut spool = spool(1 << 20);
    assert!(spool.batch().is_none() && spool.is_empty());
    let records = [record("a \"quoted\"\n\u{0} text"), record("中文"), record("")];
    for record in &records {
        assert_eq!(spool.push(record), 0);
    }
    let batch = read(&spool.batch().expect("a batch"));
    assert_eq!(
        (batch.version, batch.boot_id.as_str()),
        (BATCH_VERSION, "0123456789abcdef")
    );
    assert_eq!((batch.first, batch.dropped), (0, 0));
    assert_eq!(batch.records, records);
    assert_eq!(
        (spool.taken(), spool.taken(), spool.is_empty(), spool.bytes()),
        (3, 0, true, 0)
    );
    spool.push(&records[0]);
    assert_eq!(read(&spool.batch().expect("a batch")).first, 3);
}

#[test]
fn a_batch_that_was_not_taken_comes_again_as_it_was() {
    let mut spool = spool(1 << 20);
    spool.push(&record("a"));
    let first = spool.batch().expect("a batch");
    spool.push(&record("b"));
    spool.not_taken();
    assert_eq!(spool.batch(), Some(first));
    assert_eq!(spool.taken(), 1);
    assert_eq!(text_of(&read(&spool.batch().expect("a batch")).records[0]), "b");
}

#[test]
fn batches_are_bounded_by_records_and_by_bytes() {
    let mut small = spool(64 << 20);
    for number in 0..1200 {
        assert_eq!(small.fills_a_batch(), number >= BATCH_RECORDS);
        small.push(&record("x"));
    }
    let mut large = spool(64 << 20);
    for _ in 0..30 {
        // Written, each byte of it takes six.
        large.push(&record(&"\u{1}".repeat(20_000)));
    }
    assert!(large.fills_a_batch());
    for (mut spool, all) in [(small, 1200), (large, 30)] {
        let mut next = 0;
        while let Some(body) = spool.batch() {
            assert!(body.len() <= BATCH_BYTES);
            let batch = read(&body);
            assert!((1..=BATCH_RECORDS).contains(&batch.records.len()));
            assert_eq!((batch.first, spool.taken()), (next, batch.records.len() as u64));
            next += batch.records.len() as u64;
        }
        assert_eq!((next, spool.bytes()), (all, 0));
    }
}

#[test]
fn what_no_batch_can_hold_is_a_gap_between_two() {
    let mut spool = spool(64 << 20);
    spool.push(&record("a"));
    assert_eq!(spool.push(&record(&"\u{1}".repeat(200_000))), 1);
    spool.push(&record("c"));
    let mut told = Vec::new();
    while let Some(body) = spool.batch() {
        let batch = read(&body);
        told.push((batch.first, batch.dropped, batch.records.len()));
        spool.taken();
    }
    assert_eq!(told, [(0, 1, 1), (2, 1, 1)]);
}

#[test]
fn the_oldest_make_room_but_not_what_is_just_travelling() {
    // Four records, or a batch of two and one more.
    let mut spool = spool(1000);
    let text = |number: usize| format!("{number:0>100}");
    for number in 0..2 {
        assert_eq!(spool.push(&record(&text(number))), 0);
    }
    let travelling = spool.batch().expect("a batch");
    let dropped: Vec<u64> = (2..5).map(|number| spool.push(&record(&text(number)))).collect();
    assert_eq!(dropped, [0, 0, 1], "the third record, not the first two");
    assert!(!spool.has_room(200));
    spool.not_taken();
    assert_eq!(spool.batch(), Some(travelling));
    spool.not_taken();
    assert_eq!(spool.push(&record(&text(5))), 2, "now the two are the oldest");
    let batch = read(&spool.batch().expect("a batch"));
    assert_eq!((batch.first, batch.dropped), (3, 3));
    let texts: Vec<&str> = batch.records.iter().map(text_of).collect();
    assert_eq!(texts, [text(3), text(4), text(5)]);
}

#[test]
fn what_is_forgotten_keeps_its_numbers() {
    let mut spool = spool(1 << 20);
    for _ in 0..3 {
        spool.push(&record("a"));
        spool.batch();
    }
    assert_eq!(spool.clear(), 3);
    assert_eq!((spool.is_empty(), spool.bytes(), spool.taken()), (true, 0, 0));
    spool.push(&record("b"));
    let batch = read(&spool.batch().expect("a batch"));
    assert_eq!((batch.first, batch.dropped), (3, 0), "not for want of room");
}

#[derive(Clone, Debug)]
enum Step {
    Push(usize),
    Bring,
    Lose,
    Refuse,
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..400).prop_map(Step::Push),
        3 => Just(Step::Bring),
        2 => Just(Step::Lose),
        2 => Just(Step::Refuse),
        1 => Just(Step::Clear),
    ]
}

/// A collector that knows batches it has by their first number.
#[derive(Default)]
struct Collector {
    next: u64,
    got: BTreeMap<u64, String>,
}

impl Collector {
    fn take(&mut self, body: &str) {
        let batch = read(body);
        if batch.first < self.next {
            return;
        }
        for (number, record) in (batch.first..).zip(&batch.records) {
            assert!(self.got.insert(number, text_of(record).to_owned()).is_none());
        }
        self.next = batch.first + batch.records.len() as u64;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn every_record_arrives_once_under_its_number_or_is_counted(capacity in 600_usize..4000, steps in prop::collection::vec(step(), 0..120)) {
        let mut spool = spool(capacity);
        let mut collector = Collector::default();
        let (mut pushed, mut dropped, mut cleared, mut sent) = (0_u64, 0, 0, 0);
        for step in steps.iter().chain(std::iter::repeat_n(&Step::Bring, 60)) {
            match step {
                Step::Push(length) => {
                    dropped += spool.push(&record(&format!("{pushed}:{}", "x".repeat(*length))));
                    pushed += 1;
                }
                Step::Bring => {
                    if let Some(body) = spool.batch() {
                        collector.take(&body);
                        sent += spool.taken();
                    }
                }
                // It arrives, but nobody hears of it.
                Step::Lose => {
                    if let Some(body) = spool.batch() {
                        collector.take(&body);
                        spool.not_taken();
                    }
                }
                Step::Refuse => {
                    spool.batch();
                    spool.not_taken();
                }
                Step::Clear => cleared += spool.clear(),
            }
            prop_assert!(spool.bytes() <= capacity + ENVELOPE_BYTES);
        }
        prop_assert!(spool.is_empty() && spool.bytes() == 0);
        prop_assert_eq!(pushed, sent + dropped + cleared);
        prop_assert!(collector.got.len() as u64 >= sent);
        for (number, text) in &collector.got {
            let start = format!("{number}:");
            prop_assert!(text.starts_with(&start));
        }
    }
}
