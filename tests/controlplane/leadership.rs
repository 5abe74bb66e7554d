//! Several operators, watched namespaces, and an API server that goes away.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use perennial_crds::LLMDeployment;
use perennial_tests::operator::Settings;
use perennial_tests::waiting::{throughout, until};
use perennial_tests::world::{model, settled};
use perennial_tests::{Cluster, Ledger, Operator, Player, Wire, World, run};
use serde_json::json;

struct Candidate {
    operator: Operator,
    ledger: Ledger,
}

async fn candidate(world: &World, identity: &str) -> Result<Candidate> {
    let settings = Settings {
        lease: Some(world.namespace.clone()),
        identity: identity.to_owned(),
        ..Settings::of(&world.namespace)
    };
    let ledger = Ledger::default();
    let operator = world.operator_with(&settings, Wire::new(ledger.clone())).await?;
    Ok(Candidate { operator, ledger })
}

async fn holder(world: &World, identity: &str, seconds: u64) -> Result<()> {
    until(seconds, &format!("{identity} holds the lease"), async || {
        let lease = world.api::<Lease>().get("perennial-operator").await?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity);
        ensure!(holder.as_deref() == Some(identity), "{holder:?}");
        Ok(())
    })
    .await
}

/// Waits until what was on its way when an operator ended has arrived, and counts its writes.
async fn silent(ledger: &Ledger) -> Result<usize> {
    until(30, "nothing is written any more", async || {
        ensure!(ledger.quiet_for() > Duration::from_secs(2));
        Ok(ledger.writes().len())
    })
    .await
}

#[test]
fn of_two_operators_one_writes_and_the_other_takes_over() -> Result<()> {
    run("two-operators", async |world| {
        let first = candidate(world, "first").await?;
        holder(world, "first", 10).await?;
        let mut second = candidate(world, "second").await?;
        world.serve("tiny", &json!({})).await?;
        world.settled("tiny").await?;
        ensure!(
            second.ledger.writes().is_empty(),
            "the second wrote {:?}",
            second.ledger.writes()
        );
        // Stopped politely, the first gives the lease back.
        first.operator.stop().await?;
        holder(world, "second", 15).await?;
        let written = first.ledger.writes().len();
        world.merge::<LLMDeployment>("tiny", &model('b')).await?;
        world.settled("tiny").await?;
        ensure!(first.ledger.writes().len() == written && !second.ledger.writes().is_empty());
        // Killed, the second is missed when its lease has run out.
        let third = candidate(world, "third").await?;
        second.operator.kill();
        let written = silent(&second.ledger).await?;
        world.merge::<LLMDeployment>("tiny", &model('c')).await?;
        holder(world, "third", 30).await?;
        world.settled("tiny").await?;
        ensure!(second.ledger.writes().len() == written && !third.ledger.writes().is_empty());
        Ok(())
    })
}

#[test]
fn an_operator_whose_lease_was_taken_stops_writing_and_stands_by() -> Result<()> {
    run("lease-taken", async |world| {
        let first = candidate(world, "first").await?;
        holder(world, "first", 10).await?;
        world.serve("tiny", &json!({})).await?;
        world.settled("tiny").await?;
        world
            .merge::<Lease>("perennial-operator", &json!({"spec": {"holderIdentity": "somebody"}}))
            .await?;
        world
            .until("it knows that it does not lead", async || {
                let figures = first.operator.metrics.render();
                ensure!(figures.contains("leader_election_master_status{name=\"perennial-operator\"} 0"));
                ensure!(
                    figures.contains("perennial_llmdeployments{reason=\"Routable\"} 0\n"),
                    "{figures}"
                );
                Ok(())
            })
            .await?;
        let written = silent(&first.ledger).await?;
        world.merge::<LLMDeployment>("tiny", &model('b')).await?;
        // Well before the lease of somebody has run out.
        throughout(Duration::from_secs(5), "it writes nothing", async || {
            ensure!(first.ledger.writes().len() == written);
            Ok(())
        })
        .await?;
        // Somebody never renews.
        holder(world, "first", 30).await?;
        world.settled("tiny").await?;
        world
            .until("what it leads again counts once", async || {
                let figures = first.operator.metrics.render();
                ensure!(
                    figures.contains("perennial_llmdeployments{reason=\"Routable\"} 1\n"),
                    "{figures}"
                );
                Ok(())
            })
            .await?;
        Ok(())
    })
}

