//! What a program is told about the bucket with records, and who may read its credentials. Pure.
//!
//! Two pods get them: the collector, which writes, and the Job that prepares, which reads. Nothing else of a cycle does.

use k8s_openapi::api::core::v1::EnvVar;
use perennial_crds::capture_spec::StorageBucket;

use crate::deployment::validate::{from_secret, plain};

/// Variables of `perennial-trainer collect` or `prepare`, by what theirs begin with, for the records of one LLMDeployment.
pub(crate) fn variables(program: &str, bucket: &StorageBucket, owner: &str) -> Vec<EnvVar> {
    let told = |name: &str, value: &str| plain(&format!("{program}_S3_{name}"), value);
    let mut variables = vec![
        told("BUCKET", &bucket.bucket),
        told("PREFIX", &format!("{}/{owner}", bucket.prefix)),
        told("REGION", &bucket.region),
    ];
    variables.extend(bucket.endpoint.as_deref().map(|endpoint| told("ENDPOINT", endpoint)));
    let secret = |key: &str| from_secret(key, &bucket.credentials_secret_name, key);
    variables.extend([secret("AWS_ACCESS_KEY_ID"), secret("AWS_SECRET_ACCESS_KEY")]);
    let mut token = secret("AWS_SESSION_TOKEN");
    let source = token.value_from.as_mut();
    if let Some(selector) = source.and_then(|source| source.secret_key_ref.as_mut()) {
        // Only credentials for a while have one.
        selector.optional = Some(true);
    }
    variables.push(token);
    variables
}
