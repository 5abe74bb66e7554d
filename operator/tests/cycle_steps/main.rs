//! Steps of a cycle, one by one: what a random history would reach too seldom, or would not tell apart.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod leftovers;
mod restore;

use std::collections::{BTreeMap, BTreeSet};

use perennial_crds::DriftPolicySpec;
use perennial_drift::cause::Cause;
use perennial_operator::cycle::ledger::{Cycle, JobRecord, Kind, Ledger, Model, Outcome, Restore, Stage};
use perennial_operator::cycle::lineage::Lineage;
use perennial_operator::cycle::step::{
    Action, Drift, End, Observed, Policy, Seen, Standing, State, Step, Target, call_off, job_name, restore_name, step,
};
use serde_json::json;

const NOW: i64 = 1_800_000_000;
const POLICY: Policy<'_> = Policy {
    name: "watch",
    uid: "policy-1",
};

fn digest(letter: char) -> String {
    format!("sha256:{}", letter.to_string().repeat(64))
}

fn model(letter: char) -> Model {
    Model {
        uri: format!("oci://registry.example/models/tiny@{}", digest(letter)),
        digest: digest(letter),
        claim: None,
        claim_path: None,
        pull_secret: None,
    }
}

fn spec(mode: &str) -> DriftPolicySpec {
    serde_json::from_value(json!({
        "targetRef": {"name": "tiny"},
        "confirmSeconds": 600,
        "retraining": {
            "workspace": {"persistentVolumeClaim": {"claimName": "work"}},
            "output": {"oci": {"repository": "registry.example/models/tiny"}},
            "activeDeadlineSeconds": 3600,
            "limits": {"maxGPUSeconds": {"count": 100_000, "perDays": 1}},
        },
        "promotion": {"mode": mode, "publishTag": "champion"},
    }))
    .unwrap()
}

/// A cycle that trains from model a, which serves, with candidate b.
fn ledger(stage: Stage) -> Ledger {
    Ledger {
        begun: 1,
        cycle: Some(Cycle {
            id: "0badcafe".to_owned(),
            target: "target-1".to_owned(),
            cause: Cause::InputDrift,
            started: NOW - 1000,
            drifted_since: NOW - 2000,
            from: NOW - 100_000,
            report: "{}".to_owned(),
            leftovers: Vec::new(),
            base: model('a'),
            champion: model('a'),
            stage,
            jobs: BTreeMap::new(),
            manifest: Some(digest('7')),
            records: 500,
            suites: Some(digest('8')),
            training: None,
            candidate: Some(model('b')),
            repository: Some("registry.example/models/tiny".to_owned()),
            published: Some(Ok(())),
            verdicts: Vec::new(),
            unheeded_since: None,
            gpu_seconds: 0,
            reserved_gpu_seconds: 7200,
        }),
        ..Ledger::default()
    }
}

fn observed() -> Observed {
    Observed {
        now: NOW,
        generation: 1,
        drift: Some(Drift {
            cause: Cause::InputDrift,
            since: NOW - 2000,
            report: "{}".to_owned(),
        }),
        awaits_probes: false,
        regressed: false,
        calm: false,
        target: Target {
            uid: "target-1".to_owned(),
            runs: true,
            base: Some(model('a')),
            champion: Some(model('a')),
            settled: true,
            failed: BTreeSet::new(),
            served: BTreeSet::from([digest('a')]),
            captures: true,
            follows: true,
            learned: BTreeSet::new(),
        },
        places: BTreeSet::new(),
        jobs: BTreeMap::new(),
        restore: None,
        strays: Vec::new(),
        reported: BTreeSet::new(),
        gpu_seconds: Ok(7200),
    }
}

fn a_job(state: State, gpu_seconds: i64) -> Seen {
    Seen {
        uid: "uid-1".to_owned(),
        made: NOW - 900,
        deadline: 3600,
        gpu_seconds,
        state,
    }
}

fn known(ledger: &mut Ledger, kind: Kind) {
    let record = JobRecord {
        uid: "uid-1".to_owned(),
        ended: None,
    };
    ledger.cycle.as_mut().unwrap().jobs.insert(kind, record);
}

fn take(ledger: &Ledger, observed: &Observed, spec: &DriftPolicySpec) -> Step {
    step(ledger, observed, spec, &POLICY)
}

fn ended(step: &Step) -> (Outcome, &str) {
    let last = step.ledger.finished.back().expect("the cycle ended");
    assert!(step.ledger.cycle.is_none());
    (last.outcome, &last.reason)
}

fn stage(step: &Step) -> Stage {
    step.ledger.cycle.as_ref().expect("the cycle goes on").stage
}

