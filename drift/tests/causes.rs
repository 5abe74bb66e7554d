//! Which cure belongs to which finding, and that the wrong one is impossible.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot prepare its input has failed"
)]

mod common;

use common::{MONDAY, Random, Traffic, steady, watching};
use perennial_drift::baseline::Baseline;
use perennial_drift::cause::{Cause, Findings, Mask, Probes, Response, cause, moved_signals, single_source};
use perennial_drift::decision::Phase;
use perennial_drift::observe::Interval;
use perennial_drift::pane::Pane;
use perennial_drift::pane::layout::Layout;
use perennial_drift::signal::{Class, Signal};

fn of(moved: &[Signal], probes: Probes) -> Cause {
    cause(&Findings {
        moved,
        probes,
        mask: None,
        single_source: false,
    })
}

#[test]
fn the_table() {
    use Signal::{NegativeFeedback, OutputTokens, PromptTokens};
    for (moved, probes, want) in [
        (&[PromptTokens][..], Probes::Same, Cause::InputDrift),
        (&[PromptTokens, OutputTokens], Probes::Same, Cause::InputDrift),
        (&[PromptTokens], Probes::Unknown, Cause::InputDrift),
        (&[OutputTokens], Probes::Changed, Cause::ServingRegression),
        (
            &[PromptTokens, NegativeFeedback],
            Probes::Changed,
            Cause::ServingRegression,
        ),
        (&[OutputTokens], Probes::Same, Cause::OutputShift),
        (&[OutputTokens], Probes::Unknown, Cause::Undetermined),
        (&[NegativeFeedback], Probes::Same, Cause::QualityDrop),
        (&[NegativeFeedback, OutputTokens], Probes::Same, Cause::QualityDrop),
        (&[NegativeFeedback], Probes::Unknown, Cause::Undetermined),
        (&[], Probes::Same, Cause::Nothing),
        (&[], Probes::Changed, Cause::ServingRegression),
    ] {
        assert_eq!(of(moved, probes), want, "{moved:?} {probes:?}");
    }
}

/// All combinations of moved signals: nothing but probes that do not accuse the service, or moved inputs, leads to
/// retraining, and nothing operational ever does.
#[test]
fn retraining_never_answers_a_regression_of_the_service() {
    for bits in 0_u32..1 << Signal::ALL.len() {
        // Every hundredth subset and all small ones are enough to see every class alone and together.
        if bits % 97 != 0 && bits.count_ones() > 2 {
            continue;
        }
        let moved: Vec<Signal> = (0..Signal::ALL.len())
            .filter(|bit| bits >> bit & 1 == 1)
            .map(|bit| Signal::ALL[bit])
            .collect();
        for probes in [Probes::Unknown, Probes::Same, Probes::Changed] {
            for mask in [None, Some(Mask::Rollout), Some(Mask::WakeFromZero), Some(Mask::Gap)] {
                for single_source in [false, true] {
                    let findings = Findings {
                        moved: &moved,
                        probes,
                        mask,
                        single_source,
                    };
                    if cause(&findings).response() == Response::Retrain {
                        assert_ne!(probes, Probes::Changed);
                        assert_eq!(mask, None);
                        assert!(
                            moved
                                .iter()
                                .any(|signal| matches!(signal.class(), Class::Input | Class::Quality))
                        );
                    }
                }
            }
        }
    }
}

/// Plays traffic that `change` makes of each request, until a drift is confirmed.
fn drifted(change: impl Fn(&Traffic, &mut Random, &mut Pane)) -> (Cause, Vec<Signal>) {
    let mut policy = steady();
    policy.confirm_seconds = 900;
    let (traffic, mut random) = (Traffic::default(), Random(12));
    let baseline = Baseline::learn(&traffic.panes(&mut random, MONDAY, 200, 200), &policy).expect("is learned");
    let mut state = watching(&baseline, &policy);
    for position in 0..60 {
        let start = baseline.to + 300 * position;
        let mut pane = Pane::new(&Layout::default(), start, 300);
        change(&traffic, &mut random, &mut pane);
        let interval = Interval {
            start,
            pane: Some(pane),
        };
        state
            .step(&interval, None, &baseline, &policy)
            .expect("a step is taken");
        if state.phase == Phase::Drifted {
            let moved = moved_signals(&state, &policy);
            let single_source = single_source(&moved, &baseline, &state);
            let findings = Findings {
                moved: &moved,
                probes: Probes::Same,
                mask: None,
                single_source,
            };
            return (cause(&findings), moved);
        }
    }
    panic!("no drift was confirmed: {:?}", state.phase);
}

#[test]
fn one_requester_alone_is_a_single_source() {
    let (cause, moved) = drifted(|traffic, random, pane| {
        for _ in 0..200 {
            pane.add(&traffic.request(random));
        }
        // A load test of one client: long prompts, all alike.
        let test = Traffic {
            prompt: (7.0, 0.1),
            ..Traffic::default()
        };
        for _ in 0..60 {
            pane.add(&test.request_of(random, 4_711));
        }
    });
    assert_eq!(cause, Cause::SingleSource, "{moved:?}");
}

#[test]
fn the_same_change_of_many_requesters_is_input_drift() {
    let (cause, moved) = drifted(|traffic, random, pane| {
        for _ in 0..200 {
            pane.add(&traffic.request(random));
        }
        let others = Traffic {
            prompt: (7.0, 0.1),
            ..Traffic::default()
        };
        for _ in 0..60 {
            pane.add(&others.request(random));
        }
    });
    assert_eq!(cause, Cause::InputDrift, "{moved:?}");
}

#[test]
fn answers_alone_are_an_output_shift_and_ratings_a_drop_of_quality() {
    let (cause, moved) = drifted(|_, random, pane| {
        let traffic = Traffic {
            output: (5.3, 0.9),
            ..Traffic::default()
        };
        for _ in 0..200 {
            pane.add(&traffic.request(random));
        }
    });
    assert_eq!((cause, moved), (Cause::OutputShift, vec![Signal::OutputTokens]));
    let (cause, moved) = drifted(|_, random, pane| {
        let traffic = Traffic {
            bad_ratings: 0.6,
            ..Traffic::default()
        };
        for _ in 0..200 {
            pane.add(&traffic.request(random));
        }
    });
    assert_eq!((cause, moved), (Cause::QualityDrop, vec![Signal::NegativeFeedback]));
}
