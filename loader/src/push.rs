//! Models on their way into a registry, and the tags by which they are found there again.
//!
//! A model is an artifact whose layers are its files, as ORAS writes them. Its manifest holds no time, so that a Job that was
//! killed and pushes again makes the same one. A tag of [`tag()`] names an index with the model's manifest as its only entry:
//! what is said of a model there does not change the model's digest.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_client::Reference;
use oci_client::manifest::{OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, OciManifest};
use tokio_util::sync::CancellationToken;

use crate::Loader;
use crate::artifact::{EMPTY, Layer, index, manifest};
use crate::digest::{Digest, hash_file};
use crate::error::LoadError;
use crate::registry::Session;
use crate::repository::{Repository, parse_pinned, parse_tagged};
use crate::retry::Tries;
use crate::settings::Settings;
use crate::source::is_clean_path;
use crate::transfer::blocking;
use crate::upload::{Blob, Content, Uploader, changed};

/// A file of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// Its path in the model.
    pub title: String,
    /// Where it lies.
    pub path: PathBuf,
}

/// A model to push.
#[derive(Clone, Debug)]
pub struct PushRequest {
    /// Where to.
    pub repository: Repository,
    /// The tag that it gets.
    pub tag: String,
    /// Its files, in any order.
    pub files: Vec<ModelFile>,
    /// What is said of it in its manifest.
    pub annotations: BTreeMap<String, String>,
}

/// A model that was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedModel {
    /// `oci://HOST/REPOSITORY@sha256:HEX`.
    pub uri: String,
    /// Digest of its manifest.
    pub digest: String,
    /// Bytes of its files.
    pub size_bytes: u64,
}

/// A model to tag.
#[derive(Clone, Debug)]
pub struct TagRequest {
    /// `oci://HOST/REPOSITORY@sha256:HEX`.
    pub model: String,
    /// The tag that it gets.
    pub tag: String,
    /// What is said of it in the index that the tag names.
    pub annotations: BTreeMap<String, String>,
}

/// What a tag names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaggedModel {
    /// Digest of the model's manifest, which is in the registry.
    pub digest: String,
    /// The index's annotations, or the manifest's if the tag names that itself.
    pub annotations: BTreeMap<String, String>,
}

/// Pushes a model; what the repository has already is not sent again. Settings come from the environment.
///
/// # Errors
/// Any [`LoadError`]; [`LoadError::Unauthorized`] when the credentials may not push.
pub async fn push(request: &PushRequest, cancel: &CancellationToken) -> Result<PushedModel, LoadError> {
    Loader::new(Settings::from_env()).push(request, cancel).await
}

/// Tags a model that is in a registry, also when another one has the tag. Returns the digest of the index that the tag names
/// then. Settings come from the environment.
///
/// # Errors
/// Any [`LoadError`]; [`LoadError::NotFound`] when the model is not there.
pub async fn tag(request: &TagRequest, cancel: &CancellationToken) -> Result<String, LoadError> {
    Loader::new(Settings::from_env()).tag(request, cancel).await
}

/// Finds the model of `oci://HOST/REPOSITORY:TAG`; nothing if there is no such tag or repository. Settings come from the
/// environment.
///
/// # Errors
/// Any [`LoadError`]; [`LoadError::NotFound`] when there is the tag, but not what it names.
pub async fn find(address: &str, cancel: &CancellationToken) -> Result<Option<TaggedModel>, LoadError> {
    Loader::new(Settings::from_env()).find(address, cancel).await
}

impl Loader {
    /// See [`push()`].
    ///
    /// # Errors
    /// Any [`LoadError`].
    pub async fn push(&self, request: &PushRequest, cancel: &CancellationToken) -> Result<PushedModel, LoadError> {
        let reference = request.repository.tagged(&request.tag)?;
        let uploader = Uploader::new(&reference, &self.settings)?;
        let tries = self.tries(cancel);
        let subject = uploader.session().subject();
        let layers = describe(&request.files, cancel).await?;
        let bytes = manifest(&layers, &request.annotations)?;
        let digest = Digest::of(&bytes);
        let pushed = PushedModel {
            uri: request.repository.pinned(digest),
            digest: digest.to_string(),
            size_bytes: layers.iter().map(|layer| layer.size).sum(),
        };
        tries
            .ask(&subject, async || uploader.session().authorize().await)
            .await?;
        if names(&uploader, &reference, digest, &tries).await? {
            tracing::info!(uri = pushed.uri, "the model is there already");
            return Ok(pushed);
        }
        let config = Blob {
            digest: Digest::of(EMPTY),
            size: EMPTY.len() as u64,
            content: Content::Bytes(EMPTY),
        };
        let files = layers.iter().map(|layer| Blob {
            digest: layer.digest,
            size: layer.size,
            content: Content::File(&layer.file.path),
        });
        for blob in files.chain([config]) {
            // Asked before every attempt: the answer to the last one may have been all that was lost.
            let ensure = async || match uploader.has(blob.digest).await? {
                true => Ok(()),
                false => uploader.put_blob(&blob).await,
            };
            tries.ask(&subject, ensure).await?;
        }
        put_manifest(&uploader, &request.tag, OCI_IMAGE_MEDIA_TYPE, &bytes, &tries).await?;
        tracing::info!(uri = pushed.uri, bytes = pushed.size_bytes, "pushed");
        Ok(pushed)
    }

