//! From what was seen and decided to conditions, and from two statuses to events.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;

use common::{COMMIT, KnownExt, PINNED, ago, cluster, failure, finding, known, now, valid, wanted};
use jiff::Timestamp;
use perennial_autoscaler::{Limit, Sight};
use perennial_crds::conditions::Reason;
use perennial_crds::serving::{LoadingProgress, LoadingStage};
use perennial_crds::status::{LLMDeploymentStatus, ScalingDecision};
use perennial_operator::autoscaling::board::Verdict;
use perennial_operator::deployment::capture::Capturing;
use perennial_operator::deployment::diagnose::Finding;
use perennial_operator::deployment::notice::{Notice, notices};
use perennial_operator::deployment::plan::{Observed, Wanted, plan};
use perennial_operator::deployment::resolve::Resolution;
use perennial_operator::deployment::revision::FrozenModel;
use perennial_operator::deployment::status::{View, failed, status};
use perennial_operator::drift::words::Word;

/// One look: what is seen, and what it is compared with.
struct Look {
    spec: String,
    seen: Observed,
    wanted: Wanted,
    resolution: Resolution,
    finding: Option<Finding>,
    progress: Option<(String, LoadingProgress)>,
    old: LLMDeploymentStatus,
    verdict: Option<Verdict>,
    capturing: Option<Capturing>,
    at: Timestamp,
}

fn model() -> FrozenModel {
    FrozenModel {
        name: "tiny".to_owned(),
        uri: format!("hf://org/tiny@{COMMIT}"),
        digest: None,
        size_bytes: Some(7),
    }
}

/// A look at an object with two replicas.
fn look(seen: Observed, target: &str) -> Look {
    Look {
        spec: format!("{PINNED}\nreplicas: 2\nrollout: {{progressDeadlineSeconds: 100}}"),
        seen,
        wanted: wanted(Some(target), 2),
        resolution: Resolution::Known(model()),
        finding: None,
        progress: None,
        old: LLMDeploymentStatus::default(),
        verdict: None,
        capturing: None,
        at: now(),
    }
}

fn serving() -> Observed {
    cluster(Some("a"), [("a", known().running(9000, 2, 2).served())])
}

fn starting() -> Observed {
    cluster(Some("a"), [("a", known().running(10, 0, 2))])
}

impl Look {
    fn with(self, change: impl FnOnce(&mut Self)) -> Self {
        let mut look = self;
        change(&mut look);
        look
    }

    fn finding(self, reason: Reason, permanent: bool) -> Self {
        self.with(|look| look.finding = Some(finding(reason, permanent)))
    }

    fn stage(self, stage: LoadingStage) -> Self {
        self.with(|look| {
            let progress = LoadingProgress {
                stage,
                downloaded_bytes: 333,
                total_bytes: Some(1000),
                remaining_seconds: Some(12),
            };
            look.progress = Some(("pod-1".to_owned(), progress));
        })
    }

    fn unresolved(self, resolution: Resolution) -> Self {
        self.with(|look| {
            look.wanted.target = None;
            look.resolution = resolution;
        })
    }

    fn replicas(self, replicas: i32, suspended: bool) -> Self {
        self.with(|look| {
            look.wanted.replicas = if suspended { 0 } else { replicas };
            look.spec = format!("{PINNED}\nreplicas: {replicas}\nsuspend: {suspended}");
        })
    }

    fn status(&self) -> LLMDeploymentStatus {
        let valid = valid(&self.spec);
        let model = model();
        let view = View {
            valid: &valid,
            observed: &self.seen,
            plan: &plan(&self.seen, &self.wanted),
            target: self.wanted.target.as_deref(),
            resolution: &self.resolution,
            finding: self.finding.as_ref(),
            progress: self.progress.as_ref(),
            replicas: 2,
            model: Some(&model),
            drift: Word::NotYet,
            verdict: self.verdict.as_ref(),
            origin: None,
            capturing: self.capturing.as_ref(),
        };
        status(&self.old, &view, self.at)
    }
}

/// Conditions as `Type=Status/Reason`.
fn conditions(status: &LLMDeploymentStatus) -> Vec<String> {
    let conditions = status.conditions.iter();
    conditions
        .map(|c| format!("{}={}/{}", c.type_, c.status, c.reason))
        .collect()
}

fn condition<'a>(status: &'a LLMDeploymentStatus, kind: &str) -> Option<&'a str> {
    status
        .conditions
        .iter()
        .find(|c| c.type_ == kind)
        .map(|c| c.status.as_str())
}

