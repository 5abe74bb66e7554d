//! O11 to O13 of the research: values of scipy, to nine digits and more.

use perennial_drift::evidence::bernoulli::{self, Bounds};
use perennial_drift::evidence::recursion::Line;
use perennial_drift::evidence::{directional, dirichlet};
use perennial_drift::math;
use perennial_drift::tally::Tally;

fn close(got: f64, want: f64) {
    assert!((got - want).abs() <= 1e-9 * want.abs(), "{got} instead of {want}");
}

/// As many digits as the value is given with.
fn close_to_twelve_digits(got: f64, want: f64) {
    assert!(
        (got - want).abs() <= 6e-13_f64.max(1e-11 * want.abs()),
        "{got} instead of {want}"
    );
}

#[test]
fn o11_dirichlet_multinomial() {
    let reference = [160.0, 180.0, 160.0, 140.0, 120.0, 120.0];
    for (counts, want) in [
        ([16.0, 16.0, 16.0, 16.0, 16.0, 8.0], -0.567_179_273_290),
        ([5.0, 5.0, 10.0, 20.0, 30.0, 18.0], 12.929_869_267_527),
        ([0.0, 0.0, 0.0, 0.0, 0.0, 88.0], 135.081_078_461_742),
        ([18.0, 20.0, 18.0, 16.0, 14.0, 14.0], -0.636_820_448_210),
    ] {
        close_to_twelve_digits(dirichlet::log_e(&counts, &reference, 1.0), want);
        // A design effect divides the logarithm.
        close_to_twelve_digits(2.0 * dirichlet::log_e(&counts, &reference, 2.0), want);
    }
}

#[test]
fn o12_directional_mixture_over_time() {
    let mut lines = vec![Line::default(); directional::SHIFTS.len()];
    let sums = [2.0, -3.0, 8.0, 10.0, 25.0, 30.0];
    let wanted = [
        0.191_364_414_33,
        0.295_869_051_167,
        0.473_157_460_493,
        0.967_639_176_848,
        13.913_747_824_6,
        515.217_970_754,
    ];
    for (pane, (sum, want)) in sums.into_iter().zip(wanted).enumerate() {
        let logs = directional::log_e(sum, 100.0, &directional::NORMAL, 1.0);
        for (line, log_e) in lines.iter_mut().zip(logs) {
            line.update(log_e, pane as i64, &Tally::default());
        }
        let mean = lines.iter().map(|line| line.log_m.exp()).sum::<f64>() / lines.len() as f64;
        close(mean, want);
    }
}

#[test]
fn o13_gamma_null() {
    let (mean, variance) = (0.62, 0.035);
    for (statistic, want) in [
        (0.62, 0.459_857_392_002),
        (1.0, 0.034_559_228_190_1),
        (1.9, 1.702_614_236_31e-6),
    ] {
        close(math::gamma_sf(statistic, mean * mean / variance, variance / mean), want);
        close(
            math::ln_mixture_calibrator(want.ln()),
            math::mixture_calibrator(want).ln(),
        );
    }
}

#[test]
fn o13_bernoulli_mixture() {
    let bounds = Bounds {
        lower: 0.03,
        upper: 0.03,
    };
    for (events, want) in [(9.0, 9.027_907_448_78), (3.0, 0.648_537_541_362)] {
        let logs = bernoulli::log_e(events, 100.0, bounds, &bernoulli::RATIOS, 1.0);
        close(logs.iter().map(|log| log.exp()).sum::<f64>() / 4.0, want);
    }
}

/// The promise behind everything: under the baseline an e-value is worth at most one on average.
#[test]
fn e_values_of_a_binomial_are_worth_one_on_average() {
    let (trials, rate) = (40_u32, 0.03_f64);
    let mut total = [0.0; 4];
    let mut probability = (1.0 - rate).powi(40);
    for events in 0..=trials {
        let logs = bernoulli::log_e(
            events.into(),
            trials.into(),
            Bounds {
                lower: rate,
                upper: rate,
            },
            &bernoulli::RATIOS,
            1.0,
        );
        for (total, log) in total.iter_mut().zip(logs) {
            *total += probability * log.exp();
        }
        probability *= f64::from(trials - events) / f64::from(events + 1) * rate / (1.0 - rate);
    }
    for total in total {
        close(total, 1.0);
    }
}
