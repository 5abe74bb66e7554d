//! What an earlier process left behind is finished: nothing that was acknowledged is lost, and what was not is cut off.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use super::retention::Closed;
use super::segment::{Content, Name, Position, State};
use super::store::{Store, StoreError};
use crate::contract::Sha256Sum;

impl Store {
    /// Looks at what is in the directory; finishes open segments; learns how far processes were heard.
    pub(super) fn recover(&mut self) -> Result<(), StoreError> {
        let mut segments = list(&self.directory).map_err(StoreError::io("read", &self.directory))?;
        segments.sort_unstable_by_key(|(name, _)| *name);
        self.closed.clear();
        if let Some((name, _)) = segments.last() {
            self.next_sequence = self.next_sequence.max(name.sequence.saturating_add(1));
        }
        // One that is open may have lost its beginning, so the one before it is asked, too.
        let finished = segments.iter().rev().find(|(_, state)| *state == State::Closed);
        if let Some((name, _)) = finished {
            self.learn(*name)?;
        }
        for (name, state) in segments {
            match state {
                State::Open => self.finish_left(name)?,
                State::Closed => self.closed.push(self.closed(name)?),
            }
        }
        Ok(())
    }

    fn closed(&self, name: Name) -> Result<Closed, StoreError> {
        let path = self.path(name, State::Closed);
        let size = |path: &Path| fs::metadata(path).map(|metadata| metadata.len());
        let bytes = size(&path).map_err(StoreError::io("read", &path))?;
        let listing = size(&path.with_file_name(name.listing())).unwrap_or(0);
        Ok(Closed {
            name,
            bytes: bytes + listing,
        })
    }

    /// Cuts off what is not whole and finishes the rest.
    fn finish_left(&mut self, name: Name) -> Result<(), StoreError> {
        let path = self.path(name, State::Open);
        let mut bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
        let content = Content::read(&bytes);
        self.know(content.boots);
        let torn = bytes.len() - content.whole;
        if content.whole == 0 {
            tracing::info!(
                day = name.day(),
                sequence = name.sequence,
                torn,
                "deleted a segment without a batch"
            );
            return fs::remove_file(&path).map_err(StoreError::io("delete", &path));
        }
        if torn > 0 {
            bytes.truncate(content.whole);
        }
        let file = OpenOptions::new().write(true).open(&path);
        let cut = file.and_then(|file| {
            file.set_len(content.whole as u64)?;
            file.sync_all()
        });
        cut.map_err(StoreError::io("write", &path))?;
        self.finish(name, &Sha256Sum::of(&bytes), bytes.len() as u64)?;
        let records = content.records.len();
        tracing::info!(
            day = name.day(),
            sequence = name.sequence,
            records,
            torn,
            "finished a segment of an earlier process"
        );
        Ok(())
    }

    fn learn(&mut self, name: Name) -> Result<(), StoreError> {
        let path = self.path(name, State::Closed);
        let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
        let content = Content::read(&bytes);
        if content.whole < bytes.len() {
            tracing::warn!(
                day = name.day(),
                sequence = name.sequence,
                "the newest segment was changed after it was finished; some records may be taken twice"
            );
        }
        self.know(content.boots);
        Ok(())
    }

    fn know(&mut self, boots: BTreeMap<String, Position>) {
        for (id, position) in boots {
            let known = self.boots.entry(id).or_insert(position);
            if position.next > known.next {
                *known = position;
            }
        }
    }
}

/// All segments of a directory.
///
/// # Errors
/// What the system says.
pub fn list(directory: &Path) -> io::Result<Vec<(Name, State)>> {
    let mut segments = Vec::new();
    for day in fs::read_dir(directory)? {
        let day = day?;
        let folder = day.file_name().to_string_lossy().into_owned();
        // Others, such as lost+found, are none of ours and may not even be readable.
        if !Name::is_day(&folder) {
            continue;
        }
        for file in fs::read_dir(day.path())? {
            let file = file?.file_name();
            segments.extend(Name::parse(&folder, &file.to_string_lossy()));
        }
    }
    Ok(segments)
}
