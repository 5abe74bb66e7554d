//! Whether a model was learned before this cluster was built, step by step.

use super::*;

fn restored(letter: char) -> State {
    let lineage = Lineage {
        model: model(letter),
        base: model('a'),
        champion_digest: digest('a'),
        cycle_id: "0".to_owned(),
        policy: "watch".to_owned(),
        policy_uid: "another".to_owned(),
        manifest_digest: String::new(),
        gate: Vec::new(),
    };
    let words = json!({"schema": "restore/v1", "outcome": "Succeeded", "digest": digest(letter), "lineage": lineage});
    State::Ended(End {
        succeeded: true,
        message: Some(words.to_string()),
        ..End::default()
    })
}

#[test]
fn the_registry_is_not_asked_for_what_would_replace_a_newer_model() {
    let mut observed = observed();
    observed.target.champion = Some(model('c'));
    observed.target.served.insert(digest('c'));
    let serves = take(&Ledger::default(), &observed, &spec("Automatic"));
    assert!(!serves.actions.iter().any(|action| matches!(action, Action::Restore(_))));
    observed.target.champion = Some(model('a'));
    let asks = take(&Ledger::default(), &observed, &spec("Automatic"));
    assert_eq!(asks.actions, [Action::Restore(1)]);
}

#[test]
fn what_the_registry_names_serves_without_approval_only_where_none_is_asked_for() {
    let mut observed = observed();
    let mut approve = spec("Approve");
    let asked = take(&Ledger::default(), &observed, &approve).ledger;
    observed.restore = Some(restored('b'));
    let unapproved = take(&asked, &observed, &approve);
    assert!(
        !unapproved
            .actions
            .iter()
            .any(|action| matches!(action, Action::Learn(_)))
    );
    let outcome = unapproved.ledger.restore.as_ref().unwrap().outcome.clone().unwrap();
    assert!(
        outcome.contains("approvedDigests") && outcome.contains(&digest('b')),
        "{outcome}"
    );
    approve.promotion.approved_digests.push(digest('b'));
    for spec in [approve, spec("Automatic")] {
        let learns = take(&asked, &observed, &spec);
        assert!(matches!(learns.actions[..], [Action::Learn(_)]), "{:?}", learns.actions);
        assert_eq!(learns.ledger.introduces().unwrap().digest, digest('b'));
    }
}

#[test]
fn what_was_restored_is_taken_back_when_nothing_is_to_be_restored_and_when_the_target_leaves_it_alone() {
    let mut observed = observed();
    let asked = take(&Ledger::default(), &observed, &spec("Automatic")).ledger;
    observed.restore = Some(restored('b'));
    // Read late: the operator was away.
    observed.now += 100_000;
    let found = take(&asked, &observed, &spec("Automatic")).ledger;
    observed.restore = None;
    observed.target.learned.insert(digest('b'));
    let stays = take(&found, &observed, &spec("Automatic"));
    assert!(
        stays.actions.is_empty() && stays.ledger.introduces().is_some(),
        "{stays:?}"
    );
    let mut late = observed.clone();
    late.now += 601;
    let unheeded = take(&stays.ledger, &late, &spec("Automatic"));
    assert!(
        unheeded.actions.contains(&Action::Withdraw(digest('b'))),
        "{unheeded:?}"
    );
    late.target.champion = Some(model('b'));
    let moved = take(&stays.ledger, &late, &spec("Automatic"));
    assert!(
        moved.actions.is_empty() && moved.ledger.introduces().is_some(),
        "{moved:?}"
    );

    let mut without = spec("Automatic");
    without.retraining = None;
    for spec in [spec("Propose"), without] {
        let given_up = take(&stays.ledger, &observed, &spec);
        assert_eq!(given_up.ledger.introduces(), None);
        assert!(
            given_up.actions.contains(&Action::Withdraw(digest('b'))),
            "{given_up:?}"
        );
        observed.target.served.insert(digest('b'));
        let serves = take(&stays.ledger, &observed, &spec);
        assert!(serves.ledger.introduces().is_none() && serves.ledger.withdrawn.is_empty());
        observed.target.served.remove(&digest('b'));
    }
}

#[test]
fn a_question_to_the_registry_that_finds_no_room_holds_up_no_cycle() {
    let (mut observed, spec) = (observed(), spec("Automatic"));
    let asked = take(&Ledger::default(), &observed, &spec).ledger;
    observed.restore = Some(State::Waiting("0/1 nodes".to_owned()));
    observed.now += 1_800;
    let waits = take(&asked, &observed, &spec);
    assert!(
        message(&waits).starts_with("Restoring") && waits.actions.is_empty(),
        "{waits:?}"
    );
    observed.now += 1;
    let given_up = take(&asked, &observed, &spec);
    let job = Action::Delete(restore_name(&POLICY, 1));
    assert_eq!(given_up.actions, [job, Action::Create(Kind::Prepare)]);
    assert_eq!(given_up.ledger.begun, 1);
}
