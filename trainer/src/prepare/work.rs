//! One preparation from its arguments to its result.

use perennial_crds::retrain::{Outcome, PREPARE_CONTRACT, PrepareResult, PrepareSettings};

use super::arguments::Arguments;
use super::error::PrepareError;
use super::fetch::fetch;
use super::freeze::{Frozen, finished, freeze};
use super::golden;
use super::plan::{Records, Rejected, labels, plan};
use super::read::{self, Read};
use super::tidy::tidy;
use crate::contract::{message, parse_json};

/// Prepares.
///
/// # Errors
/// [`PrepareError`] when there is no decision.
pub fn execute(arguments: &Arguments) -> Result<PrepareResult, PrepareError> {
    let settings: PrepareSettings =
        parse_json("PREPARE_SETTINGS", &arguments.settings).map_err(PrepareError::Arguments)?;
    check(&settings).map_err(PrepareError::Arguments)?;
    let _: serde_json::Value = parse_json("PREPARE_REPORT", &arguments.report).map_err(PrepareError::Arguments)?;
    if let Some(frozen) = finished(&arguments.output, &settings)? {
        tracing::info!(cycle = settings.cycle_id, "the data is frozen already");
        return Ok(succeeded(frozen, "frozen before"));
    }
    match prepare(arguments, &settings) {
        Err(PrepareError::Rejected(why)) => Ok(result(Outcome::DataRejected, &why)),
        other => other,
    }
}

fn prepare(arguments: &Arguments, settings: &PrepareSettings) -> Result<PrepareResult, PrepareError> {
    // Before anything is written: it may need the room.
    let kept = match tidy(&arguments.output, &settings.ended) {
        0 => String::new(),
        some => format!("; the folders of {some} earlier cycles could not be tidied up: the log says why"),
    };
    let own = golden::read(&arguments.golden, &settings.own_suites)?;
    let excluded = golden::read_excluded(&arguments.golden, &settings.excluded_sets)?;
    let read = records(arguments, settings)?;
    tracing::info!(
        cycle = settings.cycle_id,
        segments = read.segments,
        damaged = read.damaged,
        labelled = read.exchanges.len(),
        unlabelled = read.unlabelled,
        "read"
    );
    let damaged = match read.damaged {
        0 => String::new(),
        some => format!("; {some} segments are left out because they were changed after they were written"),
    };
    let records = Records {
        exchanges: read.exchanges,
        opinions: read.opinions,
        unlabelled: read.unlabelled,
        own: own.clone(),
        excluded,
    };
    let prepared =
        plan(records, settings).map_err(|Rejected(why)| PrepareError::Rejected(format!("{why}{damaged}{kept}")))?;
    tracing::info!(
        train = prepared.train.len(),
        validation = prepared.validation.len(),
        held_out = prepared.held_out.len(),
        labels = ?labels(&prepared.train),
        excluded = ?prepared.excluded,
        "decided"
    );
    let frozen = freeze(&arguments.output, &prepared, &own, &arguments.report, settings)?;
    let said = format!(
        "{} rows, {} more to measure with, {} held out{damaged}{kept}",
        prepared.train.len(),
        prepared.validation.len(),
        prepared.held_out.len()
    );
    Ok(succeeded(frozen, &said))
}

/// From the volume or from the bucket.
fn records(arguments: &Arguments, settings: &PrepareSettings) -> Result<Read, PrepareError> {
    let open = arguments.s3.open();
    let Some(bucket) = open.map_err(|error| PrepareError::Arguments(error.to_string()))? else {
        return read::read(&arguments.capture, settings);
    };
    let directory = &arguments.s3.scratch;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(PrepareError::io("start the client of the bucket for", directory))?;
    let segments = runtime.block_on(fetch(&bucket, settings.from, directory))?;
    tracing::info!(cycle = settings.cycle_id, bucket = bucket.name(), segments, "fetched");
    read::read(directory, settings)
}

fn check(settings: &PrepareSettings) -> Result<(), String> {
    let mut names: Vec<&String> = settings.own_suites.iter().chain(&settings.recent_suites).collect();
    let plain = |name: &str, more: &[u8]| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || more.contains(&byte))
    };
    if !names.iter().all(|name| plain(name, b"-")) {
        return Err("a suite's name is not made of small letters, digits and -".to_owned());
    }
    if !settings.ended.iter().all(|ended| plain(&ended.cycle_id, b"-")) {
        return Err("the id of a cycle is not made of small letters, digits and -".to_owned());
    }
    // With a character of their own, so that a set can have a name that no suite has.
    if !settings.excluded_sets.iter().all(|name| plain(name, b"-_")) {
        return Err("the name of a set of prompts is not made of small letters, digits, - and _".to_owned());
    }
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    if names.len() < all {
        return Err("two suites have one name".to_owned());
    }
    if settings.cycle_id.is_empty() || settings.from >= settings.to || settings.include.is_empty() {
        return Err("PREPARE_SETTINGS has no cycle, no window or nothing to include".to_owned());
    }
    Ok(())
}

fn succeeded(frozen: Frozen, said: &str) -> PrepareResult {
    PrepareResult {
        manifest_digest: Some(frozen.manifest_digest),
        records: frozen.records,
        items: frozen.items,
        suites_digest: Some(frozen.suites_digest),
        ..result(Outcome::Succeeded, said)
    }
}

pub(super) fn result(outcome: Outcome, said: &str) -> PrepareResult {
    PrepareResult {
        schema: PREPARE_CONTRACT.to_owned(),
        outcome,
        manifest_digest: None,
        records: 0,
        items: std::collections::BTreeMap::new(),
        suites_digest: None,
        message: message(said),
    }
}
