//! From a drift to a better model, with played Jobs: what they say is believed only as far as it is true.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{ListParams, PostParams};
use perennial_crds::DriftPolicy;
use perennial_crds::retraining::FinishedCycle;
use perennial_tests::drifted::{self, Change};
use perennial_tests::player::Play;
use perennial_tests::{World, run};
use serde_json::{Value, json};

pub(crate) const COMPONENT: &str = "app.kubernetes.io/component";

pub(crate) fn digest(digit: char) -> String {
    format!("sha256:{}", digit.to_string().repeat(64))
}

pub(crate) fn prepared() -> Value {
    json!({"schema": "prepare/v1", "outcome": "Succeeded", "manifestDigest": digest('d'), "suitesDigest": digest('e'),
        "records": 300, "items": {"recent": 60}})
}

pub(crate) fn trained(candidate: char) -> Value {
    json!({"schema": "retrain/v1", "outcome": "Succeeded", "data": {"manifestDigest": digest('d')}, "model": {
        "uri": "file:///mnt/model/model.gguf", "digest": digest(candidate), "baseDigest": digest('a'), "kind": "Merged"}})
}

pub(crate) fn verified(candidate: char) -> Value {
    json!({"schema": "verify/v1", "outcome": "Succeeded", "digest": digest(candidate), "sizeBytes": 1000})
}

pub(crate) fn judged(candidate: char, gain: f64) -> Value {
    json!({"schema": "gate/v1", "outcome": "Succeeded", "championDigest": digest('a'), "candidateDigest": digest(candidate),
        "suites": [{"name": "recent", "items": 60, "championMean": 0.5, "candidateMean": 0.5 + gain, "differenceMean": gain,
        "differenceSquaresMean": gain * gain + 0.0001}]})
}

/// What the Jobs of a cycle say.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) prepare: Play,
    pub(crate) retrain: Play,
    pub(crate) gate: Play,
    /// Of other Jobs, by their component.
    pub(crate) others: BTreeMap<&'static str, Play>,
}

impl Script {
    /// All goes well.
    pub(crate) fn good(candidate: char) -> Self {
        Self {
            prepare: Play::Ended(0, prepared().to_string()),
            retrain: Play::Ended(0, trained(candidate).to_string()),
            gate: Play::Checked(verified(candidate).to_string(), judged(candidate, 0.1).to_string()),
            others: BTreeMap::new(),
        }
    }

    fn trains(words: &Value) -> Self {
        Self {
            retrain: Play::Ended(0, words.to_string()),
            ..Self::good('b')
        }
    }

    fn judges(verification: &Value, words: &Value) -> Self {
        Self {
            gate: Play::Checked(verification.to_string(), words.to_string()),
            ..Self::good('b')
        }
    }

    fn play(&self, pod: &Pod) -> Play {
        match pod.labels().get(COMPONENT).map(String::as_str) {
            Some("prepare") => self.prepare.clone(),
            Some("retrain") => self.retrain.clone(),
            Some("gate") => self.gate.clone(),
            Some(other) => self.others.get(other).cloned().unwrap_or_else(Play::ready),
            None => Play::ready(),
        }
    }
}

/// All Jobs play this from now on.
pub(crate) async fn play(world: &World, script: Script) {
    world.player.script(&world.namespace, move |pod| script.play(pod)).await;
}

pub(crate) fn policy(mode: &str) -> Value {
    json!({
        "apiVersion": "perennial.dev/v1alpha1", "kind": "DriftPolicy", "metadata": {"name": "watch"},
        "spec": {
            "targetRef": {"name": "tiny"},
            "observation": {"paneSeconds": drifted::PANE_SECONDS, "minSamples": 25, "maxPaneSeconds": 60},
            "baseline": {"learned": {"seconds": 600, "minSamples": 1000, "season": "None"}},
            "confirmSeconds": 30,
            "retraining": {
                "workspace": {"persistentVolumeClaim": {"claimName": "work"}},
                "limits": {"cooldownSeconds": 0, "maxCycles": {"count": 100, "perDays": 1}, "stopAfterUnpromoted": 100,
                    "backoff": {"initialSeconds": 0, "maxSeconds": 0}},
            },
            "gate": {"minItems": 50},
            "promotion": {"mode": mode},
        },
    })
}

