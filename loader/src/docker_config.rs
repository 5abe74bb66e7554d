//! Credentials for registries from a docker `config.json`, the content of a `kubernetes.io/dockerconfigjson` Secret.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;

use crate::error::LoadError;
use crate::settings::Settings;

const FILE: &str = "config.json";

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "lowercase")]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    registrytoken: Option<String>,
}

/// The credential for `repository` at `registry`: from the environment, or else from the file; anonymous where neither has an entry.
pub(crate) fn credential(settings: &Settings, registry: &str, repository: &str) -> Result<RegistryAuth, LoadError> {
    let (environment, file) = known(settings)?;
    first("pullSecretRef", [environment, file], registry, repository)
}

/// The credential to push with. Here the file goes before the environment, which a Job that trains has for its base model.
pub(crate) fn push_credential(
    settings: &Settings,
    registry: &str,
    repository: &str,
) -> Result<RegistryAuth, LoadError> {
    let (environment, file) = known(settings)?;
    first("pushSecretRef", [file, environment], registry, repository)
}

/// A docker configuration, if there is one.
type Text = Option<Vec<u8>>;

/// What the environment and the file say.
fn known(settings: &Settings) -> Result<(Text, Text), LoadError> {
    let environment = settings
        .registry_auth
        .as_ref()
        .map(|text| text.expose().as_bytes().to_vec());
    Ok((environment, read(&settings.registry_auth_directory)?))
}

/// The first that has an entry.
fn first(named: &str, texts: [Text; 2], registry: &str, repository: &str) -> Result<RegistryAuth, LoadError> {
    for text in texts.into_iter().flatten() {
        match explained(named, choose(&text, registry, repository))? {
            RegistryAuth::Anonymous => {}
            found => return Ok(found),
        }
    }
    Ok(RegistryAuth::Anonymous)
}

fn explained(named: &str, chosen: Result<RegistryAuth, &'static str>) -> Result<RegistryAuth, LoadError> {
    chosen.map_err(|problem| LoadError::InvalidArguments {
        subject: format!("The Secret in {named}"),
        problem: problem.to_owned(),
    })
}

fn read(directory: &Path) -> Result<Option<Vec<u8>>, LoadError> {
    let path = directory.join(FILE);
    match std::fs::read(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LoadError::io("read", path, error)),
    }
}

fn choose(config: &[u8], registry: &str, repository: &str) -> Result<RegistryAuth, &'static str> {
    let config: DockerConfig = serde_json::from_slice(config)
        .map_err(|_| "it holds no docker configuration: create it with kubectl create secret docker-registry")?;
    let wanted = format!("{registry}/{repository}/");
    let entry = config
        .auths
        .iter()
        .map(|(key, entry)| (normal(key), entry))
        .filter(|(key, _)| wanted.starts_with(&format!("{key}/")))
        .max_by_key(|(key, _)| key.len());
    entry.map_or(Ok(RegistryAuth::Anonymous), |(_, entry)| entry.credential())
}

/// A key without scheme, version and slash at the end; Docker Hub under the name that clients use for it.
fn normal(key: &str) -> String {
    let key = key
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .trim_end_matches('/');
    let key = key
        .strip_suffix("/v1")
        .or_else(|| key.strip_suffix("/v2"))
        .unwrap_or(key);
    match key.strip_prefix("docker.io") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("index.docker.io{rest}"),
        _ => key.to_owned(),
    }
}

impl Entry {
    fn credential(&self) -> Result<RegistryAuth, &'static str> {
        if let Some(token) = self.registrytoken.as_deref().filter(|token| !token.is_empty()) {
            return Ok(RegistryAuth::Bearer(token.to_owned()));
        }
        if let (Some(username), Some(password)) = (&self.username, &self.password) {
            return Ok(RegistryAuth::Basic(username.clone(), password.clone()));
        }
        let pair = self.auth.as_deref().and_then(|auth| {
            let text = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
            let (username, password) = text.split_once(':')?;
            Some(RegistryAuth::Basic(
                username.to_owned(),
                password.trim_end_matches('\0').to_owned(),
            ))
        });
        pair.ok_or("its entry for the registry needs auth (base64 of USER:PASSWORD), or username and password")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(username: &str, password: &str) -> RegistryAuth {
        RegistryAuth::Basic(username.into(), password.into())
    }

    #[test]
    fn the_longest_matching_entry_wins() {
        let config = br#"{"auths": {
            "registry.example.com": {"username": "all", "password": "p"},
            "https://registry.example.com/team/": {"auth": "dGVhbTpzZWNyZXQ6eA=="},
            "https://index.docker.io/v1/": {"username": "hub", "password": "p"},
            "token.example.com": {"registrytoken": "t"}
        }}"#;
        let choose = |registry, repository| choose(config, registry, repository).unwrap();
        assert_eq!(choose("registry.example.com", "other/m"), basic("all", "p"));
        assert_eq!(choose("registry.example.com", "team/m"), basic("team", "secret:x"));
        assert_eq!(choose("registry.example.com", "teammate/m"), basic("all", "p"));
        assert_eq!(choose("index.docker.io", "library/m"), basic("hub", "p"));
        assert_eq!(choose("token.example.com", "m"), RegistryAuth::Bearer("t".into()));
        assert_eq!(choose("registry.example.com:5000", "m"), RegistryAuth::Anonymous);
        assert_eq!(
            choose("evil.example.com", "registry.example.com"),
            RegistryAuth::Anonymous
        );
    }

    #[test]
    fn a_wrong_secret_is_explained_without_its_content() {
        for wrong in [
            &b"hunter2"[..],
            br#"{"auths": {"r.io": {"auth": "hunter2"}}}"#,
            br#"{"auths": {"r.io": {}}}"#,
        ] {
            let problem = choose(wrong, "r.io", "m").unwrap_err();
            assert!(!problem.contains("hunter2"));
        }
    }

    #[test]
    fn no_file_is_anonymous() {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings {
            registry_auth_directory: directory.path().to_owned(),
            ..Settings::default()
        };
        assert_eq!(credential(&settings, "r.io", "m").unwrap(), RegistryAuth::Anonymous);
    }

    #[test]
    fn the_environment_goes_before_the_file() {
        let settings = Settings {
            registry_auth: Some(crate::settings::Secret::new(
                r#"{"auths": {"r.io": {"username": "u", "password": "p"}}}"#,
            )),
            registry_auth_directory: "/nonexistent".into(),
            ..Settings::default()
        };
        let expected = RegistryAuth::Basic("u".to_owned(), "p".to_owned());
        assert_eq!(credential(&settings, "r.io", "m").unwrap(), expected);
    }

    #[test]
    fn for_a_push_the_file_goes_before_the_environment() {
        let directory = tempfile::tempdir().unwrap();
        let config = br#"{"auths": {"r.io": {"username": "pusher", "password": "p"}}}"#;
        std::fs::write(directory.path().join(FILE), config).unwrap();
        let settings = Settings {
            registry_auth: Some(crate::settings::Secret::new(
                r#"{"auths": {"r.io": {"username": "u", "password": "p"}, "other.io": {"username": "u", "password": "p"}}}"#,
            )),
            registry_auth_directory: directory.path().to_owned(),
            ..Settings::default()
        };
        let push = |registry| push_credential(&settings, registry, "m").unwrap();
        assert_eq!(push("r.io"), basic("pusher", "p"));
        assert_eq!(push("other.io"), basic("u", "p"));
        assert_eq!(push("third.io"), RegistryAuth::Anonymous);
    }
}
