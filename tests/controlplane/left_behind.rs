//! Cycles whose policy or target goes, and Jobs that nobody may make: nothing comes back by itself, and nothing runs on.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::ResourceExt;
use kube::api::ListParams;
use perennial_crds::retraining::FinishedCycle;
use perennial_crds::{DriftPolicy, LLMDeployment};
use perennial_tests::cycles::{COMPONENT, Script, ended, learned, play, policy, prepare, says, serves, status};
use perennial_tests::player::Play;
use perennial_tests::waiting::{throughout, until};
use perennial_tests::{World, run};
use serde_json::json;

/// Jobs of this kind that are not on their way out.
async fn jobs(world: &World, kind: &str) -> Result<usize> {
    let parameters = ListParams::default().labels(&format!("{COMPONENT}={kind}"));
    let found = world.api::<Job>().list(&parameters).await?.items;
    Ok(found
        .iter()
        .filter(|job| job.metadata.deletion_timestamp.is_none())
        .count())
}

/// Training goes on for ever.
fn endless() -> Script {
    Script {
        retrain: Play::Running(None),
        ..Script::good('b')
    }
}

async fn trains(world: &World) -> Result<()> {
    let at_work = async || {
        ensure!(jobs(world, "retrain").await? == 1, "{:?}", status(world).await?.cycle);
        Ok(())
    };
    until(60, "a model is being trained", at_work).await
}

/// The cycle that ended, once its training Job is gone.
async fn called_off(world: &World) -> Result<FinishedCycle> {
    let cycles = ended(world, 1).await?;
    let gone = async || {
        ensure!(jobs(world, "retrain").await? == 0, "the training Job is still there");
        Ok(())
    };
    until(60, "the training Job is gone", gone).await?;
    cycles.into_iter().next().context("a cycle")
}

#[test]
fn a_candidate_does_not_come_back_with_another_policy_of_the_same_name() -> Result<()> {
    run("orphan", async |world| {
        prepare(world, &policy("Automatic")).await?;
        let champion = world.serving("tiny").await?;
        let script = Script::good('b');
        let stays = champion.clone();
        world
            .player
            .script(&world.namespace, move |pod| {
                let revision = pod.labels().get("perennial.dev/revision");
                match revision {
                    Some(revision) if *revision != stays => Play::Running(None),
                    _ => script.play(pod),
                }
            })
            .await;
        let _operator = world.operator().await?;
        until(90, "the candidate is being rolled out", async || {
            let deployments = world.deployments().await?;
            ensure!(
                deployments
                    .iter()
                    .any(|name| name.starts_with("tiny-") && *name != champion && !name.contains("capture")),
                "{deployments:?}"
            );
            ensure!(learned(world).await?.len() == 1, "it is not learned");
            Ok(())
        })
        .await?;
        world.delete::<DriftPolicy>("watch").await?;
        serves(world, "Spec", 'a').await?;
        // From now on it would come up at once, if anybody let it.
        play(world, Script::good('b')).await;
        let mut again = policy("Propose");
        again["spec"].as_object_mut().context("a spec")?.remove("retraining");
        world.create::<DriftPolicy>(&again).await?;
        world
            .until("the new policy is looked at", async || {
                ensure!(status(world).await?.phase.is_some(), "it has no phase");
                Ok(())
            })
            .await?;
        throughout(Duration::from_secs(6), "the spec's model serves", async || {
            ensure!(world.serving("tiny").await? == champion, "the candidate serves");
            let llm = world.llm("tiny").await?.status.context("a status")?;
            ensure!(
                llm.update_revision.as_deref() == Some(champion.as_str()),
                "{:?} is wanted",
                llm.update_revision
            );
            Ok(())
        })
        .await
    })
}