    /// See [`tag()`].
    ///
    /// # Errors
    /// Any [`LoadError`].
    pub async fn tag(&self, request: &TagRequest, cancel: &CancellationToken) -> Result<String, LoadError> {
        let (model, _) = parse_pinned(&request.model)?;
        let reference = Repository::of(&model).tagged(&request.tag)?;
        let uploader = Uploader::new(&model, &self.settings)?;
        let (tries, session) = (self.tries(cancel), uploader.session());
        let subject = session.subject();
        tries.ask(&subject, async || session.authorize().await).await?;
        let found = tries.ask(&subject, async || session.pull(&model).await).await?;
        let bytes = index(&found, &request.annotations)?;
        let digest = Digest::of(&bytes);
        if !names(&uploader, &reference, digest, &tries).await? {
            put_manifest(&uploader, &request.tag, OCI_IMAGE_INDEX_MEDIA_TYPE, &bytes, &tries).await?;
        }
        Ok(digest.to_string())
    }

    /// See [`find()`].
    ///
    /// # Errors
    /// Any [`LoadError`].
    pub async fn find(&self, address: &str, cancel: &CancellationToken) -> Result<Option<TaggedModel>, LoadError> {
        let reference = parse_tagged(address)?;
        let (session, tries) = (Session::new(&reference, &self.settings)?, self.tries(cancel));
        let subject = session.subject();
        tries.ask(&subject, async || session.authorize().await).await?;
        let Some(tagged) = tries.ask(&subject, async || session.find(&reference).await).await? else {
            return Ok(None);
        };
        let index = match tagged.manifest {
            OciManifest::Image(manifest) => {
                return Ok(Some(TaggedModel {
                    digest: tagged.digest,
                    annotations: manifest.annotations.unwrap_or_default(),
                }));
            }
            OciManifest::ImageIndex(index) => index,
        };
        let digest = session.choose(&index.manifests)?;
        let model = reference.clone_with_digest(digest.clone());
        match tries.ask(&subject, async || session.find(&model).await).await? {
            Some(_) => Ok(Some(TaggedModel {
                digest,
                annotations: index.annotations.unwrap_or_default(),
            })),
            None => Err(LoadError::NotFound {
                subject: format!("{digest} of {subject}"),
                advice: "the tag names it, but it is gone: push the model again, or remove the tag".to_owned(),
            }),
        }
    }
}

/// Whether a tag names this digest already: some registries let no tag be written twice. Some also let nobody look into a
/// repository that does not exist yet; whether it may be made shows when it is written to.
async fn names(uploader: &Uploader, reference: &Reference, digest: Digest, tries: &Tries) -> Result<bool, LoadError> {
    let session = uploader.session();
    let found = tries
        .ask(&session.subject(), async || session.find(reference).await)
        .await;
    match found {
        Err(LoadError::Unauthorized { .. }) => Ok(false),
        found => Ok(found?.is_some_and(|found| found.digest == digest.to_string())),
    }
}

async fn put_manifest(
    uploader: &Uploader,
    tag: &str,
    media_type: &'static str,
    bytes: &[u8],
    tries: &Tries,
) -> Result<(), LoadError> {
    let subject = uploader.session().subject();
    tries
        .ask(&subject, async || uploader.put_manifest(tag, media_type, bytes).await)
        .await
}

/// Hashes the files. They come sorted, so that their order says nothing.
async fn describe<'a>(files: &'a [ModelFile], cancel: &CancellationToken) -> Result<Vec<Layer<'a>>, LoadError> {
    let mut sorted: Vec<&ModelFile> = files.iter().collect();
    sorted.sort_unstable_by(|one, other| one.title.cmp(&other.title));
    check_titles(&sorted)?;
    let mut layers = Vec::with_capacity(sorted.len());
    for file in sorted {
        let (path, cancel) = (file.path.clone(), cancel.clone());
        let (digest, size) = blocking(move || {
            let size = || match std::fs::metadata(&path) {
                Ok(metadata) => Ok(metadata.len()),
                Err(error) => Err(LoadError::io("read", &path, error)),
            };
            let before = size()?;
            let digest = hash_file(&path, None, &cancel)?;
            if size()? == before {
                Ok((digest, before))
            } else {
                Err(changed(&path))
            }
        })
        .await?;
        layers.push(Layer { file, digest, size });
    }
    Ok(layers)
}

fn check_titles(sorted: &[&ModelFile]) -> Result<(), LoadError> {
    let invalid = |title: &str, problem: &str| LoadError::InvalidArguments {
        subject: format!("the file {title:?} of a model"),
        problem: problem.to_owned(),
    };
    if sorted.is_empty() {
        return Err(invalid("", "there is nothing to push: name the files of the model"));
    }
    for file in sorted {
        if !is_clean_path(&file.title) {
            return Err(invalid(&file.title, "its name must be a path below the model"));
        }
    }
    match sorted.windows(2).find(|pair| pair[0].title == pair[1].title) {
        Some(pair) => Err(invalid(&pair[0].title, "there are two of this name")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(title: &str) -> ModelFile {
        ModelFile {
            title: title.to_owned(),
            path: PathBuf::from("/nonexistent"),
        }
    }

    #[test]
    fn titles_are_paths_and_differ() {
        let check = |titles: &[&str]| {
            let files: Vec<ModelFile> = titles.iter().map(|title| file(title)).collect();
            check_titles(&files.iter().collect::<Vec<_>>())
        };
        assert!(check(&["config.json", "model.safetensors"]).is_ok());
        for wrong in [&[][..], &["../a"], &["/a"], &[""], &["a", "a"]] {
            assert!(check(wrong).is_err(), "{wrong:?}");
        }
    }
}
