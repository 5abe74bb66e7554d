//! Repositories of the Hugging Face Hub, and of mirrors that speak its API.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use hf_hub::api::tokio::{Api, ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use perennial_crds::serving::{LoadingStage, ResolvedModel};
use reqwest::Url;
use serde::Deserialize;

use crate::digest::{self, Digest, digest_of_files};
use crate::error::{LoadError, one_line, root_cause};
use crate::http::{Advice, Credential, Failure, Http, Target};
use crate::retry::Tries;
use crate::select::select;
use crate::settings::Settings;
use crate::source::{HubSource, is_clean_path};
use crate::store::{Finished, Store};
use crate::transfer::{Item, download_all};
use crate::web::hash_remote;
use crate::{Job, LocalModel, resolved_model};

const API_TIMEOUT: Duration = Duration::from_secs(30);
/// Files hashed at the same time for `resolve`; they are small.
const HASHED_TOGETHER: usize = 4;

/// The answer of the API about a repository at a revision.
#[derive(Debug, Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

/// The files to serve, at a commit.
struct Chosen {
    pinned: HubSource,
    items: Vec<Item>,
}

/// Asks the hub for the commit and its files; small files are read to hash them, large ones have their sha256 listed.
pub(crate) async fn resolve(
    source: &HubSource,
    expected: Option<Digest>,
    settings: &Settings,
    tries: &Tries,
) -> Result<ResolvedModel, LoadError> {
    let http = Http::new()?;
    let chosen = choose(source, settings, tries).await?;
    let files: Vec<Finished> = futures::stream::iter(chosen.items)
        .map(|item| hash_item(&http, item, tries))
        .buffered(HASHED_TOGETHER)
        .try_collect()
        .await?;
    let digest = digest_of(&files);
    digest::check(&source.to_string(), expected, digest)?;
    Ok(resolved_model(
        chosen.pinned.to_string(),
        digest.to_string(),
        files.iter().map(|file| file.size),
    ))
}

/// Downloads the files at the commit.
pub(crate) async fn fetch(source: &HubSource, job: &Job<'_>) -> Result<LocalModel, LoadError> {
    // A commit never moves: what is here already needs no hub.
    if source.is_pinned()
        && let Some(model) = job.completed(&store(job.scratch, source)).await?
    {
        return Ok(model);
    }
    job.progress.set_stage(LoadingStage::Resolving);
    let Chosen { pinned, items } = choose(source, job.settings, &job.tries).await?;
    let store = store(job.scratch, &pinned);
    if let Some(model) = job.completed(&store).await? {
        return Ok(model);
    }
    job.progress
        .start(LoadingStage::Downloading, items.iter().map(|item| item.size).sum());
    let context = job.context(store.clone())?;
    // Small files first: with them the digest of the whole is known before gigabytes are on their way.
    let (listed, unlisted): (Vec<Item>, Vec<Item>) = items.into_iter().partition(|item| item.expected.is_some());
    let mut files = download_all(&context, unlisted).await?;
    let promised: Vec<(String, Digest)> = listed
        .iter()
        .filter_map(|item| Some((item.name.clone(), item.expected?)))
        .collect();
    let all = files.iter().map(|file| (file.name.as_str(), file.digest));
    let digest = digest_of_files(all.chain(promised.iter().map(|(name, digest)| (name.as_str(), *digest))));
    if let Err(mismatch) = digest::check(&pinned.to_string(), job.expected, digest) {
        store.remove_all()?;
        return Err(mismatch);
    }
    files.extend(download_all(&context, listed).await?);
    store.complete(pinned.to_string(), digest, "", &files)
}

async fn hash_item(http: &Http, item: Item, tries: &Tries) -> Result<Finished, LoadError> {
    let (digest, size) = match (item.expected, item.size) {
        (Some(digest), Some(size)) => (digest, size),
        _ => hash_remote(http, &item.target, tries).await?,
    };
    digest::check(&item.target.subject, item.expected, digest)?;
    Ok(Finished {
        name: item.name,
        size,
        digest,
    })
}

fn digest_of(files: &[Finished]) -> Digest {
    digest_of_files(files.iter().map(|file| (file.name.as_str(), file.digest)))
}

/// Asks the API, chooses the files, and pins them to the commit.
async fn choose(source: &HubSource, settings: &Settings, tries: &Tries) -> Result<Chosen, LoadError> {
    let api = api(settings)?;
    let info = tries
        .ask(&source.to_string(), async || ask(&api, source, settings).await)
        .await?;
    let pinned = HubSource {
        revision: info.sha.clone(),
        ..source.clone()
    };
    if !pinned.is_pinned() {
        return Err(LoadError::Unreachable {
            subject: source.to_string(),
            problem: format!("{} names no commit for it: check HF_ENDPOINT", settings.hub_endpoint),
        });
    }
    let names = info
        .siblings
        .iter()
        .map(|file| file.rfilename.as_str())
        .filter(|name| is_clean_path(name));
    let names = select(names, source.file.as_deref()).map_err(|unselected| LoadError::NotFound {
        subject: format!("A model in {source}"),
        advice: unselected.advice("set spec.model.source.huggingFace.file (hf://...#FILE)"),
    })?;
    let advice = Arc::new(advice(source, settings));
    let repo = api.repo(repo(&pinned));
    let items = info.siblings.into_iter().filter(|file| names.contains(&file.rfilename));
    let items = items
        .map(|file| item(file, &repo, &pinned, settings, &advice))
        .collect::<Result<_, _>>()?;
    Ok(Chosen { pinned, items })
}

