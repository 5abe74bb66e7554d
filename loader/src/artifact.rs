//! A model as an artifact: its manifest, and the index that a tag names. Pure, and without any time: the same in gives the same
//! bytes, whoever pushes and whenever.

use std::collections::BTreeMap;

use oci_client::manifest::{
    ImageIndexEntry, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageIndex, OciImageManifest,
    OciManifest,
};
use serde::Serialize;

use crate::digest::Digest;
use crate::error::LoadError;
use crate::push::ModelFile;
use crate::registry::Pulled;

/// Type of the artifact that a model is.
pub const MODEL_ARTIFACT_TYPE: &str = "application/vnd.perennial.model.v1";
/// Media type of a file of a model.
pub const MODEL_FILE_MEDIA_TYPE: &str = "application/vnd.perennial.model.file.v1";
const TITLE: &str = "org.opencontainers.image.title";
const EMPTY_MEDIA_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// The configuration of an artifact that has none.
pub(crate) const EMPTY: &[u8] = b"{}";

/// A file, and what a manifest says of it.
#[derive(Debug)]
pub(crate) struct Layer<'a> {
    pub(crate) file: &'a ModelFile,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// The manifest of a model: the same bytes for the same files and annotations.
pub(crate) fn manifest(layers: &[Layer<'_>], annotations: &BTreeMap<String, String>) -> Result<Vec<u8>, LoadError> {
    let layers = layers.iter().map(|layer| {
        Ok(OciDescriptor {
            annotations: Some(BTreeMap::from([(TITLE.to_owned(), layer.file.title.clone())])),
            ..descriptor(MODEL_FILE_MEDIA_TYPE, layer.digest, layer.size)?
        })
    });
    bytes(&OciImageManifest {
        media_type: Some(OCI_IMAGE_MEDIA_TYPE.to_owned()),
        artifact_type: Some(MODEL_ARTIFACT_TYPE.to_owned()),
        config: descriptor(EMPTY_MEDIA_TYPE, Digest::of(EMPTY), EMPTY.len() as u64)?,
        layers: layers.collect::<Result<_, LoadError>>()?,
        annotations: some(annotations),
        ..OciImageManifest::default()
    })
}

/// The index that a tag names: the same bytes for the same model and annotations.
pub(crate) fn index(model: &Pulled, annotations: &BTreeMap<String, String>) -> Result<Vec<u8>, LoadError> {
    let (media_type, usual) = match &model.manifest {
        OciManifest::Image(manifest) => (&manifest.media_type, OCI_IMAGE_MEDIA_TYPE),
        OciManifest::ImageIndex(index) => (&index.media_type, OCI_IMAGE_INDEX_MEDIA_TYPE),
    };
    let entry = ImageIndexEntry {
        media_type: media_type.clone().unwrap_or_else(|| usual.to_owned()),
        digest: model.digest.clone(),
        size: length(model.size as u64)?,
        platform: None,
        annotations: None,
        artifact_type: None,
    };
    bytes(&OciImageIndex {
        schema_version: 2,
        media_type: Some(OCI_IMAGE_INDEX_MEDIA_TYPE.to_owned()),
        manifests: vec![entry],
        artifact_type: None,
        annotations: some(annotations),
    })
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Result<OciDescriptor, LoadError> {
    Ok(OciDescriptor {
        media_type: media_type.to_owned(),
        digest: digest.to_string(),
        size: length(size)?,
        ..OciDescriptor::default()
    })
}

fn length(bytes: u64) -> Result<i64, LoadError> {
    i64::try_from(bytes).map_err(LoadError::internal)
}

fn some(annotations: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!annotations.is_empty()).then(|| annotations.clone())
}

fn bytes(value: &impl Serialize) -> Result<Vec<u8>, LoadError> {
    serde_json::to_vec(value).map_err(LoadError::internal)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn file(title: &str) -> ModelFile {
        ModelFile {
            title: title.to_owned(),
            path: PathBuf::from("/nonexistent"),
        }
    }

    #[test]
    fn a_manifest_is_what_oras_writes_and_never_changes() {
        let file = file("m.gguf");
        let layer = Layer {
            file: &file,
            digest: Digest::of(b"weights"),
            size: 7,
        };
        let annotations = BTreeMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())]);
        let written = String::from_utf8(manifest(&[layer], &annotations).unwrap()).unwrap();
        let (empty, weights) = (Digest::of(b"{}"), Digest::of(b"weights"));
        assert_eq!(
            written,
            format!(
                r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{empty}","size":2}},"layers":[{{"mediaType":"application/vnd.perennial.model.file.v1","digest":"{weights}","size":7,"annotations":{{"org.opencontainers.image.title":"m.gguf"}}}}],"artifactType":"application/vnd.perennial.model.v1","annotations":{{"a":"1","b":"2"}}}}"#
            )
        );
    }

    #[test]
    fn an_index_has_the_model_as_its_only_entry() {
        let model = Pulled {
            manifest: OciManifest::Image(OciImageManifest::default()),
            digest: Digest::of(b"m").to_string(),
            size: 5,
        };
        let annotations = BTreeMap::from([("a".to_owned(), "{\"b\":1}".to_owned())]);
        let written = String::from_utf8(index(&model, &annotations).unwrap()).unwrap();
        assert_eq!(
            written,
            format!(
                r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":5}}],"annotations":{{"a":"{{\"b\":1}}"}}}}"#,
                Digest::of(b"m")
            )
        );
    }
}