/// A volume and its claim.
async fn claim(world: &World, name: &str) -> Result<()> {
    let volume = format!("{}-{name}", world.namespace);
    let object = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "storageClassName": "",
        "claimRef": {"namespace": world.namespace, "name": name}, "hostPath": {"path": "/nowhere"}}});
    let volumes: kube::Api<PersistentVolume> = kube::Api::all(world.client.clone());
    volumes
        .create(&PostParams::default(), &serde_json::from_value(object)?)
        .await?;
    let object = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": {
        "accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": volume,
        "resources": {"requests": {"storage": "1Gi"}}}});
    world.create::<PersistentVolumeClaim>(&object).await?;
    Ok(())
}

/// A target that keeps records, and a policy whose memory says that what users ask has changed.
pub(crate) async fn prepare(world: &World, policy: &Value) -> Result<DriftPolicy> {
    prepare_after(world, policy, Change::LongerPrompts).await
}

/// The same after another change.
pub(crate) async fn prepare_after(world: &World, policy: &Value, change: Change) -> Result<DriftPolicy> {
    claim(world, "work").await?;
    claim(world, "records").await?;
    // A young cluster's volume controller looks for claims every 15 s, and nothing is scheduled before.
    perennial_tests::waiting::until(60, "the claims are bound", async || {
        let claims = world
            .api::<PersistentVolumeClaim>()
            .list(&ListParams::default())
            .await?;
        let bound = |claim: &PersistentVolumeClaim| {
            claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
        };
        ensure!(claims.iter().all(bound), "a claim is not bound");
        Ok(())
    })
    .await?;
    world
        .serve(
            "tiny",
            &json!({"capture": {"level": "Payload", "storage": {"persistentVolumeClaim": {"claimName": "records"}}}}),
        )
        .await?;
    let operator = world.operator().await?;
    let target = world.settled("tiny").await?;
    drop(operator);
    let policy: DriftPolicy = world.create(policy).await?;
    for map in drifted::remembered(&policy, &target.uid().unwrap_or_default(), &digest('a'), change)? {
        world.api::<ConfigMap>().create(&PostParams::default(), &map).await?;
    }
    Ok(policy)
}

pub(crate) async fn status(world: &World) -> Result<perennial_crds::DriftPolicyStatus> {
    world
        .api::<DriftPolicy>()
        .get("watch")
        .await?
        .status
        .context("it has no status")
}

/// Waits until so many cycles have ended, and gives them, newest first.
pub(crate) async fn ended(world: &World, count: usize) -> Result<Vec<FinishedCycle>> {
    perennial_tests::waiting::until(120, &format!("{count} cycles have ended"), async || {
        let status = status(world).await?;
        ensure!(
            status.cycles.len() >= count,
            "{:?} {:?}",
            status.cycle,
            status
                .conditions
                .iter()
                .map(|one| (&one.type_, &one.reason, &one.message))
                .collect::<Vec<_>>()
        );
        Ok(status.cycles)
    })
    .await
}

pub(crate) async fn says(world: &World, kind: &str, status_of: &str, reason: &str) -> Result<String> {
    world
        .until(&format!("{kind}={status_of}, {reason}"), async || {
            let conditions = status(world).await?.conditions;
            let found = conditions.into_iter().find(|condition| condition.type_ == kind);
            let found = found.context("there is no such condition")?;
            ensure!(
                found.status == status_of && found.reason == reason,
                "it is {}, {}: {}",
                found.status,
                found.reason,
                found.message
            );
            Ok(found.message)
        })
        .await
}

pub(crate) async fn learned(world: &World) -> Result<Vec<String>> {
    let parameters = ListParams::default().labels("perennial.dev/learned");
    let found = world.api::<ControllerRevision>().list(&parameters).await?;
    Ok(found.items.iter().map(ResourceExt::name_any).collect())
}

async fn origin(world: &World) -> Result<(Option<String>, Option<String>)> {
    let model = world.llm("tiny").await?.status.and_then(|status| status.model);
    Ok(model.map_or((None, None), |model| (model.origin, model.digest)))
}

pub(crate) async fn serves(world: &World, expected: &str, digit: char) -> Result<()> {
    world
        .until(&format!("{expected} serves"), async || {
            let (origin, digest_of) = origin(world).await?;
            ensure!(
                origin.as_deref() == Some(expected) && digest_of == Some(digest(digit)),
                "{origin:?} {digest_of:?}"
            );
            Ok(())
        })
        .await?;
    world.settled("tiny").await.map(|_| ())
}

