//! A bucket in the cluster's object store, which is outside of Kubernetes.

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::cluster::Bed;

/// Where it speaks S3.
const ENDPOINT: &str = "http://198.18.0.1:5002";
const CREDENTIALS: &str = "records-credentials";

/// A bucket of a test's own.
pub struct Objects {
    bucket: String,
    http: reqwest::Client,
}

impl Objects {
    /// Makes the bucket and the Secret for it.
    pub async fn new(bed: &Bed) -> Self {
        let objects = Self {
            bucket: format!("records-{}", bed.namespace),
            http: reqwest::Client::builder().no_proxy().build().expect("a client"),
        };
        let made = objects
            .http
            .put(objects.url(""))
            .send()
            .await
            .expect("the store answers");
        assert!(made.status().is_success(), "the bucket is not made: {}", made.status());
        let secret = json!({"metadata": {"name": CREDENTIALS},
            "stringData": {"AWS_ACCESS_KEY_ID": "anybody", "AWS_SECRET_ACCESS_KEY": "anything"}});
        let secrets: Api<Secret> = Api::namespaced(bed.client.clone(), &bed.namespace);
        let secret = serde_json::from_value(secret).expect("a Secret");
        secrets
            .create(&PostParams::default(), &secret)
            .await
            .expect("it is accepted");
        objects
    }

    fn url(&self, path: &str) -> String {
        format!("{ENDPOINT}/{}{path}", self.bucket)
    }

    /// What an LLMDeployment says to keep records in it.
    pub fn storage(&self) -> Value {
        json!({"s3": {"bucket": self.bucket, "prefix": "e2e", "endpoint": ENDPOINT, "credentialsSecretName": CREDENTIALS}})
    }

    async fn text(&self, path: &str) -> String {
        let answer = self.http.get(self.url(path)).send().await.expect("the store answers");
        let bytes = answer.bytes().await.expect("an answer");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Keys of all objects. There are fewer than fit one answer.
    pub async fn keys(&self) -> Vec<String> {
        let list = self.text("?list-type=2").await;
        assert!(!list.contains("<IsTruncated>true"), "there are many: {list}");
        let mut parts = list.split("<Key>");
        parts.next();
        parts
            .filter_map(|part| Some(part.split_once("</Key>")?.0.to_owned()))
            .collect()
    }

    /// The finished segments, as one text.
    pub async fn records(&self) -> String {
        let keys = self.keys().await;
        let mut texts = String::new();
        for key in &keys {
            if key.ends_with(".jsonl") && keys.contains(&format!("{key}.sha256")) {
                texts += &self.text(&format!("/{key}")).await;
            }
        }
        texts
    }
}