fn message(step: &Step) -> String {
    match &step.standing {
        Standing::Running {
            waits: Some((reason, message)),
            ..
        } => format!("{reason:?}: {message}"),
        Standing::Running { message, .. } => message.clone(),
        Standing::Idle { reason, message, .. } => format!("{reason:?}: {message}"),
    }
}

#[test]
fn a_job_that_ends_while_the_policy_is_suspended_is_read_and_the_next_one_waits() {
    let (mut ledger, mut observed, mut spec) = (ledger(Stage::Retraining), observed(), spec("Propose"));
    ledger.cycle.as_mut().unwrap().candidate = None;
    spec.suspend = true;
    observed.jobs.insert(Kind::Retrain, a_job(State::Running(NOW - 60), 60));
    let running = take(&ledger, &observed, &spec);
    assert!(message(&running).starts_with("Suspended"), "{}", message(&running));
    let words = json!({"schema": "retrain/v1", "outcome": "Succeeded", "data": {"manifestDigest": digest('7')}, "model": {
        "uri": model('b').uri, "digest": digest('b'), "baseDigest": digest('a'), "kind": "Merged"}});
    let end = End {
        succeeded: true,
        message: Some(words.to_string()),
        gpu_seconds: 70,
        ..End::default()
    };
    observed.jobs.insert(Kind::Retrain, a_job(State::Ended(end), 70));
    let read = take(&running.ledger, &observed, &spec);
    let cycle = read.ledger.cycle.as_ref().unwrap();
    assert_eq!((cycle.stage, cycle.gpu_seconds), (Stage::Evaluating, 70));
    assert!(read.actions.is_empty(), "nothing is begun: {:?}", read.actions);
    // Its pod and the Job itself may be gone by now.
    observed.jobs.clear();
    spec.suspend = false;
    assert_eq!(
        take(&read.ledger, &observed, &spec).actions,
        [Action::Create(Kind::Gate)]
    );
}

#[test]
fn a_candidate_that_was_put_into_the_spec_is_promoted_when_it_serves_and_not_before() {
    for (stage_before, mode) in [(Stage::Proposed, "Propose"), (Stage::RollingOut, "Automatic")] {
        let (ledger, mut observed, spec) = (ledger(stage_before), observed(), spec(mode));
        observed.target.base = Some(model('b'));
        observed.target.settled = false;
        let waits = take(&ledger, &observed, &spec);
        assert_eq!(stage(&waits), stage_before);
        assert!(message(&waits).contains("was put into the spec"), "{}", message(&waits));
        // Its pods are not ready, but the Service leads there already.
        observed.target.champion = Some(model('b'));
        observed.target.settled = true;
        assert_eq!(stage(&take(&ledger, &observed, &spec)), stage_before);
        let mut fails = observed.clone();
        fails.target.champion = Some(model('a'));
        fails.target.failed.insert(digest('b'));
        let failed = take(&ledger, &fails, &spec);
        assert_eq!(ended(&failed), (Outcome::RolledBack, "NotReadyInTime"));
        assert_eq!(failed.ledger.unpromoted, 1);
        observed.target.served.insert(digest('b'));
        assert_eq!(
            ended(&take(&ledger, &observed, &spec)),
            (Outcome::Promoted, "PutIntoSpec")
        );
    }
}

#[test]
fn a_regression_of_the_service_keeps_what_passed_the_gate_and_rolls_nothing_out() {
    let (ledger, mut observed) = (ledger(Stage::Proposed), observed());
    observed.regressed = true;
    let proposed = take(&ledger, &observed, &spec("Propose"));
    assert!(message(&proposed).starts_with("Proposed"), "{}", message(&proposed));
    let waits = take(&ledger, &observed, &spec("Automatic"));
    assert_eq!(stage(&waits), Stage::Proposed);
    assert!(message(&waits).starts_with("ServingRegression"), "{}", message(&waits));
    observed.regressed = false;
    assert_eq!(stage(&take(&ledger, &observed, &spec("Automatic"))), Stage::RollingOut);
}

#[test]
fn a_cycle_is_for_one_target_and_ends_with_it() {
    let (mut ledger, mut observed, spec) = (ledger(Stage::Retraining), observed(), spec("Automatic"));
    observed.target.uid = "target-2".to_owned();
    known(&mut ledger, Kind::Retrain);
    observed.jobs.insert(Kind::Retrain, a_job(State::Running(NOW - 60), 60));
    let other = take(&ledger, &observed, &spec);
    assert_eq!(ended(&other), (Outcome::Superseded, "TargetChanged"));
    assert!(
        other
            .actions
            .contains(&Action::Delete(job_name("watch", Kind::Retrain, "0badcafe")))
    );

    let why = ("TargetNotFound", "the target is not there any more");
    let gone = call_off(&ledger, &observed, &spec, &POLICY, why);
    let last = gone.finished.back().unwrap();
    assert_eq!(
        (last.outcome, last.reason.as_str()),
        (Outcome::Withdrawn, "TargetNotFound")
    );
    assert!(gone.cycle.is_none() && gone.unpromoted == 0);

    let why = ("TargetTaken", "another policy watches the target");
    let serves = call_off(&self::ledger(Stage::Publishing), &observed, &spec, &POLICY, why);
    assert_eq!(serves.finished.back().unwrap().outcome, Outcome::Promoted);
}

