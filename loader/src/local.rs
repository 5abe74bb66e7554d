//! A model that is already on this machine, usually on a mounted claim: never copied, never written to.

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use futures::{StreamExt as _, TryStreamExt as _};
use perennial_crds::serving::{CLAIM_DIRECTORY, LoadingStage, ResolvedModel};
use tokio_util::sync::CancellationToken;

use crate::digest::{self, Digest, digest_of_files, hash_file};
use crate::error::LoadError;
use crate::progress::Progress;
use crate::select::{Unselected, select};
use crate::{LocalModel, resolved_model};

/// The files of a model below `directory`, with their sizes.
#[derive(Debug)]
struct Found {
    directory: PathBuf,
    files: Vec<(String, u64)>,
}

/// Hashes the model, so that it can be pinned.
pub(crate) async fn resolve(
    path: &Path,
    expected: Option<Digest>,
    cancel: &CancellationToken,
) -> Result<ResolvedModel, LoadError> {
    let found = find(path)?;
    let digest = hash(&found, &Progress::new(), cancel).await?;
    digest::check(&describe(path), expected, digest)?;
    Ok(resolved_model(
        address(path),
        digest.to_string(),
        found.files.iter().map(|(_, size)| *size),
    ))
}

/// Uses the files where they are; hashes them only where a digest is given.
pub(crate) async fn fetch(
    path: &Path,
    expected: Option<Digest>,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<LocalModel, LoadError> {
    let found = find(path)?;
    let digest = match expected {
        Some(expected) => {
            let digest = hash(&found, progress, cancel).await?;
            digest::check(&describe(path), Some(expected), digest)?;
            digest.to_string()
        }
        None => String::new(),
    };
    Ok(LocalModel {
        resolved: resolved_model(address(path), digest, found.files.iter().map(|(_, size)| *size)),
        files: found.files.iter().map(|(name, _)| found.directory.join(name)).collect(),
        directory: found.directory,
    })
}

async fn hash(found: &Found, progress: &Progress, cancel: &CancellationToken) -> Result<Digest, LoadError> {
    progress.start(
        LoadingStage::Verifying,
        Some(found.files.iter().map(|(_, size)| size).sum()),
    );
    let paths = found
        .files
        .iter()
        .map(|(name, _)| (name.clone(), found.directory.join(name)))
        .collect();
    let digests = hash_files(paths, Some(progress), cancel).await?;
    Ok(digest_of_files(
        digests.iter().map(|(name, digest)| (name.as_str(), *digest)),
    ))
}

/// Hashes files (name and path) on as many threads as the container may use.
pub(crate) async fn hash_files(
    files: Vec<(String, PathBuf)>,
    progress: Option<&Progress>,
    cancel: &CancellationToken,
) -> Result<Vec<(String, Digest)>, LoadError> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    futures::stream::iter(files)
        .map(|(name, path)| {
            let (progress, cancel) = (progress.cloned(), cancel.clone());
            async move {
                let digest = tokio::task::spawn_blocking(move || hash_file(&path, progress.as_ref(), &cancel))
                    .await
                    .map_err(LoadError::internal)??;
                Ok((name, digest))
            }
        })
        .buffered(threads)
        .try_collect()
        .await
}

fn find(path: &Path) -> Result<Found, LoadError> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, error))?;
    if metadata.is_file() {
        let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Ok(Found {
            directory,
            files: vec![(name, metadata.len())],
        });
    }
    let mut sizes = Vec::new();
    let mut folders = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| unreadable(path, error))? {
        let entry = entry.map_err(|error| unreadable(path, error))?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        // Links are followed: the hub's own cache is made of links.
        match fs::metadata(entry.path()) {
            Ok(metadata) if metadata.is_file() => sizes.push((name, metadata.len())),
            Ok(metadata) if metadata.is_dir() => folders.push(name),
            _ => {}
        }
    }
    folders.sort_unstable();
    let chosen = select(sizes.iter().map(|(name, _)| name.as_str()), None).map_err(|unselected| {
        let mut advice = unselected.advice("give its path instead of the folder's");
        if unselected == Unselected::NoWeights && !folders.is_empty() {
            advice = format!(
                "{advice}; or give the path of one of its folders: {}",
                folders.join(", ")
            );
        }
        LoadError::NotFound {
            subject: format!("A model in {}", describe(path)),
            advice,
        }
    })?;
    sizes.retain(|(name, _)| chosen.contains(name));
    sizes.sort_unstable();
    Ok(Found {
        directory: path.to_owned(),
        files: sizes,
    })
}

fn unreadable(path: &Path, error: std::io::Error) -> LoadError {
    match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => LoadError::NotFound {
            subject: describe(path),
            advice: "check the path, and that the volume holds the model".to_owned(),
        },
        std::io::ErrorKind::PermissionDenied => LoadError::Unauthorized {
            subject: describe(path),
            advice: "make it readable for the user that the server runs as, or set fsGroup in podTemplate".to_owned(),
        },
        _ => LoadError::io("read", path, error),
    }
}

/// The path as the user knows it: relative to the root of the claim.
fn describe(path: &Path) -> String {
    match path.strip_prefix(CLAIM_DIRECTORY) {
        Ok(inside) if inside.as_os_str().is_empty() => "The root of the volume of the claim".to_owned(),
        Ok(inside) => format!("Path {:?} in the volume of the claim", inside.display().to_string()),
        Err(_) => format!("Path {:?}", path.display().to_string()),
    }
}

fn address(path: &Path) -> String {
    format!("file://{}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_as_the_claim_has_them() {
        assert_eq!(
            describe(Path::new("/mnt/model/llama/a.gguf")),
            "Path \"llama/a.gguf\" in the volume of the claim"
        );
        assert_eq!(
            describe(Path::new("/mnt/model/")),
            "The root of the volume of the claim"
        );
        assert_eq!(describe(Path::new("/data/x")), "Path \"/data/x\"");
    }
}
