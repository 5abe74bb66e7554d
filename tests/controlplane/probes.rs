//! Fixed prompts, asked by played Jobs: a service that answers them otherwise is never answered with retraining.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::ListParams;
use perennial_crds::DriftPolicy;
use perennial_crds::probe_spec::{ProbeStatus, ProbeVerdict};
use perennial_tests::cycles::{COMPONENT, Script, digest, ended, play, policy, prepare, prepare_after, says, status};
use perennial_tests::drifted::Change;
use perennial_tests::player::Play;
use perennial_tests::{World, run};
use serde_json::{Value, json};

/// Answers to 32 prompts, so many of them other than usual.
fn answered(other: usize) -> Play {
    let answers: String = (0..32_usize)
        .map(|number| {
            if number < other {
                "ffffffff".to_owned()
            } else {
                format!("{number:08x}")
            }
        })
        .collect();
    let words = json!({"schema": "probe/v1", "outcome": "Succeeded", "setDigest": digest('5'), "answers": answers});
    Play::Ended(0, words.to_string())
}

fn script(probe: Play) -> Script {
    let mut script = Script::good('b');
    script.others.insert("probe", probe);
    script
}

fn with_probes() -> Value {
    let mut policy = policy("Automatic");
    policy["spec"]["probe"] = json!({"promptSetRef": {"configMapName": "fixed-prompts"}, "intervalSeconds": 10});
    // Until the reference is learned.
    policy["spec"]["suspend"] = json!(true);
    policy
}

async fn probes(world: &World, what: &str, wanted: impl Fn(&ProbeStatus) -> bool) -> Result<ProbeStatus> {
    perennial_tests::waiting::until(120, what, async || {
        let probe = status(world).await?.probe.context("nothing is said of probes")?;
        ensure!(wanted(&probe), "{probe:?}");
        Ok(probe)
    })
    .await
}

async fn made(world: &World, component: &str) -> Result<usize> {
    let labels = ListParams::default().labels(&format!("{COMPONENT}={component}"));
    Ok(world.api::<Job>().list(&labels).await?.items.len())
}

#[test]
fn a_service_that_answers_otherwise_is_not_retrained_but_told_of() -> Result<()> {
    run("probes", async |world| {
        prepare(world, &with_probes()).await?;
        play(world, script(answered(0))).await;
        let _operator = world.operator().await?;
        says(world, "ServingChanged", "False", "Learning").await?;
        let learned = probes(world, "the reference is learned", |probe| {
            probe.verdict == ProbeVerdict::Same
        })
        .await?;
        ensure!(learned.runs >= 3 && learned.prompts == 32, "{learned:?}");
        says(world, "Drifted", "True", "InputDrift").await?;
        // Another answer to every third prompt: no accident.
        play(world, script(answered(11))).await;
        let said = says(world, "ServingChanged", "True", "ServingRegression").await?;
        ensure!(said.contains("11 of 32 fixed prompts"), "{said}");
        says(world, "Drifted", "True", "ServingRegression").await?;
        world
            .merge::<DriftPolicy>("watch", &json!({"spec": {"suspend": false}}))
            .await?;
        says(world, "RetrainingBlocked", "True", "ServingRegression").await?;
        let runs = probes(world, "a run", |_| true).await?.runs;
        probes(world, "two more runs", |probe| probe.runs >= runs + 2).await?;
        ensure!(
            made(world, "prepare").await? == 0,
            "a regression was answered with retraining"
        );
        let told = status(world).await?;
        ensure!(told.cause.as_deref() == Some("ServingRegression"), "{:?}", told.cause);
        // Mended: the drift that was there all the time is answered.
        play(world, script(answered(0))).await;
        let cycles = ended(world, 1).await?;
        ensure!(cycles[0].outcome == "Promoted", "{cycles:?}");
        let jobs = world.api::<Job>().list(&ListParams::default()).await?.items;
        let strange = jobs
            .iter()
            .find(|job| job.owner_references().iter().any(|owner| owner.kind != "DriftPolicy"));
        ensure!(strange.is_none(), "{:?}", strange.map(ResourceExt::name_any));
        Ok(())
    })
}

