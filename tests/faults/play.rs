//! One run of a scenario with one fault, and what came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use perennial_tests::operator::Settings;
use perennial_tests::waiting::until;
use perennial_tests::{Fault, Ledger, Wire, World, normal};
use serde_json::Value;

use crate::scenario::Scenario;

/// No write for so long is silence: a failed look is tried again after a second.
const SILENCE: Duration = Duration::from_millis(2500);
/// Seconds for one look of an operator, so that an answer that never comes costs little.
const LOOK: u64 = 5;

/// What every run of a scenario must come to.
#[derive(Clone)]
pub struct Outcome {
    /// Everything that is there, normalised.
    pub state: BTreeMap<String, Value>,
    /// Objects made and removed by the operators, by kind.
    pub effects: BTreeMap<String, (usize, usize)>,
    /// Each write: method, resource.
    pub writes: Vec<String>,
    /// How long the user's part took.
    pub took: Duration,
}

/// One run to be played.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The story.
    pub scenario: Scenario,
    /// The fault and the number of the write that it hits.
    pub fault: (usize, Fault),
}

impl fmt::Display for Run {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (index, fault) = self.fault;
        write!(formatter, "{:?} with {fault:?} at write {index}", self.scenario)
    }
}

/// Of an operator that gives an answer up soon.
pub fn settings(world: &World) -> Settings {
    Settings {
        timeout: LOOK,
        ..Settings::of(&world.namespace)
    }
}

/// Plays a scenario without fault.
pub async fn reference(scenario: Scenario) -> Result<Outcome> {
    let world = World::new("reference").await?;
    let ledger = Ledger::default();
    let began = Instant::now();
    let operator = world
        .operator_with(&settings(&world), Wire::new(ledger.clone()))
        .await?;
    let outcome = async {
        scenario.play(&world).await?;
        let took = began.elapsed();
        silence(&ledger).await?;
        // The controllers' statuses follow a little later than the operator's silence.
        let state = until(30, "the state rests", async || {
            let one = normal::state(&world.client, &world.namespace).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let other = normal::state(&world.client, &world.namespace).await?;
            ensure!(one == other);
            Ok(other)
        })
        .await?;
        Ok::<_, anyhow::Error>((state, took))
    }
    .await;
    drop(operator);
    if outcome.is_err() {
        println!("{}", world.describe().await);
    }
    let (state, took) = outcome.with_context(|| format!("the fault-free run of {scenario:?}"))?;
    let outcome = Outcome {
        state,
        effects: ledger.effects(),
        writes: ledger
            .writes()
            .iter()
            .map(|write| format!("{} {}", write.method, write.resource))
            .collect(),
        took,
    };
    world.leave().await;
    Ok(outcome)
}

/// Plays a scenario with a fault and compares. `false` if the write that was to fail never came.
pub async fn run(run: Run, expected: &Outcome) -> Result<bool> {
    let world = World::new("fault").await?;
    let ledger = Ledger::default();
    let outcome = under(
        run.fault,
        &world,
        &ledger,
        story(run.scenario, &world, (&ledger, Counted::All), expected),
    )
    .await;
    finish(&world, &ledger, outcome, &run.to_string()).await
}

/// A story whose operator meets a fault; another takes over if it dies of it. `false` if the write that was to fail never
/// came.
pub async fn under(
    (index, fault): (usize, Fault),
    world: &World,
    ledger: &Ledger,
    story: impl Future<Output = Result<()>>,
) -> Result<bool> {
    let wire = Wire::new(ledger.clone()).failing(index, fault);
    let first = world.operator_with(&settings(world), wire.clone()).await?;
    let told = wire.clone();
    let successor = async {
        told.crashed().await;
        drop(first);
        let second = world.operator_with(&settings(world), Wire::new(ledger.clone())).await?;
        std::future::pending::<()>().await;
        drop(second);
        Ok::<_, anyhow::Error>(())
    };
    tokio::select! {
        outcome = story => outcome?,
        ended = successor => ended.and_then(|()| bail!("the second operator ended"))?,
    }
    Ok(wire.was_played())
}

/// Says what a person would look at if it went wrong, and leaves the world.
pub async fn finish<T>(world: &World, ledger: &Ledger, outcome: Result<T>, what: &str) -> Result<T> {
    if let Err(error) = &outcome {
        println!("=== {what}: {error:#}\n{}", world.describe().await);
        for write in ledger.writes() {
            println!("{write:?}");
        }
    }
    world.leave().await;
    outcome.with_context(|| what.to_owned())
}

/// The user's part and the oracles.
pub async fn story(
    scenario: Scenario,
    world: &World,
    (ledger, counted): (&Ledger, Counted),
    expected: &Outcome,
) -> Result<()> {
    scenario.play(world).await?;
    silence(ledger).await?;
    until(30, "the end state is that of the fault-free run", async || {
        let state = normal::state(&world.client, &world.namespace).await?;
        let differences = normal::differences(&expected.state, &state);
        ensure!(differences.is_empty(), "{}", differences.join("\n"));
        Ok(())
    })
    .await?;
    let effects = ledger.effects();
    let as_many = |kind: &String| {
        let (made, removed) = effects.get(kind).copied().unwrap_or_default();
        let (expected_made, expected_removed) = expected.effects.get(kind).copied().unwrap_or_default();
        match counted {
            Counted::All => made == expected_made && removed == expected_removed,
            Counted::AllButLast => made <= expected_made && removed <= expected_removed,
        }
    };
    ensure!(
        effects.keys().chain(expected.effects.keys()).all(as_many),
        "made and removed {effects:?}, without fault {:?}",
        expected.effects
    );
    Ok(())
}

/// Whether the ledger has every write that took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// It has.
    All,
    /// The operator was killed at any moment: of writes that were under way nobody knows whether they took effect.
    AllButLast,
}

/// Waits until no write has been sent for a while.
pub async fn silence(ledger: &Ledger) -> Result<()> {
    until(60, "silence", async || {
        ensure!(
            ledger.quiet_for() >= SILENCE,
            "the last write was {:?} ago",
            ledger.quiet_for()
        );
        Ok(())
    })
    .await
}
