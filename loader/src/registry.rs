//! A conversation with an OCI registry: who we are, and what a reference stands for.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::errors::{DigestError, OciDistributionError, OciErrorCode};
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, ImageIndexEntry, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE, OciImageManifest, OciManifest,
};
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation, client::linux_amd64_resolver};

use crate::docker_config;
use crate::error::{LoadError, one_line, root_cause};
use crate::http::{Advice, Failure};
use crate::settings::Settings;

const TIMEOUT: Duration = Duration::from_secs(30);
const MANIFESTS: [&str; 4] = [
    OCI_IMAGE_MEDIA_TYPE,
    OCI_IMAGE_INDEX_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE,
];

/// A repository of a registry, with credentials.
pub(crate) struct Session {
    client: Client,
    reference: Reference,
    auth: RegistryAuth,
    scheme: &'static str,
    /// The header that the registry accepts; outer `None` until it was asked.
    authorization: Mutex<Option<Option<String>>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Session")
            .field("reference", &self.reference)
            .finish_non_exhaustive()
    }
}

/// The manifest that a reference stands for.
#[derive(Clone, Debug)]
pub(crate) struct Pinned {
    pub(crate) manifest: OciImageManifest,
    /// Digest of the manifest.
    pub(crate) digest: String,
    /// Digest of the index that it was chosen from.
    pub(crate) index: Option<String>,
}

impl Session {
    pub(crate) fn new(reference: &Reference, settings: &Settings) -> Result<Self, LoadError> {
        let registry = reference.resolve_registry();
        let plain = is_plain(registry, &settings.plain_http_registries);
        let config = ClientConfig {
            protocol: if plain {
                ClientProtocol::Http
            } else {
                ClientProtocol::Https
            },
            read_timeout: Some(TIMEOUT),
            connect_timeout: Some(TIMEOUT),
            ..ClientConfig::default()
        };
        Ok(Self {
            client: Client::try_from(config)
                .map_err(|error| LoadError::internal(format!("The registry client cannot start: {error}")))?,
            reference: reference.clone(),
            auth: auth(settings, reference)?,
            scheme: if plain { "http" } else { "https" },
            authorization: Mutex::default(),
        })
    }

    /// The value of the `Authorization` header, if the registry wants one; asked anew with `renew`.
    pub(crate) async fn authorization(&self, renew: bool) -> Result<Option<String>, Failure> {
        let known = self
            .authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        match known.filter(|_| !renew) {
            Some(known) => Ok(known),
            None => self.authorize().await,
        }
    }

