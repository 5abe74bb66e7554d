//! One file at an `http` or `https` address.

use std::sync::Arc;

use perennial_crds::serving::{LoadingStage, ResolvedModel};
use reqwest::Url;

use crate::digest::{self, Digest, Hasher};
use crate::error::LoadError;
use crate::http::{Advice, Answer, Credential, Failure, Http, Target};
use crate::retry::{Patience, Tries};
use crate::source::without_secrets;
use crate::store::Store;
use crate::transfer::{Item, bytes, download_all, range_of};
use crate::{Job, LocalModel, resolved_model};

/// Finds out what the address holds. Without a digest every byte must be read, since HTTP tells none.
pub(crate) async fn resolve(url: &Url, expected: Option<Digest>, tries: &Tries) -> Result<ResolvedModel, LoadError> {
    let (http, target) = (Http::new()?, target(url));
    let (digest, size) = hash_remote(&http, &target, tries).await?;
    digest::check(&target.subject, expected, digest)?;
    Ok(resolved_model(url.to_string(), digest.to_string(), [size].into_iter()))
}

/// Downloads the file. Without a digest, what an earlier start downloaded is used again only if the server still
/// names it by the same ETag or time.
pub(crate) async fn fetch(url: &Url, job: &Job<'_>) -> Result<LocalModel, LoadError> {
    let target = target(url);
    let identity = match job.expected {
        Some(digest) => format!("{url} {digest}"),
        None => format!("{url} {}", probe(&Http::new()?, &target, &job.tries).await?),
    };
    let store = Store::new(job.scratch, &identity);
    if let Some(model) = job.completed(&store).await? {
        return Ok(model);
    }
    let item = Item {
        name: file_name(url),
        target,
        size: None,
        expected: job.expected,
        immutable: false,
    };
    job.progress.start(LoadingStage::Downloading, None);
    let files = download_all(&job.context(store.clone())?, vec![item]).await?;
    let digest = digest::digest_of_files(files.iter().map(|file| (file.name.as_str(), file.digest)));
    store.complete(url.to_string(), digest, "", &files)
}

/// Size, ETag and time of modification, as far as the server tells them.
async fn probe(http: &Http, target: &Target, tries: &Tries) -> Result<String, LoadError> {
    tries
        .ask(&target.subject, async || {
            let Answer { response, .. } = http.get(target, Some((0, Some(0)))).await?;
            let header = |name: &str| {
                response
                    .headers()
                    .get(name)
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or("")
            };
            let size = range_of(response.headers())
                .map(|(_, _, size)| size)
                .or(response.content_length());
            Ok(format!("{size:?} {} {}", header("etag"), header("last-modified")))
        })
        .await
}

/// Reads a file to hash it, continuing where it breaks off.
pub(crate) async fn hash_remote(http: &Http, target: &Target, tries: &Tries) -> Result<(Digest, u64), LoadError> {
    let mut patience = Patience::default();
    let mut reading = Reading::default();
    let mut furthest = 0;
    loop {
        let failure = tokio::select! {
            () = tries.cancel.cancelled() => return Err(LoadError::Cancelled),
            result = reading.attempt(http, target) => match result {
                Ok(()) => return Ok((reading.hasher.finish(), reading.offset)),
                Err(failure) => failure,
            },
        };
        if reading.offset > furthest {
            furthest = reading.offset;
            patience.progress();
        }
        match failure {
            Failure::Final(error) => return Err(error),
            Failure::Again { problem, after } => tries.pause(&mut patience, &target.subject, problem, after).await?,
            Failure::Changed => {
                reading = Reading::default();
                let problem = "its content changed while it was read".to_owned();
                tries.pause(&mut patience, &target.subject, problem, None).await?;
            }
        }
    }
}

/// A file that is being hashed from its front.
#[derive(Default)]
struct Reading {
    hasher: Hasher,
    offset: u64,
    /// Size, ETag and time of modification, to notice a change.
    identity: Option<(u64, String)>,
}

impl Reading {
    async fn attempt(&mut self, http: &Http, target: &Target) -> Result<(), Failure> {
        let range = (self.offset > 0).then_some((self.offset, None));
        let Answer { mut response, .. } = http.get(target, range).await?;
        let status = response.status().as_u16();
        let expected = match range_of(response.headers()) {
            Some((first, _, size)) if status == 206 && first == self.offset => {
                self.same(size, &response)?;
                Some(size)
            }
            None if status == 200 => {
                let size = response.content_length();
                *self = Self::default();
                if let Some(size) = size {
                    self.same(size, &response)?;
                }
                size
            }
            _ => return Err(Failure::Changed),
        };
        loop {
            let chunk = response
                .chunk()
                .await
                .map_err(|error| Failure::again(crate::error::root_cause(&error)))?;
            let Some(chunk) = chunk else { break };
            self.hasher.update(&chunk);
            self.offset += bytes(chunk.len());
        }
        match expected {
            Some(size) if self.offset != size => Err(Failure::again(format!(
                "it broke off after {} of {size} bytes",
                self.offset
            ))),
            _ => Ok(()),
        }
    }

    fn same(&mut self, size: u64, response: &reqwest::Response) -> Result<(), Failure> {
        let header = |name: &str| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or("")
        };
        let identity = (size, format!("{} {}", header("etag"), header("last-modified")));
        if *self.identity.get_or_insert(identity.clone()) == identity {
            Ok(())
        } else {
            Err(Failure::Changed)
        }
    }
}

fn target(url: &Url) -> Target {
    Target {
        url: url.clone(),
        credential: Credential::None,
        subject: without_secrets(url.as_str()),
        advice: Arc::new(Advice {
            unauthorized: "the address must be readable without credentials; a signed address may have expired"
                .to_owned(),
            not_found: "check the address".to_owned(),
        }),
    }
}

/// The last part of the path, so that the format can be told by its extension.
fn file_name(url: &Url) -> String {
    let name = url.path().rsplit('/').next().unwrap_or_default();
    let clean: String = name
        .chars()
        .map(|character| {
            if character.is_ascii_alphanumeric() || "._-".contains(character) {
                character
            } else {
                '_'
            }
        })
        .collect();
    let clean = clean.trim_start_matches('.');
    if clean.is_empty() {
        "model".to_owned()
    } else {
        clean.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_and_keep_their_extension() {
        let name = |path: &str| file_name(&format!("https://example.com{path}").parse().unwrap());
        assert_eq!(name("/a/m.Q4_K_M.gguf?x=/y"), "m.Q4_K_M.gguf");
        assert_eq!(name("/a/..%2f..%2fetc.gguf"), "_2f.._2fetc.gguf");
        assert_eq!(name("/%2e%2e"), "model");
        assert_eq!(name("/a%20b.gguf"), "a_20b.gguf");
    }
}
