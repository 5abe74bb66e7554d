//! From a drift to a better model, with played Jobs: what they say is believed only as far as it is true.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::ListParams;
use perennial_crds::DriftPolicy;
use perennial_crds::retraining::FinishedCycle;
use perennial_tests::cycles::{
    COMPONENT, Script, digest, ended, judged, learned, play, policy, prepare, says, serves, status, trained, verified,
};
use perennial_tests::player::Play;
use perennial_tests::run;
use serde_json::{Value, json};

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
        perennial_tests::waiting::until(400, "all lies are told", async || {
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
            // Longer and longer, so that it comes to an end however slow the machine is.
            tokio::time::sleep(Duration::from_millis(900 + 370 * (killed % 7) + 50 * killed)).await;
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
        // The operator knows of it.
        world.settled("tiny").await?;
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
