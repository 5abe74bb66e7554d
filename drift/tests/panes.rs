//! Panes add exactly, and what is not a pane is refused.
#![expect(clippy::expect_used, reason = "a test that cannot prepare its input has failed")]

mod common;

use common::{MONDAY, Random, Traffic};
use perennial_drift::envelope::EnvelopeError;
use perennial_drift::features::Features;
use perennial_drift::pane::layout::Layout;
use perennial_drift::pane::{MergeError, Pane};
use perennial_drift::signal::Signal;
use proptest::prelude::*;

fn requests(seed: u64, count: usize) -> Vec<Features> {
    let mut random = Random(seed);
    let traffic = Traffic {
        german: 0.2,
        topic: 0.1,
        ..Traffic::default()
    };
    (0..count).map(|_| traffic.request(&mut random)).collect()
}

fn filled(requests: &[&Features]) -> Pane {
    let mut pane = Pane::new(&Layout::default(), MONDAY, 300);
    for request in requests {
        pane.add(request);
    }
    pane
}

fn bytes(pane: &Pane) -> Vec<u8> {
    pane.encode().expect("a pane is encoded")
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    /// Any split over replicas, any order within them, any order of merging: the bytes of one process.
    #[test]
    fn any_split_merges_to_the_bytes_of_one_process(
        seed in any::<u64>(), count in 0_usize..120, replicas in 1_usize..7, shuffle in any::<u64>(),
    ) {
        let requests = requests(seed, count);
        let whole = filled(&requests.iter().collect::<Vec<_>>());
        let mut random = Random(shuffle);
        let mut parts: Vec<Vec<&Features>> = vec![Vec::new(); replicas];
        for request in &requests {
            let part = random.below(replicas);
            let place = random.below(parts[part].len() + 1);
            parts[part].insert(place, request);
        }
        let mut panes: Vec<Pane> = parts.iter().map(|part| filled(part)).collect();
        while panes.len() > 1 {
            // A random tree of merges, not a chain.
            let taken = panes.swap_remove(random.below(panes.len()));
            let into = random.below(panes.len());
            panes[into].merge(&taken).expect("they add");
        }
        prop_assert_eq!(bytes(&panes[0]), bytes(&whole));
    }

    #[test]
    fn an_empty_pane_is_the_identity(seed in any::<u64>(), count in 0_usize..60) {
        let pane = filled(&requests(seed, count).iter().collect::<Vec<_>>());
        let mut left = filled(&[]);
        left.merge(&pane).expect("they add");
        let mut right = pane.clone();
        right.merge(&filled(&[])).expect("they add");
        prop_assert_eq!(&left, &pane);
        prop_assert_eq!(&right, &pane);
    }

    #[test]
    fn a_pane_that_was_mangled_is_refused(seed in any::<u64>(), count in 0_usize..60, at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let layout = Layout::default();
        let mut bytes = bytes(&filled(&requests(seed, count).iter().collect::<Vec<_>>()));
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(Pane::decode(&layout, &bytes).is_err());
        prop_assert!(Pane::decode(&layout, &bytes[..at]).is_err());
    }

    #[test]
    fn what_is_read_is_what_was_written(seed in any::<u64>(), count in 0_usize..60) {
        let pane = filled(&requests(seed, count).iter().collect::<Vec<_>>());
        let read = Pane::decode(&Layout::default(), &bytes(&pane)).expect("it is a pane");
        prop_assert_eq!(bytes(&read), bytes(&pane));
        prop_assert_eq!(read, pane);
    }
}

#[test]
fn ratings_may_outnumber_the_requests_of_their_pane_and_add_as_all_else() {
    let one = requests(1, 1);
    let mut left = filled(&[&one[0]]);
    let mut right = filled(&[]);
    let before = left.rate(Signal::NegativeFeedback).expect("a rate");
    for bad in [true, false, true] {
        left.add_rating(bad);
        right.add_rating(!bad);
    }
    left.merge(&right).expect("they add");
    let read = Pane::decode(&Layout::default(), &bytes(&left)).expect("a pane");
    let rate = read.rate(Signal::NegativeFeedback).expect("a rate");
    assert_eq!((rate.trials, rate.events), (before.trials + 6, before.events + 3));
    assert_eq!(read.requests(), 1);
}

