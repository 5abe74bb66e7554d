//! Which bytes a source means: when it is asked, what is taken for an answer, when it is asked again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::time::Duration;

use common::{BRANCH, COMMIT, DIGEST, PINNED, container, job, job_pod, now, object_with_annotations, stored, valid};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use perennial_crds::conditions::Reason;
use perennial_operator::deployment::build::{self, resolve_job_name};
use perennial_operator::deployment::resolve::{Resolution, resolution};
use perennial_operator::deployment::revision::{self, FrozenModel, Revision};
use perennial_operator::deployment::validate::{Validated, validate};
use serde_json::{Value, json};

fn ask(valid: &Validated, revisions: &[Revision], job: Option<&Job>, pods: &[&Pod]) -> Resolution {
    let jobs: Vec<&Job> = job.into_iter().collect();
    resolution(valid, revisions, &jobs, pods, now())
}

fn answered(valid: &Validated, exit_code: i32, message: &str) -> Pod {
    let state = json!({"terminated": {"exitCode": exit_code, "message": message}});
    job_pod(valid, json!({"containerStatuses": [container(state, Value::Null, 0)]}))
}

fn answer() -> String {
    json!({"uri": format!("hf://org/tiny@{COMMIT}"), "digest": DIGEST, "sizeBytes": 7, "files": 1, "later": true})
        .to_string()
}

fn known() -> FrozenModel {
    FrozenModel {
        name: "tiny".to_owned(),
        uri: format!("hf://org/tiny@{COMMIT}"),
        digest: Some(DIGEST.to_owned()),
        size_bytes: Some(7),
    }
}

/// A revision of the object with the answer of the Job.
fn revision_of(valid: &Validated, number: i64, model: FrozenModel) -> Revision {
    let mut revision = stored(&common::valid(PINNED), number);
    revision.frozen.source_hash = revision::source_hash(&valid.source);
    revision.frozen.model = model;
    revision
}

#[test]
fn a_pinned_source_is_known_without_asking() {
    let from_oci = format!("model: {{source: {{oci: {{reference: 'r.example/m@{DIGEST}'}}}}}}");
    let with_digest = format!("model: {{digest: '{DIGEST}', source: {{http: {{url: 'https://example.com/m'}}}}}}");
    for (spec, uri, digest) in [
        (PINNED, format!("hf://org/tiny@{COMMIT}"), None),
        (&from_oci, format!("oci://r.example/m@{DIGEST}"), Some(DIGEST)),
        (&with_digest, "https://example.com/m".to_owned(), Some(DIGEST)),
    ] {
        let Resolution::Known(model) = ask(&valid(spec), &[], None, &[]) else {
            panic!("{spec} is pinned")
        };
        assert_eq!((model.uri, model.digest.as_deref()), (uri, digest));
    }
}

#[test]
fn an_unpinned_source_is_asked_once() {
    let valid = valid(BRANCH);
    assert_eq!(ask(&valid, &[], None, &[]), Resolution::Ask);
    assert_eq!(
        ask(&valid, &[], Some(&job(&valid, None)), &[]),
        Resolution::Asking(None)
    );
    let ended = job(&valid, Some(("Complete", 1)));
    let pod = answered(&valid, 0, &answer());
    assert_eq!(ask(&valid, &[], Some(&ended), &[&pod]), Resolution::Known(known()));
    // The pod has answered, the Job's status lags behind.
    assert_eq!(
        ask(&valid, &[], Some(&job(&valid, None)), &[&pod]),
        Resolution::Known(known())
    );
}

#[test]
fn answers_to_other_questions_do_not_count() {
    let valid = valid(BRANCH);
    let other = common::valid("model: {source: {huggingFace: {repository: org/other}}}");
    assert_eq!(ask(&valid, &[], Some(&job(&other, None)), &[]), Resolution::Ask);
    let pod = answered(&other, 0, &answer());
    assert_eq!(
        ask(&valid, &[], Some(&job(&valid, None)), &[&pod]),
        Resolution::Asking(None)
    );
    // What failed said nothing, even if it looks like an answer.
    let pod = answered(&valid, 1, &answer());
    assert!(!matches!(
        ask(&valid, &[], Some(&job(&valid, None)), &[&pod]),
        Resolution::Known(_)
    ));
}

#[test]
fn what_is_in_the_way_of_the_job_is_told() {
    let valid = valid(BRANCH);
    let waiting = json!({"waiting": {"reason": "CreateContainerConfigError", "message": "secret \"hub\" not found"}});
    let pod = job_pod(
        &valid,
        json!({"containerStatuses": [container(waiting, Value::Null, 0)]}),
    );
    let Resolution::Asking(Some(finding)) = ask(&valid, &[], Some(&job(&valid, None)), &[&pod]) else {
        panic!("nothing found")
    };
    assert_eq!(finding.reason, Reason::SecretNotFound);
}

