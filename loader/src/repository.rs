//! A repository of a registry, to which models are pushed.

use std::fmt;
use std::str::FromStr;

use oci_client::Reference;

use crate::digest::Digest;
use crate::error::{LoadError, one_line};
use crate::source::Source;

/// Longest tag that registries take.
const MOST_TAG_BYTES: usize = 128;

/// A repository of an OCI registry: `oci://HOST/REPOSITORY`, without a tag or digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    registry: String,
    name: String,
}

impl Repository {
    /// Reads an address.
    ///
    /// # Errors
    /// [`LoadError::InvalidArguments`], saying which form is right.
    pub fn parse(address: &str) -> Result<Self, LoadError> {
        match (Source::parse(address)?, has_tag(address) || address.contains('@')) {
            (Source::Oci(reference), false) => Ok(Self::of(&reference)),
            _ => Err(invalid(
                address,
                "use oci://HOST/REPOSITORY without a tag or digest: it is where models are pushed to",
            )),
        }
    }

    /// The repository of a reference.
    pub(crate) fn of(reference: &Reference) -> Self {
        Self {
            registry: reference.registry().to_owned(),
            name: reference.repository().to_owned(),
        }
    }

    /// What a tag of the repository is called.
    pub(crate) fn tagged(&self, tag: &str) -> Result<Reference, LoadError> {
        check_tag(tag)?;
        let (registry, name) = (self.registry.clone(), self.name.clone());
        Ok(Reference::with_tag(registry, name, tag.to_owned()))
    }

    /// The address of a manifest in the repository.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> String {
        format!("{self}@{digest}")
    }
}

impl FromStr for Repository {
    type Err = LoadError;

    fn from_str(address: &str) -> Result<Self, LoadError> {
        Self::parse(address)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "oci://{}/{}", self.registry, self.name)
    }
}

/// Refuses a text that no registry takes as a tag.
///
/// # Errors
/// [`LoadError::InvalidArguments`], saying what a tag looks like.
pub fn check_tag(tag: &str) -> Result<(), LoadError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let begins = tag.bytes().next().is_some_and(plain);
    if begins && tag.len() <= MOST_TAG_BYTES && tag.bytes().all(|byte| plain(byte) || matches!(byte, b'.' | b'-')) {
        return Ok(());
    }
    Err(invalid(
        tag,
        "a tag has at most 128 letters, digits, underscores, dots and hyphens, and begins with none of the last two",
    ))
}

/// The reference of `oci://HOST/REPOSITORY:TAG`.
pub(crate) fn parse_tagged(address: &str) -> Result<Reference, LoadError> {
    match Source::parse(address)? {
        Source::Oci(reference) if has_tag(address) && reference.digest().is_none() => Ok(reference),
        _ => Err(invalid(address, "use oci://HOST/REPOSITORY:TAG")),
    }
}

/// The reference of `oci://HOST/REPOSITORY@sha256:HEX`.
pub(crate) fn parse_pinned(address: &str) -> Result<(Reference, Digest), LoadError> {
    let form = || invalid(address, "use oci://HOST/REPOSITORY@sha256:HEX");
    let Source::Oci(reference) = Source::parse(address)? else {
        return Err(form());
    };
    let digest = reference.digest().and_then(|digest| digest.parse().ok());
    let digest = digest.filter(|_| !has_tag(address)).ok_or_else(form)?;
    Ok((reference, digest))
}

/// Whether an address names a tag; the host may have a port.
fn has_tag(address: &str) -> bool {
    let name = address.split_once('@').map_or(address, |(name, _)| name);
    name.rsplit_once('/').is_some_and(|(_, last)| last.contains(':'))
}

fn invalid(given: &str, problem: &str) -> LoadError {
    LoadError::InvalidArguments {
        subject: format!("{:?}", one_line(given)),
        problem: problem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_repository_has_neither_tag_nor_digest() {
        for right in ["oci://localhost:5000/a", "oci://registry.example.com/team/models/b"] {
            assert_eq!(Repository::parse(right).unwrap().to_string(), right);
        }
        for wrong in [
            "oci://localhost:5000/a:v1",
            &format!("oci://registry.example.com/a@sha256:{HEX}"),
            "oci://registry.example.com",
            "hf://a/b",
            "file:///a",
            "registry.example.com/a",
        ] {
            assert!(Repository::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_name_what_they_should() {
        assert!(parse_tagged("oci://localhost:5000/a:v1").is_ok());
        assert!(parse_tagged("oci://localhost:5000/a").is_err());
        let pinned = format!("oci://localhost:5000/a@sha256:{HEX}");
        assert!(parse_tagged(&pinned).is_err());
        let (reference, digest) = parse_pinned(&pinned).unwrap();
        assert_eq!(Repository::of(&reference).pinned(digest), pinned);
        for wrong in [
            format!("oci://localhost:5000/a:v1@sha256:{HEX}"),
            "oci://localhost:5000/a:v1".to_owned(),
            "oci://localhost:5000/a@sha256:00".to_owned(),
        ] {
            assert!(parse_pinned(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tags_are_what_registries_take() {
        for right in ["v1", "cycle-0123", "_a.b-c", &"a".repeat(128)] {
            assert!(check_tag(right).is_ok(), "{right}");
        }
        for wrong in ["", "-a", ".a", "a/b", "a:b", "ü", "a b", &"a".repeat(129)] {
            assert!(check_tag(wrong).is_err(), "{wrong}");
        }
    }
}
