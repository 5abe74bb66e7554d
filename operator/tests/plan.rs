//! The rollout, state by state, and what must hold whatever the cluster looks like.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{KnownExt, cluster, failure, known, wanted};
use perennial_operator::deployment::plan::{Observed, Phase, Plan, Wanted, plan};

/// A transition: what is seen, what is wanted, and what the plan must say.
struct Case {
    what: &'static str,
    seen: Observed,
    wanted: Wanted,
    phase: Phase,
    stable: Option<&'static str>,
    deployments: &'static [(&'static str, i32)],
    remove: &'static [&'static str],
    look_again: Option<u64>,
}

fn check(case: Case) -> Plan {
    let plan = plan(&case.seen, &case.wanted);
    let what = case.what;
    assert_eq!(plan.phase, case.phase, "{what}");
    assert_eq!(plan.stable.as_deref(), case.stable, "{what}");
    let deployments: BTreeMap<String, i32> = case.deployments.iter().map(|(n, r)| ((*n).to_owned(), *r)).collect();
    assert_eq!(plan.deployments, deployments, "{what}");
    assert_eq!(plan.remove, case.remove, "{what}");
    assert_eq!(plan.look_again, case.look_again.map(Duration::from_secs), "{what}");
    plan
}

const IN_TIME: Phase = Phase::Introducing { late: false };
const LATE: Phase = Phase::Introducing { late: true };

#[test]
fn the_first_revision_comes_up() {
    for case in [
        Case {
            what: "nothing is there and the source is not known",
            seen: cluster(None, []),
            wanted: wanted(None, 2),
            phase: Phase::Unresolved,
            stable: None,
            deployments: &[],
            remove: &[],
            look_again: None,
        },
        Case {
            what: "nothing is there: the Service leads to the first revision from the start",
            seen: cluster(None, []),
            wanted: wanted(Some("a"), 2),
            phase: IN_TIME,
            stable: Some("a"),
            deployments: &[("a", 2)],
            remove: &[],
            look_again: Some(101),
        },
        Case {
            what: "one of two answers",
            seen: cluster(Some("a"), [("a", known().running(40, 1, 2))]),
            wanted: wanted(Some("a"), 2),
            phase: IN_TIME,
            stable: Some("a"),
            deployments: &[("a", 2)],
            remove: &[],
            look_again: Some(61),
        },
        Case {
            what: "too late, but there is nothing to go back to",
            seen: cluster(Some("a"), [("a", known().running(101, 0, 2))]),
            wanted: wanted(Some("a"), 2),
            phase: LATE,
            stable: Some("a"),
            deployments: &[("a", 2)],
            remove: &[],
            look_again: None,
        },
        Case {
            what: "both answer",
            seen: cluster(Some("a"), [("a", known().running(50, 2, 2))]),
            wanted: wanted(Some("a"), 2),
            phase: Phase::Settled,
            stable: Some("a"),
            deployments: &[("a", 2)],
            remove: &[],
            look_again: None,
        },
        Case {
            what: "a corrected spec replaces what never answered at once",
            seen: cluster(Some("a"), [("a", known().running(50, 0, 2))]),
            wanted: wanted(Some("b"), 2),
            phase: IN_TIME,
            stable: Some("b"),
            deployments: &[("b", 2)],
            remove: &["a"],
            look_again: Some(101),
        },
    ] {
        check(case);
    }
}

