//! From an object to its children and a true status.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::core::v1::{Event, Pod, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::{Resource, ResourceExt};
use perennial_crds::LLMDeployment;
use perennial_crds::serving::{LOADING_PATH, LoadingProgress, LoadingStage, METRICS_PORT};
use perennial_tests::world::{condition, model};
use perennial_tests::{Play, World, run};
use serde_json::json;

#[test]
fn the_smallest_object_becomes_children_and_ready() -> Result<()> {
    run("smallest", async |world| {
        let _operator = world.operator().await?;
        let object = world.serve("tiny", &json!({})).await?;
        let settled = world.settled("tiny").await?;
        let revision = world.serving("tiny").await?;
        ensure!(world.deployments().await? == std::slice::from_ref(&revision));
        ensure!(world.names::<ControllerRevision>().await? == std::slice::from_ref(&revision));
        owned_by(&object, &world.api::<Deployment>().get(&revision).await?)?;
        owned_by(&object, &world.api::<ControllerRevision>().get(&revision).await?)?;
        owned_by(&object, &world.api::<Service>().get("tiny").await?)?;
        owned_by(&object, &world.api::<ServiceAccount>().get("tiny").await?)?;
        owned_by(&object, &world.api::<PodDisruptionBudget>().get("tiny").await?)?;
        let status = settled.status.unwrap_or_default();
        ensure!(status.ready.as_deref() == Some("1/1") && status.ready_replicas == 1 && status.replicas == 1);
        ensure!(status.summary.as_deref() == Some("Routable") && status.stable_revision == Some(revision));
        for (kind, reason) in [
            ("Available", "AllReplicasReady"),
            ("CapacityAvailable", "Scheduled"),
            ("ModelResolved", "Resolved"),
            ("Progressing", "RevisionServes"),
        ] {
            world.condition("tiny", kind, "True", reason).await?;
        }
        // It is told after the status is written.
        world
            .until("the event is told", async || {
                let events = world.api::<Event>().list(&kube::api::ListParams::default()).await?;
                let told: Vec<_> = events.iter().filter_map(|event| event.reason.as_deref()).collect();
                ensure!(told.contains(&"BecameReady"), "{told:?}");
                Ok(())
            })
            .await
    })
}

fn owned_by<K: Resource<DynamicType = ()>>(object: &LLMDeployment, child: &K) -> Result<()> {
    let owners = child.owner_references();
    ensure!(
        owners.len() == 1 && Some(&owners[0].uid) == object.uid().as_ref() && owners[0].controller == Some(true),
        "the {} is owned by {owners:?}",
        K::kind(&())
    );
    Ok(())
}

#[test]
fn a_suspended_object_keeps_everything_but_its_pods_and_resumes() -> Result<()> {
    run("suspend", async |world| {
        let _operator = world.operator().await?;
        world.serve("tiny", &json!({})).await?;
        world.settled("tiny").await?;
        let revision = world.serving("tiny").await?;
        world
            .merge::<LLMDeployment>("tiny", &json!({"spec": {"suspend": true}}))
            .await?;
        world.condition("tiny", "Ready", "False", "Suspended").await?;
        gone(world).await?;
        rests(world).await?;
        ensure!(world.serving("tiny").await? == revision);
        world
            .merge::<LLMDeployment>("tiny", &json!({"spec": {"suspend": false}}))
            .await?;
        world.settled("tiny").await?;
        ensure!(world.deployments().await? == [revision]);
        Ok(())
    })
}

#[test]
fn zero_replicas_and_back() -> Result<()> {
    run("zero", async |world| {
        let _operator = world.operator().await?;
        world.serve("tiny", &json!({"replicas": 2})).await?;
        world.settled("tiny").await?;
        let revision = world.serving("tiny").await?;
        world
            .merge::<LLMDeployment>("tiny", &json!({"spec": {"replicas": 0}}))
            .await?;
        world.condition("tiny", "Ready", "False", "ScaledToZero").await?;
        gone(world).await?;
        rests(world).await?;
        // A change at zero replicas has nothing to protect.
        world.merge::<LLMDeployment>("tiny", &model('b')).await?;
        world
            .until("the old Deployment is gone", async || {
                let left = world.deployments().await?;
                ensure!(left.len() == 1 && left[0] != revision, "{left:?}");
                Ok(())
            })
            .await?;
        world
            .merge::<LLMDeployment>("tiny", &json!({"spec": {"replicas": 2}}))
            .await?;
        let object = world.settled("tiny").await?;
        ensure!(
            object
                .status
                .is_some_and(|status| status.ready.as_deref() == Some("2/2"))
        );
        Ok(())
    })
}

async fn gone(world: &World) -> Result<()> {
    world
        .until("all pods are gone", async || {
            ensure!(world.names::<Pod>().await?.is_empty());
            Ok(())
        })
        .await
}

/// No work is under way.
async fn rests(world: &World) -> Result<()> {
    world
        .until("nothing is under way", async || {
            let object = world.llm("tiny").await?;
            for absent in ["Reconciling", "Stalled"] {
                if let Some(found) = condition(&object, absent) {
                    anyhow::bail!("{absent}: {}: {}", found.reason, found.message);
                }
            }
            Ok(())
        })
        .await
}

#[test]
fn created_suspended_it_has_no_pods() -> Result<()> {
    run("born-suspended", async |world| {
        let _operator = world.operator().await?;
        world.serve("tiny", &json!({"suspend": true})).await?;
        world.condition("tiny", "Ready", "False", "Suspended").await?;
        rests(world).await?;
        ensure!(world.names::<Pod>().await?.is_empty());
        world
            .merge::<LLMDeployment>("tiny", &json!({"spec": {"suspend": false}}))
            .await?;
        world.settled("tiny").await?;
        Ok(())
    })
}

#[test]
fn a_starting_replica_tells_its_stage_and_percent() -> Result<()> {
    run("cold-start", async |world| {
        // The only address of a pod at which a test may answer. It is taken back before the pod is ready, because no
        // EndpointSlice may carry it.
        let address = "127.0.0.77";
        let listener = tokio::net::TcpListener::bind((address, METRICS_PORT)).await?;
        let progress = LoadingProgress {
            stage: LoadingStage::Downloading,
            downloaded_bytes: 420,
            total_bytes: Some(1000),
            remaining_seconds: Some(30),
        };
        let router = axum::Router::new().route(LOADING_PATH, axum::routing::get(async move || axum::Json(progress)));
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        world.script_all(Play::Running(Some(address.to_owned()))).await;
        let _operator = world.operator().await?;
        world.serve("tiny", &json!({})).await?;
        // On a busy machine the operator may get no answer for a look.
        world
            .until("stage and percent are told", async || {
                let reconciling = world.condition("tiny", "Reconciling", "True", "Downloading").await?;
                ensure!(reconciling.message.contains("42 %"), "{}", reconciling.message);
                let cold_start = world.llm("tiny").await?.status.and_then(|status| status.cold_start);
                let cold_start = cold_start.context("no cold start")?;
                ensure!(cold_start.stage == LoadingStage::Downloading && cold_start.downloaded_percent == Some(42));
                Ok(())
            })
            .await?;
        server.abort();
        world.script_all(Play::ready()).await;
        let object = world.settled("tiny").await?;
        ensure!(object.status.is_some_and(|status| status.cold_start.is_none()));
        Ok(())
    })
}
