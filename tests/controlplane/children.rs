//! Children that somebody edits or deletes.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::{Resource, ResourceExt};
use perennial_crds::{LLMDeployment, REVISION_LABEL};
use perennial_tests::operator::Settings;
use perennial_tests::world::{model, pod_uids};
use perennial_tests::{Ledger, Play, Wire, World, normal, run};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The namespace is again as it was.
async fn as_before(world: &World, before: &std::collections::BTreeMap<String, Value>, what: &str) -> Result<()> {
    world
        .until(&format!("all is as it was before {what}"), async || {
            let after = normal::state(&world.client, &world.namespace).await?;
            let differences: Vec<String> = normal::differences(before, &after)
                .into_iter()
                .filter(|line| !line.contains("generation") && !line.contains("observedGeneration"))
                .filter(|line| !line.contains("deployment.kubernetes.io/revision"))
                // Made again from the Deployment, a revision has the API server's defaults in it.
                .filter(|line| !line.starts_with("ControllerRevision") || !line.contains(".data.template."))
                .collect();
            ensure!(differences.is_empty(), "{}", differences.join("\n"));
            Ok(())
        })
        .await
}

#[test]
fn a_child_that_was_edited_is_put_right() -> Result<()> {
    run("edited", async |world| {
        let _operator = world.operator().await?;
        world.serve("tiny", &json!({})).await?;
        world.settled("tiny").await?;
        let revision = world.serving("tiny").await?;
        world.at_rest().await?;
        world.at_rest().await?;
        let before = normal::state(&world.client, &world.namespace).await?;
        world
            .merge::<Service>("tiny", &json!({"spec": {"selector": {"mine": "now"}}}))
            .await?;
        // A key that nobody of us set stays, as with any server-side apply; take it out again.
        world
            .merge::<Service>("tiny", &json!({"spec": {"selector": {"mine": null}}}))
            .await?;
        world
            .merge::<Service>(
                "tiny",
                &json!({"spec": {"selector": {"perennial.dev/revision": "other"}}}),
            )
            .await?;
        as_before(world, &before, "the Service was led elsewhere").await?;
        world
            .merge::<ServiceAccount>("tiny", &json!({"automountServiceAccountToken": true}))
            .await?;
        as_before(world, &before, "the ServiceAccount was edited").await?;
        world
            .merge::<PodDisruptionBudget>("tiny", &json!({"spec": {"maxUnavailable": "100%"}}))
            .await?;
        as_before(world, &before, "the PodDisruptionBudget was edited").await?;
        world
            .merge::<Deployment>(
                &revision,
                &json!({"spec": {"strategy": {"rollingUpdate": {"maxUnavailable": 1}}}}),
            )
            .await?;
        as_before(world, &before, "the strategy was edited").await?;
        let image = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "server", "image": "registry.example/other:1"},
        ]}}}});
        let parameters = kube::api::PatchParams::default();
        world
            .api::<Deployment>()
            .patch(&revision, &parameters, &kube::api::Patch::Strategic(image))
            .await?;
        as_before(world, &before, "the image was edited").await?;
        world
            .merge::<Deployment>(
                &revision,
                &json!({"metadata": {"labels": {"perennial.dev/name": null}}}),
            )
            .await?;
        as_before(world, &before, "the Deployment lost its label").await?;
        world.settled("tiny").await?;
        Ok(())
    })
}

async fn deleted<K>(world: &World, name: &str) -> Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let uid = world.api::<K>().get(name).await?.uid();
    world.delete::<K>(name).await?;
    world
        .until(&format!("the {} is there again", K::kind(&())), async || {
            ensure!(world.api::<K>().get(name).await?.uid() != uid);
            Ok(())
        })
        .await?;
    world.settled("tiny").await?;
    Ok(())
}

#[test]
fn a_child_that_was_deleted_is_made_again() -> Result<()> {
    run("deleted", async |world| {
        let _operator = world.operator().await?;
        world.serve("tiny", &json!({})).await?;
        world.settled("tiny").await?;
        let revision = world.serving("tiny").await?;
        // The Deployment controller tells of the pod a little later than the pod does.
        world.at_rest().await?;
        let (before, pods) = (
            normal::state(&world.client, &world.namespace).await?,
            pod_uids(world).await?,
        );
        deleted::<ServiceAccount>(world, "tiny").await?;
        deleted::<PodDisruptionBudget>(world, "tiny").await?;
        deleted::<Service>(world, "tiny").await?;
        deleted::<ControllerRevision>(world, &revision).await?;
        ensure!(pod_uids(world).await? == pods, "what runs was restarted");
        deleted::<Deployment>(world, &revision).await?;
        as_before(world, &before, "everything was deleted once").await
    })
}

