//! Random histories of a policy's cycles: whatever happens, what must never happen does not.
//!
//! `CYCLES_SEED=N` plays one history again, `CYCLES_HISTORIES=N` plays more of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod dice;
mod ends;
mod events;
mod world;

use std::ops::Range;

use perennial_operator::cycle::step::{Action, Standing};
use world::{CANARY, World};

/// Looks in one history.
const LOOKS: usize = 120;
const HISTORIES: u64 = 100_000;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What happened in a history, to show that the histories are worth something.
#[derive(Default)]
struct Tally {
    promoted: u64,
    ended: u64,
    trained: u64,
    withdrawn: u64,
    removed: u64,
    built_again: u64,
    restored: u64,
    discarded: u64,
    steps: u64,
}

fn history(seed: u64) -> Tally {
    let mut world = World::new(seed);
    let mut withdrawn = 0;
    for _ in 0..LOOKS {
        let begun = world.log.begun.len();
        let step = world.look();
        withdrawn += step
            .actions
            .iter()
            .filter(|action| matches!(action, Action::Withdraw(_)))
            .count() as u64;
        check(&world, begun);
        let told = format!(
            "{:?} {}",
            step.standing,
            serde_json::to_string(&world.ledger).expect("a ledger")
        );
        assert!(!told.contains(CANARY), "what a Job said was told on");
        world.happen();
    }
    // Nothing hangs: left alone, every cycle comes to an end, or waits for a person.
    for _ in 0..60 {
        world.calm_down();
        world.look();
    }
    let step = world.look();
    let waits_for_a_person = matches!(
        &step.standing,
        Standing::Running { waits: Some((reason, _)), .. } if reason.as_str() == "Proposed"
    );
    assert!(
        waits_for_a_person || matches!(step.standing, Standing::Idle { .. }),
        "a cycle hangs: {:?} {:?}",
        step.standing,
        world.ledger.cycle
    );
    let unreported = world.log.finished.difference(&world.log.reported);
    assert_eq!(unreported.count(), 0, "a cycle ended without a report");
    assert!(world.ledger.reports.is_empty(), "reports are not forgotten");
    for ((cycle, kind), times) in &world.log.made {
        assert!(
            *times == 1 || world.log.removed_by_hand > 0,
            "the {kind:?} Job of {cycle} was made {times} times"
        );
    }
    Tally {
        promoted: world.log.promoted.len() as u64,
        ended: world.log.ended.len() as u64,
        trained: world.log.trained,
        withdrawn,
        removed: u64::from(world.log.removed_by_hand),
        built_again: world.log.built_again,
        restored: world.log.restored,
        discarded: world.log.discarded,
        steps: world.log.steps,
    }
}

/// No storm: a cycle begins only within all limits, counted from what the world saw.
fn check(world: &World, begun: usize) {
    let log = &world.log;
    // A cycle that found too little data may have gone from the log in the same look.
    let Some((now, _)) = log.begun.get(begun).filter(|_| log.begun.len() > begun) else {
        return;
    };
    let limits = &world.spec.retraining.as_ref().expect("retraining").limits;
    // The one that ended in the same look, too: clocks may have gone back since the one before.
    if let Some((last, _)) = log.ended.last() {
        assert!(
            now - last >= limits.cooldown_seconds,
            "a cycle began within the rest after the last"
        );
    }
    let since = |days: u32| now - i64::from(days) * 86_400;
    let recent = log
        .begun
        .iter()
        .filter(|(time, _)| *time > since(limits.max_cycles.per_days));
    assert!(
        recent.count() <= limits.max_cycles.count as usize,
        "more cycles than allowed"
    );
    if let Some(limit) = &limits.max_gpu_seconds {
        let used: i64 = log
            .gpu_seconds
            .iter()
            .filter(|(time, _)| *time > since(limit.per_days))
            .map(|(_, used)| used)
            .sum();
        assert!(
            used + world.reserve() <= limit.count,
            "a cycle may use more GPU seconds than are left"
        );
    }
}

#[test]
fn what_must_never_happen_happens_in_no_history() {
    if let Some(seed) = from_environment("CYCLES_SEED") {
        history(seed);
        return;
    }
    play(0..from_environment("CYCLES_HISTORIES").unwrap_or(HISTORIES));
}

#[test]
#[ignore = "a million more histories: some ten minutes"]
fn nor_in_a_million_more() {
    play(HISTORIES..HISTORIES + 1_000_000);
}

fn play(seeds: Range<u64>) {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let (first, end) = (seeds.start, seeds.end);
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let play = move |first: u64| {
            let mut sum = Tally::default();
            for seed in (first..end).step_by(threads as usize) {
                let tally = std::panic::catch_unwind(|| history(seed));
                let Ok(tally) = tally else {
                    panic!("the history of seed {seed} is bad: play it again with CYCLES_SEED={seed}");
                };
                sum.promoted += tally.promoted;
                sum.ended += tally.ended;
                sum.trained += tally.trained;
                sum.withdrawn += tally.withdrawn;
                sum.removed += tally.removed;
                sum.built_again += tally.built_again;
                sum.restored += tally.restored;
                sum.discarded += tally.discarded;
                sum.steps += tally.steps;
            }
            sum
        };
        let running: Vec<_> = (first..first + threads)
            .map(|first| scope.spawn(move || play(first)))
            .collect();
        running
            .into_iter()
            .map(|one| one.join().expect("a bad history"))
            .collect()
    });
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    let (promoted, ended, trained) = (sum(|t| t.promoted), sum(|t| t.ended), sum(|t| t.trained));
    println!(
        "seeds {seeds:?}: {} looks, {trained} training Jobs, {ended} cycles ended, {promoted} promoted, {} taken back, {} Jobs removed by hand, {} clusters built again, {} models restored, {} deleted",
        sum(|t| t.steps),
        sum(|t| t.withdrawn),
        sum(|t| t.removed),
        sum(|t| t.built_again),
        sum(|t| t.restored),
        sum(|t| t.discarded)
    );
    let histories = seeds.end - seeds.start;
    assert!(
        promoted > histories / 50
            && ended > histories / 4
            && sum(|t| t.restored) > histories / 1000
            && sum(|t| t.discarded) > histories / 1000,
        "the histories show too little"
    );
}
