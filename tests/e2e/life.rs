//! The life of one model: made, asked, scaled, stopped, resumed, removed.

use std::time::Duration;

use serde_json::json;

use super::clients::stream;
use super::cluster::{Bed, REGISTRY, condition, eventually, kubectl, run};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_real_model_lives_from_apply_to_delete() {
    let bed = Bed::new("life").await;
    let namespace = bed.namespace.clone();
    bed.apply(
        "smollm2",
        json!({
            "model": {"source": {"oci": {"reference": format!("{REGISTRY}/models/smollm2:135m-instruct-q4")}}},
            "resources": {"cpu": "500m", "memory": "1Gi"},
        }),
    )
    .await;

    // Waiting as people and as Flux do it.
    let kubeconfig = String::from_utf8(kubectl(&["config", "view", "--raw"]).into_bytes()).expect("text");
    let file = std::env::temp_dir().join(format!("{namespace}.kubeconfig"));
    std::fs::write(&file, kubeconfig).expect("a temporary file");
    let by_kstatus = run(
        "kstatus-wait",
        &["--timeout", "3m", &file.to_string_lossy(), &namespace, "smollm2"],
    );
    by_kstatus.unwrap_or_else(|error| {
        bed.explain("smollm2");
        panic!("{error}")
    });
    let _ = std::fs::remove_file(&file);
    kubectl(&[
        "-n",
        &namespace,
        "wait",
        "--for=condition=Ready",
        "--timeout=60s",
        "llm/smollm2",
    ]);

    let object = bed.settled("smollm2", MINUTE).await;
    let status = object.status.clone().expect("a status");
    assert!(
        status
            .model
            .as_ref()
            .and_then(|model| model.digest.as_deref())
            .is_some_and(|d| d.starts_with("sha256:"))
    );
    assert_eq!(
        status.url.as_deref(),
        Some(format!("http://smollm2.{namespace}.svc/v1").as_str())
    );
    let table = kubectl(&["-n", &namespace, "get", "llm"]);
    assert!(table.contains("1/1") && table.contains("Routable"), "{table}");

    let url = bed.url("smollm2").await;
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let answer = stream(&http, &url, "smollm2", 40).await.expect("it answers");
    assert!(answer.contains("Paris"), "{answer}");

    scales(&bed).await;
    stops_and_resumes(&bed).await;

    bed.llms()
        .delete("smollm2", &Default::default())
        .await
        .expect("it can be deleted");
    let gone = eventually(MINUTE, || async {
        bed.leftovers("smollm2").trim().is_empty().then_some(())
    })
    .await;
    assert!(gone.is_some(), "left behind: {}", bed.leftovers("smollm2"));
    bed.remove().await;
}

async fn scales(bed: &Bed) {
    let namespace = bed.namespace.as_str();
    kubectl(&["-n", namespace, "scale", "llm/smollm2", "--replicas=2"]);
    bed.settled("smollm2", MINUTE).await;
    kubectl(&[
        "-n",
        namespace,
        "autoscale",
        "llm/smollm2",
        "--min=1",
        "--max=2",
        "--cpu=80%",
    ]);
    let able = eventually(MINUTE, || async {
        let path = "jsonpath={.status.conditions[?(@.type==\"AbleToScale\")].status}";
        let able = kubectl(&["-n", namespace, "get", "hpa", "smollm2", "-o", path]);
        (able == "True").then_some(())
    });
    assert!(able.await.is_some(), "the HPA cannot use the scale subresource");
    kubectl(&["-n", namespace, "delete", "hpa", "smollm2"]);

    kubectl(&["-n", namespace, "scale", "llm/smollm2", "--replicas=0"]);
    bed.until("smollm2", "scaled to zero", MINUTE, |object| {
        condition(object, "Ready").is_some_and(|(_, reason, _)| reason == "ScaledToZero")
            && object.status.as_ref().is_some_and(|status| status.replicas == 0)
    })
    .await;
    kubectl(&["-n", namespace, "scale", "llm/smollm2", "--replicas=1"]);
    bed.settled("smollm2", MINUTE).await;
}

async fn stops_and_resumes(bed: &Bed) {
    bed.change("smollm2", json!({"suspend": true})).await;
    bed.until("smollm2", "suspended", MINUTE, |object| {
        condition(object, "Ready").is_some_and(|(status, reason, _)| status == "False" && reason == "Suspended")
            && object.status.as_ref().is_some_and(|status| status.replicas == 0)
    })
    .await;
    bed.change("smollm2", json!({"suspend": false})).await;
    bed.settled("smollm2", MINUTE).await;
}
