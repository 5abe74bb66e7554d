//! Two-sample statistics against scipy (`drift/reference/two_sample.py`), and properties that hold for any samples.

use std::collections::BTreeMap;

use perennial_drift::classical::Side;
use perennial_drift::classical::cramer_von_mises::cramer_von_mises;
use perennial_drift::classical::distances::{energy, wasserstein};
use perennial_drift::classical::kolmogorov_smirnov::kolmogorov_smirnov;
use perennial_drift::classical::mann_whitney::mann_whitney;
use perennial_drift::classical::means::{Moments, welch_t};
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    x: Vec<String>,
    y: Vec<String>,
    values: BTreeMap<String, Option<String>>,
}

#[expect(clippy::expect_used, reason = "a helper of tests")]
fn numbers(texts: &[String]) -> Vec<f64> {
    texts.iter().map(|text| text.parse().expect("a number")).collect()
}

#[test]
fn statistics_agree_with_scipy() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("data/two-sample.json")).expect("the reference is JSON");
    for (index, case) in cases.iter().enumerate() {
        let (x, y) = (numbers(&case.x), numbers(&case.y));
        let ks = kolmogorov_smirnov(&x, &y).unwrap();
        let cvm = cramer_von_mises(&x, &y).unwrap();
        let ranks = mann_whitney(&x, &y).unwrap();
        let moments = |values: &[f64]| Moments::of(values, Side::Reference).unwrap();
        let welch = welch_t(&moments(&x), &moments(&y)).unwrap();
        let found = [
            ("ks", Some(ks.statistic)),
            ("ks_exact", ks.exact_p_value),
            ("ks_asymptotic", Some(ks.asymptotic_p_value)),
            ("wasserstein", Some(wasserstein(&x, &y).unwrap())),
            ("energy", Some(energy(&x, &y).unwrap())),
            ("cvm", Some(cvm.statistic)),
            ("cvm_exact", cvm.exact_p_value),
            ("cvm_asymptotic", Some(cvm.asymptotic_p_value)),
            ("welch", Some(welch.statistic)),
            ("welch_p", Some(welch.p_value)),
            ("mann_whitney", Some(ranks.statistic)),
            ("mann_whitney_exact", ranks.exact_p_value),
            ("mann_whitney_asymptotic", Some(ranks.asymptotic_p_value)),
        ];
        assert_eq!(found.len(), case.values.len());
        for (name, found) in found {
            let expected = case.values[name]
                .as_ref()
                .map(|text| text.parse::<f64>().expect("a number"));
            let close = match (found, expected) {
                (Some(found), Some(expected)) => (found - expected).abs() <= 1e-9 * expected.abs(),
                (found, expected) => found.is_none() && expected.is_none(),
            };
            assert!(close, "pair {index}, {name}: {found:?}, not {expected:?}");
        }
    }
}

/// `D` by its definition.
fn brute_force(x: &[f64], y: &[f64]) -> f64 {
    let share =
        |sample: &[f64], at: f64| sample.iter().filter(|value| **value <= at).count() as f64 / sample.len() as f64;
    x.iter()
        .chain(y)
        .map(|&at| (share(x, at) - share(y, at)).abs())
        .fold(0.0, f64::max)
}

/// The share of all ways to split the pooled sample that give a statistic at least as large.
fn by_permutation(x: &[f64], y: &[f64], statistic: impl Fn(&[f64], &[f64]) -> f64) -> f64 {
    let pooled = [x, y].concat();
    let observed = statistic(x, y);
    let (mut all, mut extreme) = (0u32, 0u32);
    for mask in 0u32..1 << pooled.len() {
        if mask.count_ones() as usize != x.len() {
            continue;
        }
        let side = |bit| {
            (0..pooled.len())
                .filter(|i| (mask >> i) & 1 == bit)
                .map(|i| pooled[i])
                .collect::<Vec<_>>()
        };
        all += 1;
        extreme += u32::from(statistic(&side(1), &side(0)) >= observed - 1e-9);
    }
    f64::from(extreme) / f64::from(all)
}

/// Few distinct values, so that there are ties.
fn with_ties() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec((-8i32..8).prop_map(f64::from), 2..30)
}

fn distinct() -> impl Strategy<Value = (Vec<f64>, Vec<f64>)> {
    (prop::collection::btree_set(-1000i32..1000, 4..11), 2usize..9).prop_flat_map(|(set, cut)| {
        let values: Vec<f64> = set.into_iter().map(f64::from).collect();
        let cut = cut.min(values.len() - 2);
        Just(values)
            .prop_shuffle()
            .prop_map(move |values| (values[..cut].to_vec(), values[cut..].to_vec()))
    })
}

proptest! {
    #[test]
    fn kolmogorov_smirnov_is_its_definition(x in with_ties(), y in with_ties()) {
        let found = kolmogorov_smirnov(&x, &y).unwrap();
        prop_assert!((found.statistic - brute_force(&x, &y)).abs() < 1e-12);
        prop_assert!((0.0..=1.0).contains(&found.p_value()));
        prop_assert!((0.0..=1.0).contains(&found.asymptotic_p_value));
    }

    #[test]
    fn exact_p_values_are_those_of_all_permutations((x, y) in distinct()) {
        let ks = by_permutation(&x, &y, |x, y| kolmogorov_smirnov(x, y).unwrap().statistic);
        let cvm = by_permutation(&x, &y, |x, y| cramer_von_mises(x, y).unwrap().statistic);
        let middle = (x.len() * y.len()) as f64 / 2.0;
        let ranks = by_permutation(&x, &y, |x, y| (mann_whitney(x, y).unwrap().statistic - middle).abs());
        prop_assert!((kolmogorov_smirnov(&x, &y).unwrap().p_value() - ks).abs() < 1e-12);
        prop_assert!((cramer_von_mises(&x, &y).unwrap().p_value() - cvm).abs() < 1e-12);
        prop_assert!((mann_whitney(&x, &y).unwrap().p_value() - ranks).abs() < 1e-12);
    }

    #[test]
    fn distances_are_symmetric_and_vanish_on_equal_samples(x in with_ties(), y in with_ties()) {
        for distance in [wasserstein, energy] {
            let there = distance(&x, &y).unwrap();
            prop_assert!(there >= 0.0);
            prop_assert!((there - distance(&y, &x).unwrap()).abs() < 1e-12);
            prop_assert_eq!(distance(&x, &x).unwrap(), 0.0);
        }
    }

    #[test]
    fn moving_a_sample_moves_it_by_so_much(x in with_ties(), shift in 0.0..50.0f64) {
        let moved: Vec<f64> = x.iter().map(|value| value + shift).collect();
        prop_assert!((wasserstein(&x, &moved).unwrap() - shift).abs() < 1e-9);
    }

    #[test]
    fn moments_do_not_depend_on_the_split(x in with_ties(), y in with_ties()) {
        let of = |values: &[f64]| Moments::of(values, Side::Current).unwrap();
        let (merged, whole) = (of(&x).merge(of(&y)), of(&[x, y].concat()));
        prop_assert_eq!(merged.count, whole.count);
        prop_assert!((merged.mean - whole.mean).abs() < 1e-12);
        prop_assert!((merged.squared_deviations - whole.squared_deviations).abs() < 1e-9);
    }
}
