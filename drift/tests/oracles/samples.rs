//! Statistics of samples.

use perennial_drift::classical::cramer_von_mises::cramer_von_mises;
use perennial_drift::classical::distances::{energy, wasserstein, wasserstein_normed};
use perennial_drift::classical::kernels::maximum_mean_discrepancy;
use perennial_drift::classical::kolmogorov_smirnov::kolmogorov_smirnov;
use perennial_drift::classical::mann_whitney::mann_whitney;
use perennial_drift::classical::means::{Moments, welch_t};
use perennial_drift::classical::{ClassicalError, Side};
use perennial_drift::math::{kolmogorov_isf, kolmogorov_sf};

use super::close;

const X: [f64; 8] = [38.7, 41.5, 43.8, 44.5, 45.5, 46.0, 47.7, 58.0];
const Y: [f64; 8] = [39.2, 39.3, 39.7, 41.4, 41.8, 42.9, 43.3, 45.8];

#[test]
fn eight_against_eight() {
    let ks = kolmogorov_smirnov(&X, &Y).unwrap();
    close(ks.statistic, 0.625);
    close(ks.p_value(), 0.08702408702408701);
    close(ks.asymptotic_p_value, 0.04931640625);
    close(wasserstein(&X, &Y).unwrap(), 4.1625);
    close(wasserstein_normed(&X, &Y).unwrap(), 0.781236105789365);
    close(energy(&X, &Y).unwrap(), 1.570230874744221);
    let cvm = cramer_von_mises(&X, &Y).unwrap();
    close(cvm.statistic, 0.4375);
    close(cvm.p_value(), 0.06433566433566433);
    let moments = |values: &[f64]| Moments::of(values, Side::Reference).unwrap();
    let welch = welch_t(&moments(&X), &moments(&Y)).unwrap();
    close(welch.statistic, 1.8594523396226919);
    close(welch.p_value, 0.0951205647234383);
    let ranks = mann_whitney(&X, &Y).unwrap();
    close(ranks.statistic, 49.0);
    close(ranks.p_value(), 0.08298368298368297);
}

#[test]
fn a_thousand_against_a_thousand() {
    let fraction = |i: usize, step: f64| (i as f64 * step).fract();
    let a: Vec<f64> = (0..1000).map(|i| fraction(i, 0.61803398875)).collect();
    let b: Vec<f64> = (0..1000).map(|i| fraction(i, 0.41421356237).powf(1.1)).collect();
    let ks = kolmogorov_smirnov(&a, &b).unwrap();
    close(ks.statistic, 0.037);
    close(ks.p_value(), 0.5005673707894058);
    close(ks.asymptotic_p_value, 0.48886903123235204);
    close(wasserstein(&a, &b).unwrap(), 0.024094317276832214);
    close(energy(&a, &b).unwrap(), 0.03704101448640189);
}

#[test]
fn kolmogorov_limit() {
    close(kolmogorov_sf(1.36), 0.049485876755377876);
    close(kolmogorov_isf(0.05), 1.3580986393225507);
    close(kolmogorov_isf(0.001), 1.9494746035043753);
    close(kolmogorov_isf(1e-6), 2.6933861344527097);
}

#[test]
fn a_square_moved_by_half_its_side() {
    let corners = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]];
    let moved = corners.map(|[x, y]| [x + 0.5, y + 0.5]);
    let found = maximum_mean_discrepancy(&corners, &moved, 0.5).unwrap();
    close(found.unbiased, -0.05024387460623325);
    close(found.biased, 0.18626599862764848);
}

#[test]
fn moments_merge() {
    let of = |values: &[f64]| Moments::of(values, Side::Reference).unwrap();
    let merged = of(&[1.0, 2.0, 3.0, 4.0]).merge(of(&[10.0, 20.0]));
    assert_eq!(merged.count, 6);
    close(merged.mean, 20.0 / 3.0);
    close(merged.squared_deviations, 790.0 / 3.0);
    assert_eq!(Moments::default().merge(merged), merged);
    assert_eq!(merged.merge(Moments::default()), merged);
}

#[test]
fn samples_that_cannot_be_compared_say_why() {
    let empty = ClassicalError::TooFewSamples {
        side: Side::Current,
        needed: 1,
        found: 0,
    };
    assert_eq!(kolmogorov_smirnov(&X, &[]), Err(empty.clone()));
    assert_eq!(wasserstein(&X, &[]), Err(empty.clone()));
    assert_eq!(energy(&X, &[]), Err(empty.clone()));
    assert_eq!(mann_whitney(&X, &[]), Err(empty));
    assert!(matches!(
        cramer_von_mises(&X, &[1.0]),
        Err(ClassicalError::TooFewSamples { needed: 2, .. })
    ));
    let infinite = ClassicalError::NotFinite {
        side: Side::Reference,
        index: 1,
        value: f64::INFINITY,
    };
    assert_eq!(kolmogorov_smirnov(&[1.0, f64::INFINITY], &Y), Err(infinite.clone()));
    assert_eq!(Moments::of(&[1.0, f64::INFINITY], Side::Reference), Err(infinite));
    assert_eq!(wasserstein_normed(&[2.0, 2.0], &Y), Err(ClassicalError::NoSpread));
    let constant = Moments::of(&[2.0, 2.0], Side::Reference).unwrap();
    assert_eq!(welch_t(&constant, &constant), Err(ClassicalError::NoSpread));
    assert_eq!(wasserstein(&[-1.7e308], &[1.7e308]), Err(ClassicalError::Overflow));
    let uneven = maximum_mean_discrepancy(&[vec![0.0, 1.0], vec![1.0]], &[vec![0.0, 1.0], vec![1.0, 1.0]], 1.0);
    assert!(matches!(
        uneven,
        Err(ClassicalError::DimensionsDiffer {
            index: 1,
            found: 1,
            expected: 2,
            ..
        })
    ));
}

#[test]
fn equal_samples_are_no_evidence() {
    let constant = [5.0; 12];
    assert_eq!(kolmogorov_smirnov(&constant, &constant).unwrap().p_value(), 1.0);
    assert_eq!(mann_whitney(&constant, &constant).unwrap().p_value(), 1.0);
    assert_eq!(cramer_von_mises(&constant, &constant).unwrap().p_value(), 1.0);
    assert!(kolmogorov_smirnov(&[1.0], &[2.0]).unwrap().asymptotic_p_value <= 1.0);
}