/// What kstatus and the API conventions ask of every status.
fn check_rules(status: &LLMDeploymentStatus) {
    for always in [
        "Ready",
        "Available",
        "Progressing",
        "ModelResolved",
        "CapacityAvailable",
    ] {
        assert!(condition(status, always).is_some(), "{always} is missing");
    }
    for only_true in ["Reconciling", "Stalled"] {
        assert!(
            condition(status, only_true).is_none_or(|status| status == "True"),
            "{only_true}"
        );
    }
    assert!(condition(status, "Reconciling").is_none() || condition(status, "Stalled").is_none());
    let mut types: Vec<&str> = status.conditions.iter().map(|c| c.type_.as_str()).collect();
    types.sort_unstable();
    types.dedup();
    assert_eq!(types.len(), status.conditions.len());
    for condition in &status.conditions {
        assert_eq!(condition.observed_generation, Some(status.observed_generation));
        assert!(
            !condition.message.is_empty() && !condition.message.contains('\n'),
            "{condition:?}"
        );
        assert!(
            Reason::ALL.iter().any(|reason| reason.as_str() == condition.reason),
            "{}",
            condition.reason
        );
        assert_eq!(condition.last_transition_time.0.subsec_nanosecond(), 0);
    }
}

fn all() -> BTreeMap<&'static str, Look> {
    let old = || known().running(9000, 2, 2).served();
    let during = |new| cluster(Some("a"), [("a", old()), ("b", new)]);
    let refused = || finding(Reason::ModelNotFound, true);
    BTreeMap::from([
        ("01 serves", look(serving(), "a")),
        ("02 the first pods start", look(starting(), "a")),
        ("03 downloads", look(starting(), "a").stage(LoadingStage::Downloading)),
        ("04 verifies", look(starting(), "a").stage(LoadingStage::Verifying)),
        (
            "05 loads weights",
            look(starting(), "a").stage(LoadingStage::LoadingWeights),
        ),
        ("06 warms up", look(starting(), "a").stage(LoadingStage::WarmingUp)),
        (
            "07 one of two answers",
            look(cluster(Some("a"), [("a", known().running(10, 1, 2).served())]), "a"),
        ),
        (
            "08 nothing within the deadline",
            look(cluster(Some("a"), [("a", known().running(500, 0, 2))]), "a"),
        ),
        (
            "09 no accelerator",
            look(starting(), "a").finding(Reason::InsufficientAccelerator, false),
        ),
        (
            "10 a wrong image",
            look(starting(), "a").finding(Reason::ImagePullBackOff, false),
        ),
        (
            "11 a model that does not fit",
            look(starting(), "a").finding(Reason::InsufficientMemory, true),
        ),
        ("12 a rollout", look(during(known().running(10, 1, 2)), "b")),
        ("13 the switch", look(during(known().running(10, 2, 2)), "b")),
        (
            "14 the drain",
            look(
                Observed {
                    endpoints_moved: false,
                    ..cluster(Some("b"), [("a", old()), ("b", known().running(10, 2, 2).served())])
                },
                "b",
            ),
        ),
        ("15 given up", look(during(known().failed(None)), "b")),
        ("16 paused", look(serving(), "b").with(|look| look.wanted.paused = true)),
        ("17 suspended", look(serving(), "a").replicas(2, true)),
        ("18 scaled to zero", look(serving(), "a").replicas(0, false)),
        (
            "19 resolving",
            look(cluster(None, []), "a").unresolved(Resolution::Asking(None)),
        ),
        (
            "20 the source has no such model",
            look(cluster(None, []), "a").unresolved(Resolution::Failed {
                finding: refused(),
                again_in: None,
            }),
        ),
        (
            "21 the source cannot be reached",
            look(cluster(None, []), "a").unresolved(Resolution::Failed {
                finding: finding(Reason::SourceUnreachable, false),
                again_in: None,
            }),
        ),
        (
            "22 a new source that does not exist, the old one serves",
            look(serving(), "a").unresolved(Resolution::Asking(Some(refused()))),
        ),
        (
            "23 a replica of what serves breaks down",
            look(cluster(Some("a"), [("a", known().running(9000, 1, 2).served())]), "a")
                .finding(Reason::OOMKilled, false),
        ),
    ])
}