#[test]
fn panes_that_do_not_belong_together_are_not_added() {
    let mut pane = filled(&[]);
    let before = pane.clone();
    let later = Pane::new(&Layout::default(), MONDAY + 300, 300);
    assert!(matches!(pane.merge(&later), Err(MergeError::Time(..))));
    let other = Pane::new(&Layout::new("another encoder"), MONDAY, 300);
    assert!(matches!(pane.merge(&other), Err(MergeError::Layout(..))));
    assert_eq!(pane, before);
}

#[test]
fn each_refusal_says_which_it_is() {
    let layout = Layout::default();
    let good = bytes(&filled(&requests(1, 30).iter().collect::<Vec<_>>()));
    let decode = |bytes: &[u8]| Pane::decode(&layout, bytes).expect_err("is refused");
    assert!(matches!(decode(b"{}"), EnvelopeError::Foreign("pane")));
    assert!(matches!(decode(&good[..good.len() - 3]), EnvelopeError::Length { .. }));
    let mut newer = good.clone();
    newer[5] = 9;
    assert!(
        matches!(decode(&newer), EnvelopeError::Newer { got: 9, known: 1, .. }),
        "{}",
        decode(&newer)
    );
    let mut damaged = good.clone();
    damaged[100] ^= 1;
    assert!(matches!(decode(&damaged), EnvelopeError::Checksum("pane")));
    let error = Pane::decode(&Layout::new("another encoder"), &good).expect_err("is refused");
    assert!(matches!(error, EnvelopeError::Layout { .. }), "{error}");
    assert!(error.to_string().contains("other signals, bins or encoder"));
}

#[test]
fn a_pane_is_about_thirty_kibibytes_and_a_ring_of_them_below_three_mebibytes() {
    let mut random = Random(3);
    let layout = Layout::default();
    let pane = Traffic::default().pane(&mut random, &layout, MONDAY, 100_000);
    let bytes = bytes(&pane).len();
    assert!(bytes < 32 * 1_024, "{bytes}");
    assert!(pane.memory() < 40 * 1_024, "{}", pane.memory());
    assert!(pane.memory() + 64 * bytes < 3 << 20);
}

#[test]
fn what_is_on_the_edge_of_a_scale_is_counted_once() {
    let mut pane = Pane::new(&Layout::default(), MONDAY, 300);
    for value in [
        0.0,
        -0.0,
        1e-320,
        1.0,
        1e300,
        f64::MAX,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        -5.0,
    ] {
        let mut features = common::empty();
        features.numbers = [Some(value); 8];
        pane.add(&features);
    }
    let read = Pane::decode(&Layout::default(), &bytes(&pane)).expect("each request is counted once");
    assert_eq!(read.requests(), 10);
}

/// Stored panes are read for years, and by servers of other versions: a change of these bytes is a new version.
#[test]
fn the_encoding_of_version_one_does_not_change() {
    let mut pane = Pane::new(&Layout::new("golden"), MONDAY, 300);
    for request in 0..50_u16 {
        let mut features = common::empty();
        features.numbers = [Some(f64::from(request)); 8];
        features.events = [Some(request % 3 == 0); 8];
        features.language = Some(7);
        features.token_bucket = Some(request * 20);
        features.fourier = Some(Box::new([i32::from(request) - 25; 256]));
        features.requester = Some(u64::from(request) << 40);
        features.prompt_hash = Some(u64::from(request) << 50);
        pane.add(&features);
    }
    let bytes = bytes(&pane);
    assert_eq!(
        perennial_drift::envelope::digest(&bytes),
        "sha256:e5f5030b217643bb098b4764f25762f2660249ee58725f7e5fabd76215450239"
    );
}
