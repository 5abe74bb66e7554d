//! Where a model comes from: resolve an address to exact bytes, bring them here, verify them.
//!
//! # Addresses
//!
//! | form | meaning |
//! |---|---|
//! | `hf://ORGANISATION/NAME@REVISION` | a repository of the Hugging Face Hub or a mirror; branch, tag or commit (default `main`) |
//! | `hf://ORGANISATION/NAME@REVISION#FILE` | the same, and one file of weights in it, for repositories with several GGUF files |
//! | `oci://HOST/REPOSITORY:TAG`, `oci://HOST/REPOSITORY@sha256:HEX` | an artifact (ORAS) or an image with model files |
//! | `https://HOST/FILE`, `http://HOST/FILE` | one file |
//! | `file:///PATH` | a file or directory on a mounted volume, used where it is and never written to |
//!
//! A revision may hold slashes, which is why the file stands behind `#`. [`resolve()`] answers with the pinned form:
//! the commit, the digest of the manifest, or the same URL.
//!
//! # Which files
//!
//! Of a repository, directory or artifact: `*.safetensors` at its top with their index, configuration, tokenizer and
//! chat template, or else the only GGUF file (with its shards). Several models without a choice are an error that
//! lists them. In an image or artifact, the model may lie in a folder: the one nearest to the top that holds weights.
//!
//! # Digest
//!
//! One file: the sha256 of its bytes. An OCI artifact: the digest of its manifest; the digest of an index that leads
//! to it is accepted, too, of which linux/amd64 is taken, or the only entry. Several files: the sha256 of what
//! `sha256sum` prints for them, sorted by path: `cd DIRECTORY && sha256sum FILE... | LC_ALL=C sort -k2 | sha256sum`.
//! Bytes with another digest are removed and never served. Every blob of a registry and every large file of a hub is
//! verified on its own as well.
//!
//! # Access
//!
//! - Hub: `HF_TOKEN`, `HF_ENDPOINT` (default `https://huggingface.co`).
//! - Registry: the text of a docker `config.json` in `PERENNIAL_REGISTRY_AUTH`, else `config.json` in [`REGISTRY_AUTH_DIRECTORY`](perennial_crds::serving::REGISTRY_AUTH_DIRECTORY)
//!   (`auths` with `auth`, `username` and `password`, or `registrytoken`; the longest matching key wins), else
//!   anonymous. TLS always, except with the local machine and the hosts in `PERENNIAL_PLAIN_HTTP_REGISTRIES`.
//! - A credential goes to the host that it is for, never along a redirect. A redirect from https to http is refused.
//! - Trust comes from the system's certificates (`SSL_CERT_FILE`, `SSL_CERT_DIR`), proxies from `HTTPS_PROXY`,
//!   `HTTP_PROXY` and `NO_PROXY`.
//!
//! # Downloads
//!
//! Files come in ranges of 32 MiB, eight at a time, where the server knows ranges, else in one stream. What breaks off
//! continues at the same byte. After ten attempts in a row without a new byte, about a minute, the source counts as
//! unreachable; 408, 425, 429 (with `Retry-After`) and 5xx are tried again, other refusals are not. Free space is
//! checked before the first byte. A finished file is moved to its place in one step and recorded with its sha256, so
//! a restarted container downloads nothing twice and needs no source for what is pinned; a file whose size or time
//! changed, or that an earlier boot of the machine wrote, is hashed again. An image needs room for its archives and
//! its files at the same time.
//!
//! # Pushes
//!
//! [`push()`] brings a model into a registry as an artifact, [`tag()`] gives one that is there a tag with something said of it, and
//! [`find()`] reads both. The same files give the same digest, and what a repository has is not sent again. To push, the
//! `config.json` of the directory goes before that of the environment.
#![warn(missing_docs)]

use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

pub use perennial_crds::serving::{FailureReason, LoadingProgress, LoadingStage, ResolvedModel};

pub use crate::artifact::{MODEL_ARTIFACT_TYPE, MODEL_FILE_MEDIA_TYPE};
pub use crate::digest::{Digest, digest_of_files};
pub use crate::error::LoadError;
pub use crate::progress::Progress;
pub use crate::push::{ModelFile, PushRequest, PushedModel, TagRequest, TaggedModel, find, push, tag};
pub use crate::repository::{Repository, check_tag};
pub use crate::retry::RetryPolicy;
pub use crate::settings::{Secret, Settings};
pub use crate::source::{HubSource, Source};

use crate::http::Http;
use crate::retry::Tries;
use crate::store::Store;
use crate::transfer::{Context, blocking};

