//! Capture switched on, changed and switched off under a model that serves: nothing of the model restarts.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Service};
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};
use perennial_crds::capture::{CAPTURE_ANNOTATION, Level, Terms};
use perennial_crds::{LLMDeployment, REVISION_LABEL};
use perennial_tests::waiting::until;
use perennial_tests::world::{condition, model, pod_uids};
use perennial_tests::{Play, World, normal, run};
use serde_json::{Value, json};

const CLAIM: &str = "records";
const COLLECTOR: &str = "tiny-capture";

fn payload(per_mille: u32) -> Value {
    json!({"spec": {"capture": {
        "level": "Payload", "maxSamplePerMille": per_mille,
        "storage": {"persistentVolumeClaim": {"claimName": CLAIM}},
    }}})
}

/// A claim with a volume behind it, which nothing mounts.
async fn claim(world: &World) -> Result<()> {
    let name = format!("{}-{CLAIM}", world.namespace);
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "storageClassName": "",
            "claimRef": {"namespace": world.namespace, "name": CLAIM}, "hostPath": {"path": "/nowhere"},
        },
    });
    let volumes: Api<PersistentVolume> = Api::all(world.client.clone());
    volumes
        .create(&PostParams::default(), &serde_json::from_value(volume)?)
        .await?;
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM},
        "spec": {
            "accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": name,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    });
    world.create::<PersistentVolumeClaim>(&claim).await?;
    world
        .until("the claim is bound", async || {
            let claim = world.api::<PersistentVolumeClaim>().get(CLAIM).await?;
            let phase = claim.status.and_then(|status| status.phase);
            ensure!(phase.as_deref() == Some("Bound"), "{phase:?}");
            Ok(())
        })
        .await
}

/// The pods of revisions.
async fn replicas(world: &World) -> Result<Vec<Pod>> {
    let parameters = ListParams::default().labels(REVISION_LABEL);
    Ok(world.api::<Pod>().list(&parameters).await?.items)
}

async fn replica_uids(world: &World) -> Result<Vec<String>> {
    let mut uids: Vec<String> = replicas(world).await?.iter().filter_map(ResourceExt::uid).collect();
    uids.sort();
    Ok(uids)
}

/// What all replicas are told, if they are told the same.
async fn told(world: &World) -> Result<Option<Terms>> {
    let pods = replicas(world).await?;
    ensure!(!pods.is_empty(), "there is no replica");
    let mut told: Vec<Option<&String>> = pods
        .iter()
        .map(|pod| pod.annotations().get(CAPTURE_ANNOTATION))
        .collect();
    told.dedup();
    ensure!(told.len() == 1, "they are told different things: {told:?}");
    Ok(told[0].map(|text| serde_json::from_str(text)).transpose()?)
}

/// Waits until all replicas are told this.
async fn until_told(world: &World, what: &str, check: impl Fn(Option<&Terms>) -> bool) -> Result<Option<Terms>> {
    world
        .until(&format!("the replicas are told {what}"), async || {
            let terms = told(world).await?;
            ensure!(check(terms.as_ref()), "they are told {terms:?}");
            Ok(terms)
        })
        .await
}

/// Waits until nothing of a collector is there.
async fn until_gone(world: &World) -> Result<()> {
    world
        .until("the collector is gone", async || {
            ensure!(world.api::<Deployment>().get_opt(COLLECTOR).await?.is_none());
            ensure!(world.api::<Service>().get_opt(COLLECTOR).await?.is_none());
            let pods = world.api::<Pod>().list(&ListParams::default()).await?.items;
            ensure!(pods.iter().all(|pod| pod.labels().contains_key(REVISION_LABEL)));
            ensure!(condition(&world.llm("tiny").await?, "Capturing").is_none());
            Ok(())
        })
        .await
}

