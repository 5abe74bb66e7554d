//! One pod's load at one moment, as read from `GET /load`.

/// Upper bounds of the buckets of the time to first token, in seconds (vLLM's); one more bucket holds the rest.
pub const FIRST_TOKEN_BOUNDS: [f64; BUCKETS - 1] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
];
/// Number of buckets of the time to first token.
pub const BUCKETS: usize = 23;

/// One pod's load at one moment. Counters count from the start of its process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Differs between two starts of a process: counters of one are not comparable with those of the other.
    pub boot: u64,
    /// Requests that are computed.
    pub running: u32,
    /// Requests in the queue.
    pub waiting: u32,
    /// Most requests that are computed at the same time.
    pub slots: u32,
    /// Prompt tokens in the queue.
    pub queued_tokens: u64,
    /// Tokens of the key-value cache in use.
    pub cache_used: u64,
    /// Tokens of the key-value cache.
    pub cache_total: u64,
    /// Requests that arrived, those that were refused for a full queue too.
    pub arrived: u64,
    /// Requests that ended.
    pub finished: u64,
    /// Tokens generated.
    pub generated: u64,
    /// Seconds that the ended requests were computed (without their wait), summed over requests.
    pub computed_seconds: f64,
    /// Requests by the time to their first token: one count per bucket, not cumulative.
    pub first_token: [u32; BUCKETS],
    /// Seconds that this process took from its start to its first token.
    pub cold_start: Option<f64>,
}

impl Sample {
    /// Whether this can follow `earlier` in the life of one process.
    #[must_use]
    pub fn follows(&self, earlier: &Self) -> bool {
        self.boot == earlier.boot
            && self.arrived >= earlier.arrived
            && self.finished >= earlier.finished
            && self.generated >= earlier.generated
            && self.computed_seconds >= earlier.computed_seconds
            && self
                .first_token
                .iter()
                .zip(&earlier.first_token)
                .all(|(now, then)| now >= then)
    }
}

/// A quantile of a histogram, by linear interpolation in its bucket as Prometheus does it; `None` of nothing. A quantile
/// in the last bucket is its lower bound.
#[must_use]
pub fn quantile(counts: &[u64; BUCKETS], q: f64) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return None;
    }
    let rank = q * total as f64;
    let mut before = 0.0;
    for (index, &count) in counts.iter().enumerate() {
        let count = count as f64;
        if before + count >= rank && count > 0.0 {
            let low = if index == 0 { 0.0 } else { FIRST_TOKEN_BOUNDS[index - 1] };
            return Some(match FIRST_TOKEN_BOUNDS.get(index) {
                Some(high) => low + (high - low) * (rank - before) / count,
                None => low,
            });
        }
        before += count;
    }
    FIRST_TOKEN_BOUNDS.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_in_its_bucket_as_prometheus_would_put_it() {
        let mut counts = [0; BUCKETS];
        assert_eq!(quantile(&counts, 0.95), None);
        counts[9] = 50; // 0.25 to 0.5
        counts[11] = 50; // 0.75 to 1
        assert_eq!(quantile(&counts, 0.5), Some(0.5));
        assert!((quantile(&counts, 0.95).expect("some") - 0.975).abs() < 1e-12);
        counts = [0; BUCKETS];
        counts[22] = 1;
        assert_eq!(quantile(&counts, 0.95), Some(2560.0));
    }
}
