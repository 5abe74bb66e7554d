//! Metrics of capture. Names of patterns are the user's, so they are no labels.

use std::collections::BTreeMap;

use perennial_crds::capture::Level;
use prometheus::{IntCounter, IntGauge};

use super::redact::{CARD, EMAIL, PHONE};
use crate::metrics::Builder;

/// What became of records, and of the terms.
#[derive(Clone, Debug)]
pub struct CaptureCounters {
    /// Exchanges and feedback that were to be kept.
    pub sampled: IntCounter,
    /// Taken by the collector.
    pub sent: IntCounter,
    /// Lost for want of room, or because nothing is to be kept any more.
    pub dropped: IntCounter,
    /// Bytes that wait for the collector.
    pub spool_bytes: IntGauge,
    /// Batches that the collector did not take.
    pub send_errors: IntCounter,
    /// Terms that were not understood.
    pub refused_terms: IntCounter,
    level: IntGauge,
    email: IntCounter,
    phone: IntCounter,
    card: IntCounter,
    custom: IntCounter,
}

impl CaptureCounters {
    pub(crate) fn new(build: &Builder<'_>) -> Result<Self, prometheus::Error> {
        let records = build.own_counters(
            "capture_records_total",
            "Records for retraining, by outcome.",
            "outcome",
        )?;
        let redactions = build.own_counters(
            "capture_redactions_total",
            "Finds that were taken out of records, by rule.",
            "rule",
        )?;
        let (record, redaction) = (
            |outcome: &str| records.with_label_values(&[outcome]),
            |rule: &str| redactions.with_label_values(&[rule]),
        );
        let counters = Self {
            sampled: record("sampled"),
            sent: record("sent"),
            dropped: record("dropped"),
            spool_bytes: build.own_gauge("capture_spool_bytes", "Bytes of records that wait for the collector.")?,
            send_errors: build.own_counter(
                "capture_send_errors_total",
                "Batches of records that the collector did not take.",
            )?,
            refused_terms: build.own_counter(
                "capture_terms_refused_total",
                "Terms of capture that were not understood, so that those before stay in force.",
            )?,
            level: build.own_gauge(
                "capture_level",
                "What is kept of requests: 0 None, 1 Features, 2 Payload.",
            )?,
            email: redaction("email"),
            phone: redaction("phone"),
            card: redaction("card"),
            custom: redaction("custom"),
        };
        counters.set_level(Level::default());
        Ok(counters)
    }

    /// Says what is kept now.
    pub(super) fn set_level(&self, level: Level) {
        self.level.set(match level {
            Level::None => 0,
            Level::Features => 1,
            Level::Payload => 2,
        });
    }

    /// Counts what was taken out of a record.
    pub(super) fn redacted(&self, finds: &BTreeMap<String, u32>) {
        for (name, count) in finds {
            let counter = match name.as_str() {
                EMAIL => &self.email,
                PHONE => &self.phone,
                CARD => &self.card,
                _ => &self.custom,
            };
            counter.inc_by(u64::from(*count));
        }
    }
}