#[test]
fn a_new_revision_comes_up_beside_the_old_and_takes_over() {
    let old = || known().running(9000, 2, 2).served();
    for case in [
        Case {
            what: "it is started",
            seen: cluster(Some("a"), [("a", old()), ("b", known())]),
            wanted: wanted(Some("b"), 2),
            phase: IN_TIME,
            stable: Some("a"),
            deployments: &[("a", 2), ("b", 2)],
            remove: &[],
            look_again: Some(101),
        },
        Case {
            what: "half of it answers",
            seen: cluster(Some("a"), [("a", old()), ("b", known().running(100, 1, 2))]),
            wanted: wanted(Some("b"), 2),
            phase: IN_TIME,
            stable: Some("a"),
            deployments: &[("a", 2), ("b", 2)],
            remove: &[],
            look_again: Some(1),
        },
        Case {
            what: "all of it answers: the Service moves, the old pods stay",
            seen: cluster(Some("a"), [("a", old()), ("b", known().running(60, 2, 2))]),
            wanted: wanted(Some("b"), 2),
            phase: Phase::Switching,
            stable: Some("b"),
            deployments: &[("a", 2), ("b", 2)],
            remove: &[],
            look_again: None,
        },
        Case {
            what: "the endpoints still lead to old pods",
            seen: Observed {
                endpoints_moved: false,
                ..cluster(Some("b"), [("a", old()), ("b", known().running(60, 2, 2))])
            },
            wanted: wanted(Some("b"), 2),
            phase: Phase::Draining,
            stable: Some("b"),
            deployments: &[("a", 2), ("b", 2)],
            remove: &[],
            look_again: Some(1),
        },
        Case {
            what: "every endpoint is new, but the API server was away and not every node has heard of it",
            seen: cluster(Some("b"), [("a", old()), ("b", known().running(60, 2, 2))]),
            wanted: Wanted {
                nodes_may_lag: Duration::from_secs(40),
                ..wanted(Some("b"), 2)
            },
            phase: Phase::Draining,
            stable: Some("b"),
            deployments: &[("a", 2), ("b", 2)],
            remove: &[],
            look_again: Some(1),
        },
        Case {
            what: "every endpoint is new: the old Deployment goes",
            seen: cluster(Some("b"), [("a", old()), ("b", known().running(60, 2, 2))]),
            wanted: wanted(Some("b"), 2),
            phase: Phase::Draining,
            stable: Some("b"),
            deployments: &[("b", 2)],
            remove: &["a"],
            look_again: None,
        },
        Case {
            what: "a third spec supersedes the second; the first goes on",
            seen: cluster(Some("a"), [("a", old()), ("b", known().running(60, 1, 2))]),
            wanted: wanted(Some("c"), 2),
            phase: IN_TIME,
            stable: Some("a"),
            deployments: &[("a", 2), ("c", 2)],
            remove: &["b"],
            look_again: Some(101),
        },
        Case {
            what: "the spec goes back while the new revision comes up",
            seen: cluster(Some("a"), [("a", old()), ("b", known().running(60, 1, 2))]),
            wanted: wanted(Some("a"), 2),
            phase: Phase::Draining,
            stable: Some("a"),
            deployments: &[("a", 2)],
            remove: &["b"],
            look_again: None,
        },
        Case {
            what: "the source of the new spec is not known yet",
            seen: cluster(Some("a"), [("a", old()), ("b", known().running(60, 1, 2))]),
            wanted: wanted(None, 3),
            phase: Phase::Unresolved,
            stable: Some("a"),
            deployments: &[("a", 3)],
            remove: &["b"],
            look_again: None,
        },
    ] {
        check(case);
    }
}

#[test]
fn a_revision_that_takes_too_long_is_given_up_in_favour_of_one_that_serves() {
    let old = || known().running(9000, 1, 1).served();
    let late = Case {
        what: "its time is over",
        seen: cluster(Some("a"), [("a", old()), ("b", known().running(101, 0, 1))]),
        wanted: wanted(Some("b"), 1),
        phase: LATE,
        stable: Some("a"),
        deployments: &[("a", 1)],
        remove: &["b"],
        look_again: None,
    };
    assert!(check(late).give_up);
    let marked = Case {
        what: "it is marked and gone",
        seen: cluster(Some("a"), [("a", old()), ("b", known().failed(None))]),
        wanted: wanted(Some("b"), 1),
        phase: Phase::GivenUp(failure(None)),
        stable: Some("a"),
        deployments: &[("a", 1)],
        remove: &[],
        look_again: None,
    };
    assert!(check(marked).forgive.is_empty());
    let crashed = Case {
        what: "the operator ended between the mark and the deletion",
        seen: cluster(
            Some("a"),
            [("a", old()), ("b", known().running(120, 0, 1).failed(None))],
        ),
        wanted: wanted(Some("b"), 1),
        phase: Phase::GivenUp(failure(None)),
        stable: Some("a"),
        deployments: &[("a", 1)],
        remove: &["b"],
        look_again: None,
    };
    assert!(!check(crashed).give_up);
    let again = Case {
        what: "somebody asks to try again",
        seen: cluster(Some("a"), [("a", old()), ("b", known().failed(None))]),
        wanted: Wanted {
            retry: Some("1".to_owned()),
            ..wanted(Some("b"), 1)
        },
        phase: IN_TIME,
        stable: Some("a"),
        deployments: &[("a", 1), ("b", 1)],
        remove: &[],
        look_again: Some(101),
    };
    assert_eq!(check(again).forgive, ["b"]);
    let corrected = Case {
        what: "the spec goes on to another revision",
        seen: cluster(Some("a"), [("a", old()), ("b", known().failed(None))]),
        wanted: wanted(Some("c"), 1),
        phase: IN_TIME,
        stable: Some("a"),
        deployments: &[("a", 1), ("c", 1)],
        remove: &[],
        look_again: Some(101),
    };
    assert_eq!(check(corrected).forgive, ["b"]);
    let nobody_serves = Case {
        what: "the old revision does not answer either: nothing is won by giving up",
        seen: cluster(
            Some("a"),
            [
                ("a", known().running(9000, 0, 1).served()),
                ("b", known().running(101, 0, 1)),
            ],
        ),
        wanted: wanted(Some("b"), 1),
        phase: LATE,
        stable: Some("a"),
        deployments: &[("a", 1), ("b", 1)],
        remove: &[],
        look_again: None,
    };
    assert!(!check(nobody_serves).give_up);
}

