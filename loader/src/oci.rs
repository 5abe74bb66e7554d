//! Models in OCI registries: artifacts whose layers are the files, and images whose layers are archives of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use oci_client::Reference;
use oci_client::manifest::{OciDescriptor, OciImageManifest};
use perennial_crds::serving::{LoadingStage, ResolvedModel};

use crate::digest::Digest;
use crate::error::LoadError;
use crate::http::{Advice, Credential, Target};
use crate::registry::{Pinned, Session};
use crate::retry::Tries;
use crate::select::{Unselected, is_model_file, select_nested};
use crate::settings::Settings;
use crate::store::{Finished, Store};
use crate::transfer::{Context, Item, blocking, download_all};
use crate::unpack::{Files, safe_path, unpack};
use crate::{Job, LocalModel, resolved_model};

/// File names, as ORAS and as the model specification of the CNCF write them.
const TITLES: [&str; 2] = ["org.opencontainers.image.title", "org.cncf.model.filepath"];
/// Set by ORAS on a folder that it packed.
const UNPACK: &str = "io.deis.oras.content.unpack";

/// What to download of a manifest.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// Layers that are files, by path.
    files: BTreeMap<String, Blob>,
    /// Layers that are archives, in order.
    archives: Vec<Blob>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Blob {
    digest: Digest,
    size: u64,
}

/// Asks the registry what the reference stands for.
pub(crate) async fn resolve(
    reference: &Reference,
    expected: Option<Digest>,
    settings: &Settings,
    tries: &Tries,
) -> Result<ResolvedModel, LoadError> {
    let session = Arc::new(Session::new(reference, settings)?);
    let (pinned, digest) = pin(&session, expected, tries).await?;
    let plan = plan(&session.subject(), &pinned.manifest)?;
    let sizes: Vec<u64> = plan
        .files
        .values()
        .chain(&plan.archives)
        .map(|blob| blob.size)
        .collect();
    Ok(resolved_model(
        address(reference, digest),
        digest.to_string(),
        sizes.into_iter(),
    ))
}

/// Downloads the files, or unpacks them from the archives.
pub(crate) async fn fetch(reference: &Reference, job: &Job<'_>) -> Result<LocalModel, LoadError> {
    // What is named by its digest and is here already needs no registry.
    let named = job.expected.or_else(|| reference.digest()?.parse().ok());
    if let Some(digest) = named
        && let Some(model) = job.completed(&store(job.scratch, reference, digest)).await?
    {
        return Ok(model);
    }
    let session = Arc::new(Session::new(reference, job.settings)?);
    job.progress.set_stage(LoadingStage::Resolving);
    let (pinned, digest) = pin(&session, job.expected, &job.tries).await?;
    let plan = plan(&session.subject(), &pinned.manifest)?;
    let place = named.unwrap_or(digest);
    let store = store(job.scratch, reference, place);
    if named.is_none()
        && let Some(model) = job.completed(&store).await?
    {
        return Ok(model);
    }
    store.create()?;
    let total = plan.files.values().chain(&plan.archives).map(|blob| blob.size).sum();
    job.progress.start(LoadingStage::Downloading, Some(total));
    let address = address(reference, digest);
    let advice = Arc::new(session.advice());
    let items = plan
        .files
        .iter()
        .map(|(name, blob)| item(name, blob, &session, &advice));
    let items = items.collect::<Result<Vec<_>, _>>()?;
    if plan.archives.is_empty() {
        let files = download_all(&job.context(store.clone())?, items).await?;
        let (folder, _) = chosen(&session.subject(), plan.files.keys().map(String::as_str))?;
        return store.complete(address, digest, &folder, &files);
    }
    let layers = Store::new(job.scratch, &format!("layers of {}@{place}", repository(reference)));
    let mut wanted = Vec::new();
    for blob in &plan.archives {
        wanted.push(item(&blob.digest.hex(), blob, &session, &advice)?);
    }
    wanted.dedup_by(|left, right| left.name == right.name);
    let context = job.context(layers.clone())?;
    download_all(&context, wanted).await?;
    let named = download_all(
        &Context {
            store: store.clone(),
            ..context
        },
        items,
    )
    .await?;
    job.progress.set_stage(LoadingStage::Verifying);
    let folder = assemble(&session.subject(), &store, &layers, plan.archives, named, job).await?;
    let (folder, files) = folder;
    let model = store.complete(address, digest, &folder, &files)?;
    layers.remove_all()?;
    Ok(model)
}

