//! How the bucket is reached: what the collector and the Job that prepares are told, and the client.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use super::bucket::{Bucket, BucketError};

/// Longest time of a request: a segment may have 40 MB.
const REQUEST_TIME: Duration = Duration::from_secs(60);
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Tries of a request after the first. Whoever asked tries again later, and says so.
const RETRIES: usize = 2;
const RETRY_TIME: Duration = Duration::from_secs(20);

/// A text that is in no log and no message.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(String);

impl FromStr for Hidden {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A Secret made with `echo` ends with a line break.
        Ok(Self(text.trim().to_owned()))
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[hidden]")
    }
}

/// Who asks for objects, in the variables that programs for AWS read.
#[derive(Args, Clone, Debug, Default)]
pub struct Credentials {
    /// Who asks the bucket.
    #[arg(
        long = "s3-access-key-id",
        env = "AWS_ACCESS_KEY_ID",
        value_name = "ID",
        hide_env_values = true
    )]
    pub access_key_id: Option<Hidden>,
    /// What its requests are signed with.
    #[arg(
        long = "s3-secret-access-key",
        env = "AWS_SECRET_ACCESS_KEY",
        value_name = "KEY",
        hide_env_values = true
    )]
    pub secret_access_key: Option<Hidden>,
    /// Of credentials that end after a while.
    #[arg(
        long = "s3-session-token",
        env = "AWS_SESSION_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub session_token: Option<Hidden>,
}

/// Where the bucket is.
#[derive(Clone, Debug)]
pub struct Address<'a> {
    /// Its name.
    pub bucket: &'a str,
    /// What keys begin with.
    pub prefix: &'a str,
    /// Its region.
    pub region: &'a str,
    /// Of a store that is not of AWS.
    pub endpoint: Option<&'a str>,
}

/// A client for it. Nothing is asked yet.
///
/// # Errors
/// That something is not given, or makes no sense, in words that hold no credential.
pub fn open(address: &Address<'_>, credentials: &Credentials) -> Result<Bucket, BucketError> {
    let wrong = |what: &str| BucketError::Settings(what.to_owned());
    let given = |secret: &Option<Hidden>| {
        let text = secret.as_ref().map(|secret| secret.0.clone());
        text.filter(|text| !text.is_empty())
    };
    let (Some(id), Some(key)) = (given(&credentials.access_key_id), given(&credentials.secret_access_key)) else {
        return Err(wrong(
            "the bucket needs credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ));
    };
    let prefix = Path::parse(address.prefix).map_err(|_| wrong("the prefix is no beginning of a key"))?;
    if prefix.as_ref().is_empty() {
        return Err(wrong("the prefix is empty"));
    }
    perennial_loader::install_crypto_provider();
    let options = ClientOptions::new()
        .with_timeout(REQUEST_TIME)
        .with_connect_timeout(CONNECT_TIME);
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(address.bucket)
        .with_region(address.region)
        .with_access_key_id(id)
        .with_secret_access_key(key)
        .with_client_options(options)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // Some stores know no other way, and few objects go at a time.
        .with_disable_bulk_delete(true)
        .with_retry(RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: RETRIES,
            retry_timeout: RETRY_TIME,
        });
    if let Some(token) = given(&credentials.session_token) {
        builder = builder.with_token(token);
    }
    if let Some(endpoint) = address.endpoint {
        // Whoever writes http:// means it.
        builder = builder
            .with_endpoint(endpoint)
            .with_allow_http(endpoint.starts_with("http://"));
    }
    // Its words could hold what was given.
    let store = builder
        .build()
        .map_err(|_| wrong("the bucket, its region or its endpoint cannot be used as they are given"))?;
    Ok(Bucket::new(Arc::new(store), prefix, address.bucket))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(id: &str, key: &str) -> Credentials {
        Credentials {
            access_key_id: id.parse().ok(),
            secret_access_key: key.parse().ok(),
            session_token: None,
        }
    }

    fn at(endpoint: Option<&str>) -> Address<'_> {
        Address {
            bucket: "records",
            prefix: "a/tiny",
            region: "us-east-1",
            endpoint,
        }
    }

    #[tokio::test]
    async fn credentials_are_needed_and_shown_nowhere() {
        let known = credentials("AKIA-SECRET", "also-secret\n");
        assert_eq!(known.secret_access_key, "also-secret".parse().ok());
        assert!(!format!("{known:?}").to_lowercase().contains("secret\""), "{known:?}");
        assert!(!format!("{known:?}").contains("AKIA"), "{known:?}");
        let bucket = open(&at(Some("http://127.0.0.1:1")), &known).expect("a bucket");
        let error = bucket.list().await.expect_err("nobody is there").to_string();
        assert!(
            error.contains("records") && error.contains("cannot be reached"),
            "{error}"
        );
        assert!(!error.contains("AKIA") && !error.contains("also-secret"), "{error}");
        for missing in [credentials("", "key"), credentials("id", " \n"), Credentials::default()] {
            let error = open(&at(None), &missing).expect_err("refused").to_string();
            assert!(error.contains("AWS_SECRET_ACCESS_KEY"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_prefix_is_a_beginning_of_a_key() {
        for wrong in ["", "/", "a//b", "a/../b"] {
            let address = Address {
                prefix: wrong,
                ..at(None)
            };
            assert!(open(&address, &credentials("id", "key")).is_err(), "{wrong:?}");
        }
    }
}
