//! The page that a finished cycle leaves. With `PERENNIAL_WRITE_REPORT=FILE` it is written there, to look at it.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use perennial_crds::DriftPolicy;
use perennial_crds::retrain::Curve;
use perennial_drift::cause::Cause;
use perennial_operator::cycle::gate::Verdict;
use perennial_operator::cycle::ledger::{Cycle, Finished, JobRecord, Kind, Model, Outcome, Stage};
use perennial_operator::cycle::report::{Report, Training, map, page};
use serde_json::json;

const BEGIN: i64 = 1_800_000_000;

fn model(digit: char) -> Model {
    Model {
        uri: "file:///mnt/model/model.gguf".to_owned(),
        digest: format!("sha256:{}", digit.to_string().repeat(64)),
        claim: (digit == 'c').then(|| "workspace".to_owned()),
        claim_path: (digit == 'c').then(|| "perennial-cycles/watch/0badcafe/output".to_owned()),
        pull_secret: None,
    }
}

fn verdict(suite: &str, champion: f64, candidate: f64, needed: f64) -> Verdict {
    let lower = candidate - champion - 0.04;
    Verdict {
        suite: suite.to_owned(),
        items: 60,
        champion,
        candidate,
        lower,
        needed,
        passed: lower > needed,
    }
}

fn cycle() -> Cycle {
    let signals = json!({"policy": "watch", "cause": "InputDrift", "signals": [
        {"name": "Language", "class": "Input", "since": BEGIN - 300, "shareOfEvidencePercent": 81.4, "matters": true,
            "sentence": "Languages of prompts spread otherwise than in the baseline (PSI 3.935, at least 3.071)."},
        {"name": "TokensPerCharacter", "class": "Input", "since": BEGIN - 280, "shareOfEvidencePercent": 18.6, "matters": true,
            "sentence": "Tokens per character of prompts rose: 0.321 in the middle instead of 0.226."},
    ]});
    let ended = |after| JobRecord {
        uid: "u".to_owned(),
        ended: Some(BEGIN + after),
    };
    let falling = |from: u64, to: u64, high: f64| {
        (from..=to)
            .map(|step| (step, high / (1.0 + step as f64 / 20.0)))
            .collect()
    };
    Cycle {
        id: "0badcafe".to_owned(),
        target: "target-1".to_owned(),
        cause: Cause::InputDrift,
        started: BEGIN,
        drifted_since: BEGIN - 300,
        from: BEGIN - 3600,
        report: signals.to_string(),
        leftovers: Vec::new(),
        base: model('a'),
        champion: model('a'),
        stage: Stage::RollingOut,
        jobs: BTreeMap::from([
            (Kind::Prepare, ended(10)),
            (Kind::Retrain, ended(80)),
            (Kind::Gate, ended(140)),
        ]),
        manifest: Some(model('d').digest),
        records: 112,
        suites: Some(model('e').digest),
        training: Some(Training {
            figures: BTreeMap::from([
                ("startLoss".to_owned(), "2.53".to_owned()),
                ("bestLoss".to_owned(), "0.48".to_owned()),
            ]),
            curve: Curve {
                train: falling(1, 24, 2.6),
                validation: vec![(0, 2.53), (12, 1.1), (24, 0.48)],
            },
        }),
        candidate: Some(model('c')),
        verdicts: vec![
            verdict("recent", 0.071, 0.612, 0.01),
            verdict("golden", 0.207, 0.343, -0.05),
        ],
        repository: None,
        published: None,
        unheeded_since: None,
        gpu_seconds: 0,
        reserved_gpu_seconds: 0,
    }
}

fn finished(outcome: Outcome, reason: &str, message: &str) -> Finished {
    Finished {
        id: "0badcafe".to_owned(),
        cause: Cause::InputDrift,
        outcome,
        reason: reason.to_owned(),
        message: message.to_owned(),
        started: BEGIN,
        ended: BEGIN + 200,
        candidate: None,
        in_registry: false,
        verdicts: Vec::new(),
        gpu_seconds: 0,
    }
}

#[test]
fn the_page_tells_from_the_drift_to_the_decision() {
    let report = Report::of(
        cycle(),
        &finished(Outcome::Promoted, "GatePassed", "the better model serves"),
    );
    let page = page(&report, "watch", "capitals");
    if let Some(path) = std::env::var_os("PERENNIAL_WRITE_REPORT") {
        std::fs::write(path, &page).expect("written");
    }
    for said in [
        "capitals has learned: a better model serves",
        "The better model serves.",
        "Languages of prompts spread otherwise",
        "112 records",
        "class=\"validation\"",
        "<td>recent</td><td class=\"n\">60</td><td class=\"n\">71</td><td class=\"n\">612</td><td class=\"n\">+501.0</td>",
        "on the claim workspace, perennial-cycles/watch/0badcafe/output",
        "3 min 20 s",
    ] {
        assert!(page.contains(said), "{said} is missing in {page}");
    }
    assert!(!page.contains("http"), "it works offline");
}

#[test]
fn what_a_job_said_is_text_and_no_markup() {
    let mut cycle = cycle();
    cycle.verdicts[0].suite = "<script>alert(1)</script>".to_owned();
    let report = Report::of(
        cycle,
        &finished(Outcome::Failed, "JobFailed", "the Job said <img src=x onerror=\"x\">"),
    );
    let page = page(&report, "watch", "capitals");
    assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
    assert!(page.contains("stays as it is: the cycle failed"));
}

#[test]
fn a_cycle_that_ended_early_has_a_report_too_and_it_can_be_read_back() {
    let mut early = cycle();
    (early.training, early.candidate, early.manifest, early.suites) = (None, None, None, None);
    early.verdicts.clear();
    early.jobs.clear();
    early.report = "no JSON".to_owned();
    let report = Report::of(
        early,
        &finished(Outcome::Failed, "JobGone", "somebody removed the prepare Job"),
    );
    let policy: DriftPolicy = serde_json::from_value(json!({
        "apiVersion": "perennial.dev/v1alpha1", "kind": "DriftPolicy", "metadata": {"name": "watch", "namespace": "models", "uid": "u"},
        "spec": {"targetRef": {"name": "capitals"}, "confirmSeconds": 60},
    }))
    .expect("a policy");
    let map = map(&policy, &report);
    assert_eq!(map.metadata.name.as_deref(), Some("watch-cycle-0badcafe"));
    let data = map.data.expect("data");
    let read: Report = serde_json::from_str(&data["report.json"]).expect("JSON");
    assert_eq!(read, report);
    assert!(data["report.html"].ends_with("</html>\n") && !data["report.html"].contains("<h2>Gate"));
}
