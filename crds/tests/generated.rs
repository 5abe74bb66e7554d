//! What is generated from the types: up to date, bounded, explained.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};

use perennial_crds::{DriftPolicy, LLMDeployment, generate};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Calls with the path and the schema of every field, list item and map value.
fn walk<'a>(path: &str, schema: &'a Value, visit: &mut dyn FnMut(&str, &'a Value)) {
    visit(path, schema);
    if let Some(properties) = schema["properties"].as_object() {
        for (name, field) in properties {
            walk(&format!("{path}.{name}"), field, visit);
        }
    }
    for (below, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[below].is_object() {
            walk(&format!("{path}{mark}"), &schema[below], visit);
        }
    }
}

/// What `complain` says of any part of the schema under this pointer.
fn complaints(section: &str, complain: impl Fn(&str, &Value) -> Option<String>) -> Vec<String> {
    let mut found = Vec::new();
    for crd in [generate::llm_deployment(), generate::drift_policy()] {
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        let schema = crd.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap();
        let (path, schema) = match section {
            "" => ("", schema),
            _ => (section, &schema["properties"][section]),
        };
        assert!(schema.is_object(), "no schema of {section} of {kind}");
        walk(path, schema, &mut |path, schema| {
            found.extend(complain(path, schema).map(|what| format!("{kind}: {path}: {what}")));
        });
    }
    found
}

const NOTHING: [String; 0] = [];

#[test]
fn generated_files_are_up_to_date() {
    for (path, text) in generate::files() {
        let committed = std::fs::read_to_string(root().join(path)).unwrap_or_default();
        assert!(
            committed == text,
            "{path} is out of date: run `make generate` and commit the result"
        );
    }
}

#[test]
fn every_crd_fits_the_annotation_of_kubectl_apply() {
    for (path, text) in generate::files() {
        if path.ends_with(".yaml") {
            assert!(text.len() < 100_000, "{path} has {} bytes", text.len());
        }
    }
}

/// A plain scalar that a YAML 1.1 reader takes for something else than the text it is.
fn is_trap(scalar: &str) -> bool {
    let boolean = ["y", "n", "yes", "no", "on", "off"].contains(&scalar.to_ascii_lowercase().as_str());
    let sexagesimal = scalar.contains(':')
        && scalar
            .split(':')
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    boolean || sexagesimal
}

/// The plain scalar at the end of a line of block YAML, if there is one.
fn plain_scalar(line: &str) -> &str {
    let line = line.trim_start_matches(['-', ' ']);
    let value = line.split_once(": ").map_or(line, |(_, value)| value);
    value.trim()
}

#[test]
fn readers_of_yaml_1_1_see_the_same() {
    assert!(is_trap(plain_scalar("  - off")) && is_trap(plain_scalar("a: 1:30")) && is_trap(plain_scalar("- x: Yes")));
    assert!(!is_trap(plain_scalar("a: 'no'")) && !is_trap(plain_scalar("a: true")) && !is_trap(plain_scalar("a: b:1")));
    for (path, text) in generate::files() {
        if path.ends_with(".yaml") {
            for (number, line) in text.lines().enumerate() {
                assert!(!is_trap(plain_scalar(line)), "{path}:{}: {line}", number + 1);
                let key = line
                    .trim_start_matches(['-', ' '])
                    .split(':')
                    .next()
                    .unwrap_or_default();
                assert!(!is_trap(key), "{path}:{}: {line}", number + 1);
            }
        }
    }
}

#[test]
fn every_field_is_explained() {
    let silent = complaints("", |path, schema| {
        let is_field = !path.is_empty() && !path.ends_with("[]") && !path.ends_with("{}");
        let text = schema["description"].as_str().unwrap_or_default();
        (is_field && text.trim().is_empty()).then(|| "no description".to_owned())
    });
    assert_eq!(silent, NOTHING);
}

