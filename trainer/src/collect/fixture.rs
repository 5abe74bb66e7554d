//! A bucket that is away, slow, or breaks in the middle, and batches to bring, for tests.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use perennial_crds::capture::{BATCH_VERSION, Batch, ExchangeRecord, Finish, Record};

use super::segment::Name;

/// A moment.
pub const NOW: i64 = 1_796_000_461;

/// The name of a segment.
pub fn named(sequence: u64, opened: i64) -> Name {
    Name { sequence, opened }
}

/// A batch of a process.
pub fn batch(boot: &str, numbers: Range<u64>) -> Batch {
    Batch {
        version: BATCH_VERSION,
        boot_id: boot.to_owned(),
        first: numbers.start,
        dropped: 0,
        records: numbers.map(|number| exchange(boot, number)).collect(),
    }
}

fn exchange(boot: &str, number: u64) -> Record {
    Record::Exchange(ExchangeRecord {
        request_id: format!("{boot}-{number}"),
        time: NOW,
        revision: None,
        requester: Some("alice".to_owned()),
        messages: Vec::new(),
        prompt: Some("question".to_owned()),
        answer: "answer".to_owned(),
        finish: Finish::Stop,
        prompt_tokens: 1,
        output_tokens: 1,
        sampling_weight: 1.0,
        redactions: BTreeMap::new(),
        truncated: false,
    })
}

/// A store in memory that fails on demand.
#[derive(Clone, Debug)]
pub struct Unreliable {
    inner: Arc<InMemory>,
    /// Requests that still work; negative: all do.
    left: Arc<AtomicI64>,
    hangs: Arc<AtomicBool>,
    plain: Arc<AtomicBool>,
}

impl Default for Unreliable {
    fn default() -> Self {
        Self {
            inner: Arc::default(),
            left: Arc::new(AtomicI64::new(-1)),
            hangs: Arc::default(),
            plain: Arc::default(),
        }
    }
}

impl Unreliable {
    /// Nothing works after so many requests.
    pub fn fail_from(&self, requests: i64) {
        self.left.store(requests, Ordering::SeqCst);
    }

    /// Everything works.
    pub fn works(&self) {
        self.left.store(-1, Ordering::SeqCst);
        self.hangs.store(false, Ordering::SeqCst);
    }

    /// No request is ever answered.
    pub fn hangs(&self) {
        self.hangs.store(true, Ordering::SeqCst);
    }

    /// A store as it was before S3 had conditions.
    pub fn knows_no_conditions(&self) {
        self.plain.store(true, Ordering::SeqCst);
    }

    fn asked(&self) -> Result<()> {
        let left = self.left.load(Ordering::SeqCst);
        if left == 0 {
            return Err(Error::Generic {
                store: "test",
                source: "away".into(),
            });
        }
        if left > 0 {
            self.left.store(left - 1, Ordering::SeqCst);
        }
        Ok(())
    }

    async fn answers(&self) -> Result<()> {
        self.asked()?;
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

impl fmt::Display for Unreliable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("unreliable")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Unreliable {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.answers().await?;
        if options.mode == PutMode::Create && self.plain.load(Ordering::SeqCst) {
            return Err(Error::NotImplemented {
                operation: "a condition".to_owned(),
                implementer: "test".to_owned(),
            });
        }
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.answers().await?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let asked = self.clone();
        let checked = locations.map(move |location| asked.asked().and(location));
        self.inner.delete_stream(checked.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (asked, found) = (self.clone(), self.inner.list(prefix));
        futures::stream::once(async move { asked.answers().await })
            .flat_map({
                let mut found = Some(found);
                move |answer| match answer {
                    Ok(()) => found.take().unwrap_or_else(|| futures::stream::empty().boxed()),
                    Err(error) => futures::stream::once(async { Err(error) }).boxed(),
                }
            })
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
