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
    operation: RegistryOperation,
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

/// A manifest or an index, as the registry holds it.
#[derive(Clone, Debug)]
pub(crate) struct Pulled {
    pub(crate) manifest: OciManifest,
    pub(crate) digest: String,
    pub(crate) size: usize,
}

impl Session {
    /// To pull.
    pub(crate) fn new(reference: &Reference, settings: &Settings) -> Result<Self, LoadError> {
        let auth = docker_config::credential(settings, reference.resolve_registry(), reference.repository())?;
        Self::start(reference, settings, auth, RegistryOperation::Pull)
    }

    /// To push.
    pub(crate) fn pushing(reference: &Reference, settings: &Settings) -> Result<Self, LoadError> {
        let auth = docker_config::push_credential(settings, reference.resolve_registry(), reference.repository())?;
        Self::start(reference, settings, auth, RegistryOperation::Push)
    }

    fn start(
        reference: &Reference,
        settings: &Settings,
        auth: RegistryAuth,
        operation: RegistryOperation,
    ) -> Result<Self, LoadError> {
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
            auth,
            operation,
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
        let token = self.client.auth(&self.reference, &self.auth, self.operation).await;
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
        let Pulled { manifest, digest, .. } = self.pull(&self.reference).await?;
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
        let chosen = self.choose(&entries)?;
        let child = self.pull(&self.reference.clone_with_digest(chosen)).await?;
        match child.manifest {
            OciManifest::Image(manifest) => Ok(Pinned {
                manifest,
                digest: child.digest,
                index: Some(digest),
            }),
            OciManifest::ImageIndex(_) => Err(Failure::Final(LoadError::Unsupported {
                subject: self.subject(),
                problem: "its index points to another index: name the manifest by its digest".to_owned(),
            })),
        }
    }

    /// Of an index, the manifest for linux/amd64, or the only one.
    pub(crate) fn choose(&self, entries: &[ImageIndexEntry]) -> Result<String, LoadError> {
        choose(entries).ok_or_else(|| LoadError::NotFound {
            subject: self.subject(),
            advice: format!(
                "its index has {} manifests and none for linux/amd64: add one, or name one by its digest",
                entries.len()
            ),
        })
    }

    /// What a reference to this repository stands for; nothing if the registry does not know it.
    pub(crate) async fn find(&self, reference: &Reference) -> Result<Option<Pulled>, Failure> {
        match self.pull(reference).await {
            Err(Failure::Final(LoadError::NotFound { .. })) => Ok(None),
            pulled => pulled.map(Some),
        }
    }

    /// What a reference to this repository stands for.
    pub(crate) async fn pull(&self, reference: &Reference) -> Result<Pulled, Failure> {
        let pulled = self.client.pull_manifest_raw(reference, &self.auth, &MANIFESTS).await;
        let (body, digest) = pulled.map_err(|error| self.failure(error))?;
        let manifest = serde_json::from_slice(&body).map_err(|error| LoadError::InvalidModel {
            subject: self.subject(),
            problem: one_line(&format!("its manifest cannot be read: {error}")),
        })?;
        Ok(Pulled {
            manifest,
            digest,
            size: body.len(),
        })
    }

    pub(crate) fn blob_address(&self, digest: &str) -> String {
        self.address("blobs", digest)
    }

    /// Where uploads of blobs begin.
    pub(crate) fn uploads_address(&self) -> String {
        self.address("blobs", "uploads/")
    }

    pub(crate) fn manifest_address(&self, reference: &str) -> String {
        self.address("manifests", reference)
    }

    fn address(&self, kind: &str, name: &str) -> String {
        let (scheme, registry) = (self.scheme, self.reference.resolve_registry());
        format!("{scheme}://{registry}/v2/{}/{kind}/{name}", self.reference.repository())
    }

    pub(crate) fn subject(&self) -> String {
        format!("oci://{}", self.reference)
    }

    pub(crate) fn advice(&self) -> Advice {
        let registry = self.reference.registry();
        if self.operation == RegistryOperation::Push {
            return push_advice(registry, self.reference.repository(), &self.auth);
        }
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

fn push_advice(registry: &str, repository: &str, auth: &RegistryAuth) -> Advice {
    let unauthorized = match auth {
        RegistryAuth::Anonymous => format!(
            "nobody may push without credentials: create a docker-registry Secret for {registry} that may push to {repository} \
            and name it in spec.retraining.output.oci.pushSecretRef of the policy"
        ),
        _ => format!(
            "the credentials may not push: give those for {registry} in spec.retraining.output.oci.pushSecretRef of the policy \
            the right to write to {repository}, or renew the Secret"
        ),
    };
    Advice {
        unauthorized,
        not_found:
            "check host, repository and digest; some registries want a repository to be created before the first push"
                .to_owned(),
    }
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
