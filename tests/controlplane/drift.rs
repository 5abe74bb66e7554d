//! DriftPolicies and the API: targets that are missing, taken or silent, and what is said of them.

use anyhow::{Context as _, Result, ensure};
use perennial_crds::DriftPolicy;
use perennial_tests::{World, run};
use serde_json::json;

async fn watch(world: &World, name: &str, target: &str) -> Result<DriftPolicy> {
    let object = json!({
        "apiVersion": "perennial.dev/v1alpha1", "kind": "DriftPolicy",
        "metadata": {"name": name, "namespace": world.namespace}, "spec": {"targetRef": {"name": target}},
    });
    Ok(world.create(&object).await?)
}

async fn says(world: &World, name: &str, kind: &str, status: &str, reason: &str) -> Result<String> {
    world
        .until(&format!("{name}: {kind}={status}, {reason}"), async || {
            let policy = world.api::<DriftPolicy>().get(name).await?;
            let generation = policy.metadata.generation;
            let conditions = policy.status.context("it has no status")?.conditions;
            let found = conditions.into_iter().find(|condition| condition.type_ == kind);
            let found = found.context("there is no such condition")?;
            ensure!(
                found.status == status && found.reason == reason && found.observed_generation == generation,
                "it is {}, {}: {}",
                found.status,
                found.reason,
                found.message
            );
            Ok(found.message)
        })
        .await
}

#[test]
fn a_policy_says_what_it_misses_and_goes_on_when_it_is_there() -> Result<()> {
    run("policy", async |world| {
        let _operator = world.operator().await?;
        watch(world, "first", "tiny").await?;
        let said = says(world, "first", "Ready", "False", "TargetNotFound").await?;
        ensure!(said.contains("LLMDeployment tiny"), "{said}");
        world.serve("tiny", &json!({"replicas": 2})).await?;
        world.settled("tiny").await?;
        // Nobody listens at the addresses of played pods. One of them may have been heard of before the other.
        world
            .until("none of both is heard", async || {
                let said = says(world, "first", "Observing", "False", "PanesUnavailable").await?;
                ensure!(said.contains("0 of 2 replicas"), "{said}");
                Ok(())
            })
            .await?;
        says(world, "first", "Drifted", "False", "Learning").await?;
        let column = async |expected: Option<(&str, &str)>| {
            world
                .until("the target's status says what its policy says", async || {
                    let drift = world.llm("tiny").await?.status.unwrap_or_default().drift;
                    let said = drift
                        .as_ref()
                        .map(|drift| (drift.policy.as_str(), drift.phase.as_str()));
                    ensure!(said == expected, "{said:?}");
                    Ok(())
                })
                .await
        };
        column(Some(("first", "Learning"))).await?;
        watch(world, "second", "tiny").await?;
        let said = says(world, "second", "Stalled", "True", "TargetTaken").await?;
        ensure!(said.contains("DriftPolicy first"), "{said}");
        // The younger one takes over when the older one goes, and follows its spec.
        world.delete::<DriftPolicy>("first").await?;
        says(world, "second", "Observing", "False", "PanesUnavailable").await?;
        column(Some(("second", "Learning"))).await?;
        world
            .merge::<DriftPolicy>("second", &json!({"spec": {"targetRef": {"name": "other"}}}))
            .await?;
        says(world, "second", "Ready", "False", "TargetNotFound").await?;
        column(None).await?;
        world.stays_untouched(std::time::Duration::from_secs(15)).await
    })
}