#[test]
fn everything_that_a_user_can_write_is_bounded() {
    let unbounded = complaints("spec", |path, schema| {
        if path == "spec.podTemplate" {
            return None;
        }
        let has = |key: &str| !schema[key].is_null();
        let missing = match schema["type"].as_str() {
            Some("string") if !has("maxLength") && !has("enum") => "maxLength or enum",
            Some("array") if !has("maxItems") => "maxItems",
            Some("integer" | "number") if !has("minimum") || !has("maximum") => "minimum and maximum",
            Some("object") if has("additionalProperties") && !has("maxProperties") => "maxProperties",
            None if schema["x-kubernetes-int-or-string"] == true && !has("maxLength") => "maxLength",
            _ => return None,
        };
        Some(format!("needs {missing}"))
    });
    assert_eq!(unbounded, NOTHING);
}

#[test]
fn only_the_pod_template_is_without_a_schema() {
    let loose = complaints("", |path, schema| {
        let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
        (open && path != ".spec.podTemplate").then(|| "preserves unknown fields".to_owned())
    });
    assert_eq!(loose, NOTHING);
}

#[test]
fn values_of_enums_are_pascal_case() {
    let wrong = complaints("", |_, schema| {
        let is_pascal = |value: &Value| {
            let word = value.as_str().unwrap_or_default();
            word.starts_with(|first: char| first.is_ascii_uppercase())
                && word.chars().all(|c| c.is_ascii_alphanumeric())
        };
        let values = schema["enum"].as_array()?;
        let bad = values.iter().find(|value| !value.is_null() && !is_pascal(value))?;
        Some(format!("{bad}"))
    });
    assert_eq!(wrong, NOTHING);
}

#[test]
fn durations_and_sizes_have_their_unit_in_their_name() {
    let wrong = complaints("spec", |path, schema| {
        let name = path.rsplit('.').next().unwrap_or_default();
        let unitless = ["timeout", "deadline", "period", "interval", "duration", "size"]
            .iter()
            .any(|word| name.to_ascii_lowercase().ends_with(word));
        (unitless && schema["type"] != "object").then(|| "no unit".to_owned())
    });
    assert_eq!(wrong, NOTHING);
}

#[test]
fn every_rule_says_what_to_do() {
    let silent = complaints("", |_, schema| {
        let rules = schema["x-kubernetes-validations"].as_array()?;
        let bad = rules.iter().find(|rule| {
            let message = rule["message"].as_str().unwrap_or_default();
            message.len() < 20 || message.contains('\n')
        })?;
        Some(format!("{bad}"))
    });
    assert_eq!(silent, NOTHING);
}

#[test]
fn a_fresh_object_is_not_taken_for_a_finished_one() {
    for crd in [generate::llm_deployment(), generate::drift_policy()] {
        let default = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/status/default");
        assert_eq!(default.unwrap()["observedGeneration"], -1);
    }
}

#[test]
fn examples_are_objects_of_this_version() {
    let mut paths: Vec<PathBuf> = ["crds/examples", "crds/examples/drift"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(root().join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    for path in paths
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
    {
        let text = std::fs::read_to_string(path).unwrap();
        for document in serde_yaml::Deserializer::from_str(&text) {
            let value = <Value as serde::Deserialize>::deserialize(document).unwrap();
            let wrong = |error: serde_json::Error| -> Value { panic!("{}: {error}", path.display()) };
            let read = match value["kind"].as_str() {
                Some("LLMDeployment") => serde_json::from_value::<LLMDeployment>(value.clone())
                    .and_then(|object| serde_json::to_value(&object.spec)),
                Some("DriftPolicy") => serde_json::from_value::<DriftPolicy>(value.clone())
                    .and_then(|object| serde_json::to_value(&object.spec)),
                _ => continue,
            };
            let lost = lost("", &value["spec"], &read.unwrap_or_else(wrong));
            assert_eq!(lost, NOTHING, "{}: fields that do not exist", path.display());
        }
    }
}

/// Fields that were written and are not there when read back.
fn lost(path: &str, written: &Value, read: &Value) -> Vec<String> {
    let Some(written) = written.as_object() else {
        return if read.is_null() {
            vec![path.to_owned()]
        } else {
            Vec::new()
        };
    };
    let parts = written.iter().filter(|(_, value)| !value.is_null());
    parts
        .flat_map(|(key, value)| {
            let path = format!("{path}.{key}");
            match read.get(key) {
                Some(read) => lost(&path, value, read),
                // What equals its default may be left out.
                None if value.as_object().is_some_and(serde_json::Map::is_empty) => Vec::new(),
                None => vec![path],
            }
        })
        .collect()
}
