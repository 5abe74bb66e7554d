//! Statistics of counts.

use perennial_drift::classical::counts::{
    Smoothing, hellinger, jensen_shannon_distance, kl_of_current, kl_of_reference, l_infinity, psi, psi_critical_value,
    psi_null_mean, total_variation,
};
use perennial_drift::classical::independence::{
    chi_squared_one_sample, chi_squared_two_sample, chi_squared_with_margin, g_test,
};
use perennial_drift::classical::rates::{Rate, fisher_exact, mcnemar_exact, pooled_z, wilson_interval};
use perennial_drift::classical::{ClassicalError, Side};
use proptest::prelude::*;

use super::close;

const REFERENCE: [f64; 6] = [160.0, 180.0, 160.0, 140.0, 120.0, 120.0];
const CURRENT: [f64; 6] = [16.0, 16.0, 16.0, 16.0, 16.0, 8.0];
/// With an empty cell.
const HOLE: [f64; 6] = [0.0, 16.0, 16.0, 16.0, 16.0, 24.0];

#[test]
fn distances_of_similar_counts() {
    close(
        psi(&REFERENCE, &CURRENT, Smoothing::None).unwrap(),
        0.037218381577290835,
    );
    close(
        kl_of_current(&REFERENCE, &CURRENT, Smoothing::None).unwrap(),
        0.018308704611970428,
    );
    close(
        kl_of_reference(&REFERENCE, &CURRENT, Smoothing::None).unwrap(),
        0.018909676965320497,
    );
    let js = jensen_shannon_distance(&REFERENCE, &CURRENT).unwrap();
    close(js, 0.06804819617703867);
    close(js / std::f64::consts::LN_2.sqrt(), 0.08173421330573757);
    close(hellinger(&REFERENCE, &CURRENT).unwrap(), 0.06812774370983345);
    close(total_variation(&REFERENCE, &CURRENT).unwrap(), 0.06818181818181819);
    close(l_infinity(&REFERENCE, &CURRENT).unwrap(), 0.04545454545454547);
}

#[test]
fn tests_of_similar_counts() {
    let two = chi_squared_two_sample(&REFERENCE, &CURRENT).unwrap();
    close(two.statistic, 2.886962477298612);
    close(two.p_value, 0.71740769545146);
    assert_eq!(two.degrees_of_freedom, 5);
    let g = g_test(&REFERENCE, &CURRENT).unwrap();
    close(g.statistic, 2.9337379587742625);
    close(g.p_value, 0.7102008794346705);
    let one = chi_squared_one_sample(&REFERENCE, &CURRENT).unwrap();
    close(one.statistic, 3.1746031746031744);
    close(one.p_value, 0.6730876006966301);
}

#[test]
fn what_psi_is_by_chance() {
    close(psi_null_mean(6, 880.0, 88.0).unwrap(), 0.0625);
    close(psi_critical_value(6, 880.0, 88.0, 0.05).unwrap(), 0.1383812211689544);
    close(psi_critical_value(6, 880.0, 88.0, 0.001).unwrap(), 0.2564375706554109);
}

#[test]
fn an_empty_cell_needs_smoothing() {
    close(psi(&REFERENCE, &HOLE, Smoothing::Add(0.5)).unwrap(), 0.7254004735277213);
    close(psi(&REFERENCE, &HOLE, Smoothing::Add(1.0)).unwrap(), 0.5898255006680313);
    close(jensen_shannon_distance(&REFERENCE, &HOLE).unwrap(), 0.2773803088722263);
    let side = Side::Current;
    assert_eq!(
        psi(&REFERENCE, &HOLE, Smoothing::None),
        Err(ClassicalError::EmptyCell { side, index: 0 })
    );
    // The reference has no such cell, so this direction is finite, and the floor of 0.0001 makes the other so.
    assert!(kl_of_current(&REFERENCE, &HOLE, Smoothing::None).is_ok());
    let floor = kl_of_reference(&REFERENCE, &HOLE, Smoothing::Floor(0.0001)).unwrap();
    assert!(floor.is_finite() && floor > kl_of_reference(&REFERENCE, &HOLE, Smoothing::Add(0.5)).unwrap());
}

#[test]
fn a_margin_asks_for_more_than_significance() {
    let current = [5.0, 5.0, 10.0, 20.0, 30.0, 18.0];
    for (margin, p_value) in [
        (0.0, 1.42075855706e-08),
        (0.02, 6.73440290944e-07),
        (0.1, 2.95171441102e-04),
    ] {
        let found = chi_squared_with_margin(&REFERENCE, &current, margin).unwrap();
        close(found.statistic, 45.044811179466);
        close(found.p_value, p_value);
    }
}

