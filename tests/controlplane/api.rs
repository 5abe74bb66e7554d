//! The subresources, and what kubectl and an autoscaler make of them.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use perennial_crds::LLMDeployment;
use perennial_tests::run;
use perennial_tests::waiting::until;
use perennial_tests::world::pinned;
use serde_json::json;

#[test]
fn an_object_that_nobody_has_looked_at_says_so() -> Result<()> {
    run("fresh", async |world| {
        let mut object = pinned("tiny", &json!({}));
        object["status"] = json!({"observedGeneration": 7, "replicas": 7});
        let made: LLMDeployment = world.create(&object).await?;
        let status = made.status.context("the default of the status is missing")?;
        ensure!(status.observed_generation == -1 && status.replicas == 0, "{status:?}");
        let patched: LLMDeployment = world
            .merge("tiny", &json!({"status": {"observedGeneration": 7}}))
            .await?;
        ensure!(patched.status.context("no status")?.observed_generation == -1);
        Ok(())
    })
}

#[test]
fn kubectl_scale_sets_replicas_and_kubectl_get_tells_the_state() -> Result<()> {
    run("scale", async |world| {
        let _operator = world.operator().await?;
        world.serve("tiny", &json!({})).await?;
        world.settled("tiny").await?;
        let namespaced = |rest: &[&str]| {
            let all: Vec<&str> = ["--namespace", &world.namespace]
                .into_iter()
                .chain(rest.iter().copied())
                .collect();
            world.cluster.kubectl(&all)
        };
        namespaced(&["scale", "llm/tiny", "--replicas=3"])?;
        let object = world.settled("tiny").await?;
        ensure!(object.spec.replicas == 3);
        world
            .until("the scale subresource tells of three replicas", async || {
                let scale = world.api::<LLMDeployment>().get_scale("tiny").await?;
                let status = scale.status.context("no status")?;
                ensure!(status.replicas == 3, "{status:?}");
                ensure!(status.selector.as_deref() == Some("perennial.dev/name=tiny,perennial.dev/revision"));
                Ok(())
            })
            .await?;
        namespaced(&["wait", "--for=condition=Ready", "--timeout=30s", "llm/tiny"])?;
        let table = namespaced(&["get", "llm"])?;
        let head: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
        ensure!(
            head == ["NAME", "MODEL", "READY", "REVISION", "STATUS", "AGE"],
            "{table}"
        );
        let row: Vec<&str> = table.lines().nth(1).unwrap_or_default().split_whitespace().collect();
        ensure!(row[..3] == ["tiny", "tiny", "3/3"] && row[4] == "Routable", "{table}");
        ensure!(namespaced(&["get", "llm", "-o", "wide"])?.contains("http://tiny."));
        ensure!(namespaced(&["get", "perennial"])?.contains("tiny"));
        Ok(())
    })
}

#[test]
fn an_autoscaler_takes_the_scale_subresource() -> Result<()> {
    run("hpa", async |world| {
        let _operator = world.operator().await?;
        world.serve("tiny", &json!({"resources": {"cpu": "1"}})).await?;
        world.settled("tiny").await?;
        world
            .create::<HorizontalPodAutoscaler>(&json!({
                "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "tiny"},
                "spec": {
                    "scaleTargetRef": {"apiVersion": "perennial.dev/v1alpha1", "kind": "LLMDeployment", "name": "tiny"},
                    "minReplicas": 2, "maxReplicas": 4,
                    "metrics": [{"type": "Resource", "resource": {
                        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80},
                    }}],
                },
            }))
            .await?;
        until(
            60,
            "the autoscaler is able to scale and has seen to its minimum",
            async || {
                let found = world.api::<HorizontalPodAutoscaler>().get("tiny").await?;
                let conditions = found.status.and_then(|status| status.conditions).unwrap_or_default();
                let able = conditions.iter().find(|condition| condition.type_ == "AbleToScale");
                ensure!(able.is_some_and(|able| able.status == "True"), "{conditions:?}");
                ensure!(world.llm("tiny").await?.spec.replicas == 2);
                Ok(())
            },
        )
        .await?;
        world.settled("tiny").await?;
        Ok(())
    })
}
