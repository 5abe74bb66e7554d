//! Segments leave the directory: because they are too old, because there is too much, or because they are in the bucket.

use std::fs;
use std::io;

use super::retention::{Keep, surplus};
use super::segment::{Name, State};
use super::store::{Store, StoreError};

impl Store {
    /// The finished segments, in their order.
    #[must_use]
    pub fn waiting(&self) -> Vec<Name> {
        let mut names: Vec<Name> = self.closed.iter().map(|segment| segment.name).collect();
        names.sort_unstable();
        names
    }

    /// A segment is in the bucket, so it is not needed here.
    ///
    /// # Errors
    /// What the system says.
    pub fn sent(&mut self, name: Name) -> Result<(), StoreError> {
        let outcome = self.remove(name);
        self.measure();
        outcome
    }

    pub(super) fn delete_surplus(&mut self, now: i64) {
        let open = self.open.as_ref().map(|open| open.bytes);
        let keep = Keep {
            // What waits for the bucket is not deleted because there is much of it: then no more is taken.
            bytes: self.limits.spool.map_or(self.limits.keep.bytes, |_| u64::MAX),
            ..self.limits.keep
        };
        for (name, why) in surplus(&self.closed, open, keep, now) {
            match self.remove(name) {
                Ok(()) => {
                    self.metrics.removed(why);
                    tracing::info!(
                        day = name.day(),
                        sequence = name.sequence,
                        reason = why.label(),
                        "deleted a segment"
                    );
                }
                Err(error) => {
                    self.metrics.write_errors.inc();
                    tracing::warn!(%error, "a segment cannot be deleted");
                }
            }
        }
    }

    fn remove(&mut self, name: Name) -> Result<(), StoreError> {
        let path = self.path(name, State::Closed);
        for file in [path.with_file_name(name.listing()), path.clone()] {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io("delete", &file)(error));
                }
                _ => {}
            }
        }
        self.closed.retain(|segment| segment.name != name);
        if let Some(day) = path.parent() {
            // Fails as long as there is something in it.
            let _ = fs::remove_dir(day);
        }
        Ok(())
    }
}
