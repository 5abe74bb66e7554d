//! Every write of every scenario goes wrong once, in every way.

use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use futures::{StreamExt, stream};
use perennial_tests::{Fault, run};

use crate::play::{self, Run};
use crate::scenario::Scenario;

/// Runs at the same time, each in a namespace of its own.
const AT_ONCE: usize = 12;
/// Faults that every write meets.
const EVERYWHERE: [Fault; 4] = [
    Fault::CrashBefore,
    Fault::CrashAfter,
    Fault::ServerError,
    Fault::Conflict,
];
/// Faults that cost waiting: every third write, each begun at another one.
const SAMPLED: [Fault; 3] = [Fault::TooManyRequests, Fault::HangBefore, Fault::HangAfter];

/// One fault for each write in `every`, of `writes` writes, and of every kind.
pub fn faults(writes: usize, every: usize) -> Vec<(usize, Fault)> {
    let mut faults = Vec::new();
    for index in 0..writes {
        let mut add = |kinds: &[Fault], every: usize| {
            for (offset, fault) in kinds.iter().enumerate() {
                if (index + offset).is_multiple_of(every) {
                    faults.push((index, *fault));
                }
            }
        };
        add(&EVERYWHERE, every);
        add(&SAMPLED, every * 3);
    }
    faults
}

/// Plays one run for each fault, several beside each other; fails if one of them does, or if most faults were never met.
pub async fn each<F>(what: &str, faults: Vec<(usize, Fault)>, play: impl Fn((usize, Fault)) -> F) -> Result<()>
where
    F: Future<Output = Result<bool>>,
{
    let (began, count) = (Instant::now(), faults.len());
    let outcomes: Vec<((usize, Fault), Result<bool>)> = stream::iter(faults)
        .map(|fault| {
            let played = play(fault);
            async move { (fault, played.await) }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let mut failures = Vec::new();
    let mut played = 0;
    for ((index, fault), outcome) in outcomes {
        match outcome {
            Ok(true) => played += 1,
            // Not every run has as many writes: looks that come together write once.
            Ok(false) => println!("{what} with {fault:?} at write {index}: there was no such write"),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    println!("{what}: {played} of {count} faults played in {:?}", began.elapsed());
    ensure!(
        failures.is_empty(),
        "{} of {count} runs failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
    // If most faults were never met, the numbers of writes vary too much for this test to mean anything.
    ensure!(
        played * 4 >= count * 3,
        anyhow!("only {played} of {count} faults were met")
    );
    Ok(())
}

async fn all(scenario: Scenario, every: usize) -> Result<()> {
    let expected = play::reference(scenario).await?;
    println!(
        "{scenario:?} without fault: {} writes in {:?}: {}; made and removed {:?}",
        expected.writes.len(),
        expected.took,
        expected.writes.join(", "),
        expected.effects
    );
    let faults = faults(expected.writes.len(), every);
    each(&format!("{scenario:?}"), faults, |fault| {
        play::run(Run { scenario, fault }, &expected)
    })
    .await
}

#[test]
fn a_change_survives_every_fault_at_every_write() -> Result<()> {
    run("every-change", async |_| all(Scenario::Change, 1).await)
}

#[test]
fn resolving_survives_every_fault_at_every_write() -> Result<()> {
    run("every-resolve", async |_| all(Scenario::Resolve, 1).await)
}

#[test]
fn giving_up_survives_faults() -> Result<()> {
    run("every-give-up", async |_| all(Scenario::GiveUp, 3).await)
}

#[test]
fn a_deletion_survives_faults() -> Result<()> {
    run("every-delete", async |_| all(Scenario::Delete, 3).await)
}

#[test]
fn capture_survives_faults() -> Result<()> {
    run("every-capture", async |_| all(Scenario::Capture, 2).await)
}