#[test]
fn a_better_model_serves_beside_a_spec_that_nobody_touched() -> Result<()> {
    run("promoted", async |world| {
        prepare(world, &policy("Automatic")).await?;
        let before = world.llm("tiny").await?;
        play(world, Script::good('b')).await;
        let _operator = world.operator().await?;
        serves(world, "DriftPolicy/watch", 'b').await?;
        let cycles = ended(world, 1).await?;
        ensure!(
            cycles[0].outcome == "Promoted" && cycles[0].candidate_digest == Some(digest('b')),
            "{cycles:?}"
        );
        ensure!(world.llm("tiny").await?.spec == before.spec, "the spec was written");
        // Served from the volume, by its digest, and nothing else of the volume is to be seen.
        let revision = world.serving("tiny").await?;
        let deployment = world.api::<Deployment>().get(&revision).await?;
        let pod = deployment.spec.and_then(|spec| spec.template.spec).context("a pod")?;
        let server = &pod.containers[0];
        let args = server.args.clone().unwrap_or_default();
        ensure!(
            args.contains(&"--source=file:///mnt/model/model.gguf".to_owned())
                && args.contains(&format!("--digest={}", digest('b'))),
            "{args:?}"
        );
        let mount = server
            .volume_mounts
            .iter()
            .flatten()
            .find(|mount| mount.name == "model");
        let path = mount.and_then(|mount| mount.sub_path.clone()).unwrap_or_default();
        ensure!(
            path == format!("perennial-cycles/watch/{}/output", cycles[0].id),
            "{path}"
        );
        // The three Jobs, once each.
        let jobs = world.api::<Job>().list(&ListParams::default()).await?.items;
        let mut kinds: Vec<_> = jobs
            .iter()
            .filter_map(|job| job.labels().get(COMPONENT).cloned())
            .collect();
        kinds.sort();
        ensure!(kinds == ["gate", "prepare", "retrain"], "{kinds:?}");
        ensure!(
            jobs.iter()
                .all(|job| job.owner_references().iter().all(|owner| owner.kind == "DriftPolicy"))
        );
        // The brake, and its release.
        world
            .merge::<perennial_crds::LLMDeployment>("tiny", &json!({"spec": {"model": {"learned": "Ignore"}}}))
            .await?;
        serves(world, "Spec", 'a').await?;
        world
            .merge::<perennial_crds::LLMDeployment>("tiny", &json!({"spec": {"model": {"learned": "Follow"}}}))
            .await?;
        serves(world, "DriftPolicy/watch", 'b').await?;
        // One that serves goes on without its policy.
        world.delete::<DriftPolicy>("watch").await?;
        // A young cluster's garbage collector looks for new kinds every 30 s.
        perennial_tests::waiting::until(60, "the policy's ConfigMaps are gone", async || {
            let maps = world.names::<ConfigMap>().await?;
            ensure!(!maps.iter().any(|name| name.starts_with("watch-")), "{maps:?}");
            Ok(())
        })
        .await?;
        serves(world, "DriftPolicy/watch", 'b').await?;
        // Another model in Git wins.
        world
            .merge::<perennial_crds::LLMDeployment>("tiny", &perennial_tests::world::model('c'))
            .await?;
        serves(world, "Spec", 'c').await
    })
}

