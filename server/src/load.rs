//! What an autoscaler wants to know of this server, counted as it happens and read without a lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use perennial_crds::serving::{FIRST_TOKEN_BUCKETS, FIRST_TOKEN_SECONDS, LOAD_VERSION, Load};
use perennial_engine::LoadSnapshot;

/// Counters from the start of the process.
#[derive(Debug)]
pub struct LoadCounters {
    boot_id: u64,
    max_running: AtomicU32,
    block_size: AtomicU64,
    requests: AtomicU64,
    finished: AtomicU64,
    generated_tokens: AtomicU64,
    computed_micros: AtomicU64,
    cold_start_micros: AtomicU64,
    first_token: [AtomicU32; FIRST_TOKEN_BUCKETS],
}

impl LoadCounters {
    /// Counters at zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            boot_id: random_53_bits(),
            max_running: AtomicU32::new(0),
            block_size: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            generated_tokens: AtomicU64::new(0),
            computed_micros: AtomicU64::new(0),
            cold_start_micros: AtomicU64::new(0),
            first_token: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    /// Says what the engine is.
    pub fn set_engine(&self, max_running: u32, block_size: usize) {
        self.max_running.store(max_running, Ordering::Relaxed);
        self.block_size.store(block_size as u64, Ordering::Relaxed);
    }

    /// The first token was produced so long after the start of the process. What was counted until then was the warm-up.
    pub fn started(&self, cold_start: Duration) {
        for counter in [
            &self.requests,
            &self.finished,
            &self.generated_tokens,
            &self.computed_micros,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
        for bucket in &self.first_token {
            bucket.store(0, Ordering::Relaxed);
        }
        self.cold_start_micros
            .store(micros(cold_start).max(1), Ordering::Relaxed);
    }

    /// A request arrived, whether it was taken or refused for a full queue.
    pub fn arrived(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// A request's first token.
    pub fn first_token(&self, after: Duration) {
        let after = after.as_secs_f64();
        let bucket = FIRST_TOKEN_SECONDS.partition_point(|bound| *bound < after);
        self.first_token[bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// A token of any answer.
    pub fn generated(&self) {
        self.generated_tokens.fetch_add(1, Ordering::Relaxed);
    }

    /// A request ended that was computed for so long, not counting its wait.
    pub fn finished(&self, computed: Duration) {
        self.computed_micros.fetch_add(micros(computed), Ordering::Relaxed);
        self.finished.fetch_add(1, Ordering::Relaxed);
    }

    /// The answer of `/load`.
    #[must_use]
    pub fn snapshot(&self, engine: Option<&LoadSnapshot>) -> Load {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let cold_start = get(&self.cold_start_micros);
        let idle = LoadSnapshot::default();
        let engine = engine.unwrap_or(&idle);
        let block_size = get(&self.block_size);
        Load {
            version: LOAD_VERSION,
            boot_id: self.boot_id,
            running: narrow(engine.running),
            waiting: narrow(engine.waiting),
            max_running: self.max_running.load(Ordering::Relaxed),
            queued_tokens: engine.queued_tokens as u64,
            cache_used_tokens: engine.used_blocks as u64 * block_size,
            cache_total_tokens: engine.total_blocks as u64 * block_size,
            requests: get(&self.requests),
            finished: get(&self.finished),
            generated_tokens: get(&self.generated_tokens),
            computed_seconds: seconds(get(&self.computed_micros)),
            cold_start_seconds: (cold_start > 0).then(|| seconds(cold_start)),
            first_token: std::array::from_fn(|bucket| self.first_token[bucket].load(Ordering::Relaxed)),
        }
    }
}

impl Default for LoadCounters {
    fn default() -> Self {
        Self::new()
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The standard library seeds its hashers from the system; all that is needed is another number at another start.
fn random_53_bits() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() >> 11
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warm_up_is_not_load_and_waits_are_not_computing() {
        let counters = LoadCounters::new();
        counters.set_engine(16, 32);
        counters.arrived();
        counters.finished(Duration::from_secs(5));
        counters.started(Duration::from_millis(1500));
        counters.arrived();
        counters.first_token(Duration::from_millis(250));
        counters.first_token(Duration::from_secs(9999));
        counters.generated();
        counters.finished(Duration::from_millis(1250));
        let engine = LoadSnapshot {
            running: 3,
            used_blocks: 2,
            total_blocks: 8,
            ..LoadSnapshot::default()
        };
        let load = counters.snapshot(Some(&engine));
        assert_eq!((load.requests, load.finished, load.generated_tokens), (1, 1, 1));
        assert_eq!((load.computed_seconds, load.cold_start_seconds), (1.25, Some(1.5)));
        assert_eq!(
            (load.cache_used_tokens, load.cache_total_tokens, load.running),
            (64, 256, 3)
        );
        // A value at a bound belongs under it, as in Prometheus.
        assert_eq!((load.first_token[8], load.first_token[FIRST_TOKEN_BUCKETS - 1]), (1, 1));
        assert!(load.boot_id < 1 << 53 && load.boot_id != LoadCounters::new().boot_id);
    }
}
