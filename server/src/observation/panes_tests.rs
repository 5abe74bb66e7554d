use perennial_drift::features::{Encoder, Exchange, Extractor};
use perennial_drift::signal::Signal;

use super::*;

/// A Monday, midnight.
const MONDAY: i64 = 1_764_547_200;

struct Fixture {
    extractor: Extractor,
    layout: Layout,
}

impl Fixture {
    fn new() -> Self {
        let extractor = Extractor::new(Encoder::Ngrams).expect("lists");
        let layout = Layout::of(extractor.recipe());
        Self { extractor, layout }
    }

    fn panes(&self, seconds: u32) -> Panes {
        let mut panes = Panes::new(self.layout.clone(), 0xb007);
        panes.observe(Observation { pane_seconds: seconds }).expect("a length");
        panes
    }

    fn features(&self, number: u32) -> Features {
        let prompts = ["Why is the sky blue?", "Warum ist der Himmel blau?", "天为什么是蓝的？"];
        let (id, requester) = (number.to_string(), (number % 7).to_string());
        let ids: Vec<u32> = (number..number + 20).collect();
        self.extractor.features(&Exchange {
            id: &id,
            requester: Some(&requester),
            prompt: Some(prompts[number as usize % prompts.len()]),
            prompt_tokens: Some(20 + number),
            prompt_token_ids: Some(&ids),
            output: Some("I don't know."),
            output_tokens: Some(number),
            time_to_first_token: Some(0.01 * f64::from(number + 1)),
            failed: number % 5 == 4,
            ..Exchange::default()
        })
    }

    fn decode(&self, record: &PaneRecord) -> Pane {
        let pane = Pane::decode(&self.layout, &STANDARD.decode(&record.bytes).expect("base64")).expect("a pane");
        assert_eq!(pane.start(), record.start);
        pane
    }

    /// Sequence, start and requests of each pane.
    fn told(&self, page: &PanesPage) -> Vec<(u64, i64, u64)> {
        let tell = |record: &PaneRecord| (record.sequence, record.start, self.decode(record).requests());
        page.panes.iter().map(tell).collect()
    }
}

#[test]
fn a_pane_is_closed_by_the_first_that_comes_after_its_end() {
    let fixture = Fixture::new();
    let mut panes = fixture.panes(60);
    let features = fixture.features(1);
    panes.record(MONDAY + 10, &features);
    panes.record(MONDAY + 59, &features);
    assert_eq!(panes.page(None, MONDAY + 59).panes, [], "its time is not over");
    panes.record(MONDAY + 60, &features);
    assert_eq!(fixture.told(&panes.page(None, MONDAY + 61)), [(0, MONDAY, 2)]);
    let page = panes.page(None, MONDAY + 120);
    assert_eq!(fixture.told(&page), [(0, MONDAY, 2), (1, MONDAY + 60, 1)]);
    assert_eq!(panes.page(None, MONDAY + 120), page, "reading changes nothing");
    assert_eq!(fixture.told(&panes.page(Some(0), MONDAY + 120)), [(1, MONDAY + 60, 1)]);
    assert_eq!(panes.page(Some(1), MONDAY + 120).panes, []);
    assert_eq!(
        (page.version, page.pane_seconds, page.now),
        (PANES_VERSION, 60, MONDAY + 120)
    );
    assert_eq!(page.layout, format!("{:016x}", fixture.layout.fingerprint()));
    assert_eq!(page.boot_id.len(), 16);
}

#[test]
fn there_is_no_pane_for_a_time_without_requests() {
    let fixture = Fixture::new();
    let mut panes = fixture.panes(60);
    for minute in 0..10 {
        assert_eq!(panes.page(None, MONDAY + 60 * minute).panes, []);
    }
    for minute in [20, 25] {
        panes.record(MONDAY + 60 * minute + 7, &fixture.features(1));
    }
    let page = panes.page(None, MONDAY + 60 * 50);
    assert_eq!(fixture.told(&page), [(0, MONDAY + 1200, 1), (1, MONDAY + 1500, 1)]);
    assert_eq!(page.lost, 0);
}

#[test]
fn a_reader_that_comes_late_is_told_what_is_lost() {
    let fixture = Fixture::new();
    let mut panes = fixture.panes(1);
    let features = fixture.features(1);
    for second in 0..70 {
        panes.record(MONDAY + second, &features);
    }
    let page = panes.page(None, MONDAY + 70);
    assert_eq!((page.panes.len(), page.lost), (RING, 6));
    let told = fixture.told(&page);
    assert_eq!((told[0], told[63]), ((6, MONDAY + 6, 1), (69, MONDAY + 69, 1)));
    let page = panes.page(Some(2), MONDAY + 70);
    assert_eq!((page.panes.len(), page.lost), (RING, 3));
    assert_eq!(panes.page(Some(5), MONDAY + 70).lost, 0);
}

