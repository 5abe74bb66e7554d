//! What the environment of the pod says about sources.

use std::fmt;
use std::path::PathBuf;

use perennial_crds::serving::{REGISTRY_AUTH_DIRECTORY, REGISTRY_AUTH_VARIABLE};

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
    /// Text of a docker `config.json` with credentials for registries (`PERENNIAL_REGISTRY_AUTH`).
    pub registry_auth: Option<Secret>,
    /// Directory that holds the registries' `config.json`, when the environment gives none.
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
            registry_auth: None,
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
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variables: impl Fn(&str) -> Option<String>) -> Self {
        // A Secret made with `echo` ends with a line break.
        let variable = |name| {
            variables(name)
                .map(|text| text.trim().to_owned())
                .filter(|text| !text.is_empty())
        };
        let hub = variable("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_HUB.to_owned());
        let registries = variable("PERENNIAL_PLAIN_HTTP_REGISTRIES").unwrap_or_default();
        let registries = registries.split(',').map(str::trim).filter(|host| !host.is_empty());
        Self {
            hub_endpoint: hub.trim_end_matches('/').to_owned(),
            hub_token: variable("HF_TOKEN").map(Secret::new),
            plain_http_registries: registries.map(str::to_owned).collect(),
            registry_auth: variable(REGISTRY_AUTH_VARIABLE).map(Secret::new),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_read() {
        let settings = Settings::from_variables(|name| {
            let text = match name {
                "HF_ENDPOINT" => "http://hub.local:8000/",
                "HF_TOKEN" => "hf_token\n",
                "PERENNIAL_REGISTRY_AUTH" => "{\"auths\": {}}",
                "PERENNIAL_PLAIN_HTTP_REGISTRIES" => "a.local:5000, b.local,,",
                _ => return None,
            };
            Some(text.to_owned())
        });
        assert_eq!(settings.hub_endpoint, "http://hub.local:8000");
        assert_eq!(settings.hub_token.as_ref().map(Secret::expose), Some("hf_token"));
        assert_eq!(settings.plain_http_registries, ["a.local:5000", "b.local"]);
        assert_eq!(
            settings.registry_auth.as_ref().map(Secret::expose),
            Some("{\"auths\": {}}")
        );
        assert!(!format!("{settings:?}").contains("hf_token"));
    }

    #[test]
    fn an_empty_environment_means_the_public_hub() {
        let settings = Settings::from_variables(|name| (name == "HF_TOKEN").then(String::new));
        assert_eq!(settings.hub_endpoint, DEFAULT_HUB);
        assert!(settings.hub_token.is_none() && settings.plain_http_registries.is_empty());
    }
}
