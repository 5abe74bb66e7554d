//! Where a trained model may lie. Pure.

use std::path::{Path, PathBuf};

use perennial_loader::{Digest, Source};

use super::error::VerifyError;
use crate::contract::clean_path;

/// Where a trained model lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Below the directory of candidates.
    Volume(PathBuf),
    /// In a registry, by its digest.
    Registry,
}

/// Reads the address of a trained model.
///
/// # Errors
/// When it is one under which something else may lie tomorrow, or outside the directory.
pub fn address(uri: &str, candidates: &Path) -> Result<Address, VerifyError> {
    match uri.split_once("://") {
        Some(("file", path)) => {
            let inside = Path::new(path).strip_prefix(candidates).ok().and_then(Path::to_str);
            match inside.filter(|inside| clean_path(inside) && !path.contains("//")) {
                Some(inside) => Ok(Address::Volume(candidates.join(inside))),
                None => Err(VerifyError::untrusted(format_args!(
                    "the model does not lie below {}: let the trainer write it below RETRAIN_OUTPUT_DIR and name it below \
                     RETRAIN_OUTPUT_URI",
                    candidates.display()
                ))),
            }
        }
        Some(("oci", reference)) => {
            let pinned = reference.split_once("@sha256:");
            if pinned.is_none_or(|(_, hex)| Digest::from_hex(hex).is_none()) {
                return Err(VerifyError::untrusted(
                    "the model is named by a tag, which may be moved: name it oci://HOST/REPOSITORY@sha256:HEX",
                ));
            }
            Source::parse(uri).map_err(VerifyError::untrusted)?;
            Ok(Address::Registry)
        }
        _ => Err(VerifyError::untrusted(
            "a trained model lies on the volume of the cycle (file://) or in a registry (oci://), nowhere else",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_model_lies_below_the_directory_or_is_pinned() {
        let read = |uri: &str| address(uri, Path::new("/gate/candidate"));
        assert_eq!(
            read("file:///gate/candidate/model").expect("an address"),
            Address::Volume("/gate/candidate/model".into())
        );
        assert_eq!(
            read("file:///gate/candidate/a/b.gguf").expect("an address"),
            Address::Volume("/gate/candidate/a/b.gguf".into())
        );
        let pinned = format!("oci://registry.local/models/a@sha256:{HEX}");
        assert_eq!(read(&pinned).expect("an address"), Address::Registry);
        for wrong in [
            "file:///gate/candidate".to_owned(),
            "file:///gate/candidate/".to_owned(),
            "file:///gate/candidate/../suites/a".to_owned(),
            "file:///gate/candidate/a/../../b".to_owned(),
            "file:///gate/candidates/a".to_owned(),
            "file:///gate/candidate//etc/passwd".to_owned(),
            "file:///etc/passwd".to_owned(),
            "file://gate/candidate/a".to_owned(),
            "oci://registry.local/models/a:latest".to_owned(),
            "oci://registry.local/models/a@sha256:00".to_owned(),
            format!("oci://models@sha256:{HEX}"),
            format!("hf://a/b@{HEX}"),
            "https://host/a.gguf".to_owned(),
            "model".to_owned(),
            String::new(),
        ] {
            assert!(matches!(read(&wrong), Err(VerifyError::Untrusted(_))), "{wrong}");
        }
    }
}