#[test]
fn all_revisions_deleted_at_once_restart_nothing() -> Result<()> {
    run("no-revisions", async |world| {
        let _operator = world.operator().await?;
        world.serve("tiny", &json!({})).await?;
        world.settled("tiny").await?;
        world.merge::<LLMDeployment>("tiny", &model('b')).await?;
        world.alone("tiny").await?;
        ensure!(world.names::<ControllerRevision>().await?.len() == 2);
        let (revision, pods) = (world.serving("tiny").await?, pod_uids(world).await?);
        let generation = world.api::<Deployment>().get(&revision).await?.metadata.generation;
        for name in world.names::<ControllerRevision>().await? {
            world.delete::<ControllerRevision>(&name).await?;
        }
        world
            .until(
                "the revision that serves is stored again, and marked as having served",
                async || {
                    let found = world.api::<ControllerRevision>().get(&revision).await?;
                    ensure!(found.annotations().contains_key("perennial.dev/served"));
                    Ok(())
                },
            )
            .await?;
        world.settled("tiny").await?;
        ensure!(world.api::<Deployment>().get(&revision).await?.metadata.generation == generation);
        ensure!(pod_uids(world).await? == pods, "what runs was restarted");
        Ok(())
    })
}

#[test]
fn a_service_deleted_in_the_middle_of_a_rollout_leads_to_the_old_revision_again() -> Result<()> {
    run("service-gone", async |world| {
        let _operator = world.operator().await?;
        world.serve("tiny", &json!({})).await?;
        world.settled("tiny").await?;
        let first = world.serving("tiny").await?;
        let old = first.clone();
        world
            .player
            .script(&world.namespace, move |pod| {
                if pod.labels().get(REVISION_LABEL) == Some(&old) {
                    Play::ready()
                } else {
                    Play::Running(None)
                }
            })
            .await;
        world.merge::<LLMDeployment>("tiny", &model('b')).await?;
        world
            .until("both revisions are there", async || {
                ensure!(world.deployments().await?.len() == 2);
                Ok(())
            })
            .await?;
        let pods = pod_uids(world).await?;
        let uid = world.api::<Service>().get("tiny").await?.uid();
        world.delete::<Service>("tiny").await?;
        world
            .until("the Service is there again", async || {
                ensure!(world.api::<Service>().get("tiny").await?.uid() != uid);
                Ok(())
            })
            .await?;
        ensure!(world.serving("tiny").await? == first);
        world.condition("tiny", "Ready", "True", "Routable").await?;
        let after = pod_uids(world).await?;
        ensure!(pods.iter().all(|uid| after.contains(uid)), "what runs was restarted");
        world.script_all(Play::ready()).await;
        world.settled("tiny").await?;
        Ok(())
    })
}

#[test]
fn a_scale_of_the_child_is_corrected_once_without_a_fight() -> Result<()> {
    run("child-scale", async |world| {
        let ledger = Ledger::default();
        let _operator = world
            .operator_with(&Settings::of(&world.namespace), Wire::new(ledger.clone()))
            .await?;
        world.serve("tiny", &json!({})).await?;
        world.settled("tiny").await?;
        let revision = world.serving("tiny").await?;
        let count = || {
            ledger
                .writes()
                .iter()
                .filter(|write| write.resource == "deployments")
                .count()
        };
        let before = count();
        let target = format!("deployment/{revision}");
        world
            .cluster
            .kubectl(&["--namespace", &world.namespace, "scale", &target, "--replicas=4"])?;
        world
            .until("there is one replica again", async || {
                let found = world.api::<Deployment>().get(&revision).await?;
                ensure!(found.spec.and_then(|spec| spec.replicas) == Some(1));
                ensure!(found.status.and_then(|status| status.replicas) == Some(1));
                Ok(())
            })
            .await?;
        world.alone("tiny").await?;
        ensure!(count() == before + 1, "{} writes for one correction", count() - before);
        world.stays_untouched(Duration::from_secs(3)).await
    })
}