mod artifact;
mod digest;
mod docker_config;
mod error;
mod http;
mod hub;
mod local;
mod oci;
mod part;
mod progress;
mod push;
mod ranges;
mod refusal;
mod registry;
mod repository;
mod retry;
mod select;
mod settings;
mod source;
mod space;
mod store;
mod transfer;
mod unpack;
mod upload;
mod web;

/// What to load.
#[derive(Clone, Debug)]
pub struct LoadRequest {
    /// Where from.
    pub source: Source,
    /// The only content that is acceptable, as `sha256:HEX`; see [`ResolvedModel::digest`].
    pub digest: Option<String>,
    /// Directory for downloads; what is in it from an earlier start of the container is used again.
    pub scratch: PathBuf,
}

/// A model whose files are on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalModel {
    /// The directory that holds the files.
    pub directory: PathBuf,
    /// The files, absolute and sorted: weights and what belongs to them.
    pub files: Vec<PathBuf>,
    /// What the model is. The digest is empty for a `file://` source that was fetched without one: hashing it would
    /// only delay the start.
    pub resolved: ResolvedModel,
}

/// Resolves, downloads what is missing, verifies. Settings come from the environment.
///
/// # Errors
/// Any [`LoadError`]; bytes that do not match are removed.
pub async fn fetch(
    request: &LoadRequest,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<LocalModel, LoadError> {
    Loader::new(Settings::from_env()).fetch(request, progress, cancel).await
}

/// Finds out what exactly the source holds now, without keeping it. Settings come from the environment.
///
/// # Errors
/// Any [`LoadError`].
pub async fn resolve(request: &LoadRequest, cancel: &CancellationToken) -> Result<ResolvedModel, LoadError> {
    Loader::new(Settings::from_env()).resolve(request, cancel).await
}

/// Makes ring the provider of cryptography for this process. Calling it again changes nothing.
pub fn install_crypto_provider() {
    // An error says that a provider is there already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// [`fetch()`], [`resolve()`] and the functions for pushing with settings of one's own.
#[derive(Clone, Debug)]
pub struct Loader {
    settings: Settings,
}

impl Loader {
    /// A loader.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        install_crypto_provider();
        Self { settings }
    }

    /// See [`fetch()`].
    ///
    /// # Errors
    /// Any [`LoadError`].
    pub async fn fetch(
        &self,
        request: &LoadRequest,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<LocalModel, LoadError> {
        let expected = request.digest.as_deref().map(str::parse).transpose()?;
        let job = Job {
            settings: &self.settings,
            scratch: &request.scratch,
            expected,
            progress,
            tries: self.tries(cancel),
        };
        match &request.source {
            Source::File(path) => local::fetch(path, expected, progress, cancel).await,
            Source::Oci(reference) => oci::fetch(reference, &job).await,
            Source::Hub(source) => hub::fetch(source, &job).await,
            Source::Web(url) => web::fetch(url, &job).await,
        }
    }

    /// See [`resolve()`].
    ///
    /// # Errors
    /// Any [`LoadError`].
    pub async fn resolve(&self, request: &LoadRequest, cancel: &CancellationToken) -> Result<ResolvedModel, LoadError> {
        let expected = request.digest.as_deref().map(str::parse).transpose()?;
        let tries = self.tries(cancel);
        match &request.source {
            Source::File(path) => local::resolve(path, expected, cancel).await,
            Source::Oci(reference) => oci::resolve(reference, expected, &self.settings, &tries).await,
            Source::Hub(source) => hub::resolve(source, expected, &self.settings, &tries).await,
            Source::Web(url) => web::resolve(url, expected, &tries).await,
        }
    }

    fn tries(&self, cancel: &CancellationToken) -> Tries {
        Tries {
            policy: self.settings.retry.clone(),
            cancel: cancel.clone(),
        }
    }
}

/// One fetch: what all sources need for it.
struct Job<'a> {
    settings: &'a Settings,
    scratch: &'a Path,
    expected: Option<Digest>,
    progress: &'a Progress,
    tries: Tries,
}

impl Job<'_> {
    fn context(&self, store: Store) -> Result<Context, LoadError> {
        Ok(Context::new(
            Http::new()?,
            store,
            self.settings,
            self.progress,
            &self.tries.cancel,
        ))
    }

    /// The model of an earlier start of the container, if it is complete and right.
    async fn completed(&self, store: &Store) -> Result<Option<LocalModel>, LoadError> {
        let (store, expected, cancel) = (store.clone(), self.expected, self.tries.cancel.clone());
        blocking(move || store.completed(expected, &cancel)).await
    }
}

fn resolved_model(uri: String, digest: String, sizes: impl ExactSizeIterator<Item = u64>) -> ResolvedModel {
    let files = u32::try_from(sizes.len()).unwrap_or(u32::MAX);
    ResolvedModel {
        uri,
        digest,
        size_bytes: sizes.sum(),
        files,
    }
}
