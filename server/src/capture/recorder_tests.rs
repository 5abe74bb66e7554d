use std::time::{Duration, Instant};

use perennial_crds::capture::Batch;

use super::*;
use crate::metrics::{Metrics, Outcome};

fn rules(terms: &str) -> Rules {
    Rules::parse(terms.as_bytes()).expect("rules")
}

fn all() -> Rules {
    rules(
        r#"{"level": "Payload", "samplePerMille": 1000, "collector": "http://c:9091", "token": "t", "redact": ["Email"]}"#,
    )
}

fn started(bytes: usize) -> (Capture, CaptureCounters) {
    let counters = Metrics::new("m", false).expect("metrics").capture;
    let capture = Capture::start(counters.clone(), bytes).expect("a thread");
    capture.apply(all());
    (capture, counters)
}

fn hand_over(capture: &Capture, id: &str) {
    let mut draft = capture.draft(id, None, Texts::Prompt("Why?")).expect("it is sampled");
    draft.push("Ask bob@example.com.");
    capture.hand_over(draft.end(Outcome::Stop, 2, 3, 0));
}

fn feedback(id: &str, text: &str) -> FeedbackRecord {
    FeedbackRecord {
        request_id: id.to_owned(),
        time: 0,
        score: Some(1.0),
        corrected_output: Some(text.to_owned()),
    }
}

fn batch(capture: &Capture) -> Option<Batch> {
    let body = capture.with_spool(|spool, _| spool.batch());
    body.map(|body| serde_json::from_str(&body).expect("a batch"))
}

#[tokio::test]
async fn records_are_redacted_before_they_wait() {
    let (capture, counters) = started(1 << 20);
    hand_over(&capture, "a");
    assert_eq!(capture.feedback(feedback("a", "To eve@example.com")), Ok(true));
    capture.settle().await;
    let batch = batch(&capture).expect("a batch");
    let texts: Vec<String> = batch
        .records
        .iter()
        .map(|record| match record {
            Record::Exchange(exchange) => exchange.answer.clone(),
            Record::Feedback(feedback) => feedback.corrected_output.clone().expect("a text"),
        })
        .collect();
    assert_eq!(texts, ["Ask [EMAIL].", "To [EMAIL]"]);
    assert_eq!((counters.sampled.get(), counters.dropped.get()), (2, 0));
    assert!(counters.spool_bytes.get() > 0);
}

