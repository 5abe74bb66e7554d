//! Changes: beside the old revision, never without one that serves, and back.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use perennial_crds::{LLMDeployment, REVISION_LABEL};
use perennial_tests::operator::Settings;
use perennial_tests::waiting::throughout;
use perennial_tests::world::{model, pod_uids, revisions};
use perennial_tests::{Ledger, Play, Wire, World, run};
use serde_json::{Value, json};

/// Serves model a; pods of every other revision play this from then on.
async fn serving_and_then(world: &World, spec: &Value, play: Play) -> Result<String> {
    world.serve("tiny", spec).await?;
    world.settled("tiny").await?;
    let first = world.serving("tiny").await?;
    others_play(world, &first, play).await;
    Ok(first)
}

async fn others_play(world: &World, first: &str, play: Play) {
    let first = first.to_owned();
    world
        .player
        .script(&world.namespace, move |pod| {
            if pod.labels().get(REVISION_LABEL) == Some(&first) {
                Play::ready()
            } else {
                play.clone()
            }
        })
        .await;
}

#[test]
fn a_change_comes_up_beside_the_old_revision_which_goes_when_the_service_has_moved() -> Result<()> {
    run("change", async |world| {
        let _operator = world.operator().await?;
        let first = serving_and_then(world, &json!({"replicas": 2}), Play::Running(None)).await?;
        world.merge::<LLMDeployment>("tiny", &model('b')).await?;
        world.condition("tiny", "Reconciling", "True", "StartingPods").await?;
        throughout(
            Duration::from_secs(2),
            "the old revision serves while the new one starts",
            async || {
                ensure!(world.serving("tiny").await? == first);
                let object = world.llm("tiny").await?;
                let status = object.status.clone().unwrap_or_default();
                ensure!(
                    status.ready_replicas == 2 && status.stable_revision == Some(first.clone()),
                    "{status:?}"
                );
                Ok(())
            },
        )
        .await?;
        world.condition("tiny", "Ready", "True", "Routable").await?;
        ensure!(world.deployments().await?.len() == 2);
        world.script_all(Play::ready()).await;
        let object = world.settled("tiny").await?;
        let second = world.serving("tiny").await?;
        ensure!(second != first && world.deployments().await? == std::slice::from_ref(&second));
        let status = object.status.unwrap_or_default();
        ensure!(
            status.stable_revision == Some(second)
                && status
                    .model
                    .is_some_and(|model| { model.digest == Some(format!("sha256:{}", "b".repeat(64))) })
        );
        ensure!(
            revisions(world).await?.len() == 2,
            "the old revision is kept for going back"
        );
        Ok(())
    })
}

#[test]
fn one_of_two_new_replicas_is_not_enough_to_move() -> Result<()> {
    run("half", async |world| {
        let _operator = world.operator().await?;
        let first = serving_and_then(world, &json!({"replicas": 2}), Play::Running(None)).await?;
        world.merge::<LLMDeployment>("tiny", &model('b')).await?;
        world.condition("tiny", "Reconciling", "True", "StartingPods").await?;
        let pods = world
            .until("the new pods are there", async || {
                let pods = world.names::<k8s_openapi::api::core::v1::Pod>().await?;
                ensure!(pods.len() == 4, "{pods:?}");
                Ok(pods)
            })
            .await?;
        let (of_first, lucky) = (first.clone(), pods.into_iter().find(|name| !name.starts_with(&first)));
        world
            .player
            .script(&world.namespace, move |pod| {
                let old = pod.labels().get(REVISION_LABEL) == Some(&of_first);
                if old || Some(pod.name_any()) == lucky {
                    Play::ready()
                } else {
                    Play::Running(None)
                }
            })
            .await;
        throughout(Duration::from_secs(2), "the old revision serves", async || {
            ensure!(world.serving("tiny").await? == first);
            Ok(())
        })
        .await
    })
}

