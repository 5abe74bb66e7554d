//! Operators killed at random moments, and watches that break, lag and lose their place.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt, stream};
use perennial_tests::operator::Settings;
use perennial_tests::seed::Random;
use perennial_tests::{Ledger, Wire, World, run};

use crate::play::{self, Counted, Outcome};
use crate::scenario::Scenario;

const KILLS: usize = 20;
const STORMS: usize = 6;
/// Bad moments of one storm. Each break doubles the time that a watch waits before it is taken up again, to 30 s.
const GUSTS: usize = 4;
const AT_ONCE: usize = 8;

#[test]
fn an_operator_killed_at_random_moments_comes_to_the_same_end() -> Result<()> {
    run("kills", async |_| {
        let expected = play::reference(Scenario::Change).await?;
        let mut random = Random::named("kills");
        let limit = u64::try_from(expected.took.as_millis())?;
        let moments: Vec<Duration> = (0..KILLS).map(|_| Duration::from_millis(random.below(limit))).collect();
        println!("killed after {moments:?}");
        let outcomes: Vec<Result<()>> = stream::iter(moments)
            .map(|moment| killed(moment, &expected))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        all_well(outcomes)
    })
}

async fn killed(moment: Duration, expected: &Outcome) -> Result<()> {
    let world = World::new("kill").await?;
    let ledger = Ledger::default();
    let start = || async {
        world
            .operator_with(&Settings::of(&world.namespace), Wire::new(ledger.clone()))
            .await
    };
    let first = start().await?;
    let killer = async {
        tokio::time::sleep(moment).await;
        drop(first);
        let second = start().await?;
        std::future::pending::<()>().await;
        drop(second);
        Ok::<_, anyhow::Error>(())
    };
    let outcome = tokio::select! {
        outcome = play::story(Scenario::Change, &world, (&ledger, Counted::AllButLast), expected) => outcome,
        ended = killer => ended,
    };
    finish(&world, outcome, &format!("killed after {moment:?}")).await
}

async fn finish(world: &World, outcome: Result<()>, what: &str) -> Result<()> {
    if outcome.is_err() {
        println!("=== {what}\n{}", world.describe().await);
    }
    world.leave().await;
    outcome.with_context(|| what.to_owned())
}

fn all_well(outcomes: Vec<Result<()>>) -> Result<()> {
    let count = outcomes.len();
    let failures: Vec<String> = outcomes
        .into_iter()
        .filter_map(|outcome| outcome.err().map(|error| format!("{error:#}")))
        .collect();
    ensure!(
        failures.is_empty(),
        "{} of {count} failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
    println!("{count} of {count} came to the same end");
    Ok(())
}

#[test]
fn watches_that_break_lag_and_lose_their_place_change_nothing() -> Result<()> {
    run("storms", async |_| {
        let expected = play::reference(Scenario::Change).await?;
        let outcomes: Vec<Result<()>> = stream::iter(0..STORMS)
            .map(|number| storm(number, &expected))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        all_well(outcomes)
    })
}

async fn storm(number: usize, expected: &Outcome) -> Result<()> {
    let world = World::new("storm").await?;
    let ledger = Ledger::default();
    let wire = Wire::new(ledger.clone());
    let _operator = world
        .operator_with(&Settings::of(&world.namespace), wire.clone())
        .await?;
    let weather = async {
        let mut random = Random::named(&format!("storm {number}"));
        for _ in 0..GUSTS {
            tokio::time::sleep(Duration::from_millis(random.below(1500))).await;
            match random.below(3) {
                0 => wire.break_watches(false),
                1 => wire.break_watches(true),
                _ => {
                    wire.hold_events(true);
                    tokio::time::sleep(Duration::from_millis(random.below(1500))).await;
                    wire.hold_events(false);
                }
            }
        }
        std::future::pending::<()>().await;
    };
    let outcome = tokio::select! {
        outcome = play::story(Scenario::Change, &world, (&ledger, Counted::All), expected) => outcome,
        () = weather => Ok(()),
    };
    finish(&world, outcome, &format!("storm {number}")).await
}
