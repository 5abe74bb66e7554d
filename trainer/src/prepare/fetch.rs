//! Records in a bucket: what may be of the window is fetched, and read from there as if it had always been on a volume.

use std::fs;
use std::io;
use std::path::Path;

use super::error::PrepareError;
use super::read::SLACK_SECONDS;
use crate::collect::bucket::Bucket;
use crate::collect::segment::{Name, State};
use crate::collect::stored::Stored;

/// Fetches the segments that may hold records since `from`, and gives back how many that are. What was in the directory goes.
///
/// # Errors
/// [`PrepareError`]: a bucket that does not answer is not one without records.
pub async fn fetch(bucket: &Bucket, from: i64, directory: &Path) -> Result<u64, PrepareError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(PrepareError::io("delete", directory)(error));
        }
        _ => {}
    }
    fs::create_dir_all(directory).map_err(PrepareError::io("create", directory))?;
    let mut fetched = 0;
    for name in wanted(&bucket.list().await?, from) {
        // The listing is deleted first, so with it the segment is most likely there, too.
        let Some(listing) = bucket.listing_of(name).await? else {
            continue;
        };
        let Some(segment) = bucket.segment(name).await? else {
            continue;
        };
        let folder = directory.join(name.day());
        fs::create_dir_all(&folder).map_err(PrepareError::io("create", &folder))?;
        for (file, bytes) in [(name.listing(), listing), (name.file(State::Closed), segment)] {
            let path = folder.join(file);
            fs::write(&path, bytes).map_err(PrepareError::io("write", &path))?;
        }
        fetched += 1;
    }
    Ok(fetched)
}

/// The finished segments that may hold records since `from`.
fn wanted(stored: &[Stored], from: i64) -> Vec<Name> {
    let finished = stored.iter().filter(|one| one.is_finished());
    let names = finished.map(|one| one.name);
    names
        .filter(|name| name.opened >= from.saturating_sub(SLACK_SECONDS))
        .collect()
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