#[test]
fn what_a_job_claims_is_believed_only_if_it_is_true() -> Result<()> {
    run("lies", async |world| {
        let change = |mut value: Value, pointer: &str, to: Value| {
            *value.pointer_mut(pointer).expect("the place is there") = to;
            value
        };
        let long = format!("{}{}", trained('b'), " ".repeat(5000));
        let lies: Vec<(&str, Script, &str)> = vec![
            ("no last words", Script::trains(&json!("")), "UntrustedOutput"),
            (
                "another base",
                Script::trains(&change(trained('b'), "/model/baseDigest", json!(digest('9')))),
                "UntrustedOutput",
            ),
            (
                "other data",
                Script::trains(&change(trained('b'), "/data/manifestDigest", json!(digest('9')))),
                "UntrustedOutput",
            ),
            (
                "elsewhere",
                Script::trains(&change(trained('b'), "/model/uri", json!("file:///mnt/model/../x"))),
                "UntrustedOutput",
            ),
            (
                "garbage for a digest",
                Script::trains(&change(trained('b'), "/model/digest", json!("latest"))),
                "UntrustedOutput",
            ),
            (
                "another contract",
                Script::trains(&change(trained('b'), "/schema", json!("retrain/v9"))),
                "UntrustedOutput",
            ),
            (
                "an adapter",
                Script::trains(&change(trained('b'), "/model/kind", json!("Adapter"))),
                "AdapterNotServed",
            ),
            ("the base itself", Script::trains(&trained('a')), "NoImprovement"),
            (
                "nothing better",
                Script::trains(&change(trained('b'), "/outcome", json!("NoImprovement"))),
                "NoImprovement",
            ),
            (
                "5 KiB",
                Script {
                    retrain: Play::Ended(0, long),
                    ..Script::good('b')
                },
                "UntrustedOutput",
            ),
            (
                "other bytes",
                Script::judges(&verified('9'), &judged('b', 0.1)),
                "UntrustedOutput",
            ),
            (
                "no check",
                Script {
                    gate: Play::Ended(0, judged('c', 0.1).to_string()),
                    ..Script::good('c')
                },
                "UntrustedOutput",
            ),
        ];
        prepare(world, &policy("Automatic")).await?;
        // The n-th cycle plays the n-th lie: each policy's cycles are told apart by their id.
        let seen: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
        let scripts: Vec<Script> = lies.iter().map(|(_, script, _)| script.clone()).collect();
        let (known, count) = (Arc::clone(&seen), scripts.len());
        world
            .player
            .script(&world.namespace, move |pod| {
                let Some(cycle) = pod.labels().get("perennial.dev/drift-cycle") else {
                    return Play::ready();
                };
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                let next = known.len();
                let number = *known.entry(cycle.clone()).or_insert(next);
                // Behind the last lie a Job waits for ever.
                scripts.get(number).map_or(Play::Nothing, |script| script.play(pod))
            })
            .await;
        let _operator = world.operator().await?;
        let mut told: BTreeMap<String, FinishedCycle> = BTreeMap::new();
        perennial_tests::waiting::until(180, "all lies are told", async || {
            for cycle in status(world).await?.cycles {
                told.entry(cycle.id.clone()).or_insert(cycle);
            }
            ensure!(told.len() >= count, "{} of {count} cycles have ended", told.len());
            Ok(())
        })
        .await?;
        let numbers = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (id, cycle) in &told {
            let (what, _, reason) = &lies[numbers[id]];
            ensure!(
                cycle.message.starts_with(&format!("{reason}: ")) && cycle.outcome != "Promoted",
                "{what}: {} {}",
                cycle.outcome,
                cycle.message
            );
        }
        ensure!(learned(world).await?.is_empty(), "something was learned");
        serves(world, "Spec", 'a').await
    })
}

#[test]
fn a_candidate_waits_for_the_person_and_git_supersedes_it() -> Result<()> {
    run("approved", async |world| {
        prepare(world, &policy("Approve")).await?;
        play(world, Script::good('b')).await;
        let _operator = world.operator().await?;
        let said = says(world, "CandidateAvailable", "True", "Proposed").await?;
        ensure!(said.contains(&digest('b')), "{said}");
        let candidate = status(world)
            .await?
            .cycle
            .and_then(|cycle| cycle.candidate)
            .context("a candidate")?;
        ensure!(
            candidate.claim_name == "work" && candidate.path.ends_with("/output/model.gguf"),
            "{candidate:?}"
        );
        ensure!(learned(world).await?.is_empty(), "it was rolled out without a word");
        let approved = json!({"spec": {"promotion": {"approvedDigests": [digest('b')]}}});
        world.merge::<DriftPolicy>("watch", &approved).await?;
        serves(world, "DriftPolicy/watch", 'b').await?;
        world
            .merge::<perennial_crds::LLMDeployment>("tiny", &perennial_tests::world::model('c'))
            .await?;
        serves(world, "Spec", 'c').await
    })
}

#[test]
fn a_candidate_that_does_not_come_up_is_taken_back_and_not_tried_again() -> Result<()> {
    run("rolledback", async |world| {
        prepare(world, &policy("Automatic")).await?;
        world
            .merge::<perennial_crds::LLMDeployment>(
                "tiny",
                &json!({"spec": {"rollout": {"progressDeadlineSeconds": 10}}}),
            )
            .await?;
        let champion = world.serving("tiny").await?;
        let script = Script::good('b');
        world
            .player
            .script(&world.namespace, move |pod| {
                let revision = pod.labels().get("perennial.dev/revision");
                match revision {
                    Some(revision) if *revision != champion => Play::Running(None),
                    _ => script.play(pod),
                }
            })
            .await;
        let _operator = world.operator().await?;
        let cycles = ended(world, 2).await?;
        let oldest = cycles.last().context("a cycle")?;
        ensure!(oldest.outcome == "RolledBack", "{oldest:?}");
        // The same bytes again are known.
        let next = &cycles[cycles.len() - 2];
        ensure!(
            next.outcome == "Rejected" && next.message.starts_with("KnownCandidate"),
            "{next:?}"
        );
        ensure!(learned(world).await?.is_empty(), "it is still learned");
        serves(world, "Spec", 'a').await
    })
}