#[test]
fn what_a_watch_missed_is_heard_when_it_lists_anew() -> Result<()> {
    run("watch-missed", async |world| {
        let wire = Wire::new(Ledger::default());
        let operator = world
            .operator_with(&Settings::of(&world.namespace), wire.clone())
            .await?;
        for name in ["deleted", "edited"] {
            world.serve(name, &json!({})).await?;
            world.settled(name).await?;
        }
        wire.hold_events(true);
        world.delete::<LLMDeployment>("deleted").await?;
        world.merge::<LLMDeployment>("edited", &model('b')).await?;
        world.serve("made", &json!({})).await?;
        wire.break_watches(true);
        wire.hold_events(false);
        world.settled("made").await?;
        world.settled("edited").await?;
        world
            .until("what was deleted counts no more", async || {
                let figures = operator.metrics.render();
                ensure!(
                    figures.contains("perennial_llmdeployments{reason=\"Routable\"} 2\n"),
                    "{figures}"
                );
                Ok(())
            })
            .await
    })
}

#[test]
fn only_the_given_namespaces_are_watched() -> Result<()> {
    run("some", async |world| {
        let (client, player) = (world.client.clone(), world.player.clone());
        let other = World::on(world.cluster, client.clone(), player.clone(), "some-too").await?;
        let foreign = World::on(world.cluster, client, player, "not-this").await?;
        let settings = Settings {
            namespaces: vec![world.namespace.clone(), other.namespace.clone()],
            ..Settings::of(&world.namespace)
        };
        let _operator = world.operator_with(&settings, Wire::new(Ledger::default())).await?;
        for each in [world, &other, &foreign] {
            each.serve("tiny", &json!({})).await?;
        }
        world.settled("tiny").await?;
        other.settled("tiny").await?;
        let untouched = foreign
            .llm("tiny")
            .await?
            .status
            .map(|status| status.observed_generation);
        ensure!(
            untouched == Some(-1)
                && foreign
                    .api::<Deployment>()
                    .list(&Default::default())
                    .await?
                    .items
                    .is_empty()
        );
        other.leave().await;
        foreign.leave().await;
        Ok(())
    })
}

/// With a cluster of its own, because it watches all namespaces and takes the API server away.
#[test]
fn all_namespaces_are_watched_and_a_lost_api_server_is_found_again() -> Result<()> {
    run("all", async |world| {
        // Its launcher ends it with this process.
        let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start().await?));
        let client = cluster.client().await?;
        let player = Player::start(client.clone()).await?;
        let one = World::on(cluster, client.clone(), player.clone(), "one").await?;
        let two = World::on(cluster, client, player, "two").await?;
        let settings = Settings {
            namespaces: Vec::new(),
            ..Settings::of(&one.namespace)
        };
        let _operator = one.operator_with(&settings, Wire::new(Ledger::default())).await?;
        one.serve("tiny", &json!({})).await?;
        two.serve("tiny", &json!({})).await?;
        one.settled("tiny").await?;
        two.settled("tiny").await?;
        cluster.component(&["stop", "kube-apiserver", "--kill"])?;
        // The outage itself; nothing is waited for.
        tokio::time::sleep(Duration::from_secs(10)).await;
        cluster.component(&["start", "kube-apiserver"])?;
        until(60, "the API server takes a change", async || {
            Ok(one.merge::<LLMDeployment>("tiny", &model('b')).await?)
        })
        .await?;
        let changed = until(60, "the change is settled", async || {
            let object = one.llm("tiny").await?;
            settled(&object)?;
            Ok(object)
        })
        .await;
        if changed.is_err() {
            println!("{}", one.describe().await);
        }
        changed?;
        two.settled("tiny").await?;
        let _ = world;
        Ok(())
    })
}
