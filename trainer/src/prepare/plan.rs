//! What is trained on and what both models are judged by. Pure: the same records in any order, the same settings and the same
//! seed give the same rows.

use std::collections::{BTreeMap, BTreeSet};

use perennial_crds::capture::ExchangeRecord;
use perennial_crds::retrain::{Excluded, Include, PrepareSettings, SuiteItem, TrainingRow};

use super::candidate::{Candidate, candidates};
use super::hold_out::{HeldOut, hold_out};
use super::join::Opinions;
use super::prompt::{Asks, PromptHash, lot};
use super::share::choose;
use crate::contract::{Sha256Sum, hex};

/// One row in so many is measured with, not learned from.
const VALIDATION_SHARE: usize = 20;
/// A split needs a row in each part.
const FEWEST: usize = 2;

/// All that is known.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// Requests and answers.
    pub exchanges: Vec<ExchangeRecord>,
    /// What people thought of them.
    pub opinions: Opinions,
    /// Records that were not kept in memory because nobody thought anything of them.
    pub unlabelled: u64,
    /// The user's own suites.
    pub own: BTreeMap<String, Vec<SuiteItem>>,
    /// Prompts that are neither trained on nor judged by.
    pub excluded: Vec<SuiteItem>,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// Rows to learn from.
    pub train: Vec<TrainingRow>,
    /// Rows to measure with.
    pub validation: Vec<TrainingRow>,
    /// Items to judge by.
    pub held_out: Vec<SuiteItem>,
    /// What was left out.
    pub excluded: Excluded,
    /// sha256 over the sorted hashes of prompts that must not be trained on.
    pub evaluation_hash: String,
}

/// There is nothing to train on, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected(pub String);

/// Decides.
///
/// # Errors
/// [`Rejected`] when too little is left.
pub fn plan(records: Records, settings: &PrepareSettings) -> Result<Prepared, Rejected> {
    let window = settings.from..settings.to;
    let (mut found, unusable) = candidates(records.exchanges, &records.opinions, window, settings.seed);
    let mut excluded = Excluded {
        no_label: records.unlabelled + unusable,
        ..Excluded::default()
    };
    let known = records.own.values().flatten().chain(&records.excluded);
    let own: BTreeSet<PromptHash> = known.filter_map(Asks::hash).collect();
    excluded.own_suites = leave_out(&mut found, &own);
    let held = hold_out(&found, settings);
    judgeable(&records.own, &held, settings)?;
    excluded.held_out = leave_out(&mut found, &held.prompts);
    let rows = rows(found, settings, &mut excluded);
    enough(&rows, &excluded, settings)?;
    let (train, validation) = split(rows, settings.seed);
    Ok(Prepared {
        train,
        validation,
        evaluation_hash: evaluation_hash(own.union(&held.prompts)),
        held_out: held.items,
        excluded,
    })
}

/// Leaves out all in which the user says one of these; tells how many.
fn leave_out(candidates: &mut Vec<Candidate>, prompts: &BTreeSet<PromptHash>) -> u64 {
    let before = candidates.len();
    candidates.retain(|candidate| !candidate.said.iter().any(|said| prompts.contains(said)));
    (before - candidates.len()) as u64
}

/// A row and the prompt that it belongs to.
struct Row {
    row: TrainingRow,
    prompt: PromptHash,
    lot: [u8; 32],
}

/// The rows that are chosen: the newest of the changed traffic first, then the others by lot.
fn rows(mut candidates: Vec<Candidate>, settings: &PrepareSettings, excluded: &mut Excluded) -> Vec<Row> {
    candidates.sort_by_key(|candidate| {
        let time = candidate.exchange.time;
        let newest = (time >= settings.drifted_since).then_some(std::cmp::Reverse(time));
        (newest.is_none(), newest, candidate.lot)
    });
    let (mut rows, mut owners) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for candidate in candidates {
        let Some(row) = candidate.row(&settings.include) else {
            excluded.no_label += 1;
            continue;
        };
        if !seen.insert(fingerprint(&row)) {
            excluded.duplicates += 1;
            continue;
        }
        owners.push(candidate.owner);
        rows.push(Some(Row {
            row,
            prompt: candidate.prompt,
            lot: candidate.lot,
        }));
    }
    let owners: Vec<&str> = owners.iter().map(String::as_str).collect();
    let most = settings.max_records as usize;
    let chosen = choose(&owners, most, settings.max_percent_per_requester);
    excluded.requester_cap += chosen.capped;
    excluded.surplus += chosen.surplus;
    chosen
        .taken
        .into_iter()
        .filter_map(|position| rows[position].take())
        .collect()
}

