//! From an object to everything that is applied for it: whole sets, so that any change of what is rendered is seen.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use common::{BRANCH, COMMIT, DIGEST, PINNED, environment, object, object_with_annotations, valid};
use perennial_crds::serving::ResolvedModel;
use perennial_operator::apply::Resources;
use perennial_operator::deployment::build::{self, Environment};
use perennial_operator::deployment::resolve::{Resolution, resolution};
use perennial_operator::deployment::revision::{self, FrozenModel};
use perennial_operator::deployment::validate::{Validated, validate};
use serde_json::json;

/// All children of an object whose one revision serves, as the shell puts them together.
fn render(valid: &Validated, model: &FrozenModel, environment: &Environment) -> Resources {
    let name = revision::name(valid, model);
    let frozen = build::freeze(valid, environment, &name, model);
    Resources {
        service_account: build::service_account(valid),
        revision: Some(revision::store(valid, &name, 1, &frozen)),
        service: Some(build::service(valid, &name)),
        disruption_budget: build::disruption_budget(valid),
        deployments: vec![build::deployment(valid, &name, &frozen, valid.replicas)],
        job: None,
    }
}

fn yaml(resources: &Resources) -> String {
    let Resources {
        service_account,
        revision,
        service,
        disruption_budget,
        deployments,
        job,
    } = resources;
    let all = json!({
        "serviceAccount": service_account,
        "revision": revision,
        "service": service,
        "disruptionBudget": disruption_budget,
        "deployments": deployments,
        "job": job,
    });
    serde_yaml::to_string(&all).unwrap()
}

/// Everything for a pinned source.
fn pinned(spec: &str) -> String {
    let valid = valid(spec);
    let model = revision::pinned_model(&valid).expect("pinned");
    yaml(&render(&valid, &model, &environment()))
}

/// The resolving Job, and everything once it has answered.
fn resolved(spec: &str, answer: &str, environment: &Environment) -> String {
    let valid = valid(spec);
    assert_eq!(resolution(&valid, &[], &[], &[], common::now()), Resolution::Ask);
    let answer = ResolvedModel {
        uri: answer.to_owned(),
        digest: DIGEST.to_owned(),
        size_bytes: 1_000_000,
        files: 3,
    };
    let model = revision::resolved_model(&valid, &answer);
    yaml(&Resources {
        job: Some(build::resolve_job(&valid, environment)),
        ..render(&valid, &model, environment)
    })
}

#[test]
fn the_smallest_object() {
    insta::assert_snapshot!(pinned(PINNED));
}

#[test]
fn a_tag_with_credentials() {
    let spec = "
        model:
          name: org/tiny
          source: {oci: {reference: 'registry.example/models/tiny:1', pullSecretRef: {name: registry}}}";
    let environment = Environment {
        plain_http_registries: vec!["registry.example".to_owned(), "127.0.0.1:5000".to_owned()],
        ..environment()
    };
    let answer = format!("oci://registry.example/models/tiny@{DIGEST}");
    insta::assert_snapshot!(resolved(spec, &answer, &environment));
}

#[test]
fn a_url_with_a_digest() {
    let spec = format!("model: {{digest: '{DIGEST}', source: {{http: {{url: 'https://example.com/tiny.gguf'}}}}}}");
    insta::assert_snapshot!(pinned(&spec));
}

#[test]
fn a_path_on_a_volume() {
    let spec = "model: {source: {persistentVolumeClaim: {claimName: models, path: llama/tiny.gguf}}}";
    insta::assert_snapshot!(resolved(spec, "file:///mnt/model/llama/tiny.gguf", &environment()));
}

#[test]
fn accelerators_and_resources() {
    let spec = format!(
        "{PINNED}
accelerator: {{count: 2, resourceName: nvidia.com/gpu, nodeSelector: {{nvidia.com/gpu.product: H100}}}}
resources: {{cpu: 8, memory: 64Gi}}
replicas: 3
lifecycle: {{drainSeconds: 30, startupDeadlineSeconds: 600}}"
    );
    insta::assert_snapshot!(pinned(&spec));
}

const OVERLAY: &str = "
podTemplate:
  metadata: {labels: {team: search, perennial.dev/name: stolen}, annotations: {example.com/scrape: 'true'}}
  spec:
    tolerations: [{key: gpu, operator: Exists, effect: NoSchedule}]
    imagePullSecrets: [{name: images}]
    nodeSelector: {disk: fast}
    containers:
    - {name: server, env: [{name: RUST_LOG, value: debug}]}
    - {name: proxy, image: 'example.com/proxy:1'}";

