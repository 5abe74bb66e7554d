//! Each CEL rule, with objects that it takes and objects that it refuses.

use serde_json::{Value, json};

use crate::LLMDeployment;

const COMMIT_DIGEST: &str = "sha256:5555555555555555555555555555555555555555555555555555555555555555";
const OTHER_DIGEST: &str = "sha256:6666666666666666666666666666666666666666666666666666666666666666";

fn object(name: &str, spec: &Value) -> LLMDeployment {
    serde_json::from_value(json!({
        "apiVersion": "perennial.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name, "namespace": "models"},
        "spec": spec,
    }))
    .unwrap()
}

/// Messages of the rules that the object breaks.
fn refusals(name: &str, spec: &Value) -> Vec<String> {
    match object(name, spec).validate_cel() {
        Ok(()) => Vec::new(),
        Err(errors) => errors.as_slice().iter().map(|error| error.message.clone()).collect(),
    }
}

fn with_source(source: &Value) -> Value {
    json!({"model": {"source": source}})
}

fn hub() -> Value {
    json!({"huggingFace": {"repository": "org/tiny"}})
}

#[track_caller]
fn accepts(spec: &Value) {
    assert_eq!(refusals("tiny", spec), Vec::<String>::new(), "{spec}");
}

#[track_caller]
fn refuses(spec: &Value, word: &str) {
    let said = refusals("tiny", spec);
    assert!(said.len() == 1 && said[0].contains(word), "{spec}: {said:?}");
}

#[test]
fn the_name_fits_a_service() {
    let spec = with_source(&hub());
    for name in ["a", "tiny", "tiny-2", &"a".repeat(45)] {
        assert_eq!(refusals(name, &spec), Vec::<String>::new(), "{name}");
    }
    for name in ["2tiny", "tiny.model", "tiny-", &"a".repeat(46)] {
        let said = refusals(name, &spec);
        assert!(said.len() == 1 && said[0].contains("at most 45"), "{name}: {said:?}");
    }
}

#[test]
fn there_is_exactly_one_source() {
    let sources = [
        hub(),
        json!({"oci": {"reference": "registry.example/models/tiny:1"}}),
        json!({"http": {"url": "https://example.com/tiny.gguf"}}),
        json!({"persistentVolumeClaim": {"claimName": "models", "path": ""}}),
    ];
    for source in &sources {
        accepts(&with_source(source));
    }
    refuses(&with_source(&json!({})), "exactly one source");
    for (index, one) in sources.iter().enumerate() {
        for other in &sources[index + 1..] {
            let mut both = one.as_object().unwrap().clone();
            both.extend(other.as_object().unwrap().clone());
            refuses(&with_source(&Value::Object(both)), "exactly one source");
        }
    }
}

#[test]
fn a_digest_does_not_contradict_the_reference() {
    let pinned = |digest: &str, reference: &str| json!({"model": {"digest": digest, "source": {"oci": {"reference": reference}}}});
    let reference = |digest: &str| format!("registry.example/models/tiny@{digest}");
    accepts(&pinned(COMMIT_DIGEST, &reference(COMMIT_DIGEST)));
    accepts(&pinned(COMMIT_DIGEST, "registry.example/models/tiny:1"));
    accepts(&with_source(&json!({"oci": {"reference": reference(COMMIT_DIGEST)}})));
    accepts(&json!({"model": {"digest": COMMIT_DIGEST, "source": hub()}}));
    refuses(&pinned(COMMIT_DIGEST, &reference(OTHER_DIGEST)), "different digests");
}

#[test]
fn a_path_stays_in_its_volume() {
    let claim = |path: &str| with_source(&json!({"persistentVolumeClaim": {"claimName": "models", "path": path}}));
    for path in ["", "tiny.gguf", "llama/3..1/model.gguf", "..hidden"] {
        accepts(&claim(path));
    }
    for path in ["/tiny.gguf", "..", "../tiny.gguf", "llama/../../tiny.gguf", "llama/.."] {
        refuses(&claim(path), "relative to the root");
    }
}

#[test]
fn prompts_and_answers_are_kept_somewhere() {
    let capture = |capture: Value| json!({"model": {"source": hub()}, "capture": capture});
    let storage = json!({"persistentVolumeClaim": {"claimName": "records"}});
    for level in ["None", "Features"] {
        accepts(&capture(json!({"level": level})));
    }
    accepts(&capture(json!({"level": "Features", "storage": storage})));
    accepts(&capture(json!({"level": "Payload", "storage": storage})));
    refuses(
        &capture(json!({"level": "Payload"})),
        "capture.storage.persistentVolumeClaim.claimName",
    );
}

#[test]
fn records_are_kept_at_exactly_one_place() {
    let capture =
        |storage: Value| json!({"model": {"source": hub()}, "capture": {"level": "Payload", "storage": storage}});
    let claim = json!({"claimName": "records"});
    let bucket = json!({"bucket": "records", "credentialsSecretName": "keys"});
    accepts(&capture(json!({"persistentVolumeClaim": claim})));
    accepts(&capture(json!({"s3": bucket})));
    refuses(
        &capture(json!({"persistentVolumeClaim": claim, "s3": bucket})),
        "exactly one place",
    );
    refuses(&capture(json!({})), "exactly one place");
}

#[test]
fn a_pattern_finds_something() {
    let pattern = |regex: &str| {
        let patterns = json!([{"name": "OWN", "regex": regex}]);
        json!({"model": {"source": hub()}, "capture": {"redaction": {"patterns": patterns}}})
    };
    for regex in ["C-[0-9]{6}", "(?i)secret", "^$x", r"\bname\b"] {
        accepts(&pattern(regex));
    }
    for regex in ["x*", "^", "a|"] {
        refuses(&pattern(regex), "finds the empty text");
    }
    // The API server adds the message of the rule; the library of this test tells the mistake alone.
    for regex in ["(a", "[", "a{2,1}"] {
        refuses(&pattern(regex), "regex");
    }
}

#[test]
fn extra_arguments_leave_the_operators_alone() {
    let extra = |argument: &str| json!({"model": {"source": hub()}, "runtime": {"extraArgs": [argument]}});
    for argument in ["--max-concurrent-requests=8", "--source-cache", "--digests=1"] {
        accepts(&extra(argument));
    }
    let own = [
        "--served-model-name",
        "--source",
        "--digest",
        "--max-context-tokens",
        "--drain-seconds",
        "--api-address",
        "--metrics-address",
    ];
    for name in own {
        refuses(&extra(name), "the operator sets");
        refuses(&extra(&format!("{name}=1")), "the operator sets");
    }
}
