//! Downloads of files: what is there already is kept, what breaks off continues, what is wrong is removed.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use futures::{StreamExt as _, TryStreamExt as _};
use perennial_crds::serving::LoadingStage;
use reqwest::Response;
use reqwest::header::{CONTENT_RANGE, ETAG, HeaderMap, LAST_MODIFIED};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::digest::{self, Digest, hash_file};
use crate::error::{LoadError, root_cause};
use crate::http::{Answer, Failure, Http, Target};
use crate::part::{Part, content_range};
use crate::progress::Progress;
use crate::ranges;
use crate::retry::{Patience, Tries};
use crate::settings::Settings;
use crate::space;
use crate::store::{Finished, Store, boot};

/// Bytes gathered before they are written.
pub(crate) const WRITE_BYTES: usize = 1 << 20;

/// A file to download.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// Path below the model's directory.
    pub(crate) name: String,
    pub(crate) target: Target,
    /// Size, where the source's listing tells it.
    pub(crate) size: Option<u64>,
    pub(crate) expected: Option<Digest>,
    /// Whether the address always has the same bytes. If not, the server's ETag guards against mixing two contents.
    pub(crate) immutable: bool,
}

/// What all downloads of a model share.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) http: Http,
    pub(crate) store: Store,
    pub(crate) connections: usize,
    pub(crate) range_bytes: u64,
    pub(crate) tries: Tries,
    pub(crate) progress: Progress,
    /// Requests at the same time, over all files.
    pub(crate) permits: Arc<Semaphore>,
}

impl Context {
    pub(crate) fn new(
        http: Http,
        store: Store,
        settings: &Settings,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Self {
        let connections = settings.connections.max(1);
        Self {
            http,
            store,
            connections,
            range_bytes: settings.range_bytes,
            tries: Tries {
                policy: settings.retry.clone(),
                cancel: cancel.clone(),
            },
            progress: progress.clone(),
            permits: Arc::new(Semaphore::new(connections)),
        }
    }
}

/// Downloads what is not there yet, all at the same time, and verifies it. The order of the answer is that of `items`.
pub(crate) async fn download_all(context: &Context, items: Vec<Item>) -> Result<Vec<Finished>, LoadError> {
    context.progress.set_stage(LoadingStage::Downloading);
    context.store.create()?;
    let mut finished = Vec::with_capacity(items.len());
    let mut missing = Vec::new();
    let mut needed = 0_u64;
    for (index, item) in items.into_iter().enumerate() {
        let (store, name, cancel) = (context.store.clone(), item.name.clone(), context.tries.cancel.clone());
        let expected = item.expected;
        if let Some(file) = blocking(move || store.finished(&name, expected, &cancel)).await? {
            context.progress.add_present(file.size);
            finished.push((index, file));
        } else {
            let present = context
                .store
                .part(&item.name, item.expected.is_some())
                .map_or(0, |part| part.present());
            needed = needed.saturating_add(item.size.unwrap_or(0).saturating_sub(present));
            missing.push((index, item));
        }
    }
    space::ensure(&context.store.state(), needed)?;
    let downloading = Arc::new(AtomicUsize::new(missing.len()));
    let downloaded: Vec<(usize, Finished)> = futures::stream::iter(missing)
        .map(|(index, item)| {
            let download = Download {
                context: context.clone(),
                item,
                counted: AtomicU64::new(0),
                learned: AtomicBool::new(false),
                downloading: Arc::clone(&downloading),
            };
            async move { Arc::new(download).run().await.map(|file| (index, file)) }
        })
        .buffer_unordered(context.connections)
        .try_collect()
        .await?;
    finished.extend(downloaded);
    finished.sort_unstable_by_key(|(index, _)| *index);
    Ok(finished.into_iter().map(|(_, file)| file).collect())
}

/// The download of one file.
#[derive(Debug)]
pub(crate) struct Download {
    pub(crate) context: Context,
    pub(crate) item: Item,
    /// Bytes of this file that are in the progress.
    counted: AtomicU64,
    /// Whether the size is in the progress, for files whose size the listing did not tell.
    learned: AtomicBool,
    downloading: Arc<AtomicUsize>,
}

/// All bytes are on disk, not yet verified.
struct Arrived {
    size: u64,
    /// Whether some bytes come from an earlier start.
    resumed: bool,
    linked: Option<Digest>,
}

impl Download {
    async fn run(self: Arc<Self>) -> Result<Finished, LoadError> {
        let (store, name) = (&self.context.store, &self.item.name);
        let mut first = true;
        loop {
            let arrived = self.arrive().await?;
            if std::mem::take(&mut first) && self.downloading.fetch_sub(1, Relaxed) == 1 {
                self.context.progress.set_stage(LoadingStage::Verifying);
            }
            let (path, cancel) = (store.part_file(name), self.context.tries.cancel.clone());
            let digest = blocking(move || hash_file(&path, None, &cancel)).await?;
            let expected = self.item.expected.or(arrived.linked);
            let Err(mismatch) = digest::check(&self.item.target.subject, expected, digest) else {
                let file = Finished {
                    name: name.clone(),
                    size: arrived.size,
                    digest,
                };
                store.commit(&store.part_file(name), &file)?;
                return Ok(file);
            };
            store.remove_part(name)?;
            self.recount(0);
            if !arrived.resumed {
                return Err(mismatch);
            }
            tracing::warn!(file = name, "a resumed download has the wrong digest, starting over");
        }
    }

