//! One check from its arguments to its result.

use std::path::{Path, PathBuf};

use perennial_crds::retrain::{Outcome, VerifyResult};
use perennial_loader::{Digest, LoadRequest, Progress, ResolvedModel, Source};
use tokio_util::sync::CancellationToken;

use super::address::{Address, address};
use super::arguments::Arguments;
use super::error::VerifyError;
use super::tree::{Found, files, has_extension};
use super::{gguf, result, safetensors};

/// Checks a model.
///
/// # Errors
/// [`VerifyError::Untrusted`] when it is not what it claims to be; others when that is not known.
pub async fn execute(arguments: &Arguments, cancel: &CancellationToken) -> Result<VerifyResult, VerifyError> {
    let expected = digest("VERIFY_DIGEST", &arguments.digest)?;
    let base = digest("VERIFY_BASE_DIGEST", &arguments.base_digest)?;
    if digest("VERIFY_CLAIMED_BASE_DIGEST", &arguments.claimed_base_digest)? != base {
        return Err(VerifyError::untrusted(format_args!(
            "the model was trained from {}, not from {base}: train from RETRAIN_BASE_MODEL_URI",
            arguments.claimed_base_digest
        )));
    }
    let model = match address(&arguments.uri, &arguments.candidate_directory)? {
        Address::Volume(path) => {
            let candidates = arguments.candidate_directory.clone();
            let (checked, limit) = (path.clone(), arguments.max_bytes);
            // Before it is hashed: a link may lead to what may not be read.
            blocking(move || inspect(&checked, &candidates, limit)).await?;
            resolve(&format!("file://{}", path.display()), &arguments.directory, cancel).await?
        }
        Address::Registry => in_registry(arguments, cancel).await?,
    };
    if model.digest != expected.to_string() {
        return Err(VerifyError::untrusted(format_args!(
            "the model's bytes have digest {}, not {expected}: it was changed after it was trained, or the trainer computes \
             digests otherwise (docs/reference/contracts.md)",
            model.digest
        )));
    }
    Ok(VerifyResult {
        digest: Some(model.digest),
        size_bytes: model.size_bytes,
        ..result(Outcome::Succeeded, "")
    })
}

async fn in_registry(arguments: &Arguments, cancel: &CancellationToken) -> Result<ResolvedModel, VerifyError> {
    let resolved = resolve(&arguments.uri, &arguments.directory, cancel).await?;
    size(resolved.size_bytes, arguments.max_bytes)?;
    let request = LoadRequest {
        digest: Some(arguments.digest.clone()),
        ..request(&arguments.uri, &arguments.directory)?
    };
    let local = perennial_loader::fetch(&request, &Progress::new(), cancel).await?;
    let limit = arguments.max_bytes;
    let model = local.resolved;
    blocking(move || {
        let root = &local.directory;
        local
            .files
            .iter()
            .try_for_each(|file| inspect(file, root, limit).map(|_| ()))
    })
    .await?;
    Ok(model)
}

/// What the model of an address is, by its bytes.
///
/// # Errors
/// When there is no model, or it cannot be read.
pub async fn resolve(uri: &str, scratch: &Path, cancel: &CancellationToken) -> Result<ResolvedModel, VerifyError> {
    Ok(perennial_loader::resolve(&request(uri, scratch)?, cancel).await?)
}

/// The files of a model on this machine that its digest is about.
///
/// # Errors
/// As of [`resolve`].
pub async fn covered(uri: &str, scratch: &Path, cancel: &CancellationToken) -> Result<Vec<PathBuf>, VerifyError> {
    // Without a digest nothing is hashed, and files of this machine are not copied.
    let local = perennial_loader::fetch(&request(uri, scratch)?, &Progress::new(), cancel).await?;
    Ok(local.files)
}

fn request(uri: &str, scratch: &Path) -> Result<LoadRequest, VerifyError> {
    Ok(LoadRequest {
        source: Source::parse(uri)?,
        digest: None,
        scratch: scratch.to_path_buf(),
    })
}

/// Checks the files of a model: formats, sizes, headers, and that none leaves the directory.
///
/// # Errors
/// What is wrong with one of them.
pub fn inspect(model: &Path, root: &Path, most_bytes: u64) -> Result<Vec<Found>, VerifyError> {
    let found = files(model, root)?;
    size(found.iter().map(|file| file.bytes).sum(), most_bytes)?;
    for file in &found {
        if has_extension(&file.path, "safetensors") {
            safetensors::check(&file.path)?;
        } else if has_extension(&file.path, "gguf") {
            gguf::check(&file.path)?;
        }
    }
    Ok(found)
}

fn size(bytes: u64, most: u64) -> Result<(), VerifyError> {
    if bytes > most {
        return Err(VerifyError::untrusted(format_args!(
            "the model has {bytes} bytes, and at most {most} are allowed"
        )));
    }
    Ok(())
}

fn digest(name: &str, text: &str) -> Result<Digest, VerifyError> {
    text.parse()
        .map_err(|_| VerifyError::untrusted(format_args!("{name} is no digest: sha256: and 64 hex digits")))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VerifyError> + Send + 'static,
) -> Result<T, VerifyError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(VerifyError::untrusted(format_args!("the check failed: {error}"))))
}
