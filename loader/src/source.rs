//! The address of a model, as the operator writes it into `--source`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use oci_client::Reference;
use reqwest::Url;

use crate::error::LoadError;

const DEFAULT_REVISION: &str = "main";

/// Where a model comes from. The module documentation of the crate shows the forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A repository of the Hugging Face Hub or of a mirror.
    Hub(HubSource),
    /// An artifact or image in an OCI registry.
    Oci(Reference),
    /// One file at an `http` or `https` URL.
    Web(Url),
    /// A file or directory of this machine; never written to.
    File(PathBuf),
}

/// A repository of a hub at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubSource {
    /// `ORGANISATION/NAME`.
    pub repository: String,
    /// Branch, tag or commit; may hold slashes.
    pub revision: String,
    /// The one file of weights to serve, where the repository holds several.
    pub file: Option<String>,
}

impl Source {
    /// Reads an address.
    ///
    /// # Errors
    /// [`LoadError::InvalidArguments`], saying which form is right.
    pub fn parse(address: &str) -> Result<Self, LoadError> {
        let invalid = |problem: &str| LoadError::InvalidArguments {
            subject: format!("source {:?}", crate::error::one_line(&without_secrets(address))),
            problem: problem.to_owned(),
        };
        match address.split_once("://") {
            Some(("hf", rest)) => HubSource::parse(rest).map(Self::Hub).map_err(invalid),
            Some(("oci", rest)) => parse_reference(rest).map(Self::Oci).map_err(invalid),
            Some(("http" | "https", _)) => parse_url(address).map(Self::Web).map_err(invalid),
            Some(("file", rest)) if rest.starts_with('/') => Ok(Self::File(PathBuf::from(rest))),
            Some(("file", _)) => Err(invalid("a file:// address holds an absolute path: file:///mnt/model")),
            _ => Err(invalid(
                "use hf://ORGANISATION/NAME@REVISION, oci://HOST/REPOSITORY:TAG, https://HOST/FILE or file:///PATH",
            )),
        }
    }
}

impl FromStr for Source {
    type Err = LoadError;

    fn from_str(address: &str) -> Result<Self, LoadError> {
        Self::parse(address)
    }
}

impl fmt::Display for Source {
    /// The address for people: an URL without its query, which may hold a signature.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub(hub) => hub.fmt(formatter),
            Self::Oci(reference) => write!(formatter, "oci://{reference}"),
            Self::Web(url) => formatter.write_str(&without_secrets(url.as_str())),
            Self::File(path) => write!(formatter, "file://{}", path.display()),
        }
    }
}

impl HubSource {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (rest, file) = match text.split_once('#') {
            Some((rest, file)) => (rest, Some(file)),
            None => (text, None),
        };
        let (repository, revision) = rest.split_once('@').unwrap_or((rest, DEFAULT_REVISION));
        let form = "use hf://ORGANISATION/NAME@REVISION, with #FILE at the end to choose one file";
        let (organisation, name) = repository.split_once('/').ok_or(form)?;
        let clean_name = |part: &str| is_clean_path(part) && !part.contains('/');
        if !clean_name(organisation) || !clean_name(name) || !is_clean_path(revision) {
            return Err(form);
        }
        if file.is_some_and(|file| !is_clean_path(file)) {
            return Err("the file after # is a path in the repository, without . and .. parts");
        }
        Ok(Self {
            repository: repository.to_owned(),
            revision: revision.to_owned(),
            file: file.map(str::to_owned),
        })
    }

    /// Whether the revision is a commit, which never moves.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.revision.len() == 40 && self.revision.bytes().all(|byte| byte.is_ascii_hexdigit())
    }
}

impl fmt::Display for HubSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "hf://{}@{}", self.repository, self.revision)?;
        self.file.as_ref().map_or(Ok(()), |file| write!(formatter, "#{file}"))
    }
}

