//! Where training stands, so that it goes on there after its pod was killed, to the bit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::TrainError;
use super::optimizer::Moments;
use super::tensors::{TensorFile, TensorsError, write_floats};
use crate::contract::write_atomically;

const FILE: &str = "checkpoint.safetensors";
const RECORD: &str = "state";
/// Changes whenever older checkpoints could no longer be gone on from.
pub const VERSION: u32 = 1;

/// A measurement on the validation rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Steps before it.
    pub step: u64,
    /// Mean loss of a token.
    pub loss: f32,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Point {
    /// Its number, counted from 1.
    pub step: u64,
    /// Mean loss of a token before it.
    pub loss: f32,
    /// Its learning rate.
    pub rate: f32,
    /// Length of its gradient.
    pub gradient: f32,
}

impl Point {
    /// Whether all of it are numbers.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        [self.loss, self.rate, self.gradient]
            .iter()
            .all(|number| number.is_finite())
    }
}

/// What is known of the way so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Steps that are done.
    pub step: u64,
    /// Measurements, the first before any step.
    pub measurements: Vec<Measurement>,
    /// Steps.
    pub curve: Vec<Point>,
    /// Seconds spent, in earlier pods too.
    pub seconds: f64,
    /// Tokens that were computed for learning.
    pub tokens: u64,
}

impl Record {
    /// The lowest measurement, the earliest of equals.
    #[must_use]
    pub fn best(&self) -> Option<Measurement> {
        self.measurements
            .iter()
            .copied()
            .reduce(|best, found| if found.loss < best.loss { found } else { best })
    }

    /// Measurements since the lowest.
    #[must_use]
    pub fn since_best(&self) -> usize {
        let best = self.best();
        self.measurements
            .iter()
            .rev()
            .take_while(|found| Some(**found) != best)
            .count()
    }
}

/// Everything that training goes on from.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The way so far.
    pub record: Record,
    /// The adapter.
    pub values: Vec<f32>,
    /// The adapter at the lowest measurement.
    pub best: Vec<f32>,
    /// The optimizer's.
    pub moments: Moments,
}

impl State {
    /// Where training begins.
    #[must_use]
    pub fn new(values: Vec<f32>) -> Self {
        Self {
            record: Record::default(),
            best: values.clone(),
            moments: Moments::new(values.len()),
            values,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    fingerprint: String,
    record: Record,
}

/// The checkpoint of one kind of training.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    fingerprint: String,
}

impl Checkpoint {
    /// In `directory`. The fingerprint tells what decides the result: a checkpoint with another one is not gone on from.
    #[must_use]
    pub fn new(directory: &Path, fingerprint: String) -> Self {
        Self {
            path: directory.join(FILE),
            fingerprint,
        }
    }

    /// Leaves the state.
    ///
    /// # Errors
    /// What the disk says; an older checkpoint is then still there.
    pub fn save(&self, state: &State) -> Result<(), TrainError> {
        let stored = Stored {
            fingerprint: self.fingerprint.clone(),
            record: state.record.clone(),
        };
        let stored =
            serde_json::to_string(&stored).map_err(|error| TrainError::io("write", &self.path)(error.into()))?;
        let metadata = BTreeMap::from([(RECORD.to_owned(), stored)]);
        let tensors = parts(state).map(|(name, values)| (name.to_owned(), (vec![values.len()], values)));
        let written = write_atomically(&self.path, |file| {
            write_floats(file, &metadata, &BTreeMap::from(tensors))
        });
        written.map_err(TrainError::io("write", &self.path))
    }

    /// The state that was left, if there is one of this training.
    ///
    /// # Errors
    /// When there is one and the disk fails. A damaged one counts as none.
    pub fn load(&self, length: usize) -> Result<Option<State>, TrainError> {
        match self.try_load(length) {
            Ok(state) => Ok(state),
            Err(TensorsError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(TensorsError::Io { source, .. }) if source.kind() != std::io::ErrorKind::UnexpectedEof => {
                Err(TrainError::io("read", &self.path)(source))
            }
            Err(error) => {
                tracing::warn!(%error, "the checkpoint is damaged; training begins anew");
                Ok(None)
            }
        }
    }

    fn try_load(&self, length: usize) -> Result<Option<State>, TensorsError> {
        let mut file = TensorFile::open(&self.path)?;
        let stored = file
            .metadata()
            .get(RECORD)
            .map(|text| serde_json::from_str::<Stored>(text));
        let record = match stored {
            Some(Ok(stored)) if stored.fingerprint == self.fingerprint => stored.record,
            _ => {
                tracing::info!("there is a checkpoint of another training; training begins anew");
                return Ok(None);
            }
        };
        let mut state = State::new(Vec::new());
        state.record = record;
        for (name, values) in parts_mut(&mut state) {
            *values = file.floats(name)?;
            if values.len() != length {
                return Err(TensorsError::Invalid {
                    path: self.path.clone(),
                    problem: format!("{name} has {} numbers, not {length}", values.len()),
                });
            }
        }
        Ok(Some(state))
    }

    /// Removes it: the result is there.
    pub fn remove(&self) {
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "the checkpoint could not be removed");
        }
    }
}

fn parts(state: &State) -> [(&'static str, &[f32]); 4] {
    [
        ("values", &state.values),
        ("best", &state.best),
        ("first", &state.moments.first),
        ("second", &state.moments.second),
    ]
}

fn parts_mut(state: &mut State) -> [(&'static str, &mut Vec<f32>); 4] {
    [
        ("values", &mut state.values),
        ("best", &mut state.best),
        ("first", &mut state.moments.first),
        ("second", &mut state.moments.second),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let mut state = State::new(vec![0.1, -0.2, 1e-30]);
        state.moments.first[1] = 0.333_333_34;
        state.best[0] = 7.0;
        state.record.step = 5;
        state.record.seconds = 1.25;
        for (step, loss) in [(0, 2.0), (2, 1.123_456_8), (4, 1.5), (5, 1.123_456_8)] {
            state.record.measurements.push(Measurement { step, loss });
        }
        state
    }

    #[test]
    fn what_was_left_is_gone_on_from_to_the_bit() {
        let directory = tempfile::tempdir().expect("a directory");
        let checkpoint = Checkpoint::new(directory.path(), "a".to_owned());
        assert_eq!(checkpoint.load(3).expect("none"), None);
        checkpoint.save(&state()).expect("saved");
        assert_eq!(checkpoint.load(3).expect("some"), Some(state()));
        let other = Checkpoint::new(directory.path(), "b".to_owned());
        assert_eq!(other.load(3).expect("another"), None);
        assert_eq!(checkpoint.load(4).expect("another size"), None);
        checkpoint.remove();
        assert_eq!(checkpoint.load(3).expect("none"), None);
    }

    #[test]
    fn a_damaged_one_counts_as_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let checkpoint = Checkpoint::new(directory.path(), "a".to_owned());
        checkpoint.save(&state()).expect("saved");
        let path = directory.path().join(FILE);
        let whole = std::fs::read(&path).expect("the file");
        for length in [0, 5, 40, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).expect("written");
            assert_eq!(checkpoint.load(3).expect("none"), None, "{length}");
        }
    }

    #[test]
    fn the_earliest_of_equals_is_the_best() {
        let record = state().record;
        assert_eq!(
            record.best(),
            Some(Measurement {
                step: 2,
                loss: 1.123_456_8
            })
        );
        assert_eq!(record.since_best(), 2);
        assert_eq!(Record::default().since_best(), 0);
    }
}