#[test]
fn capture_is_switched_on_and_off_and_nothing_restarts() -> Result<()> {
    run("capture", async |world| {
        let _operator = world.operator().await?;
        world.serve("tiny", &json!({"replicas": 2})).await?;
        world.alone("tiny").await?;
        let (revision, pods) = (world.serving("tiny").await?, pod_uids(world).await?);
        let generation = world.api::<Deployment>().get(&revision).await?.metadata.generation;
        ensure!(told(world).await?.is_none());

        world.merge::<LLMDeployment>("tiny", &payload(50)).await?;
        let waits = world
            .condition("tiny", "Capturing", "False", "CollectorNotReady")
            .await?;
        ensure!(
            waits.message.contains("VolumeClaimNotFound") || waits.message.contains("started"),
            "{}",
            waits.message
        );
        claim(world).await?;
        let works = world.condition("tiny", "Capturing", "True", "CollectorReady").await?;
        ensure!(works.message.contains("50 of 1000"), "{}", works.message);
        let terms = until_told(world, "to keep texts", |terms| {
            terms.is_some_and(|terms| terms.level == Level::Payload)
        });
        let terms = terms.await?.context("they are told nothing")?;
        let service = world.api::<Service>().get(COLLECTOR).await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).context("no address")?;
        ensure!(terms.collector == Some(format!("http://{address}:9091")), "{terms:?}");
        ensure!(terms.revision.as_ref() == Some(&revision), "{terms:?}");
        let collector = world.api::<Deployment>().get(COLLECTOR).await?;
        let container = collector
            .spec
            .and_then(|spec| spec.template.spec)
            .context("no pod")?
            .containers
            .remove(0);
        let token = container.env.iter().flatten().find(|one| one.name == "COLLECT_TOKEN");
        ensure!(
            token.is_some_and(|token| token.value == terms.token),
            "{:?}",
            container.env
        );

        // It is no replica, no revision, and nothing to be rolled out.
        let object = world.settled("tiny").await?;
        let status = object.status.as_ref().context("no status")?;
        ensure!((status.replicas, status.ready_replicas) == (2, 2), "{status:?}");
        ensure!(status.stable_revision.as_ref() == Some(&revision));
        let revisions = world.names::<ControllerRevision>().await?;
        ensure!(revisions.iter().eq([&revision]), "{revisions:?}");
        world.stays_untouched(Duration::from_secs(3)).await?;

        world.merge::<LLMDeployment>("tiny", &payload(1000)).await?;
        until_told(world, "to keep all", |terms| {
            terms.is_some_and(|terms| terms.sample_per_mille == 1000)
        })
        .await?;
        world
            .merge::<LLMDeployment>("tiny", &json!({"spec": {"capture": {"level": "None"}}}))
            .await?;
        until_told(world, "to keep nothing", |terms| {
            terms.is_some_and(|terms| terms.level == Level::None)
        })
        .await?;
        until_gone(world).await?;
        world
            .merge::<LLMDeployment>("tiny", &json!({"spec": {"capture": null}}))
            .await?;
        until_told(world, "nothing", |terms| terms.is_none()).await?;
        world.alone("tiny").await?;

        ensure!(world.serving("tiny").await? == revision);
        ensure!(pod_uids(world).await? == pods, "what runs was restarted");
        let after = world.api::<Deployment>().get(&revision).await?.metadata.generation;
        ensure!(after == generation, "the Deployment was changed");
        ensure!(world.api::<PersistentVolumeClaim>().get_opt(CLAIM).await?.is_some());
        Ok(())
    })
}