#[test]
fn a_revision_that_does_not_get_ready_is_taken_down_and_reverting_heals() -> Result<()> {
    run("deadline", async |world| {
        let _operator = world.operator().await?;
        let spec = json!({"rollout": {"progressDeadlineSeconds": 20}});
        let first = serving_and_then(world, &spec, Play::ImagePullBackOff).await?;
        let pods = pod_uids(world).await?;
        world.merge::<LLMDeployment>("tiny", &model('b')).await?;
        world
            .condition("tiny", "Reconciling", "True", "ImagePullBackOff")
            .await?;
        let stalled = world
            .condition("tiny", "Stalled", "True", "ProgressDeadlineExceeded")
            .await?;
        ensure!(stalled.message.contains("ImagePullBackOff") && stalled.message.contains("perennial.dev/retry"));
        world
            .until("the new Deployment is gone", async || {
                ensure!(world.deployments().await? == std::slice::from_ref(&first));
                Ok(())
            })
            .await?;
        world.condition("tiny", "Ready", "True", "Routable").await?;
        world.stays_untouched(Duration::from_secs(3)).await?;
        world.merge::<LLMDeployment>("tiny", &model('a')).await?;
        world.settled("tiny").await?;
        ensure!(world.serving("tiny").await? == first && pod_uids(world).await? == pods);
        // Having been reverted, the failure counts no more: the same change may be tried again.
        world.script_all(Play::ready()).await;
        world.merge::<LLMDeployment>("tiny", &model('b')).await?;
        world.settled("tiny").await?;
        ensure!(world.serving("tiny").await? != first);
        Ok(())
    })
}

#[test]
fn a_retry_annotation_tries_a_failed_change_again() -> Result<()> {
    run("retry", async |world| {
        let _operator = world.operator().await?;
        let spec = json!({"rollout": {"progressDeadlineSeconds": 10}});
        let first = serving_and_then(world, &spec, Play::OomKilled).await?;
        world.merge::<LLMDeployment>("tiny", &model('b')).await?;
        world
            .condition("tiny", "Stalled", "True", "ProgressDeadlineExceeded")
            .await?;
        world.script_all(Play::ready()).await;
        throughout(Duration::from_secs(2), "it is not tried by itself", async || {
            ensure!(world.serving("tiny").await? == first);
            Ok(())
        })
        .await?;
        world
            .merge::<LLMDeployment>(
                "tiny",
                &json!({"metadata": {"annotations": {"perennial.dev/retry": "1"}}}),
            )
            .await?;
        world
            .until("the new revision serves", async || {
                ensure!(world.serving("tiny").await? != first);
                Ok(())
            })
            .await?;
        world.settled("tiny").await?;
        Ok(())
    })
}

#[test]
fn the_first_revision_is_not_taken_down_when_it_is_late() -> Result<()> {
    run("first-late", async |world| {
        world.script_all(Play::Running(None)).await;
        let _operator = world.operator().await?;
        world
            .serve("tiny", &json!({"rollout": {"progressDeadlineSeconds": 10}}))
            .await?;
        world
            .condition("tiny", "Stalled", "True", "ProgressDeadlineExceeded")
            .await?;
        ensure!(world.deployments().await?.len() == 1);
        world.script_all(Play::ready()).await;
        world.settled("tiny").await?;
        Ok(())
    })
}

#[test]
fn a_paused_rollout_holds_a_change_back_and_still_scales() -> Result<()> {
    run("paused", async |world| {
        let _operator = world.operator().await?;
        let first = serving_and_then(world, &json!({"rollout": {"paused": true}}), Play::ready()).await?;
        world.merge::<LLMDeployment>("tiny", &model('b')).await?;
        world.condition("tiny", "Progressing", "False", "Paused").await?;
        world
            .merge::<LLMDeployment>("tiny", &json!({"spec": {"replicas": 2}}))
            .await?;
        world.condition("tiny", "Available", "True", "AllReplicasReady").await?;
        ensure!(world.serving("tiny").await? == first && world.deployments().await? == std::slice::from_ref(&first));
        world
            .merge::<LLMDeployment>("tiny", &json!({"spec": {"rollout": {"paused": false}}}))
            .await?;
        world.settled("tiny").await?;
        ensure!(world.serving("tiny").await? != first);
        Ok(())
    })
}

