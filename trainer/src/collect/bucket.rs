//! The bucket: segments as objects, the listing with its hash after each, and the key for names of requesters.
//!
//! What goes wrong is told in words of our own: a store's answer may quote who asked and with what.

use std::error::Error as _;
use std::path::PathBuf;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use super::requester::{KEY_BYTES, KEY_FILE};
use super::segment::{Name, State};
use super::stored::{Stored, stored};

/// Longest code of a store's answer that is told.
const MOST_CODE_BYTES: usize = 40;

/// Why the bucket did not do what it should. Holds no text of a record and no credential.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// What was told makes no sense.
    #[error("{0}")]
    Settings(String),
    /// The store refused, failed or cannot be reached.
    #[error("{action} the bucket {bucket}: {words}")]
    Store {
        /// What was being done.
        action: &'static str,
        /// The bucket.
        bucket: String,
        /// What came of it.
        words: String,
    },
    /// It is there, and is no key.
    #[error(
        "the key for names of requesters in the bucket {bucket} is damaged: restore the object {key}, or delete it if requesters of before need not be recognised"
    )]
    Damaged {
        /// The bucket.
        bucket: String,
        /// The object.
        key: String,
    },
    /// The disk beside it failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The records of one LLMDeployment in a bucket.
#[derive(Clone, Debug)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    name: String,
}

impl Bucket {
    /// Objects of a store whose keys begin like this.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, prefix: Path, name: &str) -> Self {
        Self {
            store,
            prefix,
            name: name.to_owned(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn error(&self, action: &'static str) -> impl FnOnce(Error) -> BucketError {
        let bucket = self.name.clone();
        move |error| BucketError::Store {
            action,
            bucket,
            words: words(&error),
        }
    }

    fn object(&self, name: Name) -> Path {
        self.prefix.clone().join(name.day()).join(name.file(State::Closed))
    }

    fn listing(&self, name: Name) -> Path {
        self.prefix.clone().join(name.day()).join(name.listing())
    }

    /// All segments, in their order, the unfinished ones too.
    ///
    /// # Errors
    /// [`BucketError`]. A prefix without objects has none.
    pub async fn list(&self) -> Result<Vec<Stored>, BucketError> {
        let mut objects = self.store.list(Some(&self.prefix));
        let mut found = Vec::new();
        while let Some(object) = objects.try_next().await.map_err(self.error("list"))? {
            let Some(parts) = object.location.prefix_match(&self.prefix) else {
                continue;
            };
            let parts: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
            if let [day, file] = parts.as_slice() {
                found.push((day.clone(), file.clone(), object.size));
            }
        }
        Ok(stored(&found))
    }

    /// Puts a segment, then the listing with its hash: one without it is not finished.
    ///
    /// # Errors
    /// [`BucketError`]. It can be put again.
    pub async fn put(&self, name: Name, segment: Vec<u8>, listing: Vec<u8>) -> Result<(), BucketError> {
        let put = self.store.put(&self.object(name), segment.into()).await;
        put.map_err(self.error("write to"))?;
        self.finish(name, listing).await
    }

    /// Puts the listing of a segment that is there.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn finish(&self, name: Name, listing: Vec<u8>) -> Result<(), BucketError> {
        let put = self.store.put(&self.listing(name), listing.into()).await;
        put.map(drop).map_err(self.error("write to"))
    }

    /// The bytes of a segment; nothing if it is not there.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn segment(&self, name: Name) -> Result<Option<Vec<u8>>, BucketError> {
        self.get(&self.object(name)).await
    }

