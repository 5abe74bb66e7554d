//! The autoscaler and the API: who may set replicas, with how many an object begins, what is held while nothing is known.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use perennial_crds::LLMDeployment;
use perennial_tests::objects::merge;
use perennial_tests::waiting::throughout;
use perennial_tests::world::model;
use perennial_tests::{World, run};
use serde_json::{Value, json};

/// Replicas that the only Deployment is asked for.
async fn asked(world: &World) -> Result<i32> {
    let name = world.serving("tiny").await?;
    let deployment = world.api::<Deployment>().get(&name).await?;
    deployment
        .spec
        .and_then(|spec| spec.replicas)
        .context("it asks for no number")
}

async fn scale_subresource(world: &World, replicas: i32) -> kube::Result<()> {
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    let api = world.api::<LLMDeployment>();
    api.patch_scale("tiny", &PatchParams::default(), &patch)
        .await
        .map(|_| ())
}

fn scaled(spec: &Value) -> Value {
    let mut all = json!({"autoscaling": {"minReplicas": 2, "maxReplicas": 4}});
    merge(&mut all, spec);
    all
}

#[test]
fn while_it_scales_nobody_else_sets_replicas() -> Result<()> {
    run("frozen", async |world| {
        world.serve("tiny", &json!({"replicas": 3})).await?;
        scale_subresource(world, 2).await?;
        // Replicas may change together with the beginning and the end of the autoscaling, and not in between.
        let on = json!({"spec": {"replicas": 1, "autoscaling": {"maxReplicas": 4}}});
        world.merge::<LLMDeployment>("tiny", &on).await?;
        for refused in [
            scale_subresource(world, 5).await.err(),
            world
                .merge::<LLMDeployment>("tiny", &json!({"spec": {"replicas": 5}}))
                .await
                .err(),
        ] {
            let message = refused.map(|error| error.to_string()).unwrap_or_default();
            ensure!(
                message.contains("spec.autoscaling decides how many replicas there are"),
                "{message}"
            );
        }
        world
            .merge::<LLMDeployment>("tiny", &json!({"spec": {"autoscaling": {"maxReplicas": 6}}}))
            .await?;
        let off = json!({"spec": {"replicas": 5, "autoscaling": null}});
        world.merge::<LLMDeployment>("tiny", &off).await?;
        scale_subresource(world, 1).await?;
        Ok(())
    })
}

#[test]
fn it_begins_within_the_limits_and_follows_them() -> Result<()> {
    run("limits", async |world| {
        let _operator = world.operator().await?;
        world.serve("tiny", &scaled(&json!({}))).await?;
        world.settled("tiny").await?;
        ensure!(asked(world).await? == 2, "minReplicas is 2");
        world
            .merge::<LLMDeployment>("tiny", &json!({"spec": {"autoscaling": {"minReplicas": 3}}}))
            .await?;
        world
            .until("three replicas are ready and the reason is told", async || {
                let status = world.llm("tiny").await?.status.unwrap_or_default();
                let scaling = status.autoscaling.unwrap_or_default();
                let last = scaling.last_decisions.first().context("there is no decision")?;
                ensure!(
                    last.reason == "minReplicas is 3" && (last.from, last.to) == (2, 3),
                    "{last:?}"
                );
                ensure!(status.ready_replicas == 3 && scaling.desired_replicas == 3);
                Ok(())
            })
            .await
    })
}

#[test]
fn pods_that_cannot_be_asked_are_held_and_it_is_said_through_a_restart_and_a_pause() -> Result<()> {
    run("blind", async |world| {
        let operator = world.operator().await?;
        world.serve("tiny", &scaled(&json!({"replicas": 3}))).await?;
        world.settled("tiny").await?;
        // Nobody listens at the addresses of played pods. The first round may come before all of them are ready.
        let all_are_told = async || {
            let said = world
                .condition("tiny", "ScalingActive", "False", "MetricsUnavailable")
                .await?;
            ensure!(said.message.contains("none of 3 ready replicas"), "{}", said.message);
            Ok(())
        };
        world.until("all three are told of", all_are_told).await?;
        drop(operator);
        let _operator = world.operator().await?;
        let held = async || {
            ensure!(asked(world).await? == 3);
            Ok(())
        };
        throughout(Duration::from_secs(15), "three replicas are held", held).await?;
        world
            .merge::<LLMDeployment>("tiny", &json!({"spec": {"suspend": true}}))
            .await?;
        world.condition("tiny", "ScalingActive", "False", "Suspended").await?;
        world
            .merge::<LLMDeployment>("tiny", &json!({"spec": {"suspend": false}}))
            .await?;
        world.settled("tiny").await?;
        ensure!(asked(world).await? == 3, "as many come back as there were");
        world.until("all three are told of again", all_are_told).await?;
        world.stays_untouched(Duration::from_secs(20)).await
    })
}

#[test]
fn a_new_revision_gets_as_many_replicas_as_are_wanted() -> Result<()> {
    run("carried", async |world| {
        let _operator = world.operator().await?;
        world.serve("tiny", &scaled(&json!({"replicas": 4}))).await?;
        world.settled("tiny").await?;
        let first = world.serving("tiny").await?;
        world.merge::<LLMDeployment>("tiny", &model('b')).await?;
        world
            .until("the new revision serves with four replicas, alone", async || {
                ensure!(world.serving("tiny").await? != first && world.deployments().await?.len() == 1);
                ensure!(asked(world).await? == 4);
                Ok(())
            })
            .await?;
        world
            .until("the autoscaler has spoken", async || {
                let status = world.llm("tiny").await?.status.unwrap_or_default();
                ensure!(status.autoscaling.is_some_and(|scaling| scaling.desired_replicas == 4));
                Ok(())
            })
            .await?;
        // Taken away while it scales and put back.
        let name = world.serving("tiny").await?;
        world
            .merge::<Deployment>(&name, &json!({"spec": {"replicas": 1}}))
            .await?;
        world
            .until("a number set by hand is put right", async || {
                ensure!(asked(world).await? == 4);
                Ok(())
            })
            .await
    })
}
