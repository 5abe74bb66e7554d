//! What a baseline takes, and what it is worth.

mod common;

use common::{MONDAY, Random, Traffic, only, steady, suspected_after, watching};
use perennial_drift::baseline::{Baseline, BaselineError, Model};
use perennial_drift::envelope;
use perennial_drift::pane::Pane;
use perennial_drift::pane::layout::Layout;
use perennial_drift::policy::{Policy, Season};
use perennial_drift::signal::Signal;

/// A week of traffic whose prompts are a quarter of a standard deviation longer by day and shorter by night.
fn daily(random: &mut Random, from: i64, days: i64) -> Vec<Pane> {
    let layout = Layout::default();
    (0..days * 288)
        .map(|position| {
            let time = from + 300 * position;
            let swing = 0.2 * (std::f64::consts::TAU * (time.rem_euclid(86_400) as f64) / 86_400.0).sin();
            let mut pane = Pane::new(&layout, time, 300);
            for _ in 0..100 {
                let mut features = common::empty();
                features.numbers[0] = Some((5.0 + swing + 0.8 * random.normal()).exp().round().max(1.0));
                pane.add(&features);
            }
            pane
        })
        .collect()
}

#[test]
fn a_daily_rhythm_is_no_drift_where_the_baseline_knows_it() {
    let mut random = Random(21);
    let policy = Policy {
        season: Season::HourOfDay,
        baseline_seconds: 604_800,
        ..only(Signal::PromptTokens)
    };
    let week = daily(&mut random, MONDAY, 7);
    let next = daily(&mut random, MONDAY + 7 * 86_400, 7);
    let baseline = Baseline::learn(&week, &policy).expect("is learned");
    assert_eq!(baseline.unstable().count(), 0);
    let mut state = watching(&baseline, &policy);
    assert_eq!(suspected_after(&mut state, &next, &baseline, &policy), None);
    // Without the season the same week alarms, or its halves do already.
    let pooled = Policy {
        season: Season::None,
        ..policy
    };
    let baseline = Baseline::learn(&week, &pooled).expect("is learned");
    let mut state = watching(&baseline, &pooled);
    let stable = baseline.unstable().count() == 0;
    assert!(!stable || suspected_after(&mut state, &next, &baseline, &pooled).is_some());
}

#[test]
fn the_same_panes_give_the_same_bytes_and_so_the_same_name() {
    let panes = Traffic::default().panes(&mut Random(22), MONDAY, 200, 100);
    let learn = || {
        Baseline::learn(&panes, &steady())
            .expect("is learned")
            .encode()
            .expect("is encoded")
    };
    let (first, second) = (learn(), learn());
    assert_eq!(envelope::digest(&first), envelope::digest(&second));
    let read = Baseline::decode(&Layout::default(), &first).expect("it is a baseline");
    assert_eq!(read.encode().expect("is encoded"), first);
    let error = Baseline::decode(&Layout::new("another encoder"), &first).expect_err("is refused");
    assert!(error.to_string().contains("layout"), "{error}");
}

#[test]
fn too_little_is_said_with_figures() {
    let panes = Traffic::default().panes(&mut Random(23), MONDAY, 10, 100);
    let error = Baseline::learn(&panes, &steady()).expect_err("is too little");
    assert_eq!(
        error,
        BaselineError::Insufficient {
            have: 1_000,
            want: 20_000
        }
    );
    let day = Policy {
        baseline_min_samples: 1_000,
        ..Policy::default()
    };
    let error = Baseline::learn(&panes, &day).expect_err("is too short");
    assert_eq!(
        error,
        BaselineError::Short {
            have: 3_000,
            want: 604_800
        }
    );
    let mut mixed = panes.clone();
    mixed.swap(1, 2);
    assert_eq!(Baseline::learn(&mixed, &day), Err(BaselineError::Mixed));
}

#[test]
fn a_baseline_whose_halves_differ_is_unstable_and_not_armed() {
    let mut random = Random(24);
    let mut panes = Traffic::default().panes(&mut random, MONDAY, 100, 100);
    let moved = Traffic {
        prompt: (5.4, 0.8),
        ..Traffic::default()
    };
    panes.extend(moved.panes(&mut random, MONDAY + 100 * 300, 100, 100));
    let policy = steady();
    let baseline = Baseline::learn(&panes, &policy).expect("is learned");
    assert_eq!(baseline.unstable().collect::<Vec<_>>(), vec![Signal::PromptTokens]);
    let report = perennial_drift::explain::report(&watching(&baseline, &policy), &baseline, &policy);
    assert!(
        report
            .signals
            .iter()
            .all(|signal| signal.signal != Signal::PromptTokens)
    );
    assert!(report.unarmed.iter().any(|(signal, _)| *signal == Signal::PromptTokens));
}

/// Sessions of ten requests of users who differ: one request says less than an independent one would.
#[test]
fn clustered_traffic_has_a_design_effect_and_independent_traffic_has_none() {
    let clustered = |random: &mut Random, share: f64| -> Vec<Pane> {
        let layout = Layout::default();
        (0..400)
            .map(|position| {
                let mut pane = Pane::new(&layout, MONDAY + 300 * position, 300);
                for _ in 0..10 {
                    let user = random.normal() * share.sqrt();
                    for _ in 0..10 {
                        let mut features = common::empty();
                        let log = 5.0 + 0.8 * (user + random.normal() * (1.0 - share).sqrt());
                        features.numbers[0] = Some(log.exp().round().max(1.0));
                        pane.add(&features);
                    }
                }
                pane
            })
            .collect()
    };
    let phi = |share: f64| {
        let panes = clustered(&mut Random(25), share);
        let baseline = Baseline::learn(&panes, &only(Signal::PromptTokens)).expect("is learned");
        match &baseline.signal(Signal::PromptTokens).expect("is there").model {
            Model::Numeric(model) => (model.phi, model.table.phi),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(phi(0.0), (1.0, 1.0));
    // 1 + 9 * 0.25 for sums of such sessions.
    let (directional, omnibus) = phi(0.25);
    assert!((2.4..=4.2).contains(&directional), "{directional}");
    assert!(omnibus > 1.4, "{omnibus}");
}

#[test]
fn hours_of_which_nothing_is_known_are_left_out() {
    let mut random = Random(26);
    let policy = Policy {
        season: Season::HourOfDay,
        baseline_seconds: 86_400,
        ..only(Signal::PromptTokens)
    };
    // Nobody asks between 02:00 and 04:00.
    let awake = |from: i64, random: &mut Random| -> Vec<Pane> {
        Traffic::default()
            .panes(random, from, 288 * 2, 100)
            .into_iter()
            .filter(|pane| !(7_200..14_400).contains(&pane.start().rem_euclid(86_400)))
            .collect()
    };
    let baseline = Baseline::learn(&awake(MONDAY, &mut random), &policy).expect("is learned");
    let mut state = watching(&baseline, &policy);
    let odd = Traffic {
        prompt: (6.0, 0.8),
        ..Traffic::default()
    };
    let night = odd.panes(&mut random, baseline.to + 7_200, 20, 100);
    assert_eq!(suspected_after(&mut state, &night, &baseline, &policy), None);
    assert_eq!(state.left.unlearned, 20);
}