#[test]
fn ratings_that_get_worse_are_answered_with_retraining_once_the_service_is_known_to_be_well() -> Result<()> {
    run("ratings", async |world| {
        prepare_after(world, &with_probes(), Change::WorseRatings).await?;
        play(world, script(answered(0))).await;
        let _operator = world.operator().await?;
        says(world, "Drifted", "True", "QualityDrop").await?;
        let told = status(world).await?;
        let moved: Vec<&str> = told
            .signals
            .iter()
            .filter(|signal| signal.moved)
            .map(|signal| signal.name.as_str())
            .collect();
        ensure!(moved == ["NegativeFeedback"], "{moved:?}");
        world
            .merge::<DriftPolicy>(
                "watch",
                &json!({"spec": {"suspend": false, "responses": {"qualityDrop": "Alert"}}}),
            )
            .await?;
        says(world, "RetrainingBlocked", "False", "AlertOnly").await?;
        ensure!(
            made(world, "prepare").await? == 0,
            "an alert was answered with retraining"
        );
        world
            .merge::<DriftPolicy>("watch", &json!({"spec": {"responses": {"qualityDrop": "Retrain"}}}))
            .await?;
        let cycles = ended(world, 1).await?;
        ensure!(cycles[0].outcome == "Promoted", "{cycles:?}");
        Ok(())
    })
}

#[test]
fn a_cycle_that_runs_stops_when_the_service_answers_otherwise() -> Result<()> {
    run("regressed", async |world| {
        prepare(world, &with_probes()).await?;
        play(world, script(answered(0))).await;
        let operator = world.operator().await?;
        probes(world, "the reference is learned", |probe| {
            probe.verdict == ProbeVerdict::Same
        })
        .await?;
        drop(operator);
        world
            .merge::<DriftPolicy>("watch", &json!({"spec": {"suspend": false}}))
            .await?;
        let mut slow = script(answered(0));
        slow.retrain = Play::Nothing;
        play(world, slow).await;
        let _operator = world.operator().await?;
        perennial_tests::waiting::until(90, "a cycle trains", async || {
            let phase = status(world).await?.phase;
            ensure!(
                phase == Some(perennial_crds::drift_policy::Phase::Retraining),
                "{phase:?}"
            );
            Ok(())
        })
        .await?;
        let mut other = script(answered(20));
        other.retrain = Play::Nothing;
        play(world, other).await;
        let cycles = ended(world, 1).await?;
        ensure!(
            cycles[0].outcome == "Withdrawn" && cycles[0].message.starts_with("ServingRegression: "),
            "{cycles:?}"
        );
        says(world, "RetrainingBlocked", "True", "ServingRegression").await?;
        Ok(())
    })
}

#[test]
fn prompts_that_cannot_be_asked_are_told_of() -> Result<()> {
    run("unasked", async |world| {
        prepare(world, &with_probes()).await?;
        let words =
            json!({"schema": "probe/v1", "outcome": "DataRejected", "message": "line 2 of prompts.jsonl is no JSON"});
        play(world, script(Play::Ended(0, words.to_string()))).await;
        let _operator = world.operator().await?;
        let said = says(world, "ServingChanged", "False", "ProbesFailed").await?;
        ensure!(said.contains("line 2 of prompts.jsonl"), "{said}");
        // A policy whose probes never were answered goes on as one without.
        world
            .merge::<DriftPolicy>("watch", &json!({"spec": {"suspend": false}}))
            .await?;
        let cycles = ended(world, 1).await?;
        ensure!(cycles[0].outcome == "Promoted", "{cycles:?}");
        Ok(())
    })
}