#[test]
fn a_policy_that_loses_its_target_to_an_older_one_ends_its_cycle() -> Result<()> {
    run("taken", async |world| {
        let older = json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "DriftPolicy", "metadata": {"name": "older"},
            "spec": {"targetRef": {"name": "another"}}});
        world.create::<DriftPolicy>(&older).await?;
        prepare(world, &policy("Automatic")).await?;
        play(world, endless()).await;
        let _operator = world.operator().await?;
        trains(world).await?;
        let taken = json!({"spec": {"targetRef": {"name": "tiny"}}});
        world.merge::<DriftPolicy>("older", &taken).await?;
        says(world, "Stalled", "True", "TargetTaken").await?;
        let cycle = called_off(world).await?;
        ensure!(
            cycle.outcome == "Withdrawn" && cycle.message.starts_with("TargetTaken"),
            "{cycle:?}"
        );
        ensure!(status(world).await?.cycle.is_none(), "a cycle is told");
        serves(world, "Spec", 'a').await
    })
}

#[test]
fn a_policy_that_gets_another_target_ends_its_cycle() -> Result<()> {
    run("moved", async |world| {
        prepare(world, &policy("Automatic")).await?;
        play(world, endless()).await;
        world.serve("other", &json!({})).await?;
        let _operator = world.operator().await?;
        world.settled("other").await?;
        trains(world).await?;
        let other = json!({"spec": {"targetRef": {"name": "other"}}});
        world.merge::<DriftPolicy>("watch", &other).await?;
        let cycle = called_off(world).await?;
        ensure!(
            cycle.outcome == "Superseded" && cycle.message.starts_with("TargetChanged"),
            "{cycle:?}"
        );
        ensure!(learned(world).await?.is_empty(), "something was learned");
        Ok(())
    })
}

#[test]
fn a_quota_that_allows_no_job_is_told_and_holds_up_nothing_else() -> Result<()> {
    run("quota", async |world| {
        prepare(world, &policy("Automatic")).await?;
        play(world, Script::good('b')).await;
        world.allow_no("count/jobs.batch", "no-jobs").await?;
        let _operator = world.operator().await?;
        let said = says(world, "RetrainingBlocked", "True", "JobTemplateInvalid").await?;
        ensure!(said.contains("exceeded quota: no-jobs"), "{said}");
        // Its memory is not to blame, and what it knows stays. A played pod cannot be asked for panes.
        says(world, "Ready", "False", "PanesUnavailable").await?;
        let drifted = status(world).await?;
        ensure!(drifted.evidence.is_some() && drifted.cycle.is_some(), "{drifted:?}");
        ensure!(jobs(world, "prepare").await? == 0, "there is a Job");
        world.delete::<ResourceQuota>("no-jobs").await?;
        serves(world, "DriftPolicy/watch", 'b').await?;
        let cycles = ended(world, 1).await?;
        ensure!(cycles.len() == 1 && cycles[0].outcome == "Promoted", "{cycles:?}");
        Ok(())
    })
}

#[test]
fn a_target_that_is_switched_off_takes_no_better_model_up_before_it_is_on_again() -> Result<()> {
    run("off", async |world| {
        prepare(world, &policy("Approve")).await?;
        play(world, Script::good('b')).await;
        let _operator = world.operator().await?;
        says(world, "CandidateAvailable", "True", "Proposed").await?;
        let champion = world.serving("tiny").await?;
        world
            .merge::<LLMDeployment>("tiny", &json!({"spec": {"suspend": true}}))
            .await?;
        world
            .until("no pod serves", async || {
                let status = world.llm("tiny").await?.status.context("a status")?;
                ensure!(status.replicas == 0, "{} replicas", status.replicas);
                Ok(())
            })
            .await?;
        let approved = json!({"spec": {"promotion": {"approvedDigests": [perennial_tests::cycles::digest('b')]}}});
        world.merge::<DriftPolicy>("watch", &approved).await?;
        world
            .until("it waits for replicas", async || {
                let cycle = status(world).await?.cycle.context("a cycle")?;
                ensure!(cycle.message.contains("replicas again"), "{}", cycle.message);
                Ok(())
            })
            .await?;
        ensure!(world.serving("tiny").await? == champion, "the Service was moved");
        world
            .merge::<LLMDeployment>("tiny", &json!({"spec": {"suspend": false}}))
            .await?;
        serves(world, "DriftPolicy/watch", 'b').await?;
        let cycles = ended(world, 1).await?;
        ensure!(cycles[0].outcome == "Promoted", "{cycles:?}");
        Ok(())
    })
}
