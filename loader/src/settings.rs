//! What the environment of the pod says about sources.

use std::fmt;
use std::path::PathBuf;

use perennial_crds::serving::REGISTRY_AUTH_DIRECTORY;

use crate::retry::RetryPolicy;

const DEFAULT_HUB: &str = "https://huggingface.co";

/// How sources are reached. [`Settings::from_env`] is what a pod uses; tests set the fields.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address of the Hugging Face Hub or of a mirror, without a slash at the end (`HF_ENDPOINT`).
    pub hub_endpoint: String,
    /// Access token for the hub (`HF_TOKEN`).
    pub hub_token: Option<Secret>,
    /// Registries, `host` or `host:port`, that are spoken to without TLS (`PERENNIAL_PLAIN_HTTP_REGISTRIES`, with
    /// commas between). The local machine always is.
    pub plain_http_registries: Vec<String>,
    /// Directory that holds the registries' `config.json`.
    pub registry_auth_directory: PathBuf,
    /// Patience with failing sources.
    pub retry: RetryPolicy,
    /// Ranges that are downloaded at the same time.
    pub connections: usize,
    /// Bytes of one range; what a killed container downloads again at most, per connection.
    pub range_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hub_endpoint: DEFAULT_HUB.to_owned(),
            hub_token: None,
            plain_http_registries: Vec::new(),
            registry_auth_directory: PathBuf::from(REGISTRY_AUTH_DIRECTORY),
            retry: RetryPolicy::default(),
            connections: 8,
            range_bytes: 32 << 20,
        }
    }
}

impl Settings {
    /// Reads the environment.
    #[must_use]
    pub fn from_env() -> Self {
        let variable = |name: &str| {
            std::env::var(name)
                .ok()
                .map(|text| text.trim().to_owned())
                .filter(|text| !text.is_empty())
        };
        Self {
            hub_endpoint: variable("HF_ENDPOINT").map_or_else(
                || DEFAULT_HUB.to_owned(),
                |endpoint| endpoint.trim_end_matches('/').to_owned(),
            ),
            hub_token: variable("HF_TOKEN").map(Secret::new),
            plain_http_registries: variable("PERENNIAL_PLAIN_HTTP_REGISTRIES")
                .map(|list| {
                    list.split(',')
                        .map(|host| host.trim().to_owned())
                        .filter(|host| !host.is_empty())
                        .collect()
                })
                .unwrap_or_default(),
            ..Self::default()
        }
    }
}

/// Text that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a credential.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The credential, for the one place that sends it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(secret)")
    }
}
