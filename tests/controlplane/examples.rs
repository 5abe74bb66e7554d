//! Every example is taken by the API server, every invalid one is refused with its message, and none is missing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use kube::Api;
use kube::api::PostParams;
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use perennial_crds::{DriftPolicy, LLMDeployment};
use perennial_tests::cluster::repository;
use perennial_tests::{World, run};
use serde_json::Value;

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    found.sort();
    Ok(found)
}

/// A resource, with its folder of examples and of what is refused.
struct Kind {
    folder: &'static str,
    invalid: &'static str,
    crd: &'static str,
    resource: ApiResource,
    /// The spec as the types read it.
    typed: fn(Value) -> Result<Value>,
}

fn kinds() -> [Kind; 2] {
    [
        Kind {
            folder: "crds/examples",
            invalid: "crds/examples/invalid",
            crd: "crds/llmdeployments.perennial.dev.yaml",
            resource: ApiResource::erase::<LLMDeployment>(&()),
            typed: |object| {
                let object: LLMDeployment = serde_json::from_value(object)?;
                Ok(serde_json::to_value(&object.spec)?)
            },
        },
        Kind {
            folder: "crds/examples/drift",
            invalid: "crds/examples/drift/invalid",
            crd: "crds/driftpolicies.perennial.dev.yaml",
            resource: ApiResource::erase::<DriftPolicy>(&()),
            typed: |object| {
                let object: DriftPolicy = serde_json::from_value(object)?;
                Ok(serde_json::to_value(&object.spec)?)
            },
        },
    ]
}

fn valid(kind: &Kind) -> Result<Vec<PathBuf>> {
    files(&repository().join(kind.folder))
}

fn invalid(kind: &Kind) -> Result<Vec<(PathBuf, String)>> {
    files(&repository().join(kind.invalid))?
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path)?;
            let expected = text
                .lines()
                .next()
                .and_then(|line| line.strip_prefix("# expect: "))
                .with_context(|| format!("{} does not begin with `# expect: `", path.display()))?;
            Ok((path, expected.to_owned()))
        })
        .collect()
}

/// The object as it stands in the file: a typed one could not carry what is wrong with it.
fn read(path: &Path) -> Result<DynamicObject> {
    serde_yaml::from_str(&std::fs::read_to_string(path)?).with_context(|| path.display().to_string())
}

fn api(world: &World, kind: &Kind) -> Api<DynamicObject> {
    Api::namespaced_with(world.client.clone(), &world.namespace, &kind.resource)
}

#[test]
fn every_example_is_taken_and_read_back_as_it_was_meant() -> Result<()> {
    run("examples", async |world| {
        for kind in kinds() {
            for path in valid(&kind)? {
                let object = read(&path)?;
                let made = api(world, &kind)
                    .create(&PostParams::default(), &object)
                    .await
                    .with_context(|| path.display().to_string())?;
                let again = (kind.typed)(serde_json::to_value(&made)?)?;
                lost(&object.data["spec"], &again, &path.display().to_string())?;
            }
        }
        Ok(())
    })
}

/// Everything that was written must come back from the types. Quantities come back as text.
fn lost(written: &Value, back: &Value, path: &str) -> Result<()> {
    match (written, back) {
        (Value::Object(written), Value::Object(back)) => {
            for (key, value) in written {
                let found = back.get(key).with_context(|| format!("{path}.{key} was lost"))?;
                lost(value, found, &format!("{path}.{key}"))?;
            }
            Ok(())
        }
        (Value::Number(number), Value::String(text)) => {
            ensure!(number.to_string() == *text, "{path}: {number} became {text}");
            Ok(())
        }
        (written, back) => {
            ensure!(written == back, "{path}: {written} became {back}");
            Ok(())
        }
    }
}

#[test]
fn every_invalid_example_is_refused_with_its_message() -> Result<()> {
    run("invalid", async |world| {
        let mut wrong = Vec::new();
        for kind in kinds() {
            for (path, expected) in invalid(&kind)? {
                match api(world, &kind).create(&PostParams::default(), &read(&path)?).await {
                    Ok(_) => wrong.push(format!("{}: it was taken", path.display())),
                    Err(kube::Error::Api(status)) if status.message.contains(&expected) => {}
                    Err(error) => wrong.push(format!("{}: expected {expected:?}, got {error}", path.display())),
                }
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    })
}

#[test]
fn every_rule_has_an_invalid_example_and_every_field_an_example() -> Result<()> {
    for kind in kinds() {
        let crd: Value = serde_yaml::from_str(&std::fs::read_to_string(repository().join(kind.crd))?)?;
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut messages = Vec::new();
        rules(schema, &mut messages);
        ensure!(!messages.is_empty());
        let invalid = invalid(&kind)?;
        for message in messages.iter().filter(|message| !is_transition(schema, message)) {
            let shown = invalid.iter().any(|(_, expected)| message.contains(expected.as_str()));
            ensure!(shown, "no invalid example shows the rule {message:?}");
        }
        let mut fields = BTreeSet::new();
        properties(&schema["properties"]["spec"], String::new(), &mut fields);
        for path in valid(&kind)? {
            strike(&read(&path)?.data["spec"], String::new(), &mut fields);
        }
        ensure!(fields.is_empty(), "no example uses {fields:?}");
    }
    Ok(())
}

/// Whether the rule with this message compares with the object before a change, which no single object can break.
fn is_transition(schema: &Value, message: &str) -> bool {
    match schema {
        Value::Object(map) => {
            let own = map.get("x-kubernetes-validations").and_then(Value::as_array);
            let breaks = |rule: &Value| {
                rule["message"] == message && rule["rule"].as_str().is_some_and(|rule| rule.contains("oldSelf"))
            };
            own.is_some_and(|rules| rules.iter().any(breaks)) || map.values().any(|value| is_transition(value, message))
        }
        Value::Array(list) => list.iter().any(|value| is_transition(value, message)),
        _ => false,
    }
}

fn rules(schema: &Value, messages: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::Array(rules)) = map.get("x-kubernetes-validations") {
                messages.extend(
                    rules
                        .iter()
                        .filter_map(|rule| Some(rule.get("message")?.as_str()?.to_owned())),
                );
            }
            map.values().for_each(|value| rules(value, messages));
        }
        Value::Array(list) => list.iter().for_each(|value| rules(value, messages)),
        _ => {}
    }
}

fn properties(schema: &Value, path: String, fields: &mut BTreeSet<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        properties(field, path.clone(), fields);
        fields.insert(path);
    }
}

fn strike(value: &Value, path: String, fields: &mut BTreeSet<String>) {
    fields.remove(&path);
    for (name, value) in value.as_object().into_iter().flatten() {
        strike(value, format!("{path}.{name}"), fields);
    }
}