#[test]
fn a_source_that_failed_is_asked_again_after_five_minutes() {
    let valid = valid(BRANCH);
    let words = json!({"reason": "ModelNotFound", "message": "org/tiny has no branch main"}).to_string();
    let pod = answered(&valid, 1, &words);
    for (seconds, left) in [(0, Some(300)), (299, Some(1)), (300, None), (9000, None)] {
        let ended = job(&valid, Some(("Failed", seconds)));
        let Resolution::Failed { finding, again_in } = ask(&valid, &[], Some(&ended), &[&pod]) else {
            panic!("it failed")
        };
        assert_eq!(finding.reason, Reason::ModelNotFound);
        assert!(finding.permanent && finding.message.contains("no branch main"));
        assert_eq!(again_in, left.map(Duration::from_secs), "after {seconds} s");
    }
}

#[test]
fn a_job_that_ends_without_a_readable_answer_has_failed() {
    let valid = valid(BRANCH);
    let unreadable = answered(&valid, 0, "{\"uri\": ");
    for (kind, pods) in [
        ("Complete", vec![&unreadable]),
        ("Complete", vec![]),
        ("Failed", vec![]),
    ] {
        let ended = job(&valid, Some((kind, 10)));
        let Resolution::Failed { finding, again_in } = ask(&valid, &[], Some(&ended), &pods) else {
            panic!("{kind}: it failed")
        };
        assert_eq!(finding.reason, Reason::SourceUnreachable);
        assert!(finding.message.contains(&resolve_job_name(&valid)) && finding.message.contains("said the Job"));
        assert_eq!(again_in, Some(Duration::from_secs(290)));
        assert!(!finding.permanent);
    }
}

#[test]
fn an_earlier_revision_has_the_answer() {
    let first = valid(BRANCH);
    let newer = FrozenModel {
        uri: "hf://org/tiny@ffff".to_owned(),
        ..known()
    };
    let revisions = [
        revision_of(&first, 2, newer.clone()),
        revision_of(&first, 1, known()),
        revision_of(
            &valid("model: {source: {huggingFace: {repository: org/other}}}"),
            3,
            known(),
        ),
    ];
    assert_eq!(ask(&first, &revisions, None, &[]), Resolution::Known(newer.clone()));
    // The name for clients is today's.
    let renamed = valid("model: {name: other, source: {huggingFace: {repository: org/tiny}}}");
    let Resolution::Known(model) = ask(&renamed, &revisions, None, &[]) else {
        panic!("it is known")
    };
    assert_eq!((model.name.as_str(), model.uri), ("other", newer.uri));
}

#[test]
fn the_annotation_asks_anew() {
    let annotated = |spec, value| {
        validate(&object_with_annotations(
            spec,
            &[(perennial_crds::RESOLVE_AGAIN_ANNOTATION, value)],
        ))
        .unwrap()
    };
    let (first, one, two) = (valid(BRANCH), annotated(BRANCH, "1"), annotated(BRANCH, "2"));
    let revisions = [revision_of(&first, 1, known())];
    assert_eq!(ask(&one, &revisions, Some(&job(&first, None)), &[]), Resolution::Ask);
    let names = [&first, &one, &two].map(resolve_job_name);
    assert!(names[0] != names[1] && names[1] != names[2] && names[0] != names[2]);
    // The answer may be the same bytes; then it is the same revision.
    assert_eq!(revision::name(&first, &known()), revision::name(&one, &known()));
    // What is pinned cannot mean anything else.
    let pinned = annotated(PINNED, "1");
    assert_eq!(
        revision::source_hash(&pinned.source),
        revision::source_hash(&valid(PINNED).source)
    );
}

#[test]
fn an_answer_that_led_to_a_known_revision_is_kept_with_it() {
    // The Job is removed an hour later; without this the source would be asked again, and might have moved.
    let tag = valid("model: {source: {huggingFace: {repository: org/tiny, revision: v1}}}");
    let pinned = valid(PINNED);
    let model = revision::pinned_model(&pinned).unwrap();
    let name = revision::name(&pinned, &model);
    let frozen = build::freeze(&pinned, &common::environment(), &name, &model);
    let mut record = revision::store(&pinned, &name, 1, &frozen);
    let sources = format!("0000000000,{}", revision::source_hash(&tag.source));
    record.metadata.annotations = Some([("perennial.dev/sources".to_owned(), sources)].into());
    let revisions = [revision::read(&record).unwrap()];
    assert_eq!(ask(&tag, &revisions, None, &[]), Resolution::Known(model));
    assert_eq!(ask(&valid(BRANCH), &revisions, None, &[]), Resolution::Ask);
}
