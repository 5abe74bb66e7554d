//! What a user does while things go wrong.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use kube::api::ListParams;
use perennial_crds::capture::{CAPTURE_ANNOTATION, Level, Terms};
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
    /// Prompts and answers are to be kept, and then not even counts.
    Capture,
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
            Self::Capture => capture(world).await,
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

async fn capture(world: &World) -> Result<()> {
    world.serve("tiny", &json!({})).await?;
    alone(world).await?;
    let storage = json!({"persistentVolumeClaim": {"claimName": "records"}});
    let payload = json!({"spec": {"capture": {"level": "Payload", "storage": storage}}});
    world.merge::<LLMDeployment>("tiny", &payload).await?;
    until_told(world, Level::Payload).await?;
    until(PATIENCE, "the collector is there", async || {
        ensure!(world.deployments().await?.len() == 2);
        Ok(())
    })
    .await?;
    let nothing = json!({"spec": {"capture": {"level": "None"}}});
    world.merge::<LLMDeployment>("tiny", &nothing).await?;
    until_told(world, Level::None).await?;
    until(PATIENCE, "the collector is gone", async || {
        ensure!(world.deployments().await?.len() == 1);
        ensure!(world.names::<Service>().await? == ["tiny"]);
        Ok(())
    })
    .await?;
    alone(world).await
}

async fn until_told(world: &World, level: Level) -> Result<()> {
    until(PATIENCE, &format!("the replica is told {level:?}"), async || {
        let parameters = ListParams::default().labels(REVISION_LABEL);
        let pods = world.api::<Pod>().list(&parameters).await?.items;
        let text = pods.iter().find_map(|pod| pod.annotations().get(CAPTURE_ANNOTATION));
        let terms: Terms = serde_json::from_str(text.context("it is told nothing")?)?;
        ensure!(terms.level == level, "it is told {terms:?}");
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
