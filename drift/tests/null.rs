//! Nothing changes, and nothing is said: all signals armed, against the default budget.
#![expect(clippy::expect_used, reason = "a test that cannot prepare its input has failed")]

mod common;

use common::{MONDAY, Random, Traffic, steady, suspected_after, watching};
use perennial_drift::baseline::Baseline;

/// Panes of 100 requests of the standard stream, after a baseline of 20,000.
fn quiet(seed: u64, panes: usize) {
    let policy = steady();
    let mut random = Random(seed);
    let traffic = Traffic::default();
    let baseline = Baseline::learn(&traffic.panes(&mut random, MONDAY, 200, 100), &policy).expect("is learned");
    assert_eq!(baseline.unstable().count(), 0, "seed {seed}");
    let mut state = watching(&baseline, &policy);
    let panes = traffic.panes(&mut random, baseline.to, panes, 100);
    assert_eq!(
        suspected_after(&mut state, &panes, &baseline, &policy),
        None,
        "seed {seed}"
    );
}

#[test]
fn a_hundred_thousand_requests_raise_no_suspicion() {
    quiet(31, 1_000);
}

#[test]
#[ignore = "takes minutes; make test-long, and twenty millions in make bench-drift"]
fn four_million_requests_raise_no_suspicion() {
    for seed in 0..4 {
        quiet(1_000 + seed, 10_000);
    }
}
