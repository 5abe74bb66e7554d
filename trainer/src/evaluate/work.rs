//! One judgement from its arguments to its result.

use std::path::PathBuf;
use std::time::Instant;

use perennial_crds::retrain::{GATE_CONTRACT, GateResult, Outcome, SuiteItem, SuiteScores};
use perennial_loader::{Digest, LoadError};
use tokio_util::sync::CancellationToken;

use super::arguments::Arguments;
use super::score::{Bounds, Scores, score};
use super::suites::{self, Suite, SuitesError};
use super::tally::tally;
use super::time::{self, End};
use crate::contract::{message, suites_digest, write_bytes};
use crate::train::{TrainError, fetch};

const SCORES_FILE: &str = "scores.jsonl";

/// Judges both models on the same items.
///
/// # Errors
/// [`TrainError`] when there is no judgement.
pub fn execute(arguments: &Arguments, cancel: &CancellationToken) -> Result<GateResult, TrainError> {
    let started = Instant::now();
    if arguments.contract != GATE_CONTRACT {
        let told = &arguments.contract;
        return Err(TrainError::Arguments(format!(
            "the contract {told} is not known; {GATE_CONTRACT} is"
        )));
    }
    let directory = &arguments.suites_dir;
    let found = suites_digest(directory).map_err(TrainError::io("read", directory))?;
    if hex(&found) != hex(&arguments.suites_digest) {
        let said = format!("the suites have digest {found}, not {}", arguments.suites_digest);
        return Ok(result(arguments, Outcome::Untrusted, &said));
    }
    let suites = match suites::read(directory) {
        Ok(suites) => suites,
        Err(SuitesError::Rejected(why)) => return Ok(result(arguments, Outcome::DataRejected, &why)),
        Err(SuitesError::Io { path, source }) => return Err(TrainError::io("read", path)(source)),
    };
    let items: Vec<&SuiteItem> = suites.iter().flat_map(|suite| &suite.items).collect();
    if items.is_empty() {
        return Ok(result(arguments, Outcome::DataRejected, "no suite has an item"));
    }
    tracing::info!(
        cycle = arguments.cycle_id,
        suites = suites.len(),
        items = items.len(),
        "judging"
    );
    let judge = Judge {
        arguments,
        items: &items,
        cancel,
        started,
    };
    let champion = judge.score("champion", &arguments.champion_uri, &arguments.champion_digest)?;
    let candidate = match champion {
        Ok(_) => judge.score("candidate", &arguments.candidate_uri, &arguments.candidate_digest)?,
        Err(_) => Ok(Scores::new()),
    };
    match (champion, candidate) {
        (Ok(champion), Ok(candidate)) => conclude(arguments, &suites, &champion, &candidate),
        (Err(why), _) | (_, Err(why)) => Ok(result(arguments, Outcome::Untrusted, &why)),
    }
}

struct Judge<'a> {
    arguments: &'a Arguments,
    items: &'a [&'a SuiteItem],
    cancel: &'a CancellationToken,
    started: Instant,
}

impl Judge<'_> {
    /// The scores of one model, or why it is not the one that was named.
    fn score(&self, who: &str, address: &str, digest: &str) -> Result<Result<Scores, String>, TrainError> {
        tracing::info!(model = who, "begins");
        let scratch: PathBuf = self.arguments.scratch_directory.join(who);
        let local = match fetch(address, Some(digest), &scratch, self.cancel) {
            Err(error @ LoadError::DigestMismatch { .. }) => return Ok(Err(format!("the {who}: {error}"))),
            Err(LoadError::Cancelled) => return self.go_on().and(Err(TrainError::Unjudged)),
            local => local?,
        };
        let bounds = Bounds {
            memory: self.arguments.memory,
            batch_tokens: self.arguments.batch_tokens as usize,
            sequence_tokens: self.arguments.max_sequence_tokens as usize,
        };
        score(local.files, self.items, bounds, &|| self.go_on()).map(Ok)
    }

    /// An error when there is no more time.
    fn go_on(&self) -> Result<(), TrainError> {
        let deadline = self.arguments.deadline_seconds;
        match time::end(self.started.elapsed(), deadline, self.cancel.is_cancelled()) {
            None => Ok(()),
            Some(End::Stopped) => Err(TrainError::Unjudged),
            Some(End::Deadline) => Err(TrainError::Deadline(format!(
                "judging both models on {} items takes longer than {} seconds; give it more time or processors, or hold out \
                 fewer items",
                self.items.len(),
                deadline.unwrap_or(0)
            ))),
        }
    }
}

fn conclude(
    arguments: &Arguments,
    suites: &[Suite],
    champion: &Scores,
    candidate: &Scores,
) -> Result<GateResult, TrainError> {
    let (mut from, mut left_out, mut failed) = (0, 0, 0);
    let mut lines: Vec<u8> = Vec::new();
    let mut scores: Vec<SuiteScores> = Vec::new();
    for suite in suites {
        let range = from..from + suite.items.len();
        from = range.end;
        let found = tally(&suite.name, &champion[range.clone()], &candidate[range]);
        for line in &found.lines {
            lines.extend(serde_json::to_vec(line).unwrap_or_default());
            lines.push(b'\n');
        }
        left_out += found.left_out;
        failed += found.failed;
        let suite = found.scores;
        tracing::info!(
            suite = suite.name,
            items = suite.items,
            left_out = found.left_out,
            failed = found.failed,
            champion = suite.champion_mean,
            candidate = suite.candidate_mean,
            difference = suite.difference_mean,
            "suite"
        );
        scores.push(suite);
    }
    let output = &arguments.output_dir;
    std::fs::create_dir_all(output).map_err(TrainError::io("create", output))?;
    let path = output.join(SCORES_FILE);
    write_bytes(&path, &lines).map_err(TrainError::io("write", &path))?;
    let outcome = if scores.iter().all(|suite| suite.items == 0) {
        Outcome::DataRejected
    } else {
        Outcome::Succeeded
    };
    Ok(GateResult {
        scores_digest: Some(Digest::of(&lines).to_string()),
        suites: scores,
        ..result(arguments, outcome, &missing(left_out, failed))
    })
}

/// What could not be judged, in words.
fn missing(left_out: usize, failed: usize) -> String {
    let why = "they are too long for it, or its chat template or tokenizer does not take them";
    let mut said = Vec::new();
    if left_out > 0 {
        said.push(format!(
            "{left_out} items are left out because the model that serves cannot be judged on them: {why}"
        ));
    }
    if failed > 0 {
        said.push(format!(
            "{failed} items count 0 for the candidate because it cannot be judged on them: {why}"
        ));
    }
    said.join("; ")
}

fn result(arguments: &Arguments, outcome: Outcome, said: &str) -> GateResult {
    GateResult {
        schema: GATE_CONTRACT.to_owned(),
        outcome,
        champion_digest: arguments.champion_digest.clone(),
        candidate_digest: arguments.candidate_digest.clone(),
        scores_digest: None,
        suites: Vec::new(),
        message: message(said),
    }
}

fn hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}
