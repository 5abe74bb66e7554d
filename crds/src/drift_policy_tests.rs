//! Each CEL rule of a DriftPolicy, with objects that it takes and objects that it refuses.

use serde_json::{Value, json};

use crate::DriftPolicy;

fn refusals(name: &str, spec: &Value) -> Vec<String> {
    let mut all = json!({"targetRef": {"name": "tiny"}});
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    let policy: DriftPolicy = serde_json::from_value(json!({
        "apiVersion": "perennial.dev/v1alpha1",
        "kind": "DriftPolicy",
        "metadata": {"name": name, "namespace": "models"},
        "spec": all,
    }))
    .unwrap();
    match policy.validate_cel() {
        Ok(()) => Vec::new(),
        Err(errors) => errors.as_slice().iter().map(|error| error.message.clone()).collect(),
    }
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

fn signal(kind: &str, min_effect: &Value) -> Value {
    json!({"signals": [{"name": "one", "type": kind, "minEffect": min_effect}]})
}

#[test]
fn a_name_fits_a_label() {
    assert_eq!(refusals(&"a".repeat(63), &json!({})), Vec::<String>::new());
    assert_eq!(refusals(&"a".repeat(64), &json!({})).len(), 1);
}

#[test]
fn a_baseline_has_as_many_panes_as_can_be_kept() {
    accepts(&json!({"observation": {"paneSeconds": 60}, "baseline": {"learned": {"seconds": 2048 * 60}}}));
    refuses(
        &json!({"observation": {"paneSeconds": 60}, "baseline": {"learned": {"seconds": 2048 * 60 + 1}}}),
        "at most 2048 panes",
    );
    refuses(
        &json!({"observation": {"paneSeconds": 600, "maxPaneSeconds": 300}}),
        "shorter than",
    );
    refuses(
        &json!({"observation": {"paneSeconds": 60}, "baseline": {"learned": {"seconds": 1199}}}),
        "at least 20 panes",
    );
    refuses(
        &json!({"baseline": {"learned": {"minSamples": 3999}}}),
        "at least 40 times",
    );
}

#[test]
fn each_type_is_watched_once_and_something_is() {
    accepts(&json!({"signals": []}));
    accepts(
        &json!({"signals": [{"name": "one", "type": "Language", "weight": 0}, {"name": "two", "type": "EmptyRate"}]}),
    );
    refuses(
        &json!({"signals": [{"name": "one", "type": "Language"}, {"name": "two", "type": "Language"}]}),
        "two of the same type",
    );
    refuses(
        &json!({"signals": [{"name": "one", "type": "Language", "weight": 0}]}),
        "nothing would be watched",
    );
}

#[test]
fn a_measure_fits_its_type() {
    let measures = ["shiftMilliSigma", "psiMilli", "increasePercent", "mmdMilli"];
    let takes = [
        ("PromptTokens", &["shiftMilliSigma", "psiMilli"][..]),
        ("TokensPerCharacter", &["shiftMilliSigma", "psiMilli"]),
        ("OutputTokens", &["shiftMilliSigma", "psiMilli"]),
        ("OutputLogprob", &["shiftMilliSigma", "psiMilli"]),
        ("OutputEntropy", &["shiftMilliSigma", "psiMilli"]),
        ("Language", &["psiMilli"]),
        ("TokenDistribution", &["psiMilli"]),
        ("PromptEmbedding", &["mmdMilli"]),
        ("FinishReasonLength", &["increasePercent"]),
        ("RefusalRate", &["increasePercent"]),
        ("RepetitionRate", &["increasePercent"]),
        ("EmptyRate", &["increasePercent"]),
        ("NegativeFeedback", &["increasePercent"]),
    ];
    assert_eq!(takes.len(), crate::drift_policy::SignalType::ALL.len());
    for (kind, taken) in takes {
        for measure in measures {
            let spec = signal(kind, &json!({measure: 100}));
            if taken.contains(&measure) {
                accepts(&spec);
            } else {
                refuses(&spec, "does not have");
            }
        }
    }
    refuses(&signal("Language", &json!({})), "minEffect is empty");
}
