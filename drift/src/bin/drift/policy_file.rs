//! Policies in YAML, in the form of a DriftPolicy's spec. What is not known is refused by name, with the nearest name.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use perennial_drift::policy::{MinEffect, Policy, Season, Watched};
use perennial_drift::signal::Signal;
use serde_yaml::{Mapping, Value};

/// The default policy with comments.
pub const DEFAULT: &str = include_str!("assets/policy.yaml");

/// Fields of a spec that only the operator acts on.
const OPERATORS: [&str; 6] = ["targetRef", "suspend", "responses", "retraining", "gate", "promotion"];
const SPEC: [&str; 12] = [
    "observation",
    "baseline",
    "falseAlarms",
    "signals",
    "confirmSeconds",
    "probe",
    "targetRef",
    "suspend",
    "responses",
    "retraining",
    "gate",
    "promotion",
];
const OBSERVATION: [&str; 4] = ["paneSeconds", "minSamples", "maxPaneSeconds", "oneVotePer"];
const LEARNED: [&str; 3] = ["seconds", "minSamples", "season"];
const SIGNAL: [&str; 4] = ["name", "type", "minEffect", "weight"];
const MIN_EFFECT: [&str; 4] = ["shiftMilliSigma", "psiMilli", "increasePercent", "mmdMilli"];

/// A policy, and what of its file was not used.
#[derive(Debug, PartialEq)]
pub struct Loaded {
    pub policy: Policy,
    pub unused: Vec<String>,
}

pub fn load(path: Option<&Path>) -> Result<Loaded> {
    let Some(path) = path else {
        return Ok(Loaded {
            policy: Policy::default(),
            unused: Vec::new(),
        });
    };
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the policy {}", path.display()))?;
    parse(&text).with_context(|| format!("the policy {} cannot be used", path.display()))
}

pub fn parse(text: &str) -> Result<Loaded> {
    let document: Value = serde_yaml::from_str(text).context("it is no YAML")?;
    let mut top = match document {
        Value::Mapping(mapping) => mapping,
        Value::Null => Mapping::new(),
        _ => bail!("it must be a mapping, as `drift policy` prints one"),
    };
    if let Some(kind) = top.get("kind") {
        if kind.as_str() != Some("DriftPolicy") {
            bail!("its kind is {}, not DriftPolicy", kind.as_str().unwrap_or("no text"));
        }
        top = match top.remove("spec") {
            Some(Value::Mapping(spec)) => spec,
            _ => bail!("the DriftPolicy has no spec"),
        };
    } else if let (1, Some(Value::Mapping(spec))) = (top.len(), top.get("spec")) {
        top = spec.clone();
    }
    let mut loaded = Loaded {
        policy: Policy::default(),
        unused: Vec::new(),
    };
    spec(&top, &mut loaded)?;
    loaded.policy.validate()?;
    Ok(loaded)
}

