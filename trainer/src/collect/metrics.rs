//! What the collector counts.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

/// The collector's metrics. None of them has anything of a record in it.
pub struct Metrics {
    registry: Registry,
    exchanges: IntCounter,
    feedback: IntCounter,
    /// Batches of which something was written.
    pub batches: IntCounter,
    /// Records that were there already.
    pub duplicates: IntCounter,
    /// Records that serving pods dropped before they could be sent.
    pub lost: IntCounter,
    /// Bytes of all segments.
    pub bytes: IntGauge,
    /// Segments, the open one too.
    pub segments: IntGauge,
    /// Failures to write.
    pub write_errors: IntCounter,
    /// Segments that were brought to the bucket.
    pub uploads: IntCounter,
    /// Failures of the bucket.
    pub upload_errors: IntCounter,
    /// Finished segments that are not in the bucket yet.
    pub waiting: IntGauge,
    /// Bytes of all segments in the bucket.
    pub bucket_bytes: IntGauge,
    /// Segments in the bucket.
    pub bucket_segments: IntGauge,
    refused: IntCounterVec,
    removed: IntCounterVec,
}

/// Why a batch was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The token is missing or wrong.
    Unauthorized,
    /// It is no batch.
    Invalid,
    /// There is no room.
    Full,
    /// It could not be written, or the collector is not ready.
    Failed,
}

impl Refusal {
    const ALL: [Self; 4] = [Self::Unauthorized, Self::Invalid, Self::Full, Self::Failed];

    fn label(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Invalid => "invalid",
            Self::Full => "full",
            Self::Failed => "failed",
        }
    }
}

/// Why a segment was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Surplus {
    /// It was too old.
    Age,
    /// All were too large together.
    Size,
}

impl Surplus {
    const ALL: [Self; 2] = [Self::Age, Self::Size];

    /// The value of the label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Size => "size",
        }
    }
}

impl Metrics {
    /// All at nought.
    ///
    /// # Errors
    /// Two metrics of one name, which is a bug.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::with_opts(options(name, help))?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::with_opts(options(name, help))?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counters = |name: &str, help: &str, label: &str, values: &[&str]| {
            let counters = IntCounterVec::new(options(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            for value in values {
                counters.with_label_values(&[value]).reset();
            }
            Ok::<_, prometheus::Error>(counters)
        };
        let records = counters(
            "records_total",
            "Records that were written.",
            "kind",
            &["exchange", "feedback"],
        )?;
        Ok(Self {
            exchanges: records.with_label_values(&["exchange"]),
            feedback: records.with_label_values(&["feedback"]),
            batches: counter("batches_total", "Batches of which something was written.")?,
            duplicates: counter("duplicates_total", "Records that were there already.")?,
            lost: counter(
                "lost_records_total",
                "Records that serving pods dropped for want of room.",
            )?,
            bytes: gauge("bytes", "Bytes of all segments.")?,
            segments: gauge("segments", "Segments.")?,
            write_errors: counter("write_errors_total", "Failures to write to the volume.")?,
            uploads: counter("uploads_total", "Segments that were brought to the bucket.")?,
            upload_errors: counter("upload_errors_total", "Failures of the bucket.")?,
            waiting: gauge("waiting_segments", "Finished segments that are not in the bucket yet.")?,
            bucket_bytes: gauge("bucket_bytes", "Bytes of all segments in the bucket.")?,
            bucket_segments: gauge("bucket_segments", "Segments in the bucket.")?,
            refused: counters(
                "refused_batches_total",
                "Batches that were not taken.",
                "reason",
                &Refusal::ALL.map(Refusal::label),
            )?,
            removed: counters(
                "removed_segments_total",
                "Segments that were deleted.",
                "reason",
                &Surplus::ALL.map(Surplus::label),
            )?,
            registry,
        })
    }

    /// So many records of both kinds were written.
    pub fn written(&self, exchanges: u64, feedback: u64) {
        self.batches.inc();
        self.exchanges.inc_by(exchanges);
        self.feedback.inc_by(feedback);
    }

    /// A batch was not taken.
    pub fn refused(&self, why: Refusal) {
        self.refused.with_label_values(&[why.label()]).inc();
    }

    /// A segment was deleted.
    pub fn removed(&self, why: Surplus) {
        self.removed.with_label_values(&[why.label()]).inc();
    }

    /// The text that Prometheus reads.
    #[must_use]
    pub fn render(&self) -> String {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather());
        text.unwrap_or_else(|error| {
            tracing::error!(%error, "metrics cannot be written");
            String::new()
        })
    }
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(format!("perennial_collector_{name}"), help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_there_from_the_start() {
        let metrics = Metrics::new().expect("metrics");
        metrics.written(2, 3);
        metrics.refused(Refusal::Full);
        metrics.removed(Surplus::Age);
        let text = metrics.render();
        for line in [
            "records_total{kind=\"exchange\"} 2",
            "records_total{kind=\"feedback\"} 3",
            "batches_total 1",
            "duplicates_total 0",
            "lost_records_total 0",
            "bytes 0",
            "segments 0",
            "write_errors_total 0",
            "uploads_total 0",
            "upload_errors_total 0",
            "waiting_segments 0",
            "bucket_bytes 0",
            "bucket_segments 0",
            "refused_batches_total{reason=\"full\"} 1",
            "refused_batches_total{reason=\"unauthorized\"} 0",
            "removed_segments_total{reason=\"age\"} 1",
            "removed_segments_total{reason=\"size\"} 0",
        ] {
            let line = format!("\nperennial_collector_{line}\n");
            assert_eq!(text.matches(&line).count(), 1, "{line} is not in\n{text}");
        }
    }
}
