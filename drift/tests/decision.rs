//! From panes to a decision: what changes it, and what must not.
#![expect(clippy::expect_used, reason = "a test that cannot prepare its input has failed")]

mod common;

use std::sync::LazyLock;

use common::{MONDAY, Random, Traffic, only, steady, suspected_after, watching};
use perennial_drift::baseline::Baseline;
use perennial_drift::cause::Mask;
use perennial_drift::decision::{Phase, State, StepError, Taken};
use perennial_drift::effect::Measure;
use perennial_drift::explain;
use perennial_drift::observe::{Accepted, Assembler, Interval, ObserveError};
use perennial_drift::pane::Pane;
use perennial_drift::pane::key::{PaneKey, Source};
use perennial_drift::pane::layout::Layout;
use perennial_drift::policy::{MinEffect, Policy};
use perennial_drift::signal::Signal;
use proptest::prelude::*;

static LEARNED: LazyLock<(Policy, Baseline)> = LazyLock::new(|| {
    let policy = steady();
    let panes = Traffic::default().panes(&mut Random(5), MONDAY, 200, 100);
    let baseline = Baseline::learn(&panes, &policy).expect("is learned");
    (policy, baseline)
});

fn interval(pane: &Pane) -> Interval {
    Interval {
        start: pane.start(),
        pane: Some(pane.clone()),
    }
}

fn bytes(state: &State) -> Vec<u8> {
    state.encode().expect("a state is encoded")
}

/// Longer prompts by half a standard deviation.
fn longer() -> Traffic {
    Traffic {
        prompt: (5.4, 0.8),
        ..Traffic::default()
    }
}

#[test]
fn a_change_that_matters_is_suspected_then_confirmed_and_explained() {
    let (policy, baseline) = &*LEARNED;
    let mut random = Random(6);
    let mut state = watching(baseline, policy);
    let calm = Traffic::default().panes(&mut random, baseline.to, 30, 100);
    assert_eq!(suspected_after(&mut state, &calm, baseline, policy), None);
    let change = state.until;
    let changed = longer().panes(&mut random, change, 30, 100);
    let after = suspected_after(&mut state, &changed, baseline, policy).expect("is suspected");
    assert!(after <= 4, "{after} panes");
    for pane in &changed[after..] {
        state
            .step(&interval(pane), None, baseline, policy)
            .expect("a step is taken");
    }
    assert_eq!(state.phase, Phase::Drifted);
    assert!(state.phase_since - change >= i64::from(policy.confirm_seconds));
    let report = explain::report(&state, baseline, policy);
    let top = &report.signals[0];
    assert_eq!(top.signal, Signal::PromptTokens);
    assert!(top.matters && top.share_of_evidence_percent > 50.0, "{top:?}");
    assert!(
        (top.since - change).abs() <= 2 * 300,
        "the change is dated {} s off",
        top.since - change
    );
    let shift = top
        .effects
        .iter()
        .find(|effect| effect.measure == Measure::Shift)
        .expect("a shift");
    assert!(shift.lower <= 0.5 && 0.5 <= shift.upper, "{shift:?}");
    assert!(top.sentence.starts_with("Tokens per prompt rose:"), "{}", top.sentence);
    assert!(report.signals[1..].iter().all(|signal| !signal.moved), "{report:?}");
}

#[test]
fn evidence_alone_is_never_a_drift() {
    let mut policy = only(Signal::PromptTokens);
    // Nothing that small matters to this owner.
    policy.signals[0].min_effect = MinEffect {
        shift_milli_sigma: Some(900),
        ..MinEffect::default()
    };
    let mut random = Random(7);
    let baseline =
        Baseline::learn(&Traffic::default().panes(&mut random, MONDAY, 200, 100), &policy).expect("is learned");
    let mut state = watching(&baseline, &policy);
    let mut seen = Vec::new();
    for pane in longer().panes(&mut random, baseline.to, 200, 100) {
        state
            .step(&interval(&pane), None, &baseline, &policy)
            .expect("a step is taken");
        seen.push(state.phase);
    }
    assert!(seen.contains(&Phase::Suspected));
    assert!(!seen.contains(&Phase::Drifted));
    // One suspicion after the other comes to nothing, each after twice the time of the one before.
    assert!((3..=5).contains(&state.left.cleared), "{:?}", state.left);
}

#[test]
fn a_drift_that_goes_away_is_over() {
    let (policy, baseline) = &*LEARNED;
    let mut random = Random(8);
    let mut state = watching(baseline, policy);
    for pane in longer().panes(&mut random, baseline.to, 30, 400) {
        state
            .step(&interval(&pane), None, baseline, policy)
            .expect("a step is taken");
    }
    assert_eq!(state.phase, Phase::Drifted);
    for pane in Traffic::default().panes(&mut random, state.until, 40, 400) {
        state
            .step(&interval(&pane), None, baseline, policy)
            .expect("a step is taken");
    }
    assert_eq!((state.phase, state.left.recovered), (Phase::Watching, 1));
}

