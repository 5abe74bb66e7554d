//! Learned models in a registry, with played Jobs: served from there, tagged once they serve, and found again by a cluster that
//! was built again.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::ResourceExt;
use kube::api::ListParams;
use perennial_crds::{DriftPolicy, LLMDeployment};
use perennial_tests::cycles::{COMPONENT, Script, digest, ended, play, policy, prepare, says, serves, status, trained};
use perennial_tests::player::Play;
use perennial_tests::{World, run};
use serde_json::{Value, json};

const REPOSITORY: &str = "registry.example/models/tiny";

fn address(digit: char) -> String {
    format!("oci://{REPOSITORY}@{}", digest(digit))
}

fn to_the_registry(mode: &str) -> Value {
    let mut policy = policy(mode);
    policy["spec"]["retraining"]["output"] =
        json!({"oci": {"repository": REPOSITORY, "pullSecretRef": {"name": "pull"}}});
    policy["spec"]["promotion"]["publishTag"] = json!("champion");
    policy
}

fn script(restore: &Value, publish: Play) -> Script {
    let mut words = trained('b');
    words["model"]["uri"] = json!(address('b'));
    let mut script = Script {
        retrain: Play::Ended(0, words.to_string()),
        ..Script::good('b')
    };
    script.others.insert("restore", Play::Ended(0, restore.to_string()));
    script.others.insert("publish", publish);
    script
}

fn nothing() -> Value {
    json!({"schema": "restore/v1", "outcome": "Succeeded", "message": "there is no such tag"})
}

fn written() -> Play {
    let words = json!({"schema": "publish/v1", "outcome": "Succeeded", "digest": digest('7')});
    Play::Ended(0, words.to_string())
}

async fn secret(world: &World) -> Result<()> {
    let config = json!({"auths": {}}).to_string();
    let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pull"},
        "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config}});
    world.create::<Secret>(&object).await?;
    Ok(())
}

async fn variable(world: &World, component: &str, name: &str) -> Result<String> {
    let labels = ListParams::default().labels(&format!("{COMPONENT}={component}"));
    let job = world.api::<Job>().list(&labels).await?.items.pop();
    let pod = job.and_then(|job| job.spec?.template.spec);
    let set = pod.and_then(|pod| pod.containers[0].env.clone()).unwrap_or_default();
    let found = set.into_iter().find(|variable| variable.name == name);
    found
        .and_then(|variable| variable.value)
        .with_context(|| format!("no {component} Job is told {name}"))
}

#[test]
fn a_cluster_that_is_built_again_finds_what_was_learned() -> Result<()> {
    run("registry", async |world| {
        secret(world).await?;
        prepare(world, &to_the_registry("Automatic")).await?;
        play(world, script(&nothing(), written())).await;
        let operator = world.operator().await?;
        serves(world, "DriftPolicy/watch", 'b').await?;
        let cycles = ended(world, 1).await?;
        ensure!(
            cycles[0].outcome == "Promoted" && cycles[0].message.contains("its tag is written"),
            "{cycles:?}"
        );
        // Served from the registry with the Secret for it, and no volume.
        let deployment = world.api::<Deployment>().get(&world.serving("tiny").await?).await?;
        let pod = deployment.spec.and_then(|spec| spec.template.spec).context("a pod")?;
        let args = pod.containers[0].args.clone().unwrap_or_default();
        ensure!(args.contains(&format!("--source={}", address('b'))), "{args:?}");
        let text = serde_json::to_string(&pod)?;
        ensure!(
            text.contains("\"pull\"") && !text.contains("persistentVolumeClaim"),
            "{text}"
        );
        let told = variable(world, "retrain", "RETRAIN_OUTPUT_URI").await?;
        ensure!(told == format!("oci://{REPOSITORY}"), "{told}");
        let published = (
            variable(world, "publish", "PUBLISH_URI").await?,
            variable(world, "publish", "PUBLISH_TAG").await?,
        );
        ensure!(published == (address('b'), "champion".to_owned()), "{published:?}");
        let lineage: Value = serde_json::from_str(&variable(world, "publish", "PUBLISH_LINEAGE").await?)?;
        ensure!(
            lineage["base"]["digest"] == digest('a') && lineage["manifestDigest"] == digest('d'),
            "{lineage}"
        );
        // The cluster is lost, but for the registry and what Git says.
        drop(operator);
        world.delete::<DriftPolicy>("watch").await?;
        world.delete::<LLMDeployment>("tiny").await?;
        perennial_tests::waiting::until(90, "all of it is gone", async || {
            let jobs = world.names::<Job>().await?;
            let deployments = world.deployments().await?;
            ensure!(jobs.is_empty() && deployments.is_empty(), "{jobs:?} {deployments:?}");
            Ok(())
        })
        .await?;
        for claim in ["work", "records"] {
            world.delete::<PersistentVolumeClaim>(claim).await?;
        }
        world.serve("tiny", &json!({})).await?;
        world.create::<DriftPolicy>(&to_the_registry("Automatic")).await?;
        let found = json!({"schema": "restore/v1", "outcome": "Succeeded", "digest": digest('b'), "lineage": lineage});
        play(world, script(&found, written())).await;
        let _operator = world.operator().await?;
        serves(world, "DriftPolicy/watch", 'b').await?;
        says(world, "RetrainingBlocked", "False", "NoDrift").await?;
        ensure!(status(world).await?.cycles.is_empty(), "a cycle was begun");
        // Another model in Git wins, as ever.
        world
            .merge::<LLMDeployment>("tiny", &perennial_tests::world::model('c'))
            .await?;
        serves(world, "Spec", 'c').await
    })
}

#[test]
fn a_proposal_is_tagged_and_a_tag_that_cannot_be_written_changes_nothing_else() -> Result<()> {
    run("tagged", async |world| {
        secret(world).await?;
        prepare(world, &to_the_registry("Propose")).await?;
        let denied = json!({"schema": "publish/v1", "outcome": "Untrusted", "message": "the credentials may not push"});
        play(world, script(&nothing(), Play::Ended(1, denied.to_string()))).await;
        let _operator = world.operator().await?;
        perennial_tests::waiting::until(60, "the tag is told of", async || {
            let said = says(world, "CandidateAvailable", "True", "Proposed").await?;
            let told = said.contains("its tag could not be written: the credentials may not push");
            ensure!(told, "{said}");
            Ok(())
        })
        .await?;
        let candidate = status(world)
            .await?
            .cycle
            .and_then(|cycle| cycle.candidate)
            .context("a candidate")?;
        ensure!(
            candidate.uri == Some(address('b')) && candidate.claim_name.is_empty(),
            "{candidate:?}"
        );
        // A policy that only proposes never lets a model serve by itself, so it asks for none.
        let labels = ListParams::default().labels(&format!("{COMPONENT}=restore"));
        let asked = world.api::<Job>().list(&labels).await?.items;
        ensure!(asked.is_empty(), "{:?}", asked.first().map(ResourceExt::name_any));
        serves(world, "Spec", 'a').await
    })
}
