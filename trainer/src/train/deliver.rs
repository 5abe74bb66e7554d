//! Where a merged model goes: it stays on the volume, or it is pushed to a repository of a registry.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use perennial_crds::publish::{BASE_ANNOTATION, CYCLE_ANNOTATION, DATA_ANNOTATION};
use perennial_loader::{LoadError, ModelFile, PushRequest, PushedModel, Repository, check_tag};
use tokio_util::sync::CancellationToken;

use super::arguments::Arguments;
use super::error::TrainError;
use super::fetch::runtime;

const TITLE: &str = "org.opencontainers.image.title";
const DESCRIPTION: &str = "org.opencontainers.image.description";

/// Where a merged model goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// It stays where it is, which pods that serve call by this address.
    Volume(String),
    /// It gets a tag in a repository.
    Registry(Repository, String),
}

impl Target {
    /// Reads what is told.
    ///
    /// # Errors
    /// When nothing can be pushed there.
    pub fn read(arguments: &Arguments) -> Result<Self, TrainError> {
        let uri = arguments.output_uri.trim_end_matches('/');
        if !uri.starts_with("oci://") {
            return Ok(Self::Volume(uri.to_owned()));
        }
        let tag = format!("cycle-{}", arguments.cycle_id);
        let read = Repository::parse(uri).and_then(|repository| {
            check_tag(&tag)?;
            Ok(Self::Registry(repository, tag))
        });
        read.map_err(|error| TrainError::Arguments(format!("RETRAIN_OUTPUT_URI or RETRAIN_CYCLE_ID: {error}")))
    }
}

/// A model to push: what is said of it with it.
#[derive(Debug)]
pub struct Parcel<'a> {
    /// Its file or directory.
    pub path: &'a Path,
    /// Digest of the manifest of its data.
    pub data_digest: &'a str,
    /// How it was made, in words.
    pub said: &'a str,
}

/// Pushes a model.
///
/// # Errors
/// [`LoadError`]; its text says what to do.
pub fn push(
    parcel: &Parcel,
    repository: &Repository,
    tag: &str,
    arguments: &Arguments,
    cancel: &CancellationToken,
) -> Result<PushedModel, TrainError> {
    let said = [
        (CYCLE_ANNOTATION, arguments.cycle_id.as_str()),
        (BASE_ANNOTATION, &arguments.base_model_digest),
        (DATA_ANNOTATION, parcel.data_digest),
        (TITLE, tag),
        (DESCRIPTION, parcel.said),
    ];
    let request = PushRequest {
        repository: repository.clone(),
        tag: tag.to_owned(),
        files: files(parcel.path)?,
        annotations: said
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
    };
    Ok(runtime()?.block_on(perennial_loader::push(&request, cancel))?)
}

/// The files of a stored model, which lie side by side.
fn files(path: &Path) -> Result<Vec<ModelFile>, TrainError> {
    let file = |path: &Path| {
        let title = path.file_name().and_then(|name| name.to_str());
        let title = title.ok_or_else(|| LoadError::InvalidArguments {
            subject: path.display().to_string(),
            problem: "its name is not text".to_owned(),
        })?;
        Ok(ModelFile {
            title: title.to_owned(),
            path: path.to_path_buf(),
        })
    };
    if !path.is_dir() {
        return Ok(vec![file(path)?]);
    }
    let entries = fs::read_dir(path).map_err(TrainError::io("read", path))?;
    entries
        .map(|entry| file(&entry.map_err(TrainError::io("read", path))?.path()))
        .collect()
}