#[test]
fn a_newer_change_supersedes_one_that_is_under_way() -> Result<()> {
    run("supersede", async |world| {
        let _operator = world.operator().await?;
        let first = serving_and_then(world, &json!({}), Play::Running(None)).await?;
        world.merge::<LLMDeployment>("tiny", &model('b')).await?;
        world
            .until("the second revision is there", async || {
                ensure!(world.deployments().await?.len() == 2);
                Ok(())
            })
            .await?;
        let second = world.deployments().await?.into_iter().find(|name| *name != first);
        world.merge::<LLMDeployment>("tiny", &model('c')).await?;
        world
            .until("the second revision is gone, the third is there", async || {
                let found = world.deployments().await?;
                ensure!(
                    found.len() == 2 && found.contains(&first) && !found.contains(second.as_ref().unwrap_or(&first))
                );
                Ok(())
            })
            .await?;
        ensure!(world.serving("tiny").await? == first);
        world.merge::<LLMDeployment>("tiny", &model('a')).await?;
        world.settled("tiny").await?;
        ensure!(world.serving("tiny").await? == first && world.deployments().await? == [first]);
        Ok(())
    })
}

#[test]
fn an_upgraded_operator_restarts_nothing() -> Result<()> {
    run("upgrade", async |world| {
        let operator = world.operator().await?;
        world.serve("tiny", &json!({})).await?;
        world.settled("tiny").await?;
        let revision = world.serving("tiny").await?;
        let pods = pod_uids(world).await?;
        let generation = world.api::<Deployment>().get(&revision).await?.metadata.generation;
        operator.stop().await?;
        let newer = Settings {
            image: "registry.example/perennial-server:newer".to_owned(),
            ..Settings::of(&world.namespace)
        };
        let _operator = world.operator_with(&newer, Wire::new(Ledger::default())).await?;
        // A scaling shows that the new operator is at work.
        world
            .merge::<LLMDeployment>("tiny", &json!({"spec": {"replicas": 2}}))
            .await?;
        world.settled("tiny").await?;
        // Which of the two goes afterwards is the ReplicaSet's choice.
        ensure!(
            pod_uids(world).await?.iter().any(|uid| pods.contains(uid)),
            "the pod was restarted"
        );
        world
            .merge::<LLMDeployment>("tiny", &json!({"spec": {"replicas": 1}}))
            .await?;
        world.settled("tiny").await?;
        let deployment = world.api::<Deployment>().get(&revision).await?;
        ensure!(deployment.metadata.generation == generation.map(|generation| generation + 2));
        ensure!(world.deployments().await? == [revision]);
        // The next change takes the new image.
        world.merge::<LLMDeployment>("tiny", &model('b')).await?;
        world
            .until("the new revision has the new image", async || {
                let serving = world.serving("tiny").await?;
                let found = world.api::<Deployment>().get(&serving).await?;
                let text = serde_json::to_string(&found.spec)?;
                ensure!(text.contains("perennial-server:newer"));
                Ok(())
            })
            .await
    })
}

#[test]
fn old_revisions_are_kept_up_to_the_limit() -> Result<()> {
    run("history", async |world| {
        let _operator = world.operator().await?;
        world.serve("tiny", &json!({})).await?;
        world.settled("tiny").await?;
        for digit in "bcdefa0123".chars() {
            let before = world.serving("tiny").await?;
            world.merge::<LLMDeployment>("tiny", &model(digit)).await?;
            world
                .until("the next revision serves", async || {
                    ensure!(world.serving("tiny").await? != before);
                    Ok(())
                })
                .await?;
            world.settled("tiny").await?;
        }
        world
            .until("five old revisions and the one that serves are left", async || {
                let kept = revisions(world).await?.len();
                ensure!(kept == 6, "{kept}");
                Ok(())
            })
            .await
    })
}
