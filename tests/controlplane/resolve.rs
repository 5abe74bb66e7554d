//! Sources that are not pinned: asked once, kept, asked again only on request.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use perennial_crds::LLMDeployment;
use perennial_crds::serving::{FailureReason, ResolvedModel};
use perennial_tests::world::{model, pod_uids};
use perennial_tests::{Play, World, run};
use serde_json::{Value, json};

const TAG: &str = "registry.example/models/tiny:v1";

fn tagged() -> Value {
    json!({"model": {"source": {"oci": {"reference": TAG}}}})
}

fn answer(digit: char) -> ResolvedModel {
    let digest = format!("sha256:{}", digit.to_string().repeat(64));
    ResolvedModel {
        uri: format!("oci://registry.example/models/tiny@{digest}"),
        digest,
        size_bytes: 98_362_432,
        files: 1,
    }
}

/// Resolving pods play this, all others are ready.
async fn resolving(world: &World, play: Play) {
    world
        .player
        .script(&world.namespace, move |pod: &Pod| {
            if pod.labels().contains_key("perennial.dev/resolve") {
                play.clone()
            } else {
                Play::ready()
            }
        })
        .await;
}

#[test]
fn a_tag_is_resolved_once_by_a_job_and_stays_there_until_asked_again() -> Result<()> {
    run("resolve", async |world| {
        resolving(world, Play::resolved(&answer('a'))).await;
        let operator = world.operator().await?;
        world.serve("tiny", &tagged()).await?;
        let status = world.settled("tiny").await?.status.context("no status")?;
        let model = status.model.context("no model")?;
        ensure!(
            model.digest == Some(answer('a').digest) && model.size_bytes == Some(98_362_432),
            "{model:?}"
        );
        let first = world.serving("tiny").await?;
        let args = args(world, &first).await?;
        ensure!(args.contains(&format!("--source={}", answer('a').uri)), "{args:?}");
        // The tag moves: nothing happens, not even when the Job is gone and the operator is new.
        resolving(world, Play::resolved(&answer('b'))).await;
        let pods = pod_uids(world).await?;
        for job in world.names::<Job>().await? {
            world.delete::<Job>(&job).await?;
        }
        operator.stop().await?;
        let _operator = world.operator().await?;
        world
            .merge::<LLMDeployment>("tiny", &json!({"spec": {"replicas": 2}}))
            .await?;
        world.settled("tiny").await?;
        ensure!(world.serving("tiny").await? == first && world.names::<Job>().await?.is_empty());
        ensure!(pods.iter().any(|uid| !uid.is_empty()));
        world
            .merge::<LLMDeployment>(
                "tiny",
                &json!({"metadata": {"annotations": {"perennial.dev/resolve-again": "1"}}}),
            )
            .await?;
        world
            .until("the new answer serves", async || {
                let serving = world.serving("tiny").await?;
                ensure!(serving != first);
                Ok(())
            })
            .await?;
        world.settled("tiny").await?;
        Ok(())
    })
}

async fn args(world: &World, revision: &str) -> Result<Vec<String>> {
    let deployment = world.api::<Deployment>().get(revision).await?;
    let pod = deployment
        .spec
        .and_then(|spec| spec.template.spec)
        .context("no pod spec")?;
    Ok(pod.containers[0].args.clone().unwrap_or_default())
}

#[test]
fn a_source_that_cannot_be_resolved_says_why_and_another_one_heals() -> Result<()> {
    run("unresolved", async |world| {
        resolving(
            world,
            Play::unresolved(
                FailureReason::ModelNotFound,
                "the registry has no tag v1: correct the reference",
            ),
        )
        .await;
        let _operator = world.operator().await?;
        world.serve("tiny", &tagged()).await?;
        let stalled = world.condition("tiny", "Stalled", "True", "ModelNotFound").await?;
        ensure!(stalled.message.contains("correct the reference"), "{}", stalled.message);
        world.condition("tiny", "Ready", "False", "ModelNotFound").await?;
        world
            .condition("tiny", "ModelResolved", "False", "ModelNotFound")
            .await?;
        ensure!(world.deployments().await?.is_empty());
        world.merge::<LLMDeployment>("tiny", &model('c')).await?;
        world.settled("tiny").await?;
        Ok(())
    })
}

#[test]
fn an_unresolvable_change_leaves_the_old_revision_serving() -> Result<()> {
    run("unresolved-change", async |world| {
        resolving(
            world,
            Play::unresolved(FailureReason::Unauthorized, "other credentials are wanted"),
        )
        .await;
        let _operator = world.operator().await?;
        world.serve("tiny", &json!({})).await?;
        world.settled("tiny").await?;
        let (first, pods) = (world.serving("tiny").await?, pod_uids(world).await?);
        world.merge::<LLMDeployment>("tiny", &json!({"spec": tagged()})).await?;
        world.condition("tiny", "Stalled", "True", "Unauthorized").await?;
        world.condition("tiny", "Ready", "True", "Routable").await?;
        ensure!(world.serving("tiny").await? == first);
        world.merge::<LLMDeployment>("tiny", &model('a')).await?;
        world.settled("tiny").await?;
        let after = pod_uids(world).await?;
        ensure!(
            pods.iter().all(|uid| after.contains(uid)),
            "the serving pod was restarted"
        );
        Ok(())
    })
}

#[test]
fn revisions_that_were_deleted_by_hand_are_made_again_from_a_resolved_source_too() -> Result<()> {
    run("lost-revisions", async |world| {
        resolving(world, Play::resolved(&answer('a'))).await;
        let _operator = world.operator().await?;
        world.serve("tiny", &tagged()).await?;
        world.settled("tiny").await?;
        let revision = world.serving("tiny").await?;
        let generation = world.api::<Deployment>().get(&revision).await?.metadata.generation;
        for job in world.names::<Job>().await? {
            world.delete::<Job>(&job).await?;
        }
        world.delete::<ControllerRevision>(&revision).await?;
        world
            .until("the revision is there again", async || {
                Ok(world.api::<ControllerRevision>().get(&revision).await?)
            })
            .await?;
        world.settled("tiny").await?;
        let after = world.api::<Deployment>().get(&revision).await?.metadata.generation;
        ensure!(generation == after, "the template was touched");
        Ok(())
    })
}