#[test]
fn an_operator_that_is_killed_again_and_again_makes_each_job_once() -> Result<()> {
    run("killed", async |world| {
        prepare(world, &policy("Automatic")).await?;
        play(world, Script::good('b')).await;
        let mut killed = 0_u64;
        while learned(world).await?.is_empty() {
            let mut operator = world.operator().await?;
            tokio::time::sleep(Duration::from_millis(900 + 370 * (killed % 7))).await;
            operator.kill();
            killed += 1;
            ensure!(
                killed < 60,
                "it does not come to an end: {:?}",
                status(world).await?.cycle
            );
        }
        let _operator = world.operator().await?;
        serves(world, "DriftPolicy/watch", 'b').await?;
        let cycles = ended(world, 1).await?;
        ensure!(cycles.len() == 1 && cycles[0].outcome == "Promoted", "{cycles:?}");
        let jobs = world.api::<Job>().list(&ListParams::default()).await?.items;
        ensure!(
            jobs.len() == 3,
            "{:?}",
            jobs.iter().map(ResourceExt::name_any).collect::<Vec<_>>()
        );
        println!("killed {killed} times");
        Ok(())
    })
}

#[test]
fn what_stands_against_a_cycle_is_told() -> Result<()> {
    run("blocked", async |world| {
        let mut object = policy("Automatic");
        object["spec"]["retraining"]["jobTemplateRef"] = json!({"name": "mine"});
        prepare(world, &object).await?;
        play(world, Script::good('b')).await;
        let _operator = world.operator().await?;
        let said = says(world, "RetrainingBlocked", "True", "JobTemplateInvalid").await?;
        ensure!(said.contains("there is no CronJob mine"), "{said}");
        let cron_job = |suspend: bool, variable: &str| {
            json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "mine"}, "spec": {"schedule": "0 0 1 1 *",
                "suspend": suspend, "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [
                {"name": "trainer", "image": "registry.example/mine", "env": [{"name": variable, "value": "1"}]}]}}}}}})
        };
        world
            .create::<k8s_openapi::api::batch::v1::CronJob>(&cron_job(false, "MINE"))
            .await?;
        let said = says(world, "RetrainingBlocked", "True", "JobTemplateInvalid").await?;
        let said = world
            .until("the schedule is named", async || {
                let said = says(world, "RetrainingBlocked", "True", "JobTemplateInvalid").await?;
                ensure!(said.contains("suspend"), "{said}");
                Ok(said)
            })
            .await
            .unwrap_or(said);
        ensure!(said.contains("suspend"), "{said}");
        world
            .merge::<perennial_crds::LLMDeployment>("tiny", &json!({"spec": {"capture": {"level": "Features"}}}))
            .await?;
        world
            .merge::<k8s_openapi::api::batch::v1::CronJob>("mine", &json!({"spec": {"suspend": true}}))
            .await?;
        says(world, "RetrainingBlocked", "True", "CaptureOff").await?;
        ensure!(world.names::<Job>().await?.is_empty(), "a Job was made");
        world
            .merge::<perennial_crds::LLMDeployment>("tiny", &json!({"spec": {"capture": {"level": "Payload"}}}))
            .await?;
        serves(world, "DriftPolicy/watch", 'b').await?;
        // The user's container trained, with what the contract gives it.
        let jobs = world
            .api::<Job>()
            .list(&ListParams::default().labels(&format!("{COMPONENT}=retrain")))
            .await?
            .items;
        let spec = jobs
            .first()
            .and_then(|job| job.spec.as_ref()?.template.spec.clone())
            .context("a Job")?;
        let container = &spec.containers[0];
        let variables: Vec<_> = container
            .env
            .iter()
            .flatten()
            .map(|variable| variable.name.as_str())
            .collect();
        ensure!(
            container.image.as_deref() == Some("registry.example/mine")
                && variables.contains(&"MINE")
                && variables.contains(&"RETRAIN_BASE_MODEL_DIGEST"),
            "{variables:?}"
        );
        Ok(())
    })
}
