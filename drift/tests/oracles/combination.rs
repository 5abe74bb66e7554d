//! Combinations of p-values, and the special functions that have figures of their own.

use perennial_drift::classical::combination::{benjamini_hochberg, cauchy_combination, fisher_combination, holm};
use perennial_drift::math::{
    chi_squared_isf, gamma_sf, ln_mixture_calibrator, mixture_calibrator, noncentral_chi_squared_sf,
    noncentral_lower_bound,
};
use proptest::prelude::*;

use super::close;

const P_VALUES: [f64; 10] = [0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216];

#[test]
fn adjusted_p_values() {
    let rejected = [0.01, 0.04, 0.084, 0.084, 0.084, 0.1, 0.74 / 7.0, 0.216, 0.216, 0.216];
    for (found, expected) in benjamini_hochberg(&P_VALUES).unwrap().into_iter().zip(rejected) {
        close(found, expected);
    }
    let family = [0.01, 0.072, 0.312, 0.312, 0.312, 0.312, 0.312, 0.615, 0.615, 0.615];
    for (found, expected) in holm(&P_VALUES).unwrap().into_iter().zip(family) {
        close(found, expected);
    }
}

#[test]
fn combined_p_values() {
    let fisher = fisher_combination(&P_VALUES).unwrap();
    close(fisher.statistic, 62.86004720020672);
    close(fisher.p_value, 2.547174839109847e-06);
    close(cauchy_combination(&P_VALUES).unwrap(), 0.008061324185606122);
    close(cauchy_combination(&[1e-200]).unwrap(), 1e-200);
    assert_eq!(cauchy_combination(&[0.0, 1.0]).unwrap(), 0.0);
    close(cauchy_combination(&[0.01, 1.0]).unwrap(), 0.02);
    assert!(fisher_combination(&[]).is_err());
    assert!(holm(&[0.5, 1.5]).is_err());
    assert!(benjamini_hochberg(&[f64::NAN]).is_err());
}

#[test]
fn noncentral_chi_squared() {
    close(noncentral_chi_squared_sf(12.0, 5.0, 0.0), 0.03478778050624185);
    close(noncentral_chi_squared_sf(12.0, 5.0, 4.0), 0.24110098345727843);
    close(noncentral_chi_squared_sf(30.0, 9.0, 10.0), 0.08632020519232375);
    close(noncentral_chi_squared_sf(60.0, 9.0, 20.0), 0.004639679753367369);
}

#[test]
fn gamma_null_of_the_embedding() {
    let (a, b) = (0.62, 0.035);
    close(gamma_sf(0.62, a * a / b, b / a), 0.459857392002);
    close(gamma_sf(1.0, a * a / b, b / a), 0.0345592281901);
    close(gamma_sf(1.9, a * a / b, b / a), 1.70261423631e-06);
}

#[test]
fn calibrated_p_values() {
    let known = [
        (1e-6, 5239.1361842507085),
        (1e-3, 20.791133540988064),
        (0.01, 4.45099226008582),
        (0.05, 1.783322181482338),
        (0.5, 0.6386739401166445),
        (1.0, 0.5),
    ];
    for (p, e_value) in known {
        close(mixture_calibrator(p), e_value);
    }
    assert_eq!(mixture_calibrator(0.0), f64::INFINITY);
    // Far below the smallest float, (e^v - 1 - v) / v^2 is e^v / v^2.
    close(ln_mixture_calibrator(-5000.0), 5000.0 - 2.0 * 5000f64.ln());
}

#[test]
fn outside_its_domain_a_function_is_nan() {
    assert!(chi_squared_isf(1.5, 2.0).is_nan());
    assert!(gamma_sf(1.0, -1.0, 1.0).is_nan());
    assert!(mixture_calibrator(-0.1).is_nan());
    assert!(noncentral_lower_bound(f64::INFINITY, 2.0, 0.95).is_nan());
}

proptest! {
    #[test]
    fn adjusted_p_values_only_grow(p in prop::collection::vec(0.0..=1.0f64, 1..20)) {
        let (discoveries, family) = (benjamini_hochberg(&p).unwrap(), holm(&p).unwrap());
        for index in 0..p.len() {
            prop_assert!(p[index] <= discoveries[index] * (1.0 + 1e-15));
            prop_assert!(discoveries[index] <= family[index] * (1.0 + 1e-15));
            prop_assert!(family[index] <= 1.0);
        }
        prop_assert!((0.0..=1.0).contains(&fisher_combination(&p).unwrap().p_value));
        prop_assert!((0.0..=1.0).contains(&cauchy_combination(&p).unwrap()));
    }

    #[test]
    fn a_lower_bound_is_where_the_value_becomes_likely(x in 0.1..400.0f64, freedom in 1u32..40, confidence in 0.5..0.999f64) {
        let freedom = f64::from(freedom);
        let bound = noncentral_lower_bound(x, freedom, confidence);
        prop_assert!(bound >= 0.0);
        let tail = noncentral_chi_squared_sf(x, freedom, bound);
        if bound > 0.0 {
            prop_assert!((tail - (1.0 - confidence)).abs() < 1e-9);
        } else {
            prop_assert!(tail >= 1.0 - confidence - 1e-12);
        }
    }
}