#[test]
fn what_was_not_seen_is_no_evidence_either_way() {
    let (policy, baseline) = &*LEARNED;
    let panes = longer().panes(&mut Random(9), baseline.to, 1, 100);
    let mut state = watching(baseline, policy);
    let first = state
        .step(&interval(&panes[0]), None, baseline, policy)
        .expect("a step is taken");
    assert_eq!(first.taken, Taken::Weighed);
    let mut time = panes[0].end();
    let mut none = |state: &mut State, pane: Option<Pane>, mask| {
        let step = state
            .step(&Interval { start: time, pane }, mask, baseline, policy)
            .expect("a step is taken");
        time += 300;
        assert_eq!(step.taken, Taken::LeftOut);
        assert!((step.log_evidence - first.log_evidence).abs() < 1e-12);
    };
    none(&mut state, None, None);
    none(
        &mut state,
        Some(longer().pane(&mut Random(1), &Layout::default(), panes[0].end() + 300, 500)),
        Some(Mask::Rollout),
    );
    none(&mut state, None, Some(Mask::Gap));
    assert_eq!((state.left.gaps, state.left.masked), (1, 2));
}

#[test]
fn scarce_traffic_is_joined_and_dropped_when_it_never_is_enough() {
    let (policy, baseline) = &*LEARNED;
    let mut state = watching(baseline, policy);
    let mut random = Random(10);
    let (mut weighed, mut joined) = (0, 0);
    for pane in Traffic::default().panes(&mut random, baseline.to, 40, 30) {
        match state
            .step(&interval(&pane), None, baseline, policy)
            .expect("a step is taken")
            .taken
        {
            Taken::Weighed => weighed += 1,
            Taken::Joined => joined += 1,
            Taken::LeftOut => panic!("nothing is left out"),
        }
    }
    assert_eq!((weighed, joined), (10, 30));
    // One request an hour never makes a hundred in six.
    for hour in 0..20 {
        let start = state.until + hour * 3_600;
        let pane = Traffic::default().pane(&mut random, &Layout::default(), start, 1);
        state
            .step(&interval(&pane), None, baseline, policy)
            .expect("a step is taken");
    }
    assert!(state.left.insufficient >= 2, "{:?}", state.left);
}