#[test]
fn every_state_has_its_conditions() {
    let table: BTreeMap<&str, Vec<String>> = all()
        .iter()
        .map(|(name, look)| {
            let status = look.status();
            let words = |text: &Option<String>| text.clone().unwrap_or_default();
            let head = format!("{} {}", words(&status.summary), words(&status.ready));
            (*name, std::iter::once(head).chain(conditions(&status)).collect())
        })
        .collect();
    insta::assert_snapshot!(serde_yaml::to_string(&table).unwrap());
}

#[test]
fn every_status_keeps_the_rules() {
    for (name, look) in all() {
        println!("{name}");
        let first = look.status();
        check_rules(&first);
        // Looked at again a minute later: nothing has changed, so nothing is written.
        let again = look.with(|look| {
            look.old.clone_from(&first);
            look.at = now() + jiff::SignedDuration::from_secs(60);
        });
        assert_eq!(again.status(), first, "{name}");
    }
}

#[test]
fn times_move_with_the_status_of_a_condition_and_with_nothing_else() {
    let first = look(starting(), "a").with(|look| look.at = ago(100)).status();
    let loading = look(starting(), "a").stage(LoadingStage::LoadingWeights);
    let second = loading.with(|look| look.old.clone_from(&first)).status();
    let third = look(serving(), "a").with(|look| look.old.clone_from(&second)).status();
    let time = |status: &LLMDeploymentStatus, kind: &str| {
        let found = status.conditions.iter().find(|c| c.type_ == kind);
        found.map(|found| found.last_transition_time.0)
    };
    assert_eq!(
        time(&second, "Ready"),
        Some(ago(100)),
        "another reason, the same status"
    );
    assert_eq!(time(&third, "Ready"), Some(now()));
    assert_eq!(time(&third, "ModelResolved"), Some(ago(100)));
    assert_eq!(time(&third, "Reconciling"), None);
}

#[test]
fn figures_for_people_and_programs() {
    let status = look(cluster(Some("a"), [("a", known().running(10, 1, 2).served())]), "a")
        .stage(LoadingStage::Downloading)
        .status();
    assert_eq!(status.ready.as_deref(), Some("1/2"));
    assert_eq!((status.ready_replicas, status.replicas), (1, 2));
    assert_eq!(status.url.as_deref(), Some("http://tiny.models.svc/v1"));
    assert_eq!(
        status.selector.as_deref(),
        Some("perennial.dev/name=tiny,perennial.dev/revision")
    );
    let cold = status.cold_start.unwrap();
    assert_eq!((cold.downloaded_percent, cold.remaining_seconds), (Some(33), Some(12)));
    let model = status.model.unwrap();
    assert_eq!(model.resolved_revision.as_deref(), Some(COMMIT));
    assert_eq!(model.size_bytes, Some(7));
}

#[test]
fn percent_is_never_more_than_all_nor_of_nothing() {
    let percent = |done, total| {
        let look = look(starting(), "a").stage(LoadingStage::Downloading).with(|look| {
            let progress = &mut look.progress.as_mut().unwrap().1;
            progress.downloaded_bytes = done;
            progress.total_bytes = total;
        });
        look.status().cold_start.unwrap().downloaded_percent
    };
    assert_eq!(percent(5, None), None);
    assert_eq!(percent(5, Some(0)), None);
    assert_eq!(percent(2000, Some(1000)), Some(100));
    assert_eq!(percent(999, Some(1000)), Some(99));
}

#[test]
fn only_replicas_that_the_service_leads_to_count() {
    let behind = Observed {
        ready_endpoints: 0,
        ..serving()
    };
    let status = look(behind, "a").status();
    assert_eq!(condition(&status, "Ready"), Some("False"));
    assert_eq!(status.ready.as_deref(), Some("0/2"));
}

#[test]
fn a_failed_look_does_not_hide_what_serves() {
    let old = look(serving(), "a").with(|look| look.at = ago(100)).status();
    let transient = failed(&old, 4, Reason::ApiFailed, "the API server was away", false, now());
    assert_eq!(condition(&transient, "Ready"), Some("True"));
    assert_eq!(condition(&transient, "Reconciling"), Some("True"));
    assert_eq!(condition(&transient, "Stalled"), None);
    assert_eq!(transient.url, old.url);
    check_rules(&transient);
    let permanent = failed(
        &transient,
        4,
        Reason::InvalidSpec,
        "spec.podTemplate is wrong",
        true,
        now(),
    );
    assert_eq!(condition(&permanent, "Ready"), Some("True"));
    assert_eq!(condition(&permanent, "Reconciling"), None);
    assert_eq!(condition(&permanent, "Stalled"), Some("True"));
    assert_eq!(permanent.summary.as_deref(), Some("InvalidSpec"));
    check_rules(&permanent);
    assert_eq!(
        failed(
            &permanent,
            4,
            Reason::InvalidSpec,
            "spec.podTemplate is wrong",
            true,
            now()
        ),
        permanent
    );
}