#[test]
fn nothing_is_rolled_out_while_no_replica_could_show_whether_it_comes_up() {
    let (ledger, mut observed, spec) = (ledger(Stage::RollingOut), observed(), spec("Automatic"));
    observed.target.runs = false;
    let waits = take(&ledger, &observed, &spec);
    assert!(
        waits.actions.is_empty() && message(&waits).contains("replicas again"),
        "{waits:?}"
    );
    observed.target.runs = true;
    assert!(matches!(
        take(&ledger, &observed, &spec).actions[..],
        [Action::Learn(_)]
    ));
    // Where the Service leads is not yet what has answered.
    observed.target.learned.insert(digest('b'));
    observed.target.champion = Some(model('b'));
    assert_eq!(stage(&take(&ledger, &observed, &spec)), Stage::RollingOut);
    observed.target.served.insert(digest('b'));
    assert_eq!(
        ended(&take(&ledger, &observed, &spec)),
        (Outcome::Promoted, "GatePassed")
    );
}

#[test]
fn what_the_target_does_not_take_up_is_taken_back() {
    let (ledger, mut observed, spec) = (ledger(Stage::RollingOut), observed(), spec("Automatic"));
    observed.target.learned.insert(digest('b'));
    let waits = take(&ledger, &observed, &spec);
    assert_eq!(waits.ledger.cycle.as_ref().unwrap().unheeded_since, Some(NOW));
    observed.now += 601;
    let mut on_its_way = observed.clone();
    on_its_way.target.settled = false;
    let goes_on = take(&waits.ledger, &on_its_way, &spec);
    assert_eq!(goes_on.ledger.cycle.as_ref().unwrap().unheeded_since, None);
    let given_up = take(&waits.ledger, &observed, &spec);
    assert_eq!(ended(&given_up), (Outcome::Withdrawn, "NotTakenUp"));
    assert!(given_up.actions.contains(&Action::Withdraw(digest('b'))));
}

#[test]
fn the_gpu_seconds_of_all_tries_count_and_a_job_that_only_waited_has_used_none() {
    let (mut ledger, mut observed, spec) = (ledger(Stage::Retraining), observed(), spec("Automatic"));
    known(&mut ledger, Kind::Retrain);
    observed
        .jobs
        .insert(Kind::Retrain, a_job(State::Running(NOW - 60), 7200));
    assert_eq!(stage(&take(&ledger, &observed, &spec)), Stage::Retraining);
    observed
        .jobs
        .insert(Kind::Retrain, a_job(State::Running(NOW - 60), 7201));
    let over = take(&ledger, &observed, &spec);
    assert_eq!(ended(&over), (Outcome::Failed, "GPUSecondsLimit"));
    assert_eq!(over.ledger.finished[0].gpu_seconds, 7201);

    let queued = |gpu_seconds| a_job(State::Waiting("its queue".to_owned()), gpu_seconds);
    observed.target.base = Some(model('c'));
    for (seen, counted) in [
        (Some(queued(0)), 0),
        (Some(queued(50)), 50),
        // It goes on until it is stopped, and nobody has seen how one ended that is gone.
        (Some(a_job(State::Running(NOW - 60), 60)), 7200),
        (None, 7200),
    ] {
        observed.jobs.clear();
        observed.jobs.extend(seen.map(|seen| (Kind::Retrain, seen)));
        let overtaken = take(&ledger, &observed, &spec);
        assert_eq!(ended(&overtaken), (Outcome::Superseded, "ModelChanged"));
        assert_eq!(overtaken.ledger.finished[0].gpu_seconds, counted);
    }
}

#[test]
fn a_job_without_gpus_uses_none_of_what_was_reserved() {
    let (mut ledger, mut observed, spec) = (ledger(Stage::Preparing), observed(), spec("Automatic"));
    ledger.cycle.as_mut().unwrap().candidate = None;
    known(&mut ledger, Kind::Prepare);
    observed.target.base = Some(model('c'));
    for seen in [Some(a_job(State::Running(NOW - 60), 0)), None] {
        observed.jobs = seen.map(|seen| (Kind::Prepare, seen)).into_iter().collect();
        assert_eq!(take(&ledger, &observed, &spec).ledger.finished[0].gpu_seconds, 0);
    }
}