    async fn arrive(self: &Arc<Self>) -> Result<Arrived, LoadError> {
        let subject = &self.item.target.subject;
        let (mut patience, mut furthest) = (Patience::default(), 0);
        loop {
            let failure = match self.attempt().await {
                Ok(arrived) => return Ok(arrived),
                Err(failure) => failure,
            };
            let reached = self.counted.load(Relaxed);
            if reached > furthest {
                furthest = reached;
                patience.progress();
            }
            match failure {
                Failure::Final(error) => return Err(error),
                Failure::Again { problem, after } => {
                    self.context.tries.pause(&mut patience, subject, problem, after).await?
                }
                Failure::Changed => {
                    self.context.store.remove_part(&self.item.name)?;
                    self.recount(0);
                    let problem = "its content changed while it was downloaded".to_owned();
                    self.context.tries.pause(&mut patience, subject, problem, None).await?;
                }
            }
        }
    }

    /// Asks for the first missing range; the answer tells the size, and whether the server knows ranges at all.
    async fn attempt(self: &Arc<Self>) -> Result<Arrived, Failure> {
        let (context, item) = (&self.context, &self.item);
        let part = context.store.part(&item.name, item.expected.is_some());
        let part = part.filter(|part| item.size.is_none_or(|size| size == part.size()));
        self.recount(part.as_ref().map_or(0, Part::present));
        let resumed = part.is_some();
        let index = part.as_ref().map_or(Some(0), |part| part.missing().first().copied());
        let Some(index) = index else {
            return Ok(Arrived {
                size: part.map_or(0, |part| part.size()),
                resumed,
                linked: None,
            });
        };
        let front = (0, context.range_bytes.max(1) - 1);
        let (first, last) = part.as_ref().and_then(|part| part.next(index)).unwrap_or(front);
        let permit = self.permit().await?;
        let Answer { response, linked } = self.get(first, Some(last)).await?;
        match response.status().as_u16() {
            206 => {
                let part = self.plan(part, first, response.headers())?;
                let size = part.size();
                ranges::download(Arc::clone(self), part, (index, response, permit)).await?;
                Ok(Arrived { size, resumed, linked })
            }
            200 => {
                context.store.remove_part(&item.name)?;
                self.recount(0);
                let size = self.stream(response).await?;
                Ok(Arrived {
                    size,
                    resumed: false,
                    linked,
                })
            }
            _ if is_empty(response.headers()) && item.size.unwrap_or(0) == 0 => {
                File::create(self.part_file()).map_err(|error| LoadError::io("create", self.part_file(), error))?;
                Ok(Arrived {
                    size: 0,
                    resumed: false,
                    linked,
                })
            }
            _ if resumed => Err(Failure::Changed),
            _ => Err(Failure::again("it refuses the range that was asked for")),
        }
    }

    /// The ranges to fill, from the record of an earlier start if that fits what the server has now.
    fn plan(&self, part: Option<Part>, first: u64, headers: &HeaderMap) -> Result<Part, Failure> {
        let context = &self.context;
        let (start, _, size) = range_of(headers).ok_or_else(|| Failure::again("it answered without a usable range"))?;
        if start != first {
            return Err(Failure::again("it answered with another range than it was asked for"));
        }
        let tag = self.tag(headers);
        self.check_size(size)?;
        self.learn(size);
        if self.item.size.is_none() {
            let present = part.as_ref().map_or(0, Part::present);
            space::ensure(&context.store.state(), size.saturating_sub(present))?;
        }
        if let Some(part) = part {
            return if part.size() == size && part.tag == tag {
                Ok(part)
            } else {
                Err(Failure::Changed)
            };
        }
        let part = Part::new(size, context.range_bytes, tag, boot());
        context.store.remove_part(&self.item.name)?;
        Ok(part)
    }