fn spec(spec: &Mapping, loaded: &mut Loaded) -> Result<()> {
    known("", spec, &SPEC)?;
    loaded.unused.extend(
        OPERATORS
            .iter()
            .filter(|name| spec.contains_key(**name))
            .map(|name| (*name).to_owned()),
    );
    let policy = &mut loaded.policy;
    if let Some(observation) = inner("", spec, "observation")? {
        known("observation.", observation, &OBSERVATION)?;
        number("observation.", observation, "paneSeconds", &mut policy.pane_seconds)?;
        number("observation.", observation, "minSamples", &mut policy.min_samples)?;
        number(
            "observation.",
            observation,
            "maxPaneSeconds",
            &mut policy.max_pane_seconds,
        )?;
        if observation
            .get("oneVotePer")
            .is_some_and(|value| value.as_str() != Some("Request"))
        {
            loaded.unused.push("observation.oneVotePer".to_owned());
        }
    }
    if let Some(baseline) = inner("", spec, "baseline")? {
        known("baseline.", baseline, &["learned", "snapshot", "refresh"])?;
        if baseline.contains_key("snapshot") {
            bail!("baseline.snapshot is read by the operator only: give the baseline as a file with --baseline");
        }
        if baseline.contains_key("refresh") {
            loaded.unused.push("baseline.refresh".to_owned());
        }
        if let Some(learned) = inner("baseline.", baseline, "learned")? {
            known("baseline.learned.", learned, &LEARNED)?;
            number("baseline.learned.", learned, "seconds", &mut policy.baseline_seconds)?;
            number(
                "baseline.learned.",
                learned,
                "minSamples",
                &mut policy.baseline_min_samples,
            )?;
            if let Some(season) = learned.get("season") {
                policy.season = season_of(season)?;
            }
        }
    }
    if let Some(alarms) = inner("", spec, "falseAlarms")? {
        known("falseAlarms.", alarms, &["maxPerMille", "perDays"])?;
        number("falseAlarms.", alarms, "maxPerMille", &mut policy.max_per_mille)?;
        number("falseAlarms.", alarms, "perDays", &mut policy.per_days)?;
    }
    number("", spec, "confirmSeconds", &mut policy.confirm_seconds)?;
    if let Some(probe) = inner("", spec, "probe")? {
        known("probe.", probe, &["promptSetRef", "intervalSeconds"])?;
        let mut interval = 21_600;
        number("probe.", probe, "intervalSeconds", &mut interval)?;
        policy.probe_interval_seconds = Some(interval);
        if probe.contains_key("promptSetRef") {
            loaded.unused.push("probe.promptSetRef".to_owned());
        }
    }
    match spec.get("signals") {
        None | Some(Value::Null) => {}
        Some(Value::Sequence(signals)) if signals.is_empty() => {}
        Some(Value::Sequence(signals)) => {
            policy.signals = signals
                .iter()
                .enumerate()
                .filter_map(|(position, signal)| watched(position, signal, &mut loaded.unused).transpose())
                .collect::<Result<_>>()?;
        }
        Some(_) => bail!("signals must be a list"),
    }
    Ok(())
}

fn season_of(value: &Value) -> Result<Season> {
    match value.as_str() {
        Some("None") => Ok(Season::None),
        Some("HourOfDay") => Ok(Season::HourOfDay),
        Some("HourOfWeek") => Ok(Season::HourOfWeek),
        _ => bail!("baseline.learned.season must be None, HourOfDay or HourOfWeek"),
    }
}

/// `None` for a signal that only the operator can watch.
fn watched(position: usize, value: &Value, unused: &mut Vec<String>) -> Result<Option<Watched>> {
    let Value::Mapping(signal) = value else {
        bail!("signals[{position}] must have a name and a type")
    };
    let path = format!("signals[{position}].");
    known(&path, signal, &SIGNAL)?;
    let kind = signal
        .get("type")
        .and_then(Value::as_str)
        .ok_or_else(|| anyhow!("{path}type is missing: it says what is watched, as in `type: PromptTokens`"))?;
    if kind == "EvalScore" {
        unused.push(format!("{path}type EvalScore"));
        return Ok(None);
    }
    let names: Vec<String> = Signal::ALL.iter().map(|signal| format!("{signal:?}")).collect();
    let Some(place) = names.iter().position(|name| name == kind) else {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        bail!("{path}type {kind} is not known: {}", suggestion(kind, &names));
    };
    let mut watched = Watched::new(Signal::ALL[place]);
    if let Some(name) = signal.get("name") {
        watched.name = name
            .as_str()
            .ok_or_else(|| anyhow!("{path}name must be text"))?
            .to_owned();
    }
    number(&path, signal, "weight", &mut watched.weight)?;
    if let Some(min) = inner(&path, signal, "minEffect")? {
        let path = format!("{path}minEffect.");
        known(&path, min, &MIN_EFFECT)?;
        let mut effect = MinEffect::default();
        for (name, field) in [
            ("shiftMilliSigma", &mut effect.shift_milli_sigma),
            ("psiMilli", &mut effect.psi_milli),
            ("increasePercent", &mut effect.increase_percent),
            ("mmdMilli", &mut effect.mmd_milli),
        ] {
            let mut value = 0_u32;
            if min.contains_key(name) {
                number(&path, min, name, &mut value)?;
                *field = Some(value);
            }
        }
        watched.min_effect = effect;
    }
    Ok(Some(watched))
}