/// Unpacks the archives in order and moves the chosen files to their place.
async fn assemble(
    subject: &str,
    store: &Store,
    layers: &Store,
    archives: Vec<Blob>,
    named: Vec<Finished>,
    job: &Job<'_>,
) -> Result<(String, Vec<Finished>), LoadError> {
    let (subject, store, layers) = (subject.to_owned(), store.clone(), layers.clone());
    let cancel = job.tries.cancel.clone();
    blocking(move || {
        let directory = store.state().join("unpacked");
        remove_directory(&directory)?;
        std::fs::create_dir_all(&directory).map_err(|error| LoadError::io("create directory", &directory, error))?;
        let mut unpacked = Files::new();
        for blob in &archives {
            unpack(
                &layers.files().join(blob.digest.hex()),
                &subject,
                &directory,
                &mut unpacked,
                &cancel,
            )?;
        }
        let mut files: Files = named.into_iter().map(|file| (file.name.clone(), file)).collect();
        let names = unpacked.keys().chain(files.keys()).map(String::as_str);
        let (folder, names) = chosen(&subject, names)?;
        for name in &names {
            if let Some(file) = unpacked.get(name).filter(|_| !files.contains_key(name)) {
                store.commit(&directory.join(name), file)?;
                files.insert(name.clone(), file.clone());
            }
        }
        remove_directory(&directory)?;
        files.retain(|name, _| names.contains(name));
        Ok((folder, files.into_values().collect()))
    })
    .await
}

/// Follows the reference, and refuses what is not the digest that was asked for. That may be the digest of an index.
async fn pin(session: &Session, expected: Option<Digest>, tries: &Tries) -> Result<(Pinned, Digest), LoadError> {
    let subject = session.subject();
    tries.ask(&subject, async || session.authorize().await).await?;
    let pinned = tries.ask(&subject, async || session.manifest().await).await?;
    let manifest: Digest = parse_digest(&subject, &pinned.digest)?;
    let index = pinned.index.as_deref().and_then(|digest| digest.parse().ok());
    match expected {
        Some(expected) if expected != manifest && Some(expected) != index => Err(LoadError::DigestMismatch {
            subject,
            expected: expected.to_string(),
            actual: index.unwrap_or(manifest).to_string(),
        }),
        Some(expected) => Ok((pinned, expected)),
        None => Ok((pinned, manifest)),
    }
}

/// Sorts the layers of a manifest into files and archives; of files, only those of the model.
fn plan(subject: &str, manifest: &OciImageManifest) -> Result<Plan, LoadError> {
    let mut plan = Plan::default();
    for layer in &manifest.layers {
        let annotation = |name: &str| layer.annotations.as_ref().and_then(|all| all.get(name));
        let title = TITLES.iter().find_map(|name| annotation(name));
        let packed = annotation(UNPACK).is_some_and(|value| value == "true");
        match title {
            Some(title) if !packed && !is_packed_model(&layer.media_type) => {
                let path = safe_path(title)
                    .filter(|path| !path.is_empty())
                    .ok_or_else(|| LoadError::InvalidModel {
                        subject: subject.to_owned(),
                        problem: format!("a layer is named {title:?}, which is no path below the model"),
                    })?;
                plan.files.insert(path, blob(subject, layer)?);
            }
            None if !packed && !is_archive(&layer.media_type) => {}
            _ => plan.archives.push(blob(subject, layer)?),
        }
    }
    if plan.archives.is_empty() {
        let (_, names) = chosen(subject, plan.files.keys().map(String::as_str))?;
        plan.files.retain(|path, _| names.contains(path));
    } else {
        plan.files.retain(|path, _| is_model_file(path));
    }
    Ok(plan)
}

fn is_archive(media_type: &str) -> bool {
    [".tar", ".tar+gzip", ".tar.gzip", ".tar+zstd"]
        .iter()
        .any(|end| media_type.ends_with(end))
}

/// The CNCF's model specification names the folder of a packed layer where others name a file.
fn is_packed_model(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.cncf.model.") && is_archive(media_type)
}

