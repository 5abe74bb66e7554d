//! The simulator and the peers in it: they must be right for the comparison to mean anything.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "the benchmark uses the rest")]

#[path = "../benches/autoscaling/compare.rs"]
mod compare;
#[path = "../benches/autoscaling/ours.rs"]
mod ours;
#[path = "../benches/autoscaling/peers/mod.rs"]
mod peers;
#[path = "../benches/autoscaling/random.rs"]
mod random;
#[path = "../benches/autoscaling/scaler.rs"]
mod scaler;
#[path = "../benches/autoscaling/trace.rs"]
mod trace;
#[path = "../benches/autoscaling/world.rs"]
mod world;

use compare::{Kind, OBJECTIVE, Scenario};
use scaler::{Scaler, View};
use trace::Family;
use world::{Machine, World};

#[test]
fn the_peers_do_what_their_own_tests_say() {
    assert!(peers::check() > 100);
}

#[test]
fn a_trace_comes_back_as_it_was_written_and_a_bad_line_is_named() {
    let shipped = include_str!("../traces/wander-10-minutes.csv");
    let requests = trace::read(shipped).expect("it can be read");
    assert!(requests.len() > 1000 && requests.last().expect("one").at < 600.0);
    // The file is what the generator makes, with the first request at its beginning.
    let made = trace::synthetic(Family::Wander, 1);
    assert_eq!(trace::write(&made, 600.0), shipped);
    let first = made[0].at;
    for (read, made) in requests.iter().zip(&made) {
        assert_eq!((read.context, read.generated), (made.context, made.generated));
        assert!((read.at - (made.at - first)).abs() < 1e-5);
    }
    for (text, word) in [
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "no request"),
        ("h\n2023-11-16 18:15:46.68,374\n", "line 2"),
        (
            "h\n2023-11-16 18:15:46.68,374,44\n2023-11-16 18:15:45,1,1\n",
            "line 3: earlier",
        ),
        ("h\nyesterday,374,44\n", "line 2"),
    ] {
        let error = trace::read(text).expect_err(word);
        assert!(error.contains(word), "{error}");
    }
    let midnight = "h\n2023-12-31 23:59:59.5,1,1\n2024-01-01 00:00:00.5,1,1\n";
    assert_eq!(trace::read(midnight).expect("it can be read")[1].at, 1.0);
}

/// As many as at the beginning.
struct Fixed;

impl Scaler for Fixed {
    fn tick(&mut self, _: f64, view: &View<'_>) -> u32 {
        view.wanted
    }
}

#[test]
fn the_world_costs_what_it_must_and_too_few_replicas_are_late() {
    let scenario = Scenario::synthetic(Family::Wander, 7);
    let outcome = |replicas| {
        let world = World::new(Machine::new(120.0), &scenario.trace, &[], OBJECTIVE, replicas);
        world.play(&mut Fixed, |_, _, _, _| {})
    };
    let (few, many) = (outcome(2), outcome(30));
    assert!((few.gpu_hours - 2.0 * 8.0).abs() < 0.1, "{few:?}");
    assert!(few.seconds_over > 0.5 * few.seconds && many.seconds_over < 0.01 * many.seconds);
    // The ideal is a bound: nobody serves in time with less.
    let world = World::new(Machine::new(30.0), &scenario.trace, &[], OBJECTIVE, 4);
    let ours = world.play(Kind::Perennial.make(10.0).as_mut(), |_, _, _, _| {});
    assert!(ours.gpu_hours > scenario.ideal() && ours.late < 0.05, "{ours:?}");
}
