//! `result.json`: the result with the whole way to it, by which a later pod knows that nothing is to be learned any more.

use std::path::Path;

use perennial_crds::retrain::RetrainResult;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::checkpoint::Record;
use super::error::TrainError;
use super::fetch::digest_of;
use crate::contract::write_bytes;

/// The file below the output directory.
pub const RESULT_FILE: &str = "result.json";

/// A result with the whole way to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Full {
    /// Of everything that decides the result.
    pub fingerprint: String,
    /// Why the cycle runs.
    pub cause: String,
    /// The model that served.
    pub champion: String,
    /// What is said in the end.
    pub result: RetrainResult,
    /// The merged model on the volume.
    #[serde(default)]
    pub stored: Option<Stored>,
    /// The way.
    pub record: Record,
}

/// A merged model below the output directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// Name of its file or directory.
    pub name: String,
    /// Digest of its bytes, as the loader computes it of files.
    pub digest: String,
}

impl Full {
    /// The result of an earlier pod, if its bytes are still what they were.
    #[must_use]
    pub fn read(output: &Path, fingerprint: &str, cancel: &CancellationToken) -> Option<Self> {
        let text = std::fs::read(output.join(RESULT_FILE)).ok()?;
        let full: Self = serde_json::from_slice(&text).ok()?;
        if full.fingerprint != fingerprint {
            return None;
        }
        if full.result.model.is_none() {
            return Some(full);
        }
        let stored = full.stored.as_ref()?;
        let digest = digest_of(&output.join(&stored.name), cancel).ok()?;
        (digest == stored.digest).then_some(full)
    }

    /// Leaves it.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write(&self, output: &Path) -> Result<(), TrainError> {
        let path = output.join(RESULT_FILE);
        let json = serde_json::to_vec_pretty(self).map_err(std::io::Error::from);
        let written = json.and_then(|json| write_bytes(&path, &json));
        written.map_err(TrainError::io("write", path))
    }
}
