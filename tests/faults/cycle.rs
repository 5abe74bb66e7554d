//! A cycle from the drift to the better model, with played Jobs: whichever of its writes goes wrong, it comes to the same
//! end, with each Job once.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::ListParams;
use perennial_crds::LLMDeployment;
use perennial_tests::cycles::{self, COMPONENT, Script};
use perennial_tests::waiting::until;
use perennial_tests::{Fault, Ledger, Wire, World, run};

use crate::every_write::{each, faults};
use crate::play;

/// Seconds that a cycle may take when a fault costs time-outs and waiting.
const PATIENCE: u64 = 120;

/// What every cycle must come to.
#[derive(Debug, PartialEq)]
struct End {
    /// Of each cycle that ended: how, and with which candidate.
    cycles: Vec<(String, Option<String>)>,
    /// What Jobs there are, each by what it is for.
    jobs: Vec<String>,
    /// Learned revisions.
    learned: usize,
    /// What ConfigMaps the policy has, each by what it holds.
    maps: Vec<String>,
}

/// Objects that operators made and removed, by kind.
type Effects = BTreeMap<String, (usize, usize)>;

/// Waits for the better model, and gives what the operators on this ledger have come to.
async fn end(world: &World, ledger: &Ledger) -> Result<(End, Effects)> {
    until(PATIENCE, "the better model serves, alone", async || {
        let model = world.llm("tiny").await?.status.and_then(|status| status.model);
        let origin = model.as_ref().and_then(|model| model.origin.as_deref());
        ensure!(origin == Some("DriftPolicy/watch"), "{origin:?}");
        ensure!(
            world.deployments().await?.len() == 2,
            "the collector's and the server's"
        );
        let status = cycles::status(world).await?;
        ensure!(!status.cycles.is_empty(), "{:?}", status.cycle);
        Ok(())
    })
    .await?;
    play::silence(ledger).await?;
    let jobs = world.api::<Job>().list(&ListParams::default()).await?.items;
    let mut jobs: Vec<String> = jobs
        .iter()
        .map(|job| job.labels().get(COMPONENT).cloned().unwrap_or_else(|| job.name_any()))
        .collect();
    jobs.sort();
    let maps = ListParams::default().labels("perennial.dev/drift-policy=watch");
    let maps = world.api::<ConfigMap>().list(&maps).await?.items;
    let mut maps: Vec<String> = maps
        .iter()
        .map(|map| {
            map.labels()
                .get("perennial.dev/drift-content")
                .cloned()
                .unwrap_or_default()
        })
        .collect();
    maps.sort();
    let ended = cycles::status(world).await?.cycles;
    let end = End {
        cycles: ended
            .into_iter()
            .map(|cycle| (cycle.outcome, cycle.candidate_digest))
            .collect(),
        jobs,
        learned: cycles::learned(world).await?.len(),
        maps,
    };
    Ok((end, ledger.effects()))
}

/// A target, and a policy that has seen a drift; no operator.
async fn drifted() -> Result<(World, LLMDeployment)> {
    let world = World::new("cycle").await?;
    cycles::play(&world, Script::good('b')).await;
    cycles::prepare(&world, &cycles::policy("Automatic")).await?;
    let target = world.llm("tiny").await?;
    Ok((world, target))
}

async fn reference() -> Result<(End, Effects, usize)> {
    let (world, _) = drifted().await?;
    let ledger = Ledger::default();
    let operator = world
        .operator_with(&play::settings(&world), Wire::new(ledger.clone()))
        .await?;
    let outcome = end(&world, &ledger).await;
    drop(operator);
    let (end, effects) = play::finish(&world, &ledger, outcome, "the cycle without fault").await?;
    let promoted = vec![("Promoted".to_owned(), Some(cycles::digest('b')))];
    ensure!(
        end.cycles == promoted && end.jobs == ["gate", "prepare", "retrain"] && end.learned == 1,
        "{end:?}"
    );
    let writes: Vec<String> = ledger
        .writes()
        .iter()
        .map(|write| format!("{} {}", write.method, write.resource))
        .collect();
    println!("a cycle without fault: {}: {end:?}, {effects:?}", writes.join(", "));
    Ok((end, effects, writes.len()))
}

async fn under(fault: (usize, Fault), (expected, effects): (&End, &Effects)) -> Result<bool> {
    let (world, before) = drifted().await?;
    let ledger = Ledger::default();
    let (index, kind) = fault;
    let as_many = |found: &Effects| {
        let of = |effects: &Effects, name: &String| effects.get(name).copied().unwrap_or_default();
        found.keys().chain(effects.keys()).all(|name| {
            let ((made, removed), (most_made, most_removed)) = (of(found, name), of(effects, name));
            // Of what else was under way when an operator died, nobody knows whether it took effect.
            (made == most_made && removed == most_removed)
                || (kind.is_crash() && made <= most_made && removed <= most_removed)
        })
    };
    let story = async {
        // What could not be written is tried again ten seconds later.
        until(PATIENCE, "the end is that of the cycle without fault", async || {
            let (found, made) = end(&world, &ledger).await?;
            ensure!(
                found == *expected && as_many(&made),
                "it came to {found:?} by {made:?}, and without fault to {expected:?} by {effects:?}"
            );
            Ok(())
        })
        .await?;
        let spec = world.llm("tiny").await?.spec;
        ensure!(spec == before.spec, "the spec was written");
        Ok(())
    };
    let outcome = play::under(fault, &world, &ledger, story).await;
    play::finish(
        &world,
        &ledger,
        outcome,
        &format!("a cycle with {kind:?} at write {index}"),
    )
    .await
}

async fn all(every: usize) -> Result<()> {
    let (expected, effects, writes) = reference().await?;
    each("a cycle", faults(writes, every), |fault| {
        under(fault, (&expected, &effects))
    })
    .await
}

#[test]
fn a_cycle_survives_faults() -> Result<()> {
    run("every-cycle", async |_| all(8).await)
}

#[test]
#[ignore = "takes ten minutes"]
fn a_cycle_survives_every_fault_at_every_write() -> Result<()> {
    run("every-cycle", async |_| all(1).await)
}