    /// The listing of a segment; nothing if it is not there.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn listing_of(&self, name: Name) -> Result<Option<Vec<u8>>, BucketError> {
        self.get(&self.listing(name)).await
    }

    /// Deletes a segment: first the listing, so that at no time something looks finished of which a part is missing.
    ///
    /// # Errors
    /// [`BucketError`]. It can be deleted again.
    pub async fn delete(&self, name: Name) -> Result<(), BucketError> {
        for key in [self.listing(name), self.object(name)] {
            match self.store.delete(&key).await {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(self.error("delete from")(error)),
            }
        }
        Ok(())
    }

    /// The key for names of requesters: that of the bucket, or `fresh` if there is none yet.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn requester_key(&self, fresh: [u8; KEY_BYTES]) -> Result<[u8; KEY_BYTES], BucketError> {
        let path = self.prefix.clone().join(KEY_FILE);
        if let Some(bytes) = self.get(&path).await? {
            return self.key_of(&path, bytes);
        }
        let only_new = PutOptions::from(PutMode::Create);
        let payload = || fresh.to_vec().into();
        match self.store.put_opts(&path, payload(), only_new).await {
            Ok(_) | Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {}
            // A store that knows no such condition. There is one collector, so nobody puts another one in between.
            Err(error) if is_unknown(&error) => {
                let put = self.store.put(&path, payload()).await;
                put.map_err(self.error("write to"))?;
            }
            Err(error) => return Err(self.error("write to")(error)),
        }
        // What is there now counts, whoever put it.
        let bytes = self.get(&path).await?.unwrap_or_default();
        self.key_of(&path, bytes)
    }

    fn key_of(&self, path: &Path, bytes: Vec<u8>) -> Result<[u8; KEY_BYTES], BucketError> {
        <[u8; KEY_BYTES]>::try_from(bytes).map_err(|_| BucketError::Damaged {
            bucket: self.name.clone(),
            key: path.to_string(),
        })
    }

    async fn get(&self, path: &Path) -> Result<Option<Vec<u8>>, BucketError> {
        let found = match self.store.get(path).await {
            Err(Error::NotFound { .. }) => return self.exists().await.map(|()| None),
            found => found.map_err(self.error("read from"))?,
        };
        let bytes = found.bytes().await.map_err(self.error("read from"))?;
        Ok(Some(bytes.to_vec()))
    }

    /// A bucket that is not there has no objects either, and that is another matter than one that is empty.
    async fn exists(&self) -> Result<(), BucketError> {
        let mut objects = self.store.list(Some(&self.prefix));
        objects.try_next().await.map(drop).map_err(self.error("list"))
    }
}

/// Whether a store does not know what it was asked.
fn is_unknown(error: &Error) -> bool {
    matches!(error, Error::NotImplemented { .. } | Error::NotSupported { .. })
        || status(&error.to_string()).is_some_and(|status| status == "501")
}

/// What a store's error comes to, without anything that it may quote.
fn words(error: &Error) -> String {
    let told = error.to_string();
    let code = code(&told);
    let said = code.map(|code| format!(" ({code})")).unwrap_or_default();
    if code == Some("NoSuchBucket") {
        return "it is not there: make it, or correct its name".to_owned();
    }
    match error {
        Error::NotFound { .. } => format!("there is no such object{said}"),
        Error::PermissionDenied { .. } => {
            format!("the credentials may not do this{said}: they need to get, put, delete and list objects")
        }
        Error::Unauthenticated { .. } => format!("the credentials are not accepted{said}"),
        _ => match (transport(error), status(&told)) {
            (Some(words), _) => words.to_owned(),
            (None, Some(status)) => format!("the store answers {status}{said}"),
            (None, None) => format!("the store failed{said}"),
        },
    }
}

/// What kept a request from being answered.
fn transport(error: &Error) -> Option<&'static str> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            return Some(match http.kind() {
                HttpErrorKind::Timeout => "it does not answer in time",
                HttpErrorKind::Decode => "its answer cannot be read",
                _ => "it cannot be reached",
            });
        }
        source = error.source();
    }
    None
}

/// The status of an answer that was an error.
fn status(told: &str) -> Option<&str> {
    let (_, rest) = told.split_once("status code: ")?;
    let status = rest.get(..3)?;
    status.bytes().all(|byte| byte.is_ascii_digit()).then_some(status)
}

/// The store's word for it, such as `NoSuchBucket`.
fn code(told: &str) -> Option<&str> {
    let (_, rest) = told.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let plain =
        !code.is_empty() && code.len() <= MOST_CODE_BYTES && code.bytes().all(|byte| byte.is_ascii_alphabetic());
    plain.then_some(code)
}

#[cfg(test)]
#[path = "bucket_tests.rs"]
mod tests;