#[test]
fn a_failed_first_look_says_so() {
    let fresh = LLMDeploymentStatus::default();
    let status = failed(
        &fresh,
        1,
        Reason::NameConflict,
        "the Service tiny is there already",
        true,
        now(),
    );
    assert_eq!(
        conditions(&status),
        [
            "Progressing=False/NameConflict",
            "Ready=False/NameConflict",
            "Stalled=True/NameConflict"
        ]
    );
    assert_eq!(status.observed_generation, 1);
}

fn told(old: &Look, new: Look) -> Vec<Notice> {
    let old = old.status();
    let new = new.with(|look| look.old.clone_from(&old)).status();
    assert_eq!(notices(&new, &new), [], "told once");
    notices(&old, &new)
}

#[test]
fn changes_are_told_once() {
    let old = || known().running(9000, 2, 2).served();
    let rollout = || {
        look(
            cluster(Some("a"), [("a", old()), ("b", known().running(10, 0, 2))]),
            "b",
        )
    };
    let moved = look(cluster(Some("b"), [("b", known().running(60, 2, 2).served())]), "b");
    let gave_up = look(cluster(Some("a"), [("a", old()), ("b", known().failed(None))]), "b");
    let cases = [
        ("nothing", look(serving(), "a"), look(serving(), "a")),
        ("a first replica", look(starting(), "a"), look(serving(), "a")),
        (
            "a stage",
            look(starting(), "a"),
            look(starting(), "a").stage(LoadingStage::Downloading),
        ),
        ("a new spec", look(serving(), "a"), rollout()),
        ("the switch", rollout(), moved),
        ("the end of its time", rollout(), gave_up),
        (
            "an outage",
            look(serving(), "a"),
            look(starting(), "a").finding(Reason::OOMKilled, false),
        ),
        (
            "a suspension",
            look(serving(), "a"),
            look(serving(), "a").replicas(2, true),
        ),
        (
            "no room",
            look(starting(), "a"),
            look(starting(), "a").finding(Reason::Unschedulable, false),
        ),
        (
            "no such model",
            look(starting(), "a"),
            look(starting(), "a").finding(Reason::ModelNotFound, true),
        ),
    ];
    let table: Vec<String> = cases
        .into_iter()
        .flat_map(|(what, old, new)| {
            let told = told(&old, new);
            let line = |notice: &Notice| {
                let kind = if notice.warning { "Warning" } else { "Normal" };
                format!("{what}: {kind} {} ({}): {}", notice.reason, notice.action, notice.note)
            };
            let lines: Vec<String> = told.iter().map(line).collect();
            if lines.is_empty() {
                vec![format!("{what}: -")]
            } else {
                lines
            }
        })
        .collect();
    insta::assert_snapshot!(table.join("\n"));
}

#[test]
fn an_event_fits_the_api() {
    let long = look(starting(), "a").with(|look| {
        look.finding = Some(Finding {
            reason: Reason::ModelNotFound,
            message: "ä".repeat(1000),
            permanent: true,
        });
    });
    let notices = told(&look(starting(), "a"), long);
    assert_eq!(notices.len(), 1);
    // The API server counts bytes.
    assert!(notices[0].note.len() <= 1024, "{} bytes", notices[0].note.len());
}

#[test]
fn a_failure_keeps_its_own_words() {
    let seen = cluster(
        Some("a"),
        [("a", known().running(9000, 2, 2).served()), ("b", known().failed(None))],
    );
    let status = look(seen, "b").status();
    let stalled = status.conditions.iter().find(|c| c.type_ == "Stalled").unwrap();
    assert_eq!(stalled.message, failure(None).message);
    assert_eq!(condition(&status, "Ready"), Some("True"));
}

const SCALED: &str =
    "model: {source: {huggingFace: {repository: org/tiny, revision: 0123456789abcdef0123456789abcdef01234567}}}
replicas: 2
autoscaling: {maxReplicas: 5}";

fn scaled(sight: Sight, limit: Option<Limit>, decisions: Vec<ScalingDecision>) -> Look {
    look(serving(), "a").with(|look| {
        SCALED.clone_into(&mut look.spec);
        look.verdict = Some(Verdict {
            uid: "11111111-2222-3333-4444-555555555555".to_owned(),
            desired: 2,
            sight,
            limit,
            decisions,
            cold_start: Some(42),
            work: std::collections::HashMap::new(),
        });
    })
}