#[test]
fn what_finds_no_place_is_dropped_and_counted_and_nobody_waits() {
    let (capture, counters) = started(1 << 20);
    // The thread stops at its first record while this is held.
    let held = capture.state.spool.lock();
    for _ in 0..WAITING + 10 {
        hand_over(&capture, "a");
    }
    let dropped = counters.dropped.get();
    assert!((9..=10).contains(&dropped), "{dropped}");
    drop(held);
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut arrived = 0;
    while arrived + dropped < WAITING as u64 + 10 {
        assert!(Instant::now() < deadline, "not all arrived");
        arrived += batch(&capture).map_or(0, |_| capture.with_spool(|spool, _| spool.taken()));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(counters.sampled.get(), WAITING as u64 + 10);
}

#[tokio::test]
async fn a_lower_level_forgets_what_waits_and_takes_nothing_more() {
    for lower in [r#"{"level": "Features"}"#, r#"{"level": "None"}"#, ""] {
        let (capture, counters) = started(1 << 20);
        hand_over(&capture, "a");
        capture.settle().await;
        // One is on its way, another waits, and a third has still to end.
        assert!(batch(&capture).is_some());
        hand_over(&capture, "b");
        capture.settle().await;
        let draft = capture.draft("c", None, Texts::Prompt("Why?")).expect("it is sampled");
        capture.apply(rules(lower));
        assert_eq!(counters.spool_bytes.get(), 0);
        capture.hand_over(draft.end(Outcome::Stop, 0, 0, 0));
        assert!(capture.draft("d", None, Texts::Prompt("Why?")).is_none());
        assert_eq!(capture.feedback(feedback("a", "x")), Err(NotKept::Off));
        capture.settle().await;
        assert!(batch(&capture).is_none());
        assert_eq!(
            (counters.sampled.get(), counters.dropped.get(), counters.sent.get()),
            (2, 2, 0)
        );
        // Others are kept again later, behind the numbers of those.
        capture.apply(all());
        hand_over(&capture, "e");
        capture.settle().await;
        assert_eq!(batch(&capture).map(|batch| batch.first), Some(2));
    }
}

#[tokio::test]
async fn what_is_redacted_while_the_level_is_lowered_is_not_kept_even_if_it_is_raised_again() {
    for raised in [false, true] {
        let (capture, counters) = started(1 << 20);
        {
            let mut held = capture.state.spool.lock();
            // The first may be at any place before the lock, and the second waits.
            hand_over(&capture, "a");
            hand_over(&capture, "b");
            capture.state.put_into_force(rules(""), &mut held);
            if raised {
                capture.state.put_into_force(all(), &mut held);
            }
        }
        capture.settle().await;
        assert!(batch(&capture).is_none());
        assert_eq!((counters.sampled.get(), counters.dropped.get()), (2, 2));
    }
}

#[test]
fn nothing_is_put_into_the_spool_that_rules_of_a_lower_level_looked_at() {
    let (capture, counters) = started(1 << 20);
    let state = &capture.state;
    let raw = || Raw::Feedback(Box::new(feedback("a", "To eve@example.com")));
    let before = capture.rules().lowered;
    capture.apply(rules(""));
    assert!(state.clean(raw(), before).is_none(), "they find nothing");
    capture.apply(all());
    assert!(state.clean(raw(), before).is_none(), "it was to be forgotten");
    let now = capture.rules().lowered;
    let record = state.clean(raw(), now).expect("a record");
    capture.apply(rules(r#"{"level": "None"}"#));
    capture.apply(all());
    state.put(&record, now);
    assert!(batch(&capture).is_none());
    assert_eq!(counters.dropped.get(), 3);
    // Other terms of the same level lose nothing.
    let now = capture.rules().lowered;
    let record = state.clean(raw(), now).expect("a record");
    capture.apply(all());
    state.put(&record, now);
    assert!(batch(&capture).is_some());
    assert_eq!(counters.dropped.get(), 3);
}

#[tokio::test]
async fn an_exchange_that_began_before_the_level_was_lowered_is_not_kept_when_it_is_raised_again() {
    let (capture, counters) = started(1 << 20);
    let draft = capture.draft("a", None, Texts::Prompt("Why?")).expect("it is sampled");
    capture.apply(rules(""));
    capture.apply(all());
    capture.hand_over(draft.end(Outcome::Stop, 0, 0, 0));
    capture.settle().await;
    assert!(batch(&capture).is_none());
    assert_eq!((counters.sampled.get(), counters.dropped.get()), (0, 0));
}

#[test]
fn whoever_listens_hears_of_each_level() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&heard);
    let counters = Metrics::new("m", false).expect("metrics").capture;
    let capture = Capture::telling(counters, 1 << 20, move |level| notes.lock().push(level)).expect("a thread");
    for terms in [all(), rules(r#"{"level": "None"}"#), rules("")] {
        capture.apply(terms);
    }
    assert_eq!(*heard.lock(), [Level::Payload, Level::None, Level::Features]);
}

#[tokio::test]
async fn feedback_that_is_sent_again_is_kept_once_and_not_too_much_on_one_answer() {
    let (capture, counters) = started(1 << 20);
    for _ in 0..3 {
        assert_eq!(capture.feedback(feedback("a", "x")), Ok(true));
    }
    for number in 1..8 {
        assert_eq!(capture.feedback(feedback("a", &number.to_string())), Ok(true));
    }
    assert_eq!(capture.feedback(feedback("a", "8")), Err(NotKept::Enough));
    assert_eq!(capture.feedback(feedback("b", "8")), Ok(true));
    capture.settle().await;
    assert_eq!(batch(&capture).expect("a batch").records.len(), 9);
    assert_eq!(counters.sampled.get(), 9);
    // What is forgotten is not said to be kept.
    capture.apply(rules(""));
    capture.apply(all());
    assert_eq!(capture.feedback(feedback("b", "8")), Ok(true));
    capture.settle().await;
    assert_eq!(batch(&capture).expect("a batch").records.len(), 1);
}

#[tokio::test]
async fn feedback_is_kept_for_the_sample_and_while_there_is_room() {
    let (capture, counters) = started(8 << 10);
    assert_eq!(capture.feedback(feedback("a", "x")), Ok(true));
    capture.settle().await;
    assert_eq!(
        capture.feedback(feedback("a", &"x".repeat(8 << 10))),
        Err(NotKept::Full)
    );
    assert_eq!(capture.feedback(feedback("a", &"x".repeat(4 << 10))), Ok(true));
    capture.settle().await;
    // What was not taken is not known when it comes again.
    for _ in 0..2 {
        assert_eq!(
            capture.feedback(feedback("a", &"y".repeat(4 << 10))),
            Err(NotKept::Full)
        );
    }
    assert_eq!(
        (counters.sampled.get(), counters.dropped.get()),
        (2, 0),
        "nothing makes room for feedback"
    );
    capture.apply(rules(
        r#"{"level": "Payload", "samplePerMille": 0, "collector": "http://c:9091", "token": "t"}"#,
    ));
    assert_eq!(capture.feedback(feedback("a", "x")), Ok(false));
    assert!(batch(&capture).is_some(), "the same level forgets nothing");
}

#[tokio::test]
async fn other_numbers_begin_with_every_start() {
    let id = || async {
        let (capture, _) = started(1 << 20);
        hand_over(&capture, "a");
        capture.settle().await;
        batch(&capture).expect("a batch").boot_id
    };
    assert_ne!(id().await, id().await);
}
