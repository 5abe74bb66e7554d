//! Figures of benches, as `docs/benchmarks/NAME.json` has them.

use anyhow::Result;
use serde::Serialize;

use crate::cluster::repository;

/// One measured figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Stable name.
    pub id: String,
    /// What it is, for people.
    pub what: String,
    /// The value.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// `lower` or `higher`.
    pub better: &'static str,
    /// What it should be, if there is such a value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<f64>,
    /// What it is compared with, measured in the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Baseline>,
    /// The value divided by the baseline's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Where it was measured.
    pub machine: String,
}

/// What a figure is compared with.
#[derive(Clone, Debug, Serialize)]
pub struct Baseline {
    /// Its name.
    pub name: String,
    /// Its value, in the same unit.
    pub value: f64,
}

/// Number of cores and the model of the processor.
#[must_use]
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    format!("{cores} cores, {model}")
}

/// Writes `target/bench/NAME.json`.
///
/// # Errors
/// If the file cannot be written.
pub fn write(name: &str, figures: &[Figure]) -> Result<()> {
    let directory = repository().join("target/bench");
    std::fs::create_dir_all(&directory)?;
    let mut text = serde_json::to_string_pretty(figures)?;
    text.push('\n');
    std::fs::write(directory.join(format!("{name}.json")), text)?;
    Ok(())
}