#[test]
fn a_cycle_of_an_older_version_is_not_measured_by_what_is_reserved_today() {
    let (mut ledger, mut observed, spec) = (ledger(Stage::Evaluating), observed(), spec("Automatic"));
    let cycle = ledger.cycle.as_mut().unwrap();
    (cycle.target, cycle.reserved_gpu_seconds) = (String::new(), 3600);
    assert_eq!(take(&ledger, &observed, &spec).actions, [Action::Create(Kind::Gate)]);
    observed.jobs.insert(Kind::Gate, a_job(State::Running(NOW - 60), 3700));
    assert_eq!(stage(&take(&ledger, &observed, &spec)), Stage::Evaluating);
}

#[test]
fn a_template_that_asks_for_more_than_was_reserved_makes_no_job() {
    let (mut ledger, mut observed, mut spec) = (ledger(Stage::Evaluating), observed(), spec("Automatic"));
    ledger.cycle.as_mut().unwrap().candidate = Some(model('b'));
    assert_eq!(take(&ledger, &observed, &spec).actions, [Action::Create(Kind::Gate)]);
    observed.gpu_seconds = Ok(7201);
    assert_eq!(
        ended(&take(&ledger, &observed, &spec)),
        (Outcome::Withdrawn, "GPUSecondsLimit")
    );
    spec.retraining.as_mut().unwrap().limits.max_gpu_seconds = None;
    assert_eq!(take(&ledger, &observed, &spec).actions, [Action::Create(Kind::Gate)]);
}

#[test]
fn a_model_that_was_learned_before_is_not_learned_again() {
    let (mut ledger, mut observed, spec) = (ledger(Stage::Retraining), observed(), spec("Automatic"));
    ledger.cycle.as_mut().unwrap().candidate = None;
    observed.target.learned.insert(digest('b'));
    let words = json!({"schema": "retrain/v1", "outcome": "Succeeded", "data": {"manifestDigest": digest('7')}, "model": {
        "uri": model('b').uri, "digest": digest('b'), "baseDigest": digest('a'), "kind": "Merged"}});
    let end = End {
        succeeded: true,
        message: Some(words.to_string()),
        ..End::default()
    };
    observed.jobs.insert(Kind::Retrain, a_job(State::Ended(end), 0));
    assert_eq!(
        ended(&take(&ledger, &observed, &spec)),
        (Outcome::Rejected, "KnownCandidate")
    );
}

#[test]
fn too_little_data_is_looked_for_less_and_less_often_and_leaves_no_job() {
    let (mut observed, spec) = (observed(), spec("Automatic"));
    // One that began before asks no registry.
    let mut ledger = Ledger {
        begun: 1,
        ..Ledger::default()
    };
    let mut pauses = Vec::new();
    for _ in 0..11 {
        let begun = take(&ledger, &observed, &spec);
        assert_eq!(begun.actions, [Action::Create(Kind::Prepare)]);
        let id = begun.ledger.cycle.as_ref().unwrap().id.clone();
        let words = json!({"schema": "prepare/v1", "outcome": "DataRejected", "message": "too few"});
        let end = End {
            succeeded: true,
            message: Some(words.to_string()),
            ..End::default()
        };
        observed.jobs = BTreeMap::from([(Kind::Prepare, a_job(State::Ended(end), 0))]);
        let rejected = take(&begun.ledger, &observed, &spec);
        assert_eq!(
            rejected.actions,
            [Action::Delete(job_name("watch", Kind::Prepare, &id))]
        );
        let until = rejected.ledger.wait.as_ref().unwrap().until;
        pauses.push(until - observed.now);
        (ledger, observed.now) = (rejected.ledger, until);
        observed.jobs.clear();
    }
    assert_eq!(
        pauses,
        [600, 600, 600, 600, 1200, 2400, 4800, 9600, 19_200, 21_600, 21_600]
    );
    observed.drift = None;
    observed.calm = true;
    assert!(take(&ledger, &observed, &spec).ledger.wait.is_none());
}

#[test]
fn names_of_jobs_are_names() {
    let name = format!("{}.{}", "p".repeat(39), "q".repeat(20));
    for made in [
        job_name(&name, Kind::Retrain, "0badcafe"),
        restore_name(&Policy { name: &name, uid: "u" }, 1),
    ] {
        assert!(made.len() <= 63 && !made.contains(".-"), "{made}");
    }
    let other = Policy { name: &name, uid: "v" };
    assert_ne!(
        restore_name(&Policy { name: &name, uid: "u" }, 1),
        restore_name(&other, 1)
    );
}