/// Of what makes two rows the same: the prompt and the answer, letter by letter.
fn fingerprint(row: &TrainingRow) -> String {
    let mut sum = Sha256Sum::default();
    let mut add = |text: &str| {
        sum.update(&(text.len() as u64).to_le_bytes());
        sum.update(text.as_bytes());
    };
    for message in &row.messages {
        add(&message.role);
        add(&message.content);
    }
    for text in [&row.prompt, &row.answer] {
        add(text.as_deref().unwrap_or_default());
    }
    sum.hex()
}

/// Whether every suite has so many items that it can be judged by.
fn judgeable(
    own: &BTreeMap<String, Vec<SuiteItem>>,
    held: &HeldOut,
    settings: &PrepareSettings,
) -> Result<(), Rejected> {
    let fewest = settings.min_items as usize;
    if let Some((name, items)) = own.iter().find(|(_, items)| items.len() < fewest) {
        return Err(Rejected(format!(
            "the suite {name} has {} items and {fewest} are needed; add items to its ConfigMap, or lower gate.minItems",
            items.len()
        )));
    }
    let Some(name) = settings.recent_suites.first() else {
        return Ok(());
    };
    let items = held.items.len();
    if items == 0 {
        return Err(Rejected(
            "nothing can be held out to judge by: since traffic has changed, too few answers were corrected or rated good"
                .to_owned(),
        ));
    }
    if items < fewest {
        return Err(Rejected(format!(
            "the suite {name} has {items} items and {fewest} are needed: since traffic has changed, too few answers were corrected \
             or rated good; wait for more, lower gate.minItems, or give the suite items of your own"
        )));
    }
    Ok(())
}

fn enough(rows: &[Row], excluded: &Excluded, settings: &PrepareSettings) -> Result<(), Rejected> {
    let fewest = FEWEST.max(settings.min_records as usize);
    if rows.len() >= fewest {
        return Ok(());
    }
    let include: Vec<String> = settings.include.iter().map(|kind| format!("{kind:?}")).collect();
    Err(Rejected(format!(
        "{} records may be trained on and {fewest} are needed; left out were {} without one of {}, {} held out, {} of requesters \
         beyond {} %, {} in suites of yours or among prompts of probes, {} that were there twice",
        rows.len(),
        excluded.no_label,
        include.join(", "),
        excluded.held_out,
        excluded.requester_cap,
        settings.max_percent_per_requester,
        excluded.own_suites,
        excluded.duplicates,
    )))
}

/// Rows to learn from and rows to measure with. All rows of a prompt are on one side, unless there is one prompt only.
fn split(mut rows: Vec<Row>, seed: u64) -> (Vec<TrainingRow>, Vec<TrainingRow>) {
    // Their order tells nothing of when they were asked.
    rows.sort_by_key(|row| row.lot);
    let wanted = (rows.len() / VALIDATION_SHARE).max(1);
    let mut sizes: BTreeMap<PromptHash, usize> = BTreeMap::new();
    for row in &rows {
        *sizes.entry(row.prompt).or_default() += 1;
    }
    let mut prompts: Vec<(PromptHash, usize)> = sizes.into_iter().collect();
    prompts.sort_by_key(|(prompt, _)| lot(seed, "validation", prompt));
    let mut measured = BTreeSet::new();
    let mut count = 0;
    for (prompt, size) in prompts {
        // One that is asked very often would be most of what is measured.
        if count < wanted && count + size <= 2 * wanted && count + size < rows.len() {
            measured.insert(prompt);
            count += size;
        }
    }
    let single = if count == 0 {
        rows.first().map(|row| row.lot)
    } else {
        None
    };
    let is_measured = |row: &Row| measured.contains(&row.prompt) || Some(row.lot) == single;
    let (validation, train): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(is_measured);
    let bare = |rows: Vec<Row>| rows.into_iter().map(|row| row.row).collect();
    (bare(train), bare(validation))
}

fn evaluation_hash<'a>(sorted: impl Iterator<Item = &'a PromptHash>) -> String {
    let mut sum = Sha256Sum::default();
    for prompt in sorted {
        sum.update(hex(prompt).as_bytes());
        sum.update(b"\n");
    }
    format!("sha256:{}", sum.hex())
}

/// What is trained on, for people.
#[must_use]
pub fn labels(rows: &[TrainingRow]) -> BTreeMap<Include, u64> {
    let mut labels = BTreeMap::new();
    for row in rows {
        *labels.entry(row.label).or_default() += 1;
    }
    labels
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
