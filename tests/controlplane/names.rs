//! Names that are taken, objects that go and come.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use perennial_crds::{LLMDeployment, REVISION_LABEL};
use perennial_tests::waiting::until;
use perennial_tests::world::{condition, model, pinned};
use perennial_tests::{Play, World, normal, run};
use serde_json::json;

#[test]
fn a_service_of_somebody_else_is_never_touched_and_its_removal_heals() -> Result<()> {
    run("foreign", async |world| {
        let foreign: Service = world
            .create(&json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "tiny"},
                "spec": {"selector": {"app": "other"}, "ports": [{"port": 80}]},
            }))
            .await?;
        let _operator = world.operator().await?;
        world.serve("tiny", &json!({})).await?;
        let stalled = world.condition("tiny", "Stalled", "True", "NameConflict").await?;
        ensure!(
            stalled.message.contains("the Service tiny is there already"),
            "{}",
            stalled.message
        );
        world.condition("tiny", "Ready", "False", "NameConflict").await?;
        world.stays_untouched(Duration::from_secs(2)).await?;
        let after = world.api::<Service>().get("tiny").await?;
        ensure!(after.resource_version() == foreign.resource_version());
        world.delete::<Service>("tiny").await?;
        until(60, "it is settled without anybody touching the object", async || {
            perennial_tests::world::settled(&world.llm("tiny").await?)
        })
        .await
    })
}

async fn nothing_is_left(world: &World) -> Result<()> {
    until(60, "nothing is left", async || {
        let left = normal::versions(&world.client, &world.namespace).await?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await
}

#[test]
fn an_object_deleted_while_it_rolls_out_leaves_nothing_behind() -> Result<()> {
    run("deleted-midway", async |world| {
        let _operator = world.operator().await?;
        world.serve("tiny", &json!({"replicas": 2})).await?;
        world.settled("tiny").await?;
        let first = world.serving("tiny").await?;
        world
            .player
            .script(&world.namespace, move |pod| {
                if pod.labels().get(REVISION_LABEL) == Some(&first) {
                    Play::ready()
                } else {
                    Play::Running(None)
                }
            })
            .await;
        world.merge::<LLMDeployment>("tiny", &model('b')).await?;
        world
            .until("both revisions have pods", async || {
                ensure!(world.names::<Pod>().await?.len() == 4);
                Ok(())
            })
            .await?;
        world.delete::<LLMDeployment>("tiny").await?;
        nothing_is_left(world).await?;
        world.stays_untouched(Duration::from_secs(3)).await
    })
}

#[test]
fn an_object_deleted_while_it_is_created_leaves_nothing_behind() -> Result<()> {
    run("deleted-early", async |world| {
        let _operator = world.operator().await?;
        for number in 0..10_u64 {
            world.serve("tiny", &json!({})).await?;
            // Not to wait for something, but to be at another place each time.
            tokio::time::sleep(Duration::from_millis(17 * number)).await;
            world.delete::<LLMDeployment>("tiny").await?;
            nothing_is_left(world).await?;
        }
        world.stays_untouched(Duration::from_secs(2)).await
    })
}

#[test]
fn an_object_deleted_in_the_foreground_waits_for_its_children() -> Result<()> {
    run("foreground", async |world| {
        let _operator = world.operator().await?;
        world.serve("tiny", &json!({})).await?;
        world.settled("tiny").await?;
        world
            .api::<LLMDeployment>()
            .delete("tiny", &kube::api::DeleteParams::foreground())
            .await?;
        nothing_is_left(world).await
    })
}

#[test]
fn a_new_object_of_the_same_name_takes_over_at_once() -> Result<()> {
    run("again", async |world| {
        let _operator = world.operator().await?;
        let old = world.serve("tiny", &json!({})).await?;
        world.settled("tiny").await?;
        world.delete::<LLMDeployment>("tiny").await?;
        let new: LLMDeployment = world.create(&pinned("tiny", &json!({}))).await?;
        ensure!(old.uid() != new.uid());
        until(60, "the new object is settled, with children of its own", async || {
            perennial_tests::world::settled(&world.llm("tiny").await?)?;
            let service = world.api::<Service>().get("tiny").await?;
            let owner = service.owner_references().first().map(|owner| owner.uid.clone());
            ensure!(owner == new.uid(), "the Service belongs to {owner:?}");
            Ok(())
        })
        .await
    })
}

#[test]
fn a_pod_template_that_is_none_is_said_and_a_better_one_heals() -> Result<()> {
    run("overlay", async |world| {
        let _operator = world.operator().await?;
        world
            .serve("tiny", &json!({"podTemplate": {"spec": {"containers": "server"}}}))
            .await?;
        let stalled = world.condition("tiny", "Stalled", "True", "InvalidSpec").await?;
        ensure!(
            stalled.message.contains("spec.podTemplate is not a pod template"),
            "{}",
            stalled.message
        );
        let image = json!({"spec": {"podTemplate": {"spec": {"containers": [{"name": "server", "image": "other"}]}}}});
        world.merge::<LLMDeployment>("tiny", &image).await?;
        let stalled = world.condition("tiny", "Stalled", "True", "InvalidSpec").await?;
        ensure!(stalled.message.contains("spec.runtime.image"), "{}", stalled.message);
        // Only the API server knows that this is wrong.
        let policy = json!({"spec": {"podTemplate": {"spec": {"containers": null, "restartPolicy": "Sometimes"}}}});
        world.merge::<LLMDeployment>("tiny", &policy).await?;
        world
            .until("the API server's words are told", async || {
                let object = world.llm("tiny").await?;
                let stalled = condition(&object, "Stalled").context("not stalled")?;
                ensure!(
                    stalled.reason == "InvalidSpec" && stalled.message.contains("restartPolicy"),
                    "{stalled:?}"
                );
                Ok(())
            })
            .await?;
        world
            .merge::<LLMDeployment>(
                "tiny",
                &json!({"spec": {"podTemplate": {"spec": null, "metadata": {"labels": {"team": "search"}}}}}),
            )
            .await?;
        world.settled("tiny").await?;
        let pods = world
            .api::<Pod>()
            .list(&kube::api::ListParams::default().labels("team=search"))
            .await?;
        ensure!(pods.items.len() == 1);
        Ok(())
    })
}

#[test]
fn a_refused_template_of_a_change_leaves_the_old_revision_serving() -> Result<()> {
    run("refused-change", async |world| {
        let _operator = world.operator().await?;
        world.serve("tiny", &json!({})).await?;
        world.settled("tiny").await?;
        let policy = json!({"spec": {"podTemplate": {"spec": {"restartPolicy": "Sometimes"}}}});
        world.merge::<LLMDeployment>("tiny", &policy).await?;
        world.condition("tiny", "Stalled", "True", "InvalidSpec").await?;
        world.condition("tiny", "Ready", "True", "Routable").await?;
        world
            .merge::<LLMDeployment>("tiny", &json!({"spec": {"podTemplate": null}}))
            .await?;
        world.settled("tiny").await?;
        Ok(())
    })
}
