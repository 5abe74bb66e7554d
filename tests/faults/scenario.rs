//! What a user does while things go wrong.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use perennial_crds::serving::ResolvedModel;
use perennial_crds::{LLMDeployment, REVISION_LABEL};
use perennial_tests::waiting::until;
use perennial_tests::world::model;
use perennial_tests::{Play, World, normal};
use serde_json::json;

/// A story with an end that no fault may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Create, change the model, scale.
    Change,
    /// Create from a tag, which a Job resolves.
    Resolve,
    /// A change that does not get ready in time, and its revert.
    GiveUp,
    /// Deleted in the middle of a change.
    Delete,
}

/// Seconds that a step may take when a fault costs time-outs and waiting.
const PATIENCE: u64 = 60;

impl Scenario {
    /// Plays the user. Returns when the end is reached.
    pub async fn play(self, world: &World) -> Result<()> {
        match self {
            Self::Change => change(world).await,
            Self::Resolve => resolve(world).await,
            Self::GiveUp => give_up(world).await,
            Self::Delete => delete(world).await,
        }
    }
}

async fn change(world: &World) -> Result<()> {
    world.serve("tiny", &json!({})).await?;
    alone(world).await?;
    world.merge::<LLMDeployment>("tiny", &model('b')).await?;
    alone(world).await?;
    world
        .merge::<LLMDeployment>("tiny", &json!({"spec": {"replicas": 2}}))
        .await?;
    alone(world).await
}

async fn resolve(world: &World) -> Result<()> {
    let digest = format!("sha256:{}", "a".repeat(64));
    let answer = ResolvedModel {
        uri: format!("oci://registry.example/models/tiny@{digest}"),
        digest,
        size_bytes: 1000,
        files: 1,
    };
    world
        .player
        .script(&world.namespace, move |pod: &Pod| {
            if pod.labels().contains_key("perennial.dev/resolve") {
                Play::resolved(&answer)
            } else {
                Play::ready()
            }
        })
        .await;
    let tag = json!({"model": {"source": {"oci": {"reference": "registry.example/models/tiny:v1"}}}});
    world.serve("tiny", &tag).await?;
    until(PATIENCE, "it is settled", async || {
        perennial_tests::world::settled(&world.llm("tiny").await?)
    })
    .await
}

async fn give_up(world: &World) -> Result<()> {
    world
        .serve("tiny", &json!({"rollout": {"progressDeadlineSeconds": 10}}))
        .await?;
    alone(world).await?;
    let first = world.serving("tiny").await?;
    others_hang(world, first.clone()).await;
    world.merge::<LLMDeployment>("tiny", &model('b')).await?;
    until(PATIENCE, "the change was given up", async || {
        let found = perennial_tests::world::condition(&world.llm("tiny").await?, "Stalled");
        ensure!(found.is_some_and(|stalled| stalled.reason == "ProgressDeadlineExceeded"));
        ensure!(world.deployments().await? == std::slice::from_ref(&first));
        Ok(())
    })
    .await?;
    world.merge::<LLMDeployment>("tiny", &model('a')).await?;
    alone(world).await
}

async fn delete(world: &World) -> Result<()> {
    world.serve("tiny", &json!({})).await?;
    alone(world).await?;
    others_hang(world, world.serving("tiny").await?).await;
    world.merge::<LLMDeployment>("tiny", &model('b')).await?;
    until(PATIENCE, "the change has begun", async || {
        ensure!(world.deployments().await?.len() == 2);
        Ok(())
    })
    .await?;
    world.delete::<LLMDeployment>("tiny").await?;
    until(PATIENCE, "nothing is left", async || {
        let left = normal::versions(&world.client, &world.namespace).await?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await
}

/// Pods of other revisions than this one never get ready.
async fn others_hang(world: &World, first: String) {
    world
        .player
        .script(&world.namespace, move |pod: &Pod| {
            if pod.labels().get(REVISION_LABEL) == Some(&first) {
                Play::ready()
            } else {
                Play::Running(None)
            }
        })
        .await;
}

async fn alone(world: &World) -> Result<()> {
    until(PATIENCE, "one revision serves alone", async || {
        world.is_alone("tiny").await
    })
    .await
    .map(|_| ())
}
