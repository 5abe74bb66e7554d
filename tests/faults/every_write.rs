//! Every write of every scenario goes wrong once, in every way.

use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use futures::{StreamExt, stream};
use perennial_tests::{Fault, run};

use crate::play::{self, Outcome, Run};
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

fn runs(scenario: Scenario, expected: &Outcome, every: usize) -> Vec<Run> {
    let mut runs = Vec::new();
    for index in 0..expected.writes.len() {
        for (offset, fault) in EVERYWHERE.into_iter().enumerate() {
            if (index + offset).is_multiple_of(every) {
                runs.push(Run {
                    scenario,
                    fault: (index, fault),
                });
            }
        }
        for (offset, fault) in SAMPLED.into_iter().enumerate() {
            if (index + offset).is_multiple_of(every * 3) {
                runs.push(Run {
                    scenario,
                    fault: (index, fault),
                });
            }
        }
    }
    runs
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
    let runs = runs(scenario, &expected, every);
    let (began, count) = (Instant::now(), runs.len());
    let outcomes: Vec<(Run, Result<bool>)> = stream::iter(runs)
        .map(|run| {
            let expected = &expected;
            async move { (run, play::run(run, expected).await) }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let mut failures = Vec::new();
    let mut played = 0;
    for (run, outcome) in outcomes {
        match outcome {
            Ok(true) => played += 1,
            // Not every run has as many writes: looks that come together write once.
            Ok(false) => println!("{run}: there was no such write"),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    println!(
        "{scenario:?}: {played} of {count} faults played in {:?}",
        began.elapsed()
    );
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
