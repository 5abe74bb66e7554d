//! What a cycle that begins may delete of those that have ended.

use perennial_operator::cycle::ledger::Finished;

use super::*;

fn finished(id: &str, outcome: Outcome, candidate: Option<char>, in_registry: bool) -> Finished {
    Finished {
        id: id.to_owned(),
        cause: Cause::InputDrift,
        outcome,
        reason: String::new(),
        message: String::new(),
        started: NOW - 90 * 86_400,
        ended: NOW - 80 * 86_400,
        candidate: candidate.map(digest),
        in_registry,
        verdicts: Vec::new(),
        gpu_seconds: 0,
    }
}

#[test]
fn texts_of_all_of_them_go_and_models_that_nobody_may_use() {
    let cases = [
        ("promoted", Outcome::Promoted, Some('c'), false, false),
        ("proposed", Outcome::Withdrawn, Some('d'), false, false),
        ("superseded", Outcome::Superseded, Some('e'), false, false),
        ("rejected", Outcome::Rejected, Some('f'), false, true),
        ("broken", Outcome::Failed, None, false, true),
        ("called-off", Outcome::Withdrawn, None, false, true),
        ("not-up", Outcome::RolledBack, Some('1'), false, true),
        ("pushed", Outcome::Promoted, Some('2'), true, true),
        // A person has put it into the spec all the same; this one is being taken back at this moment.
        ("in-spec", Outcome::Rejected, Some('a'), false, false),
        ("goes", Outcome::RolledBack, Some('3'), false, false),
    ];
    let mut before = Ledger {
        begun: cases.len() as u64,
        ..Ledger::default()
    };
    for (id, outcome, candidate, in_registry, _) in cases {
        before.finished.push_back(finished(id, outcome, candidate, in_registry));
    }
    before.withdrawn.insert(digest('3'), "it did not come up".to_owned());
    let leftovers = before.leftovers(&model('a'), &model('c'));
    let told: Vec<(&str, bool)> = leftovers
        .iter()
        .map(|one| (one.cycle_id.as_str(), one.discard))
        .collect();
    assert_eq!(told, cases.map(|(id, _, _, _, discard)| (id, discard)));
    // It is decided when a cycle begins, and stays with it.
    let begun = take(&before, &observed(), &spec("Propose")).ledger;
    let decided = begun.cycle.as_ref().map(|cycle| cycle.leftovers.clone());
    assert!(decided.is_some_and(|decided| decided.len() == cases.len()), "{begun:?}");
}