fn inner<'a>(path: &str, mapping: &'a Mapping, name: &str) -> Result<Option<&'a Mapping>> {
    match mapping.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Mapping(inner)) => Ok(Some(inner)),
        Some(_) => bail!("{path}{name} must be a mapping"),
    }
}

fn number<T: TryFrom<u64>>(path: &str, mapping: &Mapping, name: &str, into: &mut T) -> Result<()> {
    if let Some(value) = mapping.get(name) {
        *into = value
            .as_u64()
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| anyhow!("{path}{name} must be a whole number, not negative and not beyond its range"))?;
    }
    Ok(())
}

fn known(path: &str, mapping: &Mapping, names: &[&str]) -> Result<()> {
    for key in mapping.keys() {
        let key = key
            .as_str()
            .ok_or_else(|| anyhow!("a field below {path} has a name that is no text"))?;
        if !names.contains(&key) {
            bail!("the field {path}{key} is not known: {}", suggestion(key, names));
        }
    }
    Ok(())
}

/// The nearest name, or all of them when none is near.
fn suggestion(wrong: &str, names: &[&str]) -> String {
    let lower = wrong.to_lowercase();
    let nearest = names.iter().min_by_key(|name| distance(&lower, &name.to_lowercase()));
    match nearest {
        Some(name) if distance(&lower, &name.to_lowercase()) <= name.len().max(wrong.len()) / 2 => {
            format!("did you mean {name}?")
        }
        _ => format!("known are {}", names.join(", ")),
    }
}

/// Edits between two words (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(x != *y)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_default_is_the_default() {
        let loaded = parse(DEFAULT).expect("it is well-formed");
        assert_eq!(
            loaded,
            Loaded {
                policy: Policy::default(),
                unused: Vec::new()
            }
        );
        assert_eq!(parse("").expect("nothing is the default").policy, Policy::default());
    }

    #[test]
    fn a_whole_object_is_taken_and_what_the_operator_does_is_named() {
        let text = "kind: DriftPolicy\nmetadata: {name: x}\nspec: {targetRef: {name: a}, confirmSeconds: 60, \
                    baseline: {refresh: Never}, signals: [{name: evaluation, type: EvalScore}, {type: Language}]}";
        let loaded = parse(text).expect("it is well-formed");
        assert_eq!(loaded.policy.confirm_seconds, 60);
        assert_eq!(loaded.policy.signals, [Watched::new(Signal::Language)]);
        assert_eq!(
            loaded.unused,
            ["targetRef", "baseline.refresh", "signals[0].type EvalScore"]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, message) in [
            (
                "observation: {paneSecond: 300}",
                "observation.paneSecond is not known: did you mean paneSeconds?",
            ),
            ("zzzzzzzzzzzzzzzzzzzz: 1", "known are observation"),
            ("signals: [{type: PromptToken}]", "did you mean PromptTokens?"),
            ("signals: [{name: a}]", "signals[0].type is missing"),
            (
                "signals: [{type: Language, minEffect: {mmdMilli: 1}}]",
                "it takes psiMilli",
            ),
            ("confirmSeconds: -1", "confirmSeconds must be a whole number"),
            ("observation: {paneSeconds: 0}", "observation.paneSeconds is 0"),
            ("baseline: {snapshot: {}}", "--baseline"),
            ("kind: Pod", "its kind is Pod"),
            ("- 1", "must be a mapping"),
            ("{", "no YAML"),
        ] {
            let error = format!("{:#}", parse(text).expect_err(text));
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