/// A relative path of ordinary names: what may become a path in a URL and on the disk.
pub(crate) fn is_clean_path(path: &str) -> bool {
    !path.is_empty()
        && path.split('/').all(|part| {
            !matches!(part, "" | "." | "..")
                && !part.contains(['\\', '?', '#', '@', ':', '%', '\0'])
                && !part
                    .chars()
                    .any(|character| character.is_whitespace() || character.is_control())
        })
}

fn parse_reference(text: &str) -> Result<Reference, &'static str> {
    let form = "use oci://HOST/REPOSITORY:TAG or oci://HOST/REPOSITORY@sha256:DIGEST";
    let (host, _) = text.split_once('/').ok_or(form)?;
    if !(host.contains(['.', ':']) || host == "localhost") {
        return Err("name the registry's host first: oci://HOST/REPOSITORY:TAG");
    }
    text.parse().map_err(|_| form)
}

fn parse_url(address: &str) -> Result<Url, &'static str> {
    let url: Url = address
        .parse()
        .map_err(|_| "this is not a URL: use https://HOST/FILE")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials do not belong into an address: remove the part before @");
    }
    if url.path().ends_with('/') {
        return Err("the address must name one file, and not end with /");
    }
    Ok(url)
}

/// An address without what may be secret in it: user, password, query.
pub(crate) fn without_secrets(address: &str) -> String {
    let address = address.split_once('?').map_or(address, |(before, _)| before);
    match address.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use perennial_crds::serving::FailureReason;

    use super::*;

    #[test]
    fn every_form_is_read() {
        let hub = |repository: &str, revision: &str, file: Option<&str>| {
            Source::Hub(HubSource {
                repository: repository.to_owned(),
                revision: revision.to_owned(),
                file: file.map(str::to_owned),
            })
        };
        assert_eq!(
            Source::parse("hf://Qwen/Qwen3-8B").unwrap(),
            hub("Qwen/Qwen3-8B", "main", None)
        );
        assert_eq!(
            Source::parse("hf://a/b@refs/pr/1").unwrap(),
            hub("a/b", "refs/pr/1", None)
        );
        assert_eq!(
            Source::parse("hf://a/b@v1#q/m.gguf").unwrap(),
            hub("a/b", "v1", Some("q/m.gguf"))
        );
        assert_eq!(
            Source::parse("file:///mnt/model/a b").unwrap(),
            Source::File("/mnt/model/a b".into())
        );
        assert!(matches!(
            Source::parse("https://example.com/m.gguf?sig=x").unwrap(),
            Source::Web(_)
        ));
        assert!(matches!(
            Source::parse("oci://localhost:5000/a/b:v1").unwrap(),
            Source::Oci(_)
        ));
        let pinned = format!("oci://registry.example.com/a@sha256:{}", "0".repeat(64));
        assert_eq!(Source::parse(&pinned).unwrap().to_string(), pinned);
    }

    #[test]
    fn wrong_addresses_say_what_is_right() {
        for wrong in [
            "",
            "model.gguf",
            "s3://bucket/x",
            "hf://onlyname",
            "hf://a/b/c",
            "hf://a/../b",
            "hf://a/b@",
            "hf://a/b@x#../etc/passwd",
            "hf://a/b@../../api",
            "file://mnt/model",
            "oci://model",
            "oci://ubuntu/model:1",
            "oci://host.example/UPPER:tag",
            "https://user:secret@example.com/m.gguf",
            "https://example.com/",
            "http://",
        ] {
            let error = Source::parse(wrong).unwrap_err();
            assert_eq!(error.reason(), FailureReason::InvalidArguments, "{wrong}");
            assert!(!error.to_string().contains("secret"), "{error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn display_hides_signatures() {
        let source = Source::parse("https://example.com/m.gguf?X-Signature=abc").unwrap();
        assert_eq!(source.to_string(), "https://example.com/m.gguf");
    }

    #[test]
    fn only_a_commit_is_pinned() {
        let pinned = |revision: &str| HubSource {
            repository: "a/b".into(),
            revision: revision.into(),
            file: None,
        };
        assert!(pinned(&"0f".repeat(20)).is_pinned());
        assert!(!pinned("main").is_pinned());
        assert!(!pinned(&"0f".repeat(19)).is_pinned());
    }
}