#[test]
fn pausing_holds_a_new_revision_back_and_lets_what_runs_go_on() {
    let old = || known().running(9000, 1, 1).served();
    let paused = |target, replicas| Wanted {
        paused: true,
        ..wanted(Some(target), replicas)
    };
    for case in [
        Case {
            what: "a new revision waits; scaling works",
            seen: cluster(Some("a"), [("a", old())]),
            wanted: paused("b", 3),
            phase: Phase::Held,
            stable: Some("a"),
            deployments: &[("a", 3)],
            remove: &[],
            look_again: None,
        },
        Case {
            what: "one that is on its way goes on",
            seen: cluster(Some("a"), [("a", old()), ("b", known().running(50, 0, 1))]),
            wanted: paused("b", 1),
            phase: IN_TIME,
            stable: Some("a"),
            deployments: &[("a", 1), ("b", 1)],
            remove: &[],
            look_again: Some(51),
        },
        Case {
            what: "one that never answered is held, too",
            seen: cluster(Some("a"), [("a", known().running(50, 0, 1))]),
            wanted: paused("b", 1),
            phase: Phase::Held,
            stable: Some("a"),
            deployments: &[("a", 1)],
            remove: &[],
            look_again: None,
        },
    ] {
        check(case);
    }
}

#[test]
fn nothing_is_protected_while_nothing_is_meant_to_serve() {
    for case in [
        Case {
            what: "scaled to zero",
            seen: cluster(Some("a"), [("a", known().running(9000, 1, 1).served())]),
            wanted: wanted(Some("a"), 0),
            phase: Phase::Settled,
            stable: Some("a"),
            deployments: &[("a", 0)],
            remove: &[],
            look_again: None,
        },
        Case {
            what: "changed while scaled to zero: there is nobody to wait for",
            seen: cluster(Some("a"), [("a", known().running(9000, 0, 0).served())]),
            wanted: wanted(Some("b"), 0),
            phase: Phase::Settled,
            stable: Some("b"),
            deployments: &[("b", 0)],
            remove: &["a"],
            look_again: None,
        },
        Case {
            what: "a revision that was given up is not taken by the back door",
            seen: cluster(
                Some("a"),
                [("a", known().running(9000, 0, 0).served()), ("b", known().failed(None))],
            ),
            wanted: wanted(Some("b"), 0),
            phase: Phase::GivenUp(failure(None)),
            stable: Some("a"),
            deployments: &[("a", 0)],
            remove: &[],
            look_again: None,
        },
    ] {
        check(case);
    }
}

#[test]
fn clients_are_led_to_where_somebody_answers() {
    for case in [
        Case {
            what: "a revision that answers but is not yet marked is protected, too",
            seen: cluster(Some("a"), [("a", known().running(9000, 1, 1))]),
            wanted: wanted(Some("b"), 1),
            phase: IN_TIME,
            stable: Some("a"),
            deployments: &[("a", 1), ("b", 1)],
            remove: &[],
            look_again: Some(101),
        },
        Case {
            what: "the new revision breaks down before the old one is gone",
            seen: cluster(
                Some("b"),
                [
                    ("a", known().running(9000, 1, 1).served()),
                    ("b", known().running(50, 0, 1).served()),
                ],
            ),
            wanted: wanted(Some("b"), 1),
            phase: IN_TIME,
            stable: Some("a"),
            deployments: &[("a", 1), ("b", 1)],
            remove: &[],
            look_again: Some(51),
        },
        Case {
            what: "the same while the next spec is being resolved",
            seen: cluster(
                Some("b"),
                [
                    ("a", known().running(9000, 1, 1).served()),
                    ("b", known().running(50, 0, 1).served()),
                ],
            ),
            wanted: wanted(None, 1),
            phase: Phase::Unresolved,
            stable: Some("a"),
            deployments: &[("a", 1)],
            remove: &["b"],
            look_again: None,
        },
        Case {
            what: "somebody deleted the Service",
            seen: cluster(None, [("a", known().running(9000, 1, 1).served())]),
            wanted: wanted(Some("b"), 1),
            phase: IN_TIME,
            stable: Some("a"),
            deployments: &[("a", 1), ("b", 1)],
            remove: &[],
            look_again: Some(101),
        },
    ] {
        check(case);
    }
}

#[test]
fn a_revision_is_marked_once_it_has_answered() {
    let seen = |revision| cluster(Some("a"), [("a", revision)]);
    let marked = |revision| plan(&seen(revision), &wanted(Some("a"), 2)).mark_served;
    assert_eq!(marked(known().running(10, 0, 2)), None);
    assert_eq!(marked(known().running(10, 1, 2)), Some("a".to_owned()));
    assert_eq!(marked(known().running(10, 2, 2).served()), None);
}

#[test]
fn the_deadline_counts_only_for_a_revision_that_has_not_answered_yet() {
    // A replica that is made anew months after the rollout is no rollout that is late.
    let seen = cluster(Some("a"), [("a", known().running(9000, 1, 2).served())]);
    assert_eq!(plan(&seen, &wanted(Some("a"), 2)).phase, IN_TIME);
}