    /// Introduces us to the registry.
    pub(crate) async fn authorize(&self) -> Result<Option<String>, Failure> {
        let token = self
            .client
            .auth(&self.reference, &self.auth, RegistryOperation::Pull)
            .await;
        let header = match (token.map_err(|error| self.failure(error))?, &self.auth) {
            (Some(token), _) => Some(format!("Bearer {token}")),
            (None, RegistryAuth::Basic(username, password)) => {
                Some(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
            }
            (None, _) => None,
        };
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(header.clone());
        Ok(header)
    }

    /// Follows the reference to the manifest of a model, through an index if need be.
    pub(crate) async fn manifest(&self) -> Result<Pinned, Failure> {
        let (manifest, digest) = self.pull(&self.reference).await?;
        let entries = match manifest {
            OciManifest::Image(manifest) => {
                return Ok(Pinned {
                    manifest,
                    digest,
                    index: None,
                });
            }
            OciManifest::ImageIndex(index) => index.manifests,
        };
        let chosen = choose(&entries).ok_or_else(|| LoadError::NotFound {
            subject: self.subject(),
            advice: format!(
                "its index has {} manifests and none for linux/amd64: add one, or name one by its digest",
                entries.len()
            ),
        })?;
        match self.pull(&self.reference.clone_with_digest(chosen)).await? {
            (OciManifest::Image(manifest), child) => Ok(Pinned {
                manifest,
                digest: child,
                index: Some(digest),
            }),
            (OciManifest::ImageIndex(_), _) => Err(Failure::Final(LoadError::Unsupported {
                subject: self.subject(),
                problem: "its index points to another index: name the manifest by its digest".to_owned(),
            })),
        }
    }

    async fn pull(&self, reference: &Reference) -> Result<(OciManifest, String), Failure> {
        let pulled = self.client.pull_manifest_raw(reference, &self.auth, &MANIFESTS).await;
        let (body, digest) = pulled.map_err(|error| self.failure(error))?;
        let manifest = serde_json::from_slice(&body).map_err(|error| LoadError::InvalidModel {
            subject: self.subject(),
            problem: one_line(&format!("its manifest cannot be read: {error}")),
        })?;
        Ok((manifest, digest))
    }

    pub(crate) fn blob_address(&self, digest: &str) -> String {
        let (scheme, registry) = (self.scheme, self.reference.resolve_registry());
        format!(
            "{scheme}://{registry}/v2/{}/blobs/{digest}",
            self.reference.repository()
        )
    }

    pub(crate) fn subject(&self) -> String {
        format!("oci://{}", self.reference)
    }

    pub(crate) fn advice(&self) -> Advice {
        let registry = self.reference.registry();
        let unauthorized = match self.auth {
            RegistryAuth::Anonymous => format!(
                "create a docker-registry Secret for {registry} and name it in spec.model.source.oci.pullSecretRef; \
                a repository that does not exist answers like this, too"
            ),
            _ => format!(
                "the credentials for {registry} in spec.model.source.oci.pullSecretRef are wrong or may not pull: renew the \
                Secret; a repository that does not exist answers like this, too"
            ),
        };
        let not_found = "check host, repository and tag or digest, and that it was pushed".to_owned();
        Advice {
            unauthorized,
            not_found,
        }
    }

    fn failure(&self, error: OciDistributionError) -> Failure {
        let (subject, advice) = (self.subject(), self.advice());
        match verdict(&error) {
            Verdict::Again => Failure::again(match &error {
                OciDistributionError::RequestError(error) => root_cause(error),
                OciDistributionError::ServerError { code, .. } => format!("it answered {code}"),
                other => one_line(&other.to_string()),
            }),
            Verdict::Unauthorized => LoadError::Unauthorized {
                subject,
                advice: advice.unauthorized,
            }
            .into(),
            Verdict::NotFound => LoadError::NotFound {
                subject,
                advice: advice.not_found,
            }
            .into(),
            Verdict::Mismatch { expected, actual } => LoadError::DigestMismatch {
                subject,
                expected,
                actual,
            }
            .into(),
            Verdict::Other => LoadError::Unreachable {
                subject,
                problem: one_line(&error.to_string()),
            }
            .into(),
        }
    }
}

enum Verdict {
    Again,
    Unauthorized,
    NotFound,
    Mismatch { expected: String, actual: String },
    Other,
}

fn verdict(error: &OciDistributionError) -> Verdict {
    match error {
        OciDistributionError::RequestError(_) | OciDistributionError::RegistryTokenDecodeError(_) => Verdict::Again,
        OciDistributionError::UnauthorizedError { .. } => Verdict::Unauthorized,
        OciDistributionError::AuthenticationFailure(answer) => {
            if is_refusal(answer) {
                Verdict::Unauthorized
            } else {
                Verdict::Again
            }
        }
        OciDistributionError::ImageManifestNotFoundError(_) => Verdict::NotFound,
        OciDistributionError::DigestError(DigestError::VerificationError { expected, actual }) => Verdict::Mismatch {
            expected: expected.clone(),
            actual: actual.clone(),
        },
        OciDistributionError::RegistryError { envelope, .. } => {
            match envelope.errors.first().map(|error| &error.code) {
                Some(
                    OciErrorCode::ManifestUnknown
                    | OciErrorCode::NameUnknown
                    | OciErrorCode::NotFound
                    | OciErrorCode::NameInvalid,
                ) => Verdict::NotFound,
                Some(OciErrorCode::Unauthorized | OciErrorCode::Denied) => Verdict::Unauthorized,
                Some(OciErrorCode::Toomanyrequests) => Verdict::Again,
                _ => Verdict::Other,
            }
        }
        OciDistributionError::ServerError { code, .. } => match code {
            401 | 403 => Verdict::Unauthorized,
            404 => Verdict::NotFound,
            408 | 425 | 429 | 500.. => Verdict::Again,
            _ => Verdict::Other,
        },
        _ => Verdict::Other,
    }
}

/// Whether a token service's answer speaks of credentials. The client does not tell the status, and an overloaded
/// service must not look like a wrong password.
fn is_refusal(answer: &str) -> bool {
    let answer = answer.to_lowercase();
    [
        "unauthorized",
        "denied",
        "forbidden",
        "incorrect",
        "credential",
        "authentication",
    ]
    .iter()
    .any(|word| answer.contains(word))
}

/// The manifest for linux/amd64, or the only one.
fn choose(entries: &[ImageIndexEntry]) -> Option<String> {
    match entries {
        [only] => Some(only.digest.clone()),
        several => linux_amd64_resolver(several),
    }
}

fn auth(settings: &Settings, reference: &Reference) -> Result<RegistryAuth, LoadError> {
    docker_config::credential(settings, reference.resolve_registry(), reference.repository())
}

/// Whether to speak without TLS: to the local machine, and to hosts that the operator of the cluster named.
fn is_plain(registry: &str, allowed: &[String]) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => registry,
    };
    matches!(host, "localhost" | "127.0.0.1" | "[::1]") || allowed.iter().any(|name| name == registry || name == host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_named_hosts_only() {
        let allowed = ["registry.local:5000".to_owned(), "mirror.local".to_owned()];
        for plain in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:80",
            "registry.local:5000",
            "mirror.local:1",
            "mirror.local",
        ] {
            assert!(is_plain(plain, &allowed), "{plain}");
        }
        for tls in [
            "registry.local",
            "registry.local:5001",
            "localhost.evil.com",
            "evil.com",
            "xmirror.local",
        ] {
            assert!(!is_plain(tls, &allowed), "{tls}");
        }
    }
}