#[test]
fn new_pods_and_new_revisions_are_told_and_the_collector_stays() -> Result<()> {
    run("capture-goes-on", async |world| {
        let _operator = world.operator().await?;
        claim(world).await?;
        let mut spec = payload(50)["spec"].take();
        spec["replicas"] = 1.into();
        world.serve("tiny", &spec).await?;
        world.condition("tiny", "Capturing", "True", "CollectorReady").await?;
        let keeps = |terms: Option<&Terms>| terms.is_some_and(|terms| terms.level == Level::Payload);
        until_told(world, "to keep texts", keeps).await?;
        let collector = world.api::<Deployment>().get(COLLECTOR).await?;
        world
            .merge::<LLMDeployment>("tiny", &json!({"spec": {"replicas": 3}}))
            .await?;
        world
            .until("there are three replicas that are told", async || {
                ensure!(replicas(world).await?.len() == 3);
                ensure!(keeps(told(world).await?.as_ref()));
                Ok(())
            })
            .await?;
        let first = world.serving("tiny").await?;
        world.merge::<LLMDeployment>("tiny", &model('b')).await?;
        let second = world
            .until("the new revision serves, told its own name", async || {
                let serving = world.serving("tiny").await?;
                ensure!(serving != first);
                let terms = told(world).await?;
                ensure!(terms.is_some_and(|terms| terms.revision.as_ref() == Some(&serving)));
                Ok(serving)
            })
            .await?;
        world.settled("tiny").await?;
        let mut expected = vec![second, COLLECTOR.to_owned()];
        expected.sort();
        world
            .until("only the new revision and the collector are there", async || {
                ensure!(world.deployments().await? == expected);
                Ok(())
            })
            .await?;
        let after = world.api::<Deployment>().get(COLLECTOR).await?;
        ensure!(after.uid() == collector.uid() && after.metadata.generation == collector.metadata.generation);

        // What somebody does to it is put right, with the replicas left alone.
        let pods = replica_uids(world).await?;
        world.delete::<Deployment>(COLLECTOR).await?;
        world
            .until("the collector is there again", async || {
                ensure!(world.api::<Deployment>().get(COLLECTOR).await?.uid() != collector.uid());
                Ok(())
            })
            .await?;
        world.delete::<Service>(COLLECTOR).await?;
        world
            .until("the replicas are told the new address and token", async || {
                let service = world.api::<Service>().get(COLLECTOR).await?;
                let address = service.spec.and_then(|spec| spec.cluster_ip).context("no address")?;
                let terms = told(world).await?.context("they are told nothing")?;
                ensure!(terms.collector == Some(format!("http://{address}:9091")));
                Ok(())
            })
            .await?;
        world.condition("tiny", "Capturing", "True", "CollectorReady").await?;
        ensure!(replica_uids(world).await? == pods, "what serves was restarted");
        world.delete::<LLMDeployment>("tiny").await?;
        // A young cluster's garbage collector looks for new kinds every 30 s.
        until(60, "everything goes with the object but the volume", async || {
            let left = normal::versions(&world.client, &world.namespace).await?;
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })
        .await?;
        ensure!(world.api::<PersistentVolumeClaim>().get_opt(CLAIM).await?.is_some());
        Ok(())
    })
}

#[test]
fn a_model_is_served_and_changed_without_its_collector() -> Result<()> {
    run("capture-taken", async |world| {
        let _operator = world.operator().await?;
        claim(world).await?;
        let foreign = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": COLLECTOR},
            "spec": {"ports": [{"port": 80}], "selector": {"app": "mine"}},
        });
        world.create::<Service>(&foreign).await?;
        world.serve("tiny", payload(50).get("spec").context("a spec")?).await?;
        let taken = world
            .condition("tiny", "Capturing", "False", "CaptureUnavailable")
            .await?;
        ensure!(
            taken.message.contains("the Service tiny-capture is there already"),
            "{}",
            taken.message
        );
        world.alone("tiny").await?;
        let first = world.serving("tiny").await?;
        world.merge::<LLMDeployment>("tiny", &model('b')).await?;
        world.alone("tiny").await?;
        ensure!(world.serving("tiny").await? != first);
        ensure!(told(world).await?.is_none());
        let found = world.api::<Service>().get(COLLECTOR).await?;
        ensure!(found.owner_references().is_empty(), "it was taken over");
        world.delete::<Service>(COLLECTOR).await?;
        world.condition("tiny", "Capturing", "True", "CollectorReady").await?;
        Ok(())
    })
}

#[test]
fn a_collector_that_cannot_run_says_why() -> Result<()> {
    run("capture-image", async |world| {
        let _operator = world.operator().await?;
        claim(world).await?;
        world
            .player
            .script(&world.namespace, |pod| {
                if pod.labels().contains_key(REVISION_LABEL) {
                    Play::ready()
                } else {
                    Play::ImagePullBackOff
                }
            })
            .await;
        world.serve("tiny", payload(50).get("spec").context("a spec")?).await?;
        world.settled("tiny").await?;
        world
            .until("the condition has the word and what to do", async || {
                let object = world.llm("tiny").await?;
                let said = condition(&object, "Capturing").context("nothing is said")?;
                let words = ["ImagePullBackOff", "trainer.image"];
                ensure!(said.status == "False" && said.reason == "CollectorNotReady", "{said:?}");
                ensure!(words.iter().all(|word| said.message.contains(word)), "{}", said.message);
                Ok(())
            })
            .await?;
        world.condition("tiny", "Ready", "True", "Routable").await?;
        Ok(())
    })
}