#[test]
fn another_length_begins_anew_and_the_same_length_changes_nothing() {
    let fixture = Fixture::new();
    let mut panes = Panes::new(fixture.layout.clone(), u64::MAX);
    panes.record(MONDAY, &fixture.features(1));
    let before = panes.page(None, MONDAY + 300);
    assert_eq!((before.pane_seconds, before.panes.len()), (DEFAULT_PANE_SECONDS, 1));
    panes.record(MONDAY + 300, &fixture.features(2));
    let observe = |panes: &mut Panes, pane_seconds| panes.observe(Observation { pane_seconds });
    assert_eq!(observe(&mut panes, DEFAULT_PANE_SECONDS), Ok(()));
    assert_eq!(panes.page(None, MONDAY + 300), before);
    for wrong in [0, LONGEST_PANE_SECONDS + 1, u32::MAX] {
        assert_eq!(observe(&mut panes, wrong), Err(ObservationError::Length(wrong)));
        assert_eq!(panes.page(None, MONDAY + 300), before);
    }
    assert_eq!(observe(&mut panes, LONGEST_PANE_SECONDS), Ok(()));
    let after = panes.page(None, MONDAY + 9000);
    assert_eq!((after.pane_seconds, after.panes.len(), after.lost), (3600, 0, 0));
    assert_ne!(after.boot_id, before.boot_id);
    panes.record(MONDAY + 301, &fixture.features(3));
    assert_eq!(fixture.told(&panes.page(None, MONDAY + 9000)), [(0, MONDAY, 1)]);
}

#[test]
fn when_counting_ends_all_is_forgotten_and_nothing_more_is_counted() {
    let fixture = Fixture::new();
    let mut panes = fixture.panes(60);
    let features = fixture.features(1);
    for second in [0, 60, 120] {
        assert!(panes.record(MONDAY + second, &features));
    }
    let before = panes.page(None, MONDAY + 121);
    assert_eq!(before.panes.len(), 2);
    for _ in 0..2 {
        panes.set_counting(false);
        assert!(!panes.record(MONDAY + 122, &features));
        panes.rate(MONDAY + 122, true);
    }
    // Nobody takes what is counted later for more of the same, or for a loss.
    let nothing = panes.page(Some(1), MONDAY + 300);
    assert_eq!((nothing.panes.len(), nothing.lost), (0, 0));
    assert_ne!(nothing.boot_id, before.boot_id);
    assert_eq!(panes.page(None, MONDAY + 300), nothing);
    panes.observe(Observation { pane_seconds: 30 }).expect("a length");
    assert!(!panes.record(MONDAY + 300, &features), "another length begins nothing");
    panes.set_counting(true);
    assert!(panes.record(MONDAY + 300, &features));
    let after = panes.page(None, MONDAY + 330);
    assert_eq!(fixture.told(&after), [(0, MONDAY + 300, 1)]);
    panes.set_counting(true);
    assert_eq!(panes.page(None, MONDAY + 330), after);
}

#[test]
fn a_clock_that_is_set_back_opens_no_closed_pane() {
    let fixture = Fixture::new();
    let mut panes = fixture.panes(60);
    let features = fixture.features(1);
    panes.record(MONDAY + 60, &features);
    panes.record(MONDAY + 30, &features);
    assert_eq!(panes.page(None, MONDAY - 500).panes, []);
    panes.record(MONDAY - 3000, &features);
    assert_eq!(fixture.told(&panes.page(None, MONDAY + 120)), [(0, MONDAY + 60, 3)]);
    // Closed by a reading, and then it is earlier again.
    panes.record(MONDAY + 70, &features);
    panes.record(MONDAY + 121, &features);
    let page = panes.page(None, MONDAY + 180);
    assert_eq!(fixture.told(&page), [(0, MONDAY + 60, 3), (1, MONDAY + 120, 2)]);
}

#[test]
fn a_clock_that_was_far_ahead_does_not_hold_a_pane_open() {
    let fixture = Fixture::new();
    let mut panes = fixture.panes(60);
    let features = fixture.features(1);
    let year = 365 * 86_400;
    panes.record(MONDAY + year, &features);
    panes.record(MONDAY + 5, &features);
    panes.record(MONDAY + 6, &features);
    let page = panes.page(None, MONDAY + 60);
    assert_eq!(fixture.told(&page), [(0, MONDAY + year, 1), (1, MONDAY, 2)]);
    // The same with the pane closed by a reading ahead.
    panes.record(MONDAY + 61, &features);
    assert_eq!(panes.page(Some(1), MONDAY + year).panes.len(), 1);
    panes.record(MONDAY + 130, &features);
    assert_eq!(fixture.told(&panes.page(Some(2), MONDAY + 180)), [(3, MONDAY + 120, 1)]);
}

#[test]
fn what_two_servers_counted_adds_to_the_bytes_of_one() {
    let fixture = Fixture::new();
    let (mut whole, mut left, mut right) = (fixture.panes(60), fixture.panes(60), fixture.panes(60));
    for second in 0..180 {
        for number in (0..200).filter(|number| i64::from(*number) % 180 == second) {
            let features = fixture.features(number);
            whole.record(MONDAY + second, &features);
            let part = if number % 3 == 0 { &mut left } else { &mut right };
            part.record(MONDAY + second, &features);
        }
    }
    let pages = [&mut whole, &mut left, &mut right].map(|panes| panes.page(None, MONDAY + 180));
    let [whole, left, right] = pages;
    assert_eq!((whole.panes.len(), left.panes.len(), right.panes.len()), (3, 3, 3));
    for ((whole, left), right) in whole.panes.iter().zip(&left.panes).zip(&right.panes) {
        let mut merged = fixture.decode(left);
        merged.merge(&fixture.decode(right)).expect("they add");
        assert!(merged.rate(Signal::ErrorRate).is_some_and(|rate| rate.events > 0));
        assert_eq!(STANDARD.encode(merged.encode().expect("bytes")), whole.bytes);
    }
}
