//! What a collector has to know before it takes a batch: the key for names of requesters, how far every serving process was
//! heard, and the number of the next segment. With a bucket all of it comes from there, because a pod may move to another node.

use std::collections::BTreeMap;

use super::bucket::{Bucket, BucketError};
use super::requester::{KEY_BYTES, Requesters};
use super::segment::{Content, Name, Position, State};
use super::stored::{Stored, next_sequence};
use crate::contract::Sha256Sum;

/// Where a collector goes on.
pub struct Start {
    /// Hashes names.
    pub requesters: Requesters,
    /// How far each process was heard.
    pub boots: BTreeMap<String, Position>,
    /// Number of the next segment.
    pub next_sequence: u64,
}

impl Start {
    /// With nothing behind it.
    #[must_use]
    pub fn new(requesters: Requesters) -> Self {
        Self {
            requesters,
            boots: BTreeMap::new(),
            next_sequence: 0,
        }
    }
}

/// Where the collector before this one ended, as far as the bucket tells. `fresh` is the key if there is none yet.
///
/// # Errors
/// [`BucketError`]: then nothing may be taken, because names would be hashed with another key, and batches kept twice.
pub async fn begin(bucket: &Bucket, fresh: [u8; KEY_BYTES]) -> Result<Start, BucketError> {
    let key = bucket.requester_key(fresh).await?;
    let stored = bucket.list().await?;
    let mut boots = BTreeMap::new();
    for one in stored.iter().filter(|one| one.lacks_listing()) {
        finish(bucket, one.name).await?;
    }
    // One that was changed tells nothing, so the one before it is asked.
    for one in stored.iter().rev().filter(|one| one.segment.is_some()) {
        if let Some(heard) = heard(bucket, one).await? {
            boots = heard;
            break;
        }
    }
    Ok(Start {
        requesters: Requesters::with(key),
        boots,
        next_sequence: next_sequence(&stored),
    })
}

/// An object is there as a whole or not at all: if a collector ended before it put the listing, and its disk is gone, then the
/// records would be lost that it acknowledged.
async fn finish(bucket: &Bucket, name: Name) -> Result<(), BucketError> {
    let Some(bytes) = bucket.segment(name).await? else {
        return Ok(());
    };
    if Content::read(&bytes).whole < bytes.len() {
        tracing::warn!(
            day = name.day(),
            sequence = name.sequence,
            "a segment without a listing is not whole; it is left until it is too old"
        );
        return Ok(());
    }
    let text = format!("{}  {}\n", Sha256Sum::of(&bytes), name.file(State::Closed));
    bucket.finish(name, text.into_bytes()).await?;
    tracing::info!(
        day = name.day(),
        sequence = name.sequence,
        "finished a segment of an earlier collector in the bucket"
    );
    Ok(())
}

async fn heard(bucket: &Bucket, one: &Stored) -> Result<Option<BTreeMap<String, Position>>, BucketError> {
    let name = one.name;
    let Some(bytes) = bucket.segment(name).await? else {
        return Ok(None);
    };
    let content = Content::read(&bytes);
    if content.whole == bytes.len() {
        return Ok(Some(content.boots));
    }
    tracing::warn!(
        day = name.day(),
        sequence = name.sequence,
        "a segment was changed after it was finished; some records may be taken twice"
    );
    Ok(None)
}