    /// Receives the whole file in one go, from a server that knows no ranges.
    async fn stream(&self, mut response: Response) -> Result<u64, Failure> {
        let size = response.content_length().or(self.item.size);
        if let Some(size) = size {
            self.check_size(size)?;
            self.learn(size);
            space::ensure(&self.context.store.state(), size)?;
        }
        let path = self.part_file();
        let file = File::create(&path).map_err(|error| LoadError::io("create", &path, error))?;
        let file = Arc::new(file);
        let (mut written, mut buffer) = (0, Vec::with_capacity(WRITE_BYTES));
        loop {
            let chunk = self.chunk(&mut response).await?;
            if let Some(bytes) = &chunk {
                buffer.extend_from_slice(bytes.as_ref());
            }
            if buffer.len() >= WRITE_BYTES || (chunk.is_none() && !buffer.is_empty()) {
                let count = bytes(buffer.len());
                buffer = self.write(&file, buffer, written).await?;
                written += count;
                self.moved(count);
            }
            if size.is_some_and(|size| written > size) {
                return Err(Failure::again("it sends more bytes than it announced"));
            }
            if chunk.is_none() {
                break;
            }
        }
        match size {
            Some(size) if written < size => {
                Err(Failure::again(format!("it broke off after {written} of {size} bytes")))
            }
            _ => Ok(written),
        }
    }

    pub(crate) async fn permit(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Failure> {
        let permits = Arc::clone(&self.context.permits);
        tokio::select! {
            () = self.context.tries.cancel.cancelled() => Err(LoadError::Cancelled.into()),
            permit = permits.acquire_owned() => permit.map_err(|error| LoadError::internal(error).into()),
        }
    }

    pub(crate) async fn get(&self, first: u64, last: Option<u64>) -> Result<Answer, Failure> {
        tokio::select! {
            () = self.context.tries.cancel.cancelled() => Err(LoadError::Cancelled.into()),
            answer = self.context.http.get(&self.item.target, Some((first, last))) => answer,
        }
    }

    /// The next bytes of a body; `None` at its end.
    pub(crate) async fn chunk(&self, response: &mut Response) -> Result<Option<impl AsRef<[u8]> + use<>>, Failure> {
        tokio::select! {
            () = self.context.tries.cancel.cancelled() => Err(LoadError::Cancelled.into()),
            chunk = response.chunk() => chunk.map_err(|error| Failure::again(root_cause(&error))),
        }
    }

    /// Writes `buffer` at `offset`, and gives it back empty.
    pub(crate) async fn write(&self, file: &Arc<File>, mut buffer: Vec<u8>, offset: u64) -> Result<Vec<u8>, LoadError> {
        let (file, path) = (Arc::clone(file), self.part_file());
        blocking(move || {
            file.write_all_at(&buffer, offset)
                .map_err(|error| LoadError::io("write", path, error))?;
            buffer.clear();
            Ok(buffer)
        })
        .await
    }

    /// What identifies the content, for addresses whose content may change.
    pub(crate) fn tag(&self, headers: &HeaderMap) -> Option<String> {
        if self.item.immutable {
            return None;
        }
        let text = headers
            .get(ETAG)
            .or_else(|| headers.get(LAST_MODIFIED))?
            .to_str()
            .ok()?;
        Some(text.to_owned())
    }

    pub(crate) fn moved(&self, count: u64) {
        self.counted.fetch_add(count, Relaxed);
        self.context.progress.add(count);
    }

    pub(crate) fn part_file(&self) -> std::path::PathBuf {
        self.context.store.part_file(&self.item.name)
    }

    /// Corrects the progress to what is on disk of this file.
    fn recount(&self, present: u64) {
        let counted = self.counted.swap(present, Relaxed);
        self.context.progress.add_present(present.saturating_sub(counted));
        self.context.progress.subtract(counted.saturating_sub(present));
    }

    fn learn(&self, size: u64) {
        if self.item.size.is_none() && !self.learned.swap(true, Relaxed) {
            self.context.progress.grow_total(size);
        }
    }

    fn check_size(&self, size: u64) -> Result<(), LoadError> {
        match self.item.size {
            Some(listed) if listed != size => Err(LoadError::InvalidModel {
                subject: self.item.target.subject.clone(),
                problem: format!("the source serves {size} bytes, but lists it with {listed}"),
            }),
            _ => Ok(()),
        }
    }
}

/// First byte, last byte and size that a 206 answer announces.
pub(crate) fn range_of(headers: &HeaderMap) -> Option<(u64, u64, u64)> {
    content_range(headers.get(CONTENT_RANGE)?.to_str().ok()?)
}

fn is_empty(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_RANGE)
        .is_some_and(|value| value.as_bytes() == b"bytes */0")
}

pub(crate) fn bytes(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Runs what blocks on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    tokio::task::spawn_blocking(work).await.map_err(LoadError::internal)?
}