fn blob(subject: &str, layer: &OciDescriptor) -> Result<Blob, LoadError> {
    let size = u64::try_from(layer.size).map_err(|_| LoadError::InvalidModel {
        subject: subject.to_owned(),
        problem: "its manifest gives a layer a negative size".to_owned(),
    })?;
    Ok(Blob {
        digest: parse_digest(subject, &layer.digest)?,
        size,
    })
}

fn parse_digest(subject: &str, digest: &str) -> Result<Digest, LoadError> {
    digest.parse().map_err(|_| LoadError::Unsupported {
        subject: subject.to_owned(),
        problem: "it uses digests other than sha256: push it with sha256".to_owned(),
    })
}

fn chosen<'a>(subject: &str, names: impl Iterator<Item = &'a str>) -> Result<(String, Vec<String>), LoadError> {
    select_nested(names).map_err(|unselected| {
        let advice = match unselected {
            Unselected::NoWeights => {
                "it holds no *.safetensors and no *.gguf file, neither as a layer with a title nor \
                in an archive: push the model's files with oras push, or as an image"
                    .to_owned()
            }
            other => other.advice("push each under its own tag"),
        };
        LoadError::NotFound {
            subject: format!("A model in {subject}"),
            advice,
        }
    })
}

fn item(name: &str, blob: &Blob, session: &Arc<Session>, advice: &Arc<Advice>) -> Result<Item, LoadError> {
    let url = session.blob_address(&blob.digest.to_string());
    let target = Target {
        url: url
            .parse()
            .map_err(|_| LoadError::internal(format!("{} makes no address", session.subject())))?,
        credential: Credential::Registry(Arc::clone(session)),
        subject: format!("{name} of {}", session.subject()),
        advice: Arc::clone(advice),
    };
    Ok(Item {
        name: name.to_owned(),
        target,
        size: Some(blob.size),
        expected: Some(blob.digest),
        immutable: true,
    })
}

fn repository(reference: &Reference) -> String {
    format!("oci://{}/{}", reference.registry(), reference.repository())
}

fn address(reference: &Reference, digest: Digest) -> String {
    format!("{}@{digest}", repository(reference))
}

fn store(scratch: &Path, reference: &Reference, digest: Digest) -> Store {
    Store::new(scratch, &address(reference, digest))
}

fn remove_directory(directory: &Path) -> Result<(), LoadError> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(LoadError::io("remove", directory, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use perennial_crds::serving::FailureReason;

    use super::*;

    fn manifest(layers: &[(&str, Option<&str>, bool)]) -> OciImageManifest {
        let layers = layers.iter().map(|(media_type, title, packed)| {
            let title = title.map(|title| (TITLES[0].to_owned(), title.to_owned()));
            let packed = packed.then(|| (UNPACK.to_owned(), "true".to_owned()));
            OciDescriptor {
                media_type: (*media_type).to_owned(),
                digest: Digest::of(media_type.as_bytes()).to_string(),
                size: 3,
                annotations: Some(title.into_iter().chain(packed).collect()),
                ..OciDescriptor::default()
            }
        });
        OciImageManifest {
            layers: layers.collect(),
            ..OciImageManifest::default()
        }
    }

    const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

    #[test]
    fn titles_are_files_whatever_their_media_type() {
        let plan = plan(
            "x",
            &manifest(&[(TAR, Some("m.gguf"), false), ("text/plain", Some("README.md"), false)]),
        )
        .unwrap();
        assert_eq!(plan.files.keys().collect::<Vec<_>>(), ["m.gguf"]);
        assert!(plan.archives.is_empty());
    }

    #[test]
    fn archives_are_image_layers_and_packed_folders() {
        let gzip = format!("{TAR}+gzip");
        let layers = [
            (TAR, None, false),
            (&gzip, Some("folder"), true),
            ("application/json", None, false),
        ];
        let plan = plan("x", &manifest(&layers)).unwrap();
        assert_eq!((plan.files.len(), plan.archives.len()), (0, 2));
    }

    #[test]
    fn hostile_titles_and_empty_artifacts_are_refused() {
        for title in ["../m.gguf", "/m.gguf", "", "a/../../m.gguf"] {
            let error = plan("x", &manifest(&[("text/plain", Some(title), false)])).unwrap_err();
            assert_eq!(error.reason(), FailureReason::InvalidModel, "{title}");
        }
        let error = plan("x", &manifest(&[("application/wasm", None, false)])).unwrap_err();
        assert_eq!(error.reason(), FailureReason::ModelNotFound);
    }
}
