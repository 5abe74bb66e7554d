//! The ranges of one file, several at a time. Each continues where it broke off.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reqwest::Response;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::LoadError;
use crate::http::Failure;
use crate::part::Part;
use crate::retry::Patience;
use crate::transfer::{Download, WRITE_BYTES, blocking, bytes, range_of};

/// An answer that is being received for a range.
type Head = (usize, Response, OwnedSemaphorePermit);

struct Ranges {
    download: Arc<Download>,
    file: Arc<File>,
    /// Locked only to look or to note, never while waiting.
    part: Mutex<Part>,
    /// Held while the record is written.
    saving: Mutex<()>,
    queue: Mutex<VecDeque<usize>>,
    /// Set when one range failed for good: the others stop.
    stop: CancellationToken,
}

/// Fills all missing ranges of `part`; `head` is the answer for the first. The record on disk says what was reached,
/// also after a failure.
pub(crate) async fn download(download: Arc<Download>, part: Part, head: Head) -> Result<(), Failure> {
    let path = download.part_file();
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).open(&path);
    let file = Arc::new(file.map_err(|error| LoadError::io("create", &path, error))?);
    let queue: VecDeque<usize> = part.missing().into_iter().filter(|index| *index != head.0).collect();
    let workers = queue.len().min(download.context.connections.saturating_sub(1));
    let stop = download.context.tries.cancel.child_token();
    let ranges = Arc::new(Ranges {
        download,
        file,
        part: Mutex::new(part),
        saving: Mutex::default(),
        queue: Mutex::new(queue),
        stop,
    });
    ranges.save().await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&ranges).work(Some(head)));
    for _ in 0..workers {
        tasks.spawn(Arc::clone(&ranges).work(None));
    }
    let mut failure = None;
    while let Some(joined) = tasks.join_next().await {
        let result = joined.unwrap_or_else(|error| Err(LoadError::internal(error).into()));
        if let Err(problem) = result {
            ranges.stop.cancel();
            failure.get_or_insert(problem);
        }
    }
    ranges.save().await?;
    failure.map_or(Ok(()), Err)
}

impl Ranges {
    async fn work(self: Arc<Self>, head: Option<Head>) -> Result<(), Failure> {
        if let Some((index, response, permit)) = head {
            self.fill(index, Some((response, permit))).await?;
        }
        loop {
            let next = lock(&self.queue).pop_front();
            let Some(index) = next else { return Ok(()) };
            self.fill(index, None).await?;
        }
    }

    async fn fill(
        self: &Arc<Self>,
        index: usize,
        mut head: Option<(Response, OwnedSemaphorePermit)>,
    ) -> Result<(), Failure> {
        let mut patience = Patience::default();
        loop {
            let Some((first, last)) = lock(&self.part).next(index) else {
                return self.save().await.map_err(Into::into);
            };
            let result = tokio::select! {
                () = self.stop.cancelled() => return Err(LoadError::Cancelled.into()),
                result = self.once(index, first, last, head.take()) => result,
            };
            let reached = lock(&self.part).next(index).map_or(last + 1, |(next, _)| next);
            if reached > first {
                patience.progress();
            }
            match result {
                Ok(()) if reached > first => {}
                Ok(()) => self.pause(&mut patience, "it sends no bytes".to_owned(), None).await?,
                Err(Failure::Again { problem, after }) => self.pause(&mut patience, problem, after).await?,
                Err(other) => return Err(other),
            }
        }
    }

    async fn pause(
        &self,
        patience: &mut Patience,
        problem: String,
        after: Option<std::time::Duration>,
    ) -> Result<(), LoadError> {
        let context = &self.download.context;
        context
            .tries
            .pause(patience, &self.download.item.target.subject, problem, after)
            .await
    }

    /// One request for what range `index` lacks.
    async fn once(
        &self,
        index: usize,
        first: u64,
        last: u64,
        head: Option<(Response, OwnedSemaphorePermit)>,
    ) -> Result<(), Failure> {
        let (response, _permit) = match head {
            Some(head) => head,
            None => {
                let permit = self.download.permit().await?;
                let response = self.download.get(first, Some(last)).await?.response;
                self.check(first, &response)?;
                (response, permit)
            }
        };
        self.receive(index, first, last, response).await
    }

    /// Refuses bytes of another content, which must not be mixed with those on disk.
    fn check(&self, first: u64, response: &Response) -> Result<(), Failure> {
        let (size, tag) = {
            let part = lock(&self.part);
            (part.size(), part.tag.clone())
        };
        match range_of(response.headers()) {
            Some((start, _, total)) if response.status().as_u16() == 206 => {
                let same = start == first && total == size && self.download.tag(response.headers()) == tag;
                if same { Ok(()) } else { Err(Failure::Changed) }
            }
            _ => Err(Failure::Changed),
        }
    }

    async fn receive(&self, index: usize, first: u64, last: u64, mut response: Response) -> Result<(), Failure> {
        let mut offset = first;
        let mut buffer = Vec::with_capacity(WRITE_BYTES);
        loop {
            let chunk = self.download.chunk(&mut response).await;
            if let Ok(Some(chunk)) = &chunk {
                let room = usize::try_from(last + 1 - offset).unwrap_or(usize::MAX) - buffer.len();
                let chunk = chunk.as_ref();
                buffer.extend_from_slice(&chunk[..chunk.len().min(room)]);
            }
            let ended = !matches!(chunk, Ok(Some(_)));
            if buffer.len() >= WRITE_BYTES || (ended && !buffer.is_empty()) {
                let count = bytes(buffer.len());
                buffer = self.download.write(&self.file, buffer, offset).await?;
                offset += count;
                lock(&self.part).advance(index, count);
                self.download.moved(count);
            }
            if ended || offset > last {
                return chunk.map(|_| ());
            }
        }
    }

    /// Writes the record, one at a time and with the newest figures.
    async fn save(self: &Arc<Self>) -> Result<(), LoadError> {
        let ranges = Arc::clone(self);
        blocking(move || {
            let _one_writer = lock(&ranges.saving);
            let part = lock(&ranges.part).clone();
            ranges
                .download
                .context
                .store
                .save_part(&ranges.download.item.name, &part)
        })
        .await
    }
}

/// A panic elsewhere leaves these figures sound: each is changed in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
