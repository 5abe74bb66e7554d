//! What goes wrong with pods, as reasons and as sentences that say what to do.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use perennial_crds::NAME_LABEL;
use perennial_crds::serving::FailureReason;
use perennial_tests::world::condition;
use perennial_tests::{Play, run};
use serde_json::{Value, json};

struct Case {
    name: &'static str,
    spec: Value,
    play: Play,
    reason: &'static str,
    /// Whether only somebody's action helps.
    stalled: bool,
    says: &'static str,
}

fn case(name: &'static str, play: Play, reason: &'static str, stalled: bool, says: &'static str) -> Case {
    let spec = json!({});
    Case {
        name,
        spec,
        play,
        reason,
        stalled,
        says,
    }
}

fn cases() -> Vec<Case> {
    use FailureReason::{
        DeviceFailed, DigestMismatch, InsufficientMemory, Internal, InvalidArguments, InvalidModel, ModelNotFound,
        NoSpaceLeft, SourceUnreachable, Unauthorized, UnsupportedModel,
    };
    let server = |name, reason: FailureReason, word, stalled| {
        case(
            name,
            Play::gives_up(reason, "do this"),
            word,
            stalled,
            "do this (restarted 2 times)",
        )
    };
    let secret = "secret \"hub\" not found";
    vec![
        case(
            "image",
            Play::ImagePullBackOff,
            "ImagePullBackOff",
            false,
            "Correct spec.runtime.image",
        ),
        case(
            "oom",
            Play::OomKilled,
            "OOMKilled",
            false,
            "Raise spec.resources.memory",
        ),
        case(
            "crash",
            Play::CrashLoop(101, "thread panicked".to_owned()),
            "CrashLoopBackOff",
            false,
            "thread panicked",
        ),
        case(
            "secret",
            Play::ConfigError(secret.to_owned()),
            "SecretNotFound",
            false,
            "Make the Secret",
        ),
        case(
            "setup",
            Play::ConfigError("no such device".to_owned()),
            "PodSetupFailed",
            false,
            "no such device",
        ),
        case(
            "evicted",
            Play::Evicted("The node was low on resource: ephemeral-storage.".to_owned()),
            "NoSpaceLeft",
            true,
            "was evicted",
        ),
        server("missing", ModelNotFound, "ModelNotFound", true),
        server("unauthorized", Unauthorized, "Unauthorized", true),
        server("unreachable", SourceUnreachable, "SourceUnreachable", false),
        server("digest", DigestMismatch, "DigestMismatch", true),
        server("disk", NoSpaceLeft, "NoSpaceLeft", true),
        server("memory", InsufficientMemory, "InsufficientMemory", true),
        server("unsupported", UnsupportedModel, "UnsupportedModel", true),
        server("damaged", InvalidModel, "InvalidModel", true),
        server("arguments", InvalidArguments, "InvalidArguments", true),
        server("device", DeviceFailed, "DeviceFailed", false),
        server("internal", Internal, "ServerFailed", false),
        // The rest is what the real scheduler says.
        Case {
            spec: json!({"accelerator": {"count": 1}}),
            ..case(
                "no-gpu",
                Play::ready(),
                "InsufficientAccelerator",
                false,
                "lower spec.accelerator.count",
            )
        },
        Case {
            spec: json!({"accelerator": {"count": 0}, "podTemplate": {"spec": {"nodeSelector": {"disk": "none"}}}}),
            ..case("no-node", Play::ready(), "Unschedulable", false, "Add room")
        },
        Case {
            spec: json!({"model": {
                "digest": format!("sha256:{}", "a".repeat(64)),
                "source": {"oci": null, "persistentVolumeClaim": {"claimName": "nowhere"}},
            }}),
            ..case(
                "no-claim",
                Play::ready(),
                "VolumeClaimNotFound",
                false,
                "Make the claim",
            )
        },
    ]
}

#[test]
fn what_keeps_pods_from_getting_ready_is_said_with_what_to_do() -> Result<()> {
    run("reasons", async |world| {
        let all = cases();
        let plays: std::collections::BTreeMap<String, Play> = all
            .iter()
            .map(|case| (case.name.to_owned(), case.play.clone()))
            .collect();
        world
            .player
            .script(&world.namespace, move |pod: &Pod| {
                let name = pod.labels().get(NAME_LABEL);
                name.and_then(|name| plays.get(name)).cloned().unwrap_or(Play::ready())
            })
            .await;
        let _operator = world.operator().await?;
        for case in &all {
            world.serve(case.name, &case.spec).await.with_context(|| case.name)?;
        }
        let mut wrong = Vec::new();
        for case in &all {
            let outcome = world
                .until(case.name, async || {
                    let object = world.llm(case.name).await?;
                    let ready = condition(&object, "Ready").context("no condition Ready")?;
                    ensure!(
                        ready.status == "False" && ready.reason == case.reason,
                        "{}: {}",
                        ready.reason,
                        ready.message
                    );
                    ensure!(ready.message.contains(case.says), "{}", ready.message);
                    let word = if case.stalled { "Stalled" } else { "Reconciling" };
                    let told = condition(&object, word).with_context(|| format!("no condition {word}"))?;
                    ensure!(told.reason == case.reason, "{word}: {}", told.reason);
                    let capacity = condition(&object, "CapacityAvailable").context("no capacity")?;
                    let lacks = ["InsufficientAccelerator", "Unschedulable", "PodForbidden"].contains(&case.reason);
                    ensure!(
                        lacks == (capacity.status == "False"),
                        "CapacityAvailable={}",
                        capacity.status
                    );
                    Ok(())
                })
                .await;
            if let Err(error) = outcome {
                wrong.push(format!("{error:#}"));
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    })
}

#[test]
fn a_quota_that_allows_no_pod_is_said() -> Result<()> {
    run("quota", async |world| {
        world.allow_no("pods", "none").await?;
        let _operator = world.operator().await?;
        world.serve("tiny", &json!({})).await?;
        let ready = world.condition("tiny", "Ready", "False", "PodForbidden").await?;
        ensure!(
            ready.message.contains("exceeded quota") && ready.message.contains("Raise the quota"),
            "{}",
            ready.message
        );
        Ok(())
    })
}