fn decision(from: i32, to: i32, reason: &str) -> ScalingDecision {
    ScalingDecision {
        time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()),
        from,
        to,
        reason: reason.to_owned(),
    }
}

#[test]
fn the_autoscaler_says_what_it_sees_and_what_holds_it_back() {
    for (sight, limit, active, limited) in [
        (Sight::Full, None, "True/ValidMetricFound", "False/DesiredWithinRange"),
        (
            Sight::Partial { seen: 1, of: 2 },
            None,
            "True/MetricsIncomplete",
            "False/DesiredWithinRange",
        ),
        (
            Sight::Blind { of: 2 },
            None,
            "False/MetricsUnavailable",
            "False/DesiredWithinRange",
        ),
        (
            Sight::NoneReady,
            None,
            "False/NoReplicaReady",
            "False/DesiredWithinRange",
        ),
        (
            Sight::Full,
            Some(Limit::Maximum),
            "True/ValidMetricFound",
            "True/TooManyReplicas",
        ),
        (
            Sight::Full,
            Some(Limit::UpRate),
            "True/ValidMetricFound",
            "True/ScaleUpLimit",
        ),
        (
            Sight::Full,
            Some(Limit::Room),
            "True/ValidMetricFound",
            "True/Unschedulable",
        ),
    ] {
        let said = conditions(&scaled(sight, limit, Vec::new()).status());
        for expected in [format!("ScalingActive={active}"), format!("ScalingLimited={limited}")] {
            assert!(said.contains(&expected), "{expected} is not in {said:?}");
        }
    }
    let blocked = scaled(Sight::Full, Some(Limit::Room), Vec::new()).finding(Reason::InsufficientAccelerator, false);
    assert!(conditions(&blocked.status()).contains(&"ScalingLimited=True/InsufficientAccelerator".to_owned()));
    // Without an autoscaler nothing is said of it.
    let plain = look(serving(), "a").status();
    assert!(plain.autoscaling.is_none() && condition(&plain, "ScalingActive").is_none());
}

#[test]
fn decisions_are_kept_until_the_autoscaler_speaks_again_and_each_is_told_once() {
    let first = decision(1, 2, "WaitingRequests 9.1 per replica > 4");
    let old = scaled(Sight::Full, None, vec![first.clone()]).status();
    let scaling = old.autoscaling.clone().unwrap();
    assert_eq!((scaling.desired_replicas, scaling.cold_start_seconds), (2, Some(42)));
    let silent = look(serving(), "a").with(|look| {
        SCALED.clone_into(&mut look.spec);
        look.old = old.clone();
    });
    assert_eq!(silent.status().autoscaling, old.autoscaling);
    let second = decision(2, 3, "RunningRequests 8.0 per replica > 4");
    let new = scaled(Sight::Full, None, vec![second, first]).status();
    let told: Vec<_> = notices(&old, &new)
        .into_iter()
        .map(|notice| (notice.reason, notice.note))
        .collect();
    let expected = "Scaled from 2 to 3: RunningRequests 8.0 per replica > 4".to_owned();
    assert_eq!(told, [("ScaledUp".to_owned(), expected)]);
    assert!(notices(&new, &new).is_empty());
}

#[test]
fn what_becomes_of_capture_is_told_and_nothing_else_depends_on_it() {
    let told = |works, reason| {
        look(serving(), "a").with(|look| {
            look.capturing = Some(Capturing {
                works,
                reason,
                message: "something about the collector".to_owned(),
            });
        })
    };
    let plain = look(serving(), "a").status();
    assert!(condition(&plain, "Capturing").is_none());
    for (works, reason, expected) in [
        (true, Reason::CollectorReady, "Capturing=True/CollectorReady"),
        (false, Reason::CollectorNotReady, "Capturing=False/CollectorNotReady"),
        (false, Reason::CaptureUnavailable, "Capturing=False/CaptureUnavailable"),
    ] {
        let status = told(works, reason).status();
        check_rules(&status);
        let mut said = conditions(&status);
        let position = said.iter().position(|one| one == expected).expect(expected);
        said.remove(position);
        assert_eq!(said, conditions(&plain));
        assert_eq!(status.summary, plain.summary);
        assert!(notices(&plain, &status).is_empty());
    }
}
