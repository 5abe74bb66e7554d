//! When fixed prompts are asked, and what is made of their answers, over time and over restarts of the operator.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use perennial_crds::DriftPolicy;
use perennial_drift::policy::Policy;
use perennial_operator::cycle::step::{End, State};
use perennial_operator::drift::terms::policy as terms;
use perennial_operator::probes::memory::{Memory, Said};
use perennial_operator::probes::record;
use perennial_operator::probes::step::{Action, Observed, step};
use serde_json::json;

const BEGIN: i64 = 1_800_000_000;
const INTERVAL: i64 = 21_600;

fn policy() -> DriftPolicy {
    serde_json::from_value(json!({
        "apiVersion": "perennial.dev/v1alpha1", "kind": "DriftPolicy",
        "metadata": {"name": "watch", "namespace": "models", "uid": "policy-uid"},
        "spec": {"targetRef": {"name": "tiny"}, "probe": {"promptSetRef": {"configMapName": "fixed-prompts"}}},
    }))
    .unwrap()
}

fn observed(now: i64, job: Option<State>) -> Observed {
    Observed {
        now,
        revision: Some("tiny-1".to_owned()),
        drifted: None,
        job,
    }
}

/// A Job that ended with these answers.
fn answered(prompts: u32, other: u32) -> State {
    let answers: String = (0..prompts)
        .map(|number| format!("{:08x}", if number < other { u32::MAX } else { number }))
        .collect();
    let set = format!("sha256:{}", "5".repeat(64));
    said(&json!({"schema": "probe/v1", "outcome": "Succeeded", "setDigest": set, "answers": answers}).to_string())
}

fn said(words: &str) -> State {
    State::Ended(End {
        succeeded: true,
        message: Some(words.to_owned()),
        ..End::default()
    })
}

/// One operator after the other: each begins with what the one before stored.
struct Operators {
    memory: Memory,
    terms: Policy,
}

impl Operators {
    fn new() -> Self {
        Self {
            memory: Memory::default(),
            terms: terms(&policy().spec),
        }
    }

    fn look(&mut self, observed: &Observed) -> Vec<Action> {
        let (memory, actions) = step(&self.memory, observed, INTERVAL, &self.terms);
        let stored = record::map(&policy(), &memory).unwrap();
        self.memory = record::read(&stored).unwrap();
        assert_eq!(self.memory, memory, "what is stored is what was decided");
        actions
    }

    /// A whole run that begins now.
    fn run(&mut self, now: i64, end: State) {
        assert_eq!(self.look(&observed(now, None)), [Action::Create], "it is due");
        assert_eq!(self.look(&observed(now + 1, Some(State::Running(now)))), []);
        assert_eq!(self.look(&observed(now + 20, Some(end))), []);
    }

    /// With a reference, learned from three runs; gives the time of the next.
    fn learned(prompts: u32) -> (Self, i64) {
        let mut operators = Self::new();
        for number in 0..3 {
            let now = BEGIN + number * INTERVAL;
            assert_eq!(operators.memory.said(Some("tiny-1"), None), Said::Nothing);
            operators.run(now, answered(prompts, 0));
        }
        assert_eq!(operators.memory.said(Some("tiny-1"), None), Said::Same);
        (operators, BEGIN + 3 * INTERVAL)
    }
}

#[test]
fn a_job_that_was_not_made_is_made_again_under_its_name() {
    let mut operators = Operators::new();
    assert_eq!(operators.look(&observed(BEGIN, None)), [Action::Create]);
    let number = operators.memory.asking.clone().unwrap().number;
    // The operator was killed before it made the Job.
    assert_eq!(operators.look(&observed(BEGIN + 3, None)), [Action::Create]);
    assert_eq!(operators.memory.asking.clone().unwrap().number, number);
    // It is asked once in an interval, and never while nobody serves.
    operators.look(&observed(BEGIN + 9, Some(answered(8, 0))));
    assert_eq!(operators.look(&observed(BEGIN + INTERVAL - 1, None)), []);
    let away = Observed {
        revision: None,
        ..observed(BEGIN + INTERVAL, None)
    };
    assert_eq!(operators.look(&away), []);
    assert_eq!(operators.look(&observed(BEGIN + INTERVAL, None)), [Action::Create]);
    assert!(operators.memory.asking.clone().unwrap().number > number);
}

#[test]
fn a_service_that_answers_otherwise_is_found_in_one_run_and_comes_back() {
    let (mut operators, mut now) = Operators::learned(32);
    operators.run(now, answered(32, 11));
    assert_eq!(operators.memory.said(Some("tiny-1"), None), Said::Changed);
    assert_eq!(operators.memory.said(Some("tiny-1"), Some(now - 5)), Said::Changed);
    // Of another revision nothing is known.
    assert_eq!(operators.memory.said(Some("tiny-2"), None), Said::Nothing);
    let mut runs = 0;
    while operators.memory.said(Some("tiny-1"), None) == Said::Changed {
        now += INTERVAL;
        operators.run(now, answered(32, 0));
        runs += 1;
        assert!(runs < 20, "it never comes back");
    }
}

