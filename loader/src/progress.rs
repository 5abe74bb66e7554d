//! How far loading is: written by the loader and the engine, read by `/loading`, without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use perennial_crds::serving::{LoadingProgress, LoadingStage};

const UNKNOWN: u64 = u64::MAX;
/// The rate is measured over the last one to two of these.
const WINDOW_MILLISECONDS: u64 = 5_000;

const STAGES: [LoadingStage; 6] = [
    LoadingStage::Resolving,
    LoadingStage::Downloading,
    LoadingStage::Verifying,
    LoadingStage::LoadingWeights,
    LoadingStage::WarmingUp,
    LoadingStage::Ready,
];

/// Shared progress; clones see the same figures. Readers may see figures of two neighbouring moments, never a lock.
#[derive(Clone, Debug)]
pub struct Progress(Arc<Figures>);

#[derive(Debug)]
struct Figures {
    epoch: Instant,
    stage: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
    /// Bytes that took time in this stage: `done` less what was there already.
    moved: AtomicU64,
    /// (milliseconds, moved) at the begin of the previous and of the present window.
    previous: [AtomicU64; 2],
    present: [AtomicU64; 2],
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// Nothing done, in stage `Resolving`.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Figures {
            epoch: Instant::now(),
            stage: AtomicU8::new(0),
            done: AtomicU64::new(0),
            total: AtomicU64::new(UNKNOWN),
            moved: AtomicU64::new(0),
            previous: [AtomicU64::new(0), AtomicU64::new(0)],
            present: [AtomicU64::new(0), AtomicU64::new(0)],
        }))
    }

    /// Enters a stage. The byte counts stay, so that they keep saying what was downloaded.
    pub fn set_stage(&self, stage: LoadingStage) {
        let index = STAGES.iter().position(|known| *known == stage).unwrap_or(0);
        self.0.stage.store(u8::try_from(index).unwrap_or(0), Relaxed);
        self.restart_rate();
    }

    /// Enters a stage that counts its own bytes from zero.
    pub fn start(&self, stage: LoadingStage, total_bytes: Option<u64>) {
        self.0.done.store(0, Relaxed);
        self.0.total.store(total_bytes.unwrap_or(UNKNOWN), Relaxed);
        self.set_stage(stage);
    }

    /// Bytes to do in all.
    pub fn set_total(&self, bytes: u64) {
        self.0.total.store(bytes, Relaxed);
    }

    /// Adds to the bytes to do, or begins to know them.
    pub fn grow_total(&self, bytes: u64) {
        let grown = |total: u64| {
            Some(if total == UNKNOWN {
                bytes
            } else {
                total.saturating_add(bytes)
            })
        };
        let _ = self.0.total.fetch_update(Relaxed, Relaxed, grown);
    }

    /// Counts bytes that were just moved.
    pub fn add(&self, bytes: u64) {
        self.0.done.fetch_add(bytes, Relaxed);
        self.0.moved.fetch_add(bytes, Relaxed);
        let now = self.milliseconds();
        if now.saturating_sub(self.0.present[0].load(Relaxed)) >= WINDOW_MILLISECONDS {
            for (old, new) in self.0.previous.iter().zip(&self.0.present) {
                old.store(new.load(Relaxed), Relaxed);
            }
            self.0.present[0].store(now, Relaxed);
            self.0.present[1].store(self.0.moved.load(Relaxed), Relaxed);
        }
    }

    /// Counts bytes that were there already (a resumed download): done, but no evidence of the rate.
    pub fn add_present(&self, bytes: u64) {
        self.0.done.fetch_add(bytes, Relaxed);
    }

    /// Takes back bytes that must be moved again.
    pub fn subtract(&self, bytes: u64) {
        let _ = self
            .0
            .done
            .fetch_update(Relaxed, Relaxed, |done| Some(done.saturating_sub(bytes)));
    }

    /// The stage.
    #[must_use]
    pub fn stage(&self) -> LoadingStage {
        STAGES
            .get(usize::from(self.0.stage.load(Relaxed)))
            .copied()
            .unwrap_or(LoadingStage::Unknown)
    }

    /// What `/loading` answers.
    #[must_use]
    pub fn snapshot(&self) -> LoadingProgress {
        let total = match self.0.total.load(Relaxed) {
            UNKNOWN => None,
            total => Some(total),
        };
        let done = self.0.done.load(Relaxed);
        let since = self.0.previous.each_ref().map(|figure| figure.load(Relaxed));
        let moved = self.0.moved.load(Relaxed).saturating_sub(since[1]);
        let elapsed = self.milliseconds().saturating_sub(since[0]);
        let remaining = total.and_then(|total| remaining_seconds(total.saturating_sub(done), moved, elapsed));
        LoadingProgress {
            stage: self.stage(),
            downloaded_bytes: done,
            total_bytes: total,
            remaining_seconds: remaining,
        }
    }

    fn restart_rate(&self) {
        let (now, moved) = (self.milliseconds(), self.0.moved.load(Relaxed));
        for mark in [&self.0.previous, &self.0.present] {
            mark[0].store(now, Relaxed);
            mark[1].store(moved, Relaxed);
        }
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.0.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Seconds for `left` bytes when `moved` bytes took `milliseconds`, rounded up; `None` before there is a rate.
fn remaining_seconds(left: u64, moved: u64, milliseconds: u64) -> Option<u64> {
    if left == 0 || moved == 0 || milliseconds == 0 {
        return None;
    }
    let needed = u128::from(left) * u128::from(milliseconds);
    u64::try_from(needed.div_ceil(u128::from(moved) * 1000)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_comes_from_the_rate() {
        assert_eq!(remaining_seconds(1000, 500, 2000), Some(4));
        assert_eq!(remaining_seconds(1001, 500, 2000), Some(5));
        assert_eq!(remaining_seconds(1000, 0, 2000), None);
        assert_eq!(remaining_seconds(0, 500, 2000), None);
        assert_eq!(remaining_seconds(u64::MAX - 1, 1, u64::MAX), None);
    }

    #[test]
    fn clones_share_figures_and_a_new_stage_may_start_over() {
        let progress = Progress::new();
        let other = progress.clone();
        assert_eq!(progress.snapshot().stage, LoadingStage::Resolving);
        assert_eq!(progress.snapshot().total_bytes, None);
        other.start(LoadingStage::Downloading, Some(100));
        other.add_present(40);
        other.add(20);
        other.subtract(10);
        let snapshot = progress.snapshot();
        assert_eq!((snapshot.downloaded_bytes, snapshot.total_bytes), (50, Some(100)));
        other.set_stage(LoadingStage::Verifying);
        assert_eq!(progress.snapshot().downloaded_bytes, 50);
        assert_eq!(progress.stage(), LoadingStage::Verifying);
    }
}