#[test]
fn an_overlay_of_the_pod_template() {
    // From a branch, so that the Job shows which parts of the overlay it takes.
    let answer = format!("hf://org/tiny@{COMMIT}");
    insta::assert_snapshot!(resolved(&format!("{BRANCH}{OVERLAY}"), &answer, &environment()));
}

#[test]
fn suspended() {
    insta::assert_snapshot!(pinned(&format!("{PINNED}\nreplicas: 4\nsuspend: true")));
}

#[test]
fn own_image_and_arguments() {
    let spec = format!(
        "model:
  maxContextTokens: 4096
  source:
    huggingFace:
      repository: org/tiny
      revision: {COMMIT}
      file: tiny-q8.gguf
      endpoint: https://mirror.example
      tokenSecretRef: {{name: hub, key: token}}
runtime: {{image: 'example.com/server:2', extraArgs: [--max-concurrent-requests=8]}}"
    );
    insta::assert_snapshot!(pinned(&spec));
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let spec = format!("{PINNED}{OVERLAY}");
    assert_eq!(pinned(&spec), pinned(&spec));
}

#[test]
fn the_operators_labels_cannot_be_overlaid() {
    let valid = valid(&format!("{PINNED}{OVERLAY}"));
    let model = revision::pinned_model(&valid).unwrap();
    let frozen = build::freeze(&valid, &environment(), "tiny-1", &model);
    let labels = frozen.template.metadata.unwrap().labels.unwrap();
    assert_eq!(labels["perennial.dev/name"], "tiny");
    assert_eq!(labels["perennial.dev/revision"], "tiny-1");
    assert_eq!(labels["team"], "search");
}

fn name(spec: &str) -> String {
    let valid = valid(spec);
    revision::name(&valid, &revision::pinned_model(&valid).expect("pinned"))
}

/// Never change these names. The name of a revision is the name of its Deployment: an operator that computes another
/// one for the same object starts every model of every user anew when it is upgraded. If this test fails, what goes
/// into the hash has changed: give a new field `skip_serializing_if`, so that objects without it keep their names.
#[test]
fn names_of_revisions_never_change() {
    insta::assert_snapshot!(name(PINNED), @"tiny-bab3bce076");
    let full = format!(
        "model: {{name: tiny, digest: '{DIGEST}', maxContextTokens: 4096, source: {{huggingFace: {{repository: org/tiny, tokenSecretRef: {{name: hub, key: token}}}}}}}}
runtime: {{image: 'example.com/server:2', extraArgs: [--x=1]}}
accelerator: {{count: 1, nodeSelector: {{disk: fast}}}}
resources: {{cpu: 500m, memory: 16Gi}}{OVERLAY}"
    );
    insta::assert_snapshot!(name(&full), @"tiny-c46617142a");
}

#[test]
fn what_a_pod_does_not_notice_keeps_the_name() {
    let same = [
        "replicas: 7",
        "suspend: true",
        "rollout: {paused: true, progressDeadlineSeconds: 60}",
        "lifecycle: {}",
        "runtime: {}",
        "resources: {}",
        "podTemplate: {}",
        "accelerator: {count: 0}",
    ];
    for line in same {
        assert_eq!(name(&format!("{PINNED}\n{line}")), name(PINNED), "{line}");
    }
    let annotated = validate(&object_with_annotations(PINNED, &[("perennial.dev/retry", "1")])).unwrap();
    let plain = validate(&object(PINNED)).unwrap();
    let named = |valid: &Validated| revision::name(valid, &revision::pinned_model(valid).unwrap());
    assert_eq!(named(&annotated), named(&plain));
}

