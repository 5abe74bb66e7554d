//! When fixed prompts are asked: what is remembered and seen gives what to remember and what to do. Pure.

use perennial_crds::probe::{PROBE_CONTRACT, ProbeResult};
use perennial_crds::retrain::Outcome;
use perennial_drift::policy::Policy;

use super::memory::{Answers, Asking, Failure, Memory, Said};
use crate::cycle::answers::{is_digest, reason, short, words};
use crate::cycle::step::{End, State};

/// Seconds after which a run that was not answered, or decided nothing, is followed by the next while a drift waits for it.
const AGAIN: i64 = 30;
/// Seconds until a run that could not be asked is tried again; doubles with each in a row, up to the interval.
const RETRY: i64 = 60;
/// Seconds after which a run that does not end is given up.
const PATIENCE: i64 = 1_800;

/// Everything that is seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The time, seconds since 1970.
    pub now: i64,
    /// The revision that serves and that nothing is being rolled out over; nothing while no replica answers.
    pub revision: Option<String>,
    /// When a drift was confirmed, while it is, seconds since 1970.
    pub drifted: Option<i64>,
    /// The Job of the run that is under way, read from the API server.
    pub job: Option<State>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the Job of the run that is under way.
    Create,
    /// Remove the Job of the run of this number.
    Delete(u64),
}

/// Decides. `interval`: seconds from one run to the next.
#[must_use]
pub fn step(memory: &Memory, observed: &Observed, interval: i64, policy: &Policy) -> (Memory, Vec<Action>) {
    let (mut memory, mut actions) = (memory.clone(), Vec::new());
    if let Some(asking) = memory.asking.clone() {
        match turn(&mut memory, &asking, observed, policy) {
            Turn::Stays => return (memory, actions),
            Turn::Missing => {
                actions.push(Action::Create);
                return (memory, actions);
            }
            Turn::Over => memory.asking = None,
            Turn::GivenUp => {
                actions.push(Action::Delete(asking.number));
                memory.asking = None;
            }
        }
    }
    if let Some(revision) = observed
        .revision
        .as_ref()
        .filter(|_| is_due(&memory, observed, interval))
    {
        let number = (memory.last_number + 1).max(u64::try_from(observed.now).unwrap_or(0));
        memory.last_number = number;
        memory.last_begun = observed.now;
        memory.asking = Some(Asking {
            number,
            begun: observed.now,
            revision: revision.clone(),
        });
        actions.push(Action::Create);
    }
    (memory, actions)
}

enum Turn {
    Stays,
    /// It was not made, or somebody removed it.
    Missing,
    Over,
    GivenUp,
}

fn turn(memory: &mut Memory, asking: &Asking, observed: &Observed, policy: &Policy) -> Turn {
    // Another model answers now.
    if observed
        .revision
        .as_ref()
        .is_some_and(|revision| *revision != asking.revision)
    {
        return Turn::GivenUp;
    }
    match &observed.job {
        // While something is being rolled out nobody knows yet whose answers they are.
        Some(State::Ended(_)) if observed.revision.is_none() && observed.now <= asking.begun + PATIENCE => Turn::Stays,
        Some(State::Ended(_)) if observed.revision.is_none() => Turn::GivenUp,
        Some(State::Ended(end)) => {
            match answers(end) {
                Ok(answers) => memory.take(asking, answers, policy),
                Err(why) => memory.fail(observed.now, why),
            }
            Turn::Over
        }
        _ if observed.now > asking.begun + PATIENCE => {
            let why = match &observed.job {
                Some(State::Waiting(why)) => format!("the Job did not begin: {why}"),
                _ => "the Job did not end".to_owned(),
            };
            memory.fail(observed.now, why);
            Turn::GivenUp
        }
        Some(_) => Turn::Stays,
        None if observed.revision.is_none() => Turn::GivenUp,
        None => Turn::Missing,
    }
}

fn is_due(memory: &Memory, observed: &Observed, interval: i64) -> bool {
    // Before the first; another clock may also have written what lies ahead.
    let since = observed.now - memory.last_begun;
    if memory.last_number == 0 || since < 0 || since >= interval {
        return true;
    }
    // Whoever mends the prompts need not wait for the next run.
    let mended = |failure: &Failure| observed.now - failure.at >= RETRY << failure.in_a_row.min(10);
    if memory.failure.as_ref().is_some_and(mended) {
        return true;
    }
    let waits = memory.said(observed.revision.as_deref(), observed.drifted) == Said::Awaited;
    waits && since >= AGAIN
}

/// What a Job's last words are worth.
fn answers(end: &End) -> Result<Answers, String> {
    let said: ProbeResult = match words(end.message.as_deref(), PROBE_CONTRACT, |said: &ProbeResult| {
        &said.schema
    }) {
        Ok(said) => said,
        Err(why) => {
            let told = (!end.why.is_empty()).then(|| short(&end.why, ""));
            return Err(reason(end.message.as_deref()).or(told).unwrap_or(why));
        }
    };
    if said.outcome != Outcome::Succeeded || !end.succeeded {
        return Err(short(&said.message, "the prompts could not be asked"));
    }
    match (
        said.set_digest.clone().filter(|digest| is_digest(digest)),
        said.fingerprints(),
    ) {
        (Some(set), Some(fingerprints)) => Ok(Answers { set, fingerprints }),
        _ => Err("the Job's last words hold no answers".to_owned()),
    }
}
