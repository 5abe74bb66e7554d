//! A burst on the real model, which needs all that the machine has.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::clients::Clients;
use crate::cluster::{Bed, model_reference};
use crate::scaling::{answers, desired, ready, story};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_burst_on_the_real_model_gets_a_second_replica() {
    let bed = Bed::new("real").await;
    bed.apply(
        "model",
        json!({
            "model": {"source": {"oci": {"reference": model_reference().await}}, "maxContextTokens": 1024},
            "resources": {"cpu": "600m", "memory": "1Gi"},
            "runtime": {"extraArgs": ["--max-running=8"]},
            "autoscaling": {"maxReplicas": 2, "targets": [{"metric": "WaitingRequests", "averageValue": 2}]},
            "lifecycle": {"drainSeconds": 60},
        }),
    )
    .await;
    answers(&bed, 2 * MINUTE).await;
    let url = bed.url("model").await;
    let clients = Clients::start(32, &url, "model");
    bed.until("model", "scaled to two", 3 * MINUTE, |object| desired(object) == 2)
        .await;
    let before = first_tokens(&url, 12).await;
    bed.until("model", "both ready", 3 * MINUTE, |object| ready(object) == 2)
        .await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let after = first_tokens(&url, 12).await;
    let object = bed.llms().get("model").await.expect("it is there");
    println!(
        "SmolLM2, 32 clients: first token p50 {:.1} s, max {:.1} s with one replica; p50 {:.1} s, max {:.1} s with two; {:?}",
        before[before.len() / 2],
        before[before.len() - 1],
        after[after.len() / 2],
        after[after.len() - 1],
        story(&object)
    );
    clients.stop().await;
    bed.remove().await;
}

/// Seconds to the first token of some requests at the same time, sorted.
async fn first_tokens(url: &str, count: usize) -> Vec<f64> {
    let ask = async |_| {
        let started = Instant::now();
        let body = json!({"model": "model", "stream": true, "max_tokens": 4, "messages": [{"role": "user", "content": "Say something"}]});
        let answer = reqwest::Client::new()
            .post(format!("{url}/v1/chat/completions"))
            .json(&body)
            .send()
            .await;
        let mut answer = answer.expect("an answer").error_for_status().expect("200");
        // The first piece may only name the role; the second carries the first token.
        for _ in 0..2 {
            let _ = answer.chunk().await;
        }
        let seconds = started.elapsed().as_secs_f64();
        while let Ok(Some(_)) = answer.chunk().await {}
        seconds
    };
    let mut seconds = futures::future::join_all((0..count).map(ask)).await;
    seconds.sort_by(f64::total_cmp);
    seconds
}