#[test]
fn everything_that_a_pod_notices_changes_the_name() {
    let model = |more: &str, source: &str| format!("model: {{{more} source: {{{source}}}}}");
    let hub = |more: &str| {
        model(
            "",
            &format!("huggingFace: {{repository: org/tiny, revision: {COMMIT}{more}}}"),
        )
    };
    let pinned_hub = format!("huggingFace: {{repository: org/tiny, revision: {COMMIT}}}");
    let mut specs = vec![
        PINNED.to_owned(),
        model("name: other,", &pinned_hub),
        model("maxContextTokens: 64,", &pinned_hub),
        model(&format!("digest: '{DIGEST}',"), &pinned_hub),
        model(&format!("digest: '{DIGEST}',"), "huggingFace: {repository: org/tiny}"),
        model(
            &format!("digest: '{DIGEST}',"),
            "persistentVolumeClaim: {claimName: one}",
        ),
        model(
            &format!("digest: '{DIGEST}',"),
            "persistentVolumeClaim: {claimName: two}",
        ),
        hub(", file: tiny.gguf"),
        hub(", endpoint: 'https://mirror.example'"),
        hub(", tokenSecretRef: {name: hub, key: token}"),
        hub(", tokenSecretRef: {name: hub, key: other}"),
    ];
    let lines = [
        "runtime: {image: 'example.com/server:2'}",
        "runtime: {extraArgs: [--a]}",
        "runtime: {extraArgs: [--b]}",
        "accelerator: {}",
        "accelerator: {count: 2}",
        "accelerator: {resourceName: amd.com/gpu}",
        "accelerator: {nodeSelector: {disk: fast}}",
        "resources: {cpu: 1}",
        "resources: {memory: 1Gi}",
        "lifecycle: {drainSeconds: 1}",
        "lifecycle: {startupDeadlineSeconds: 60}",
        "podTemplate: {spec: {priorityClassName: high}}",
        "podTemplate: {metadata: {labels: {team: search}}}",
    ];
    specs.extend(lines.iter().map(|line| format!("{PINNED}\n{line}")));
    let names: std::collections::BTreeSet<String> = specs.iter().map(|spec| name(spec)).collect();
    assert_eq!(names.len(), specs.len(), "two specs share a revision");
}

#[test]
fn an_upgrade_of_the_operator_keeps_the_name() {
    // The default image is frozen in the revision, not hashed into its name.
    let valid = valid(PINNED);
    let model = revision::pinned_model(&valid).unwrap();
    let newer = Environment {
        server_image: "registry.example/perennial-server:2.0.0".to_owned(),
        ..environment()
    };
    let (old, new) = (render(&valid, &model, &environment()), render(&valid, &model, &newer));
    assert_eq!(old.revision.unwrap().metadata.name, new.revision.unwrap().metadata.name);
}

#[test]
fn a_revision_reads_back_as_it_was_stored() {
    let valid = valid(&format!("{PINNED}{OVERLAY}"));
    let model = revision::pinned_model(&valid).unwrap();
    let name = revision::name(&valid, &model);
    let frozen = build::freeze(&valid, &environment(), &name, &model);
    let mut stored = revision::store(&valid, &name, 4, &frozen);
    let read = revision::read(&stored).unwrap();
    assert_eq!((read.name, read.number, read.served), (name, 4, false));
    assert_eq!(read.frozen, frozen);
    stored.data = None;
    let error = revision::read(&stored).unwrap_err().to_string();
    assert!(error.contains("delete it to have it made again"), "{error}");
}

#[test]
fn a_lost_record_is_taken_from_what_runs() {
    let valid = valid(PINNED);
    let model = revision::pinned_model(&valid).unwrap();
    let name = revision::name(&valid, &model);
    let old = build::freeze(&valid, &environment(), &name, &model);
    let running = build::deployment(&valid, &name, &old, 1);
    let newer = Environment {
        server_image: "registry.example/perennial-server:2.0.0".to_owned(),
        ..environment()
    };
    let rendered = build::freeze(&valid, &newer, &name, &model);
    assert_eq!(revision::recover(rendered.clone(), Some(&running)), old);
    assert_eq!(revision::recover(rendered.clone(), None), rendered);
}

#[test]
fn history_keeps_what_is_in_use_and_what_has_served() {
    let revision = |name: &str, number: i64, served: bool| revision::Revision {
        name: name.to_owned(),
        served,
        ..common::stored(&valid(PINNED), number)
    };
    let all = [
        revision("a", 1, true),
        revision("b", 2, true),
        revision("c", 3, false),
        revision("d", 4, true),
        revision("e", 5, false),
    ];
    assert_eq!(revision::surplus(&all, &["a"], 2), ["e", "c"]);
    assert_eq!(revision::surplus(&all, &[], 3), ["e", "c"]);
    assert_eq!(revision::surplus(&all, &["a", "b", "c", "d", "e"], 0), [""; 0]);
}
