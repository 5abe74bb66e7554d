//! What a cycle that begins may delete of those that have ended.

use perennial_operator::cycle::gate::Verdict;
use perennial_operator::cycle::ledger::Finished;
use perennial_operator::cycle::step::cycle_path;

use super::*;

struct Ended {
    id: &'static str,
    outcome: Outcome,
    candidate: Option<char>,
    passed: Option<bool>,
    in_registry: bool,
    discard: bool,
}

fn ended(id: &'static str, outcome: Outcome, candidate: Option<char>, passed: Option<bool>, discard: bool) -> Ended {
    Ended {
        id,
        outcome,
        candidate,
        passed,
        in_registry: false,
        discard,
    }
}

fn finished(one: &Ended) -> Finished {
    let verdict = |passed| Verdict {
        suite: "recent".to_owned(),
        items: 500,
        champion: 0.2,
        candidate: 0.4,
        lower: 0.1,
        needed: 0.01,
        passed,
    };
    Finished {
        id: one.id.to_owned(),
        cause: Cause::InputDrift,
        outcome: one.outcome,
        reason: String::new(),
        message: String::new(),
        started: NOW - 90 * 86_400,
        ended: NOW - 80 * 86_400,
        candidate: one.candidate.map(digest),
        in_registry: one.in_registry,
        verdicts: one.passed.map(verdict).into_iter().collect(),
        gpu_seconds: 0,
    }
}

#[test]
fn texts_of_all_of_them_go_and_models_that_nobody_may_use() {
    let in_registry = Ended {
        in_registry: true,
        ..ended("pushed", Outcome::Promoted, Some('2'), Some(true), true)
    };
    let cases = [
        ended("promoted", Outcome::Promoted, Some('b'), Some(true), false),
        ended("proposed", Outcome::Withdrawn, Some('d'), Some(true), false),
        ended("not-up", Outcome::RolledBack, Some('1'), Some(true), false),
        ended("superseded", Outcome::Superseded, Some('e'), None, true),
        ended("rejected", Outcome::Rejected, Some('f'), Some(false), true),
        ended("broken", Outcome::Failed, None, None, true),
        ended("called-off", Outcome::Withdrawn, None, None, true),
        in_registry,
        // All the same a person has put it into the spec.
        ended("in-spec", Outcome::Rejected, Some('a'), Some(false), false),
        // It is still stored with the target.
        ended("stored", Outcome::Failed, Some('4'), None, false),
        // Somebody serves what a person made of it.
        ended("made-of-it", Outcome::Failed, None, None, false),
    ];
    let mut before = Ledger {
        begun: cases.len() as u64,
        ..Ledger::default()
    };
    before.finished = cases.iter().map(finished).collect();
    before.went_without_data("too-little");
    let mut observed = observed();
    observed.target.learned.insert(digest('4'));
    let place = format!("{}/output/merged", cycle_path(POLICY.name, "made-of-it"));
    observed.places.insert(place);
    let spec = spec("Propose");
    // It is decided when a cycle begins, and stays with it.
    let begun = take(&before, &observed, &spec).ledger.cycle.unwrap();
    let told: Vec<(&str, bool)> = begun
        .leftovers
        .iter()
        .map(|one| (one.cycle_id.as_str(), one.discard))
        .collect();
    let wanted = cases.iter().map(|one| (one.id, one.discard));
    assert_eq!(told, wanted.chain([("too-little", true)]).collect::<Vec<_>>());
    // Of a model at the root of the volume nobody knows what it is made of.
    observed.places.insert(String::new());
    let begun = take(&before, &observed, &spec).ledger.cycle.unwrap();
    assert!(begun.leftovers.iter().all(|one| !one.discard), "{:?}", begun.leftovers);
}

#[test]
fn ids_differ_also_when_the_ledger_was_lost() {
    let spec = spec("Propose");
    let mut later = observed();
    later.now += 86_400;
    let id = |ledger: &Ledger, observed: &Observed| take(ledger, observed, &spec).ledger.cycle.map(|cycle| cycle.id);
    // With a tag to ask for, a ledger that is new asks first.
    let new = Ledger {
        restore: Some(Restore {
            outcome: Some("nothing".to_owned()),
            ..Restore::default()
        }),
        ..Ledger::default()
    };
    let first = id(&new, &observed());
    assert!(first.is_some() && first == id(&new, &observed()));
    assert_ne!(first, id(&new, &later));
    // Later ones do not depend on when they begin: two operators that decide the same make one Job.
    let known = Ledger {
        begun: 1,
        first: NOW,
        ..Ledger::default()
    };
    assert_eq!(id(&known, &observed()), id(&known, &later));
}