#[test]
fn records_go_to_a_bucket_when_its_secret_is_there() -> Result<()> {
    run("capture-bucket", async |world| {
        let _operator = world.operator().await?;
        let collector = |play: Play| {
            move |pod: &Pod| {
                if pod.labels().contains_key(REVISION_LABEL) {
                    Play::ready()
                } else {
                    play.clone()
                }
            }
        };
        let missing = Play::ConfigError("secret \"keys\" not found".to_owned());
        world.player.script(&world.namespace, collector(missing)).await;
        let storage = json!({"s3": {"bucket": "archive", "credentialsSecretName": "keys"}});
        let capture = json!({"capture": {"level": "Payload", "storage": storage}});
        world.serve("tiny", &capture).await?;
        world
            .until("the condition says which Secret to make", async || {
                let object = world.llm("tiny").await?;
                let said = condition(&object, "Capturing").context("nothing is said")?;
                let words = ["SecretNotFound", "\"keys\"", "credentialsSecretName"];
                ensure!(said.status == "False" && said.reason == "CollectorNotReady", "{said:?}");
                ensure!(words.iter().all(|word| said.message.contains(word)), "{}", said.message);
                Ok(())
            })
            .await?;
        world.condition("tiny", "Ready", "True", "Routable").await?;
        world.player.script(&world.namespace, collector(Play::ready())).await;
        let works = world.condition("tiny", "Capturing", "True", "CollectorReady").await?;
        ensure!(works.message.contains("in the bucket archive"), "{}", works.message);
        // A second place beside it is refused; in its place it is taken.
        let claim = json!({"claimName": CLAIM});
        let both = json!({"spec": {"capture": {"storage": {"persistentVolumeClaim": claim}}}});
        let refused = world
            .merge::<LLMDeployment>("tiny", &both)
            .await
            .err()
            .context("it is taken")?;
        ensure!(refused.to_string().contains("exactly one place"), "{refused}");
        let other = json!({"spec": {"capture": {"storage": {"persistentVolumeClaim": claim, "s3": null}}}});
        world.merge::<LLMDeployment>("tiny", &other).await?;
        world
            .until("the collector has the claim and no credentials", async || {
                let deployment = world.api::<Deployment>().get(COLLECTOR).await?;
                let text = serde_json::to_string(&deployment.spec)?;
                ensure!(
                    text.contains(CLAIM) && !text.contains("AWS_") && !text.contains("emptyDir"),
                    "{text}"
                );
                Ok(())
            })
            .await?;
        Ok(())
    })
}

#[test]
fn pods_of_a_revision_without_the_file_are_left_as_they_are() -> Result<()> {
    run("capture-older", async |world| {
        let operator = world.operator().await?;
        world.serve("tiny", &json!({})).await?;
        world.alone("tiny").await?;
        let revision = world.serving("tiny").await?;
        operator.stop().await?;
        // As an older release would have stored it.
        let mut older = world.api::<ControllerRevision>().get(&revision).await?;
        let mut data = older.data.take().context("no data")?.0;
        strip(&mut data["template"])?;
        world.delete::<ControllerRevision>(&revision).await?;
        older.data = Some(k8s_openapi::apimachinery::pkg::runtime::RawExtension(data));
        older.metadata.resource_version = None;
        older.metadata.uid = None;
        older.metadata.managed_fields = None;
        world
            .until("the older record is in place", async || {
                let api = world.api::<ControllerRevision>();
                Ok(api.create(&PostParams::default(), &older).await?)
            })
            .await?;
        let _operator = world.operator().await?;
        claim(world).await?;
        world.merge::<LLMDeployment>("tiny", &payload(50)).await?;
        let said = world
            .condition("tiny", "Capturing", "False", "CaptureUnavailable")
            .await?;
        ensure!(
            said.message.contains("older release") && said.message.contains(&revision),
            "{}",
            said.message
        );
        world.condition("tiny", "Ready", "True", "Routable").await?;
        ensure!(world.serving("tiny").await? == revision);
        // The next revision has the file.
        let image = json!({"spec": {"runtime": {"image": "registry.example/perennial-server:next"}}});
        world.merge::<LLMDeployment>("tiny", &image).await?;
        world.condition("tiny", "Capturing", "True", "CollectorReady").await?;
        ensure!(world.serving("tiny").await? != revision);
        Ok(())
    })
}

/// Takes the volume with the pod's annotations out of a template.
fn strip(template: &mut Value) -> Result<()> {
    let spec = &mut template["spec"];
    let volumes = spec["volumes"].as_array_mut().context("no volumes")?;
    let count = volumes.len();
    volumes.retain(|volume| volume["name"] != "pod-info");
    ensure!(volumes.len() + 1 == count, "there was no such volume");
    for container in spec["containers"].as_array_mut().context("no containers")? {
        let mounts = container["volumeMounts"].as_array_mut().context("no mounts")?;
        mounts.retain(|mount| mount["name"] != "pod-info");
    }
    Ok(())
}