#[test]
fn a_drift_waits_for_a_run_of_its_own_and_one_that_is_unsure_is_followed_by_another() {
    let (mut operators, now) = Operators::learned(32);
    operators.run(now, answered(32, 0));
    let drifted = now + 100;
    let confirmed = |now: i64, job: Option<State>| Observed {
        drifted: Some(drifted),
        ..observed(now, job)
    };
    assert_eq!(operators.memory.said(Some("tiny-1"), Some(drifted)), Said::Awaited);
    // At once, although the interval is not over.
    assert_eq!(operators.look(&confirmed(drifted, None)), [Action::Create]);
    // Three of 32 answers: more than by chance, less than certain.
    operators.look(&confirmed(drifted + 20, Some(answered(32, 3))));
    assert_eq!(operators.memory.said(Some("tiny-1"), Some(drifted)), Said::Awaited);
    assert_eq!(operators.look(&confirmed(drifted + 25, None)), []);
    assert_eq!(operators.look(&confirmed(drifted + 30, None)), [Action::Create]);
    operators.look(&confirmed(drifted + 50, Some(answered(32, 0))));
    assert_eq!(operators.memory.said(Some("tiny-1"), Some(drifted)), Said::Same);
    assert_eq!(
        operators.look(&confirmed(drifted + 100, None)),
        [],
        "nothing is asked in vain"
    );
}

#[test]
fn what_cannot_be_asked_is_told_and_is_no_answer() {
    let (mut operators, now) = Operators::learned(8);
    let refused = json!({"schema": "probe/v1", "outcome": "DataRejected", "message": "line 2 is no JSON"});
    for (number, words) in [
        refused.to_string(),
        "a prompt, perhaps".to_owned(),
        json!({"schema": "probe/v1", "outcome": "Succeeded", "answers": "0000000"}).to_string(),
    ]
    .iter()
    .enumerate()
    {
        let now = now + i64::try_from(number).unwrap() * INTERVAL;
        operators.run(now, said(words));
        let failure = operators.memory.failure.clone().unwrap();
        assert_eq!(failure.in_a_row as usize, number + 1);
        assert!(!failure.message.contains("perhaps"), "{}", failure.message);
        // It is tried again before the interval is over, each time later.
        let again = failure.at + (60 << failure.in_a_row);
        let due = |now: i64| {
            !step(&operators.memory, &observed(now, None), INTERVAL, &operators.terms)
                .1
                .is_empty()
        };
        assert!(!due(again - 1) && due(again));
    }
    // Silence is not health: a drift goes on waiting.
    assert_eq!(
        operators.memory.said(Some("tiny-1"), Some(now + 5 * INTERVAL)),
        Said::Awaited
    );
    operators.run(now + 3 * INTERVAL, answered(8, 0));
    assert!(operators.memory.failure.is_none());
}

#[test]
fn runs_that_do_not_end_or_were_begun_of_another_revision_are_given_up() {
    let (mut operators, now) = Operators::learned(8);
    operators.look(&observed(now, None));
    let number = operators.memory.asking.clone().unwrap().number;
    let waits = State::Waiting("no room".to_owned());
    assert_eq!(operators.look(&observed(now + 1800, Some(waits.clone()))), []);
    let late = operators.look(&observed(now + 1801, Some(waits)));
    assert_eq!(late, [Action::Delete(number)]);
    assert!(operators.memory.failure.clone().unwrap().message.contains("no room"));
    operators.run(now + INTERVAL, answered(8, 0));
    operators.look(&observed(now + 2 * INTERVAL, None));
    // While something is rolled out its answers wait; those of another revision count for nothing.
    let moving = |revision: Option<&str>, second: i64| Observed {
        revision: revision.map(str::to_owned),
        ..observed(now + 2 * INTERVAL + second, Some(answered(8, 8)))
    };
    assert_eq!(operators.look(&moving(None, 10)), []);
    assert!(operators.memory.asking.is_some());
    assert!(matches!(
        operators.look(&moving(Some("tiny-2"), 20))[..],
        [Action::Delete(_)]
    ));
    assert_eq!(operators.memory.said(Some("tiny-1"), None), Said::Same);
    // Other prompts are learned anew.
    let set = format!("sha256:{}", "6".repeat(64));
    let other = json!({"schema": "probe/v1", "outcome": "Succeeded", "setDigest": set, "answers": "00000000"});
    operators.run(now + 3 * INTERVAL, said(&other.to_string()));
    assert_eq!(operators.memory.said(Some("tiny-1"), None), Said::Nothing);
}

#[test]
fn a_record_that_was_damaged_is_learned_anew_and_not_believed() {
    let (operators, _) = Operators::learned(8);
    let map = record::map(&policy(), &operators.memory).unwrap();
    let mut cut = map.clone();
    cut.binary_data
        .as_mut()
        .unwrap()
        .get_mut("watch")
        .unwrap()
        .0
        .truncate(20);
    let read = record::read(&cut).unwrap();
    assert_eq!(read.said(Some("tiny-1"), None), Said::Nothing);
    assert_eq!(read.last_number, operators.memory.last_number);
    let mut newer = map;
    let text = newer.data.as_mut().unwrap().get_mut("probes.json").unwrap();
    *text = text.replace("\"version\":1", "\"version\":2");
    assert!(record::read(&newer).is_none());
}