fn item(
    file: Sibling,
    repo: &ApiRepo,
    pinned: &HubSource,
    settings: &Settings,
    advice: &Arc<Advice>,
) -> Result<Item, LoadError> {
    let url: Url = repo
        .url(&file.rfilename)
        .parse()
        .map_err(|_| endpoint_error(settings))?;
    let lfs = file.lfs.as_ref();
    Ok(Item {
        target: Target {
            url,
            credential: settings.hub_token.clone().map_or(Credential::None, Credential::Bearer),
            subject: format!("{} of {pinned}", file.rfilename),
            advice: Arc::clone(advice),
        },
        size: lfs.and_then(|lfs| lfs.size).or(file.size),
        expected: lfs.and_then(|lfs| Digest::from_hex(lfs.sha256.as_deref()?)),
        name: file.rfilename,
        immutable: true,
    })
}

async fn ask(api: &Api, source: &HubSource, settings: &Settings) -> Result<Info, Failure> {
    let request = api.repo(repo(source)).info_request().query(&[("blobs", "true")]).send();
    let response = tokio::time::timeout(API_TIMEOUT, request).await;
    let response = response.map_err(|_| Failure::again("it does not answer"))?;
    let response = response.map_err(|error| Failure::again(root_cause(&error)))?;
    let (status, subject, advice) = (response.status(), source.to_string(), advice(source, settings));
    match status.as_u16() {
        200 => {
            let body = tokio::time::timeout(API_TIMEOUT, response.json()).await;
            let body = body.map_err(|_| Failure::again("it does not finish its answer"))?;
            body.map_err(|error| {
                Failure::again(format!("it answers something else than a hub: {}", root_cause(&error)))
            })
        }
        401 | 403 => Err(LoadError::Unauthorized {
            subject,
            advice: advice.unauthorized,
        }
        .into()),
        404 | 410 => Err(LoadError::NotFound {
            subject,
            advice: advice.not_found,
        }
        .into()),
        408 | 425 | 429 | 500.. => {
            let after = response
                .headers()
                .get("retry-after")
                .and_then(|value| value.to_str().ok()?.parse().ok());
            Err(Failure::Again {
                problem: format!("it answered {status}"),
                after: after.map(Duration::from_secs),
            })
        }
        _ => Err(LoadError::Unreachable {
            subject,
            problem: one_line(&format!("the hub answered {status}")),
        }
        .into()),
    }
}

fn api(settings: &Settings) -> Result<Api, LoadError> {
    // The crate's own cache is not used; a directory that does not exist keeps it from reading a token of its own.
    ApiBuilder::from_cache(Cache::new("/nonexistent/hub".into()))
        .with_endpoint(settings.hub_endpoint.clone())
        .with_token(settings.hub_token.as_ref().map(|token| token.expose().to_owned()))
        .with_progress(false)
        .build()
        .map_err(|_| LoadError::InvalidArguments {
            subject: "HF_TOKEN".to_owned(),
            problem: "it holds characters that no token has, such as a line break: store it anew".to_owned(),
        })
}

fn repo(source: &HubSource) -> Repo {
    Repo::with_revision(source.repository.clone(), RepoType::Model, source.revision.clone())
}

fn advice(source: &HubSource, settings: &Settings) -> Advice {
    let unauthorized = match settings.hub_token {
        None => format!(
            "store an access token in a Secret and name it in spec.model.source.huggingFace.tokenSecretRef; for a gated \
            model, also accept its terms at {}/{}; a repository that does not exist answers like this, too",
            settings.hub_endpoint, source.repository
        ),
        Some(_) => format!(
            "the token in spec.model.source.huggingFace.tokenSecretRef may not read it: renew it, and for a gated model \
            accept the terms at {}/{} with the token's account",
            settings.hub_endpoint, source.repository
        ),
    };
    let not_found = format!(
        "check that repository {} and revision {} exist at {}; a private repository needs \
        spec.model.source.huggingFace.tokenSecretRef",
        source.repository, source.revision, settings.hub_endpoint
    );
    Advice {
        unauthorized,
        not_found,
    }
}

fn endpoint_error(settings: &Settings) -> LoadError {
    LoadError::InvalidArguments {
        subject: format!("HF_ENDPOINT {:?}", one_line(&settings.hub_endpoint)),
        problem: "it makes no address: use https://HOST".to_owned(),
    }
}

fn store(scratch: &Path, pinned: &HubSource) -> Store {
    Store::new(scratch, &pinned.to_string())
}