#[test]
fn a_state_is_held_to_its_policy_baseline_and_order_of_time() {
    let (policy, baseline) = &*LEARNED;
    let pane = Traffic::default().pane(&mut Random(1), &Layout::default(), baseline.to, 100);
    let mut state = watching(baseline, policy);
    let before = bytes(&state);
    let other = Policy {
        max_per_mille: 10,
        ..policy.clone()
    };
    let refused =
        |state: &mut State, interval: &Interval, policy: &Policy| state.step(interval, None, baseline, policy);
    assert_eq!(
        refused(&mut state, &interval(&pane), &other),
        Err(StepError::Foreign("policy"))
    );
    let early = Interval {
        start: baseline.to - 300,
        pane: None,
    };
    assert!(matches!(
        refused(&mut state, &early, policy),
        Err(StepError::Order { .. })
    ));
    let foreign = Interval {
        start: baseline.to,
        pane: Some(Pane::new(&Layout::new("other"), baseline.to, 300)),
    };
    assert_eq!(refused(&mut state, &foreign, policy), Err(StepError::Layout));
    let mut learning = State::learning(&Layout::default(), policy, baseline.to);
    assert_eq!(
        refused(&mut learning, &interval(&pane), policy),
        Err(StepError::Foreign("baseline"))
    );
    assert_eq!(bytes(&state), before);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12) })]

    /// Stored and read at any pane, a run ends in the same bytes.
    #[test]
    fn a_run_that_was_cut_and_resumed_ends_in_the_same_bytes(seed in any::<u64>(), shift in 0.0..0.8_f64, cuts in prop::collection::vec(0_usize..40, 1..5)) {
        let (policy, baseline) = &*LEARNED;
        let traffic = Traffic { prompt: (5.0 + shift, 0.8), ..Traffic::default() };
        let panes = traffic.panes(&mut Random(seed), baseline.to, 40, 90);
        let play = |cuts: &[usize]| {
            let mut state = watching(baseline, policy);
            for (position, pane) in panes.iter().enumerate() {
                if cuts.contains(&position) {
                    state = State::decode(&Layout::default(), &bytes(&state)).expect("it is a state");
                }
                state.step(&interval(pane), None, baseline, policy).expect("a step is taken");
            }
            bytes(&state)
        };
        prop_assert_eq!(play(&cuts), play(&[]));
    }

    #[test]
    fn a_state_or_baseline_that_was_mangled_is_refused(at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let (policy, baseline) = &*LEARNED;
        let layout = Layout::default();
        let mut state = bytes(&watching(baseline, policy));
        let place = at.index(state.len());
        state[place] ^= flip;
        prop_assert!(State::decode(&layout, &state).is_err());
        let mut learned = baseline.encode().expect("is encoded");
        let place = at.index(learned.len());
        learned[place] ^= flip;
        prop_assert!(Baseline::decode(&layout, &learned).is_err());
    }

    /// Whichever replicas the requests went to, and in whatever order their panes are read, twice or once.
    #[test]
    fn permuting_replicas_changes_nothing(seed in any::<u64>(), order in any::<u64>()) {
        let (policy, baseline) = &*LEARNED;
        let mut random = Random(seed);
        let traffic = longer();
        let mut panes = Vec::new();
        for position in 0..6 {
            for replica in 0..4 {
                let start = baseline.to + 300 * position;
                let pane = traffic.pane(&mut random, &Layout::default(), start, 30);
                let source = Source { pod: format!("pod-{replica}"), boot: "1".to_owned() };
                panes.push((PaneKey { source, sequence: position as u64 }, pane));
            }
        }
        let play = |panes: &[(PaneKey, Pane)], twice: bool| {
            let now = baseline.to + 1_800;
            let mut assembler = Assembler::new(&Layout::default(), 300, baseline.to);
            for (key, pane) in panes {
                assembler.accept(key.clone(), pane, now).expect("is taken");
                if twice {
                    assert_eq!(assembler.accept(key.clone(), pane, now), Ok(Accepted::Duplicate));
                }
            }
            let mut state = watching(baseline, policy);
            for interval in assembler.close(now) {
                state.step(&interval, None, baseline, policy).expect("a step is taken");
            }
            bytes(&state)
        };
        let mut shuffled = panes.clone();
        let mut random = Random(order);
        for position in (1..shuffled.len()).rev() {
            shuffled.swap(position, random.below(position + 1));
        }
        // Within one replica panes come in their order.
        shuffled.sort_by_key(|(key, _)| key.sequence);
        prop_assert_eq!(play(&panes, false), play(&shuffled, true));
    }

    /// Gaps and masked panes anywhere in between leave the evidence where it was.
    #[test]
    fn gaps_never_change_the_evidence(seed in any::<u64>(), gaps in prop::collection::vec(any::<bool>(), 30)) {
        let (policy, baseline) = &*LEARNED;
        let traffic = Traffic { prompt: (5.15, 0.8), ..Traffic::default() };
        let mut with = watching(baseline, policy);
        let mut without = watching(baseline, policy);
        let (mut time, mut random) = (baseline.to, Random(seed));
        for (position, gap) in gaps.iter().enumerate() {
            if *gap {
                with.step(&Interval { start: time, pane: None }, None, baseline, policy).expect("a step is taken");
                time += 300;
            }
            let mut again = random.clone();
            let pane = traffic.pane(&mut random, &Layout::default(), time, 100);
            let there = with.step(&interval(&pane), None, baseline, policy).expect("a step is taken");
            let pane = traffic.pane(&mut again, &Layout::default(), baseline.to + 300 * position as i64, 100);
            let here = without.step(&interval(&pane), None, baseline, policy).expect("a step is taken");
            prop_assert_eq!(there.log_evidence.to_bits(), here.log_evidence.to_bits());
            // A suspicion is cleared by the clock, which gaps do not stop.
            if with.phase != Phase::Watching {
                break;
            }
            time += 300;
        }
    }
}

#[test]
fn late_lost_and_foreign_panes_are_counted_or_refused() {
    let layout = Layout::default();
    let mut assembler = Assembler::new(&layout, 300, MONDAY + 1);
    let key = |sequence| PaneKey {
        source: Source {
            pod: "a".to_owned(),
            boot: "1".to_owned(),
        },
        sequence,
    };
    let pane = |start: i64| Traffic::default().pane(&mut Random(1), &layout, start, 3);
    let now = MONDAY + 3_000;
    // It began in the middle of a pane, so the first whole one is the next.
    assert_eq!(assembler.accept(key(0), &pane(MONDAY), now), Ok(Accepted::Late));
    assert_eq!(assembler.accept(key(1), &pane(MONDAY + 300), now), Ok(Accepted::Merged));
    // Sequences 2 and 3 fell out of the ring.
    assert_eq!(
        assembler.accept(key(4), &pane(MONDAY + 1_200), now),
        Ok(Accepted::Merged)
    );
    assert_eq!(
        assembler.accept(key(4), &pane(MONDAY + 1_200), now),
        Ok(Accepted::Duplicate)
    );
    assert!(matches!(
        assembler.accept(key(5), &pane(now + 900), now),
        Err(ObserveError::Future(900))
    ));
    let other = Pane::new(&layout, MONDAY, 60);
    assert!(matches!(
        assembler.accept(key(5), &other, now),
        Err(ObserveError::Length { got: 60, expected: 300 })
    ));
    let closed = assembler.close(MONDAY + 1_500);
    let seen: Vec<bool> = closed.iter().map(|interval| interval.pane.is_some()).collect();
    assert_eq!(seen, vec![true, false, false, true]);
    let counts = assembler.counts();
    assert_eq!((counts.merged, counts.duplicates, counts.lost), (2, 1, 3));
    assert_eq!(assembler.last_of(&key(0).source), Some(4));
    assert_eq!(
        assembler.accept(key(4), &pane(MONDAY + 1_200), now),
        Ok(Accepted::Duplicate)
    );
}