#[test]
fn two_rates() {
    let (before, after) = (
        Rate {
            events: 30,
            trials: 1000,
        },
        Rate {
            events: 55,
            trials: 1000,
        },
    );
    let table = chi_squared_two_sample(&[30.0, 970.0], &[55.0, 945.0]).unwrap();
    close(table.statistic, 7.6793119336507445);
    close(table.p_value, 0.0055857461875038865);
    let z = pooled_z(before, after).unwrap();
    close(z.statistic, 2.7711571470508027);
    close(z.p_value, table.p_value);
    close(fisher_exact(before, after).unwrap(), 0.007467206982769902);
    close(fisher_exact(after, before).unwrap(), 0.007467206982769902);
}

#[test]
fn one_rate() {
    let (low, high) = wilson_interval(Rate { events: 8, trials: 10 }, 0.95).unwrap();
    close(low, 0.49016247153664183);
    close(high, 0.9433178485456247);
    assert_eq!(wilson_interval(Rate { events: 0, trials: 10 }, 0.95).unwrap().0, 0.0);
}

#[test]
fn pairs_that_disagree() {
    close(mcnemar_exact(15, 5), 0.04138946533203125);
    close(mcnemar_exact(5, 15), 0.04138946533203125);
    close(mcnemar_exact(10, 0), 2.0 / 1024.0);
    assert_eq!(mcnemar_exact(0, 0), 1.0);
    assert_eq!(mcnemar_exact(7, 7), 1.0);
}

#[test]
fn counts_that_cannot_be_compared_say_why() {
    let error = |reference: &[f64], current: &[f64]| chi_squared_two_sample(reference, current).unwrap_err();
    assert_eq!(
        error(&[1.0], &[1.0, 2.0]),
        ClassicalError::CellsDiffer {
            reference: 1,
            current: 2
        }
    );
    assert_eq!(
        error(&[0.0, 0.0], &[1.0, 2.0]),
        ClassicalError::NoCounts { side: Side::Reference }
    );
    assert_eq!(
        error(&[3.0, 0.0], &[1.0, 0.0]),
        ClassicalError::TooFewCells { found: 1 }
    );
    let negative = ClassicalError::NotACount {
        side: Side::Current,
        index: 1,
        value: -2.0,
    };
    assert_eq!(error(&[3.0, 1.0], &[1.0, -2.0]), negative);
    assert!(matches!(
        error(&[f64::NAN, 1.0], &[1.0, 2.0]),
        ClassicalError::NotACount {
            side: Side::Reference,
            ..
        }
    ));
    assert!(fisher_exact(Rate { events: 3, trials: 2 }, Rate { events: 0, trials: 1 }).is_err());
    assert!(wilson_interval(Rate { events: 1, trials: 2 }, 1.0).is_err());
}

fn histogram() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec((0u32..200).prop_map(f64::from), 6).prop_filter("two cells hold counts", |counts| {
        counts.iter().filter(|count| **count > 0.0).count() > 1
    })
}

proptest! {
    #[test]
    fn distances_are_symmetric_and_bounded(p in histogram(), q in histogram()) {
        let limits = [(jensen_shannon_distance as fn(&[f64], &[f64]) -> _, 0.8326), (hellinger, 1.0), (total_variation, 1.0), (l_infinity, 1.0)];
        for (distance, limit) in limits {
            let found: f64 = distance(&p, &q).unwrap();
            prop_assert!((0.0..=limit).contains(&found));
            prop_assert!((found - distance(&q, &p).unwrap()).abs() < 1e-12);
            prop_assert!(distance(&p, &p).unwrap() < 1e-7);
        }
    }

    #[test]
    fn psi_is_both_divergences(p in histogram(), q in histogram(), amount in 0.01..5.0f64) {
        let smoothing = Smoothing::Add(amount);
        let found = psi(&p, &q, smoothing).unwrap();
        let there = kl_of_current(&p, &q, smoothing).unwrap();
        let back = kl_of_reference(&p, &q, smoothing).unwrap();
        prop_assert!(there >= -1e-12 && back >= -1e-12);
        prop_assert!((found - there - back).abs() < 1e-9);
        prop_assert!((found - psi(&q, &p, smoothing).unwrap()).abs() < 1e-9);
    }

    #[test]
    fn p_values_lie_between_0_and_1(p in histogram(), q in histogram(), margin in 0.0..4.0f64) {
        let plain = chi_squared_two_sample(&p, &q).unwrap();
        let with_margin = chi_squared_with_margin(&p, &q, margin).unwrap();
        prop_assert!((0.0..=1.0).contains(&plain.p_value));
        prop_assert!((0.0..=1.0).contains(&g_test(&p, &q).unwrap().p_value));
        prop_assert!(with_margin.p_value >= plain.p_value * (1.0 - 1e-9));
    }

    #[test]
    fn fisher_is_a_probability(m in 1u64..60, n in 1u64..60, share in 0.0..1.0f64, other in 0.0..1.0f64) {
        let rate = |trials: u64, share: f64| Rate { events: (trials as f64 * share) as u64, trials };
        let found = fisher_exact(rate(m, share), rate(n, other)).unwrap();
        prop_assert!(found > 0.0 && found <= 1.0);
    }
}
