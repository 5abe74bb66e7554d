//! A DriftPolicy in the words of the drift crate. Pure.

use perennial_crds::DriftPolicySpec;
use perennial_crds::drift_policy::{MinEffectSpec, Season as SeasonSpec, SignalSpec, SignalType};
use perennial_drift::policy::{MinEffect, Policy, Season, Watched};
use perennial_drift::signal::Signal;
use serde::{Deserialize, Serialize};

/// What a baseline depends on. When any of it changes, a new one is learned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// Name of the LLMDeployment.
    pub target: String,
    /// Its UID: another object of the same name is another model.
    pub target_uid: String,
    /// Digest of the model that serves; another model answers otherwise.
    pub model: String,
    /// Length of panes.
    pub pane_seconds: u32,
    /// Seconds that are learned from.
    pub seconds: u32,
    /// Requests that are needed.
    pub min_samples: u32,
    /// The rhythm.
    pub season: Season,
    /// The wish to learn again.
    pub again: Option<String>,
}

impl About {
    /// Of what the baseline is for this spec and this model.
    #[must_use]
    pub fn new(spec: &DriftPolicySpec, target_uid: &str, model: &str, again: Option<&str>) -> Self {
        Self {
            target: spec.target_ref.name.clone(),
            target_uid: target_uid.to_owned(),
            model: model.to_owned(),
            pane_seconds: spec.observation.pane_seconds,
            seconds: spec.baseline.learned.seconds,
            min_samples: spec.baseline.learned.min_samples,
            season: season(spec.baseline.learned.season),
            again: again.map(str::to_owned),
        }
    }

    /// What has changed since then, in words.
    #[must_use]
    pub fn differs(&self, before: &Self) -> Option<&'static str> {
        if self.target != before.target || self.target_uid != before.target_uid {
            Some("the target is another object")
        } else if self.model != before.model {
            Some("another model serves")
        } else if self.again.is_some() && self.again != before.again {
            Some("the annotation perennial.dev/learn-again asks for it")
        } else if (self.pane_seconds, self.seconds, self.min_samples, self.season)
            != (before.pane_seconds, before.seconds, before.min_samples, before.season)
        {
            Some("spec.baseline or spec.observation.paneSeconds changed")
        } else {
            None
        }
    }
}

/// The policy of a spec.
#[must_use]
pub fn policy(spec: &DriftPolicySpec) -> Policy {
    let signals = if spec.signals.is_empty() {
        SignalType::ALL.map(|kind| Watched::new(signal(kind))).to_vec()
    } else {
        spec.signals.iter().map(watched).collect()
    };
    Policy {
        pane_seconds: spec.observation.pane_seconds,
        min_samples: spec.observation.min_samples.into(),
        max_pane_seconds: spec.observation.max_pane_seconds,
        baseline_seconds: spec.baseline.learned.seconds,
        baseline_min_samples: spec.baseline.learned.min_samples.into(),
        season: season(spec.baseline.learned.season),
        max_per_mille: spec.false_alarms.max_per_mille,
        per_days: spec.false_alarms.per_days,
        confirm_seconds: spec.confirm_seconds,
        probe_interval_seconds: spec.probe.as_ref().map(|probe| probe.interval_seconds),
        signals,
    }
}

fn watched(spec: &SignalSpec) -> Watched {
    let signal = signal(spec.kind);
    Watched {
        name: spec.name.clone(),
        signal,
        weight: spec.weight,
        min_effect: spec.min_effect.map_or_else(|| MinEffect::of(signal), min_effect),
    }
}

fn min_effect(spec: MinEffectSpec) -> MinEffect {
    MinEffect {
        shift_milli_sigma: spec.shift_milli_sigma,
        psi_milli: spec.psi_milli,
        increase_percent: spec.increase_percent,
        mmd_milli: spec.mmd_milli,
    }
}

fn season(season: SeasonSpec) -> Season {
    match season {
        SeasonSpec::None => Season::None,
        SeasonSpec::HourOfDay => Season::HourOfDay,
        SeasonSpec::HourOfWeek => Season::HourOfWeek,
    }
}

fn signal(kind: SignalType) -> Signal {
    match kind {
        SignalType::PromptTokens => Signal::PromptTokens,
        SignalType::TokensPerCharacter => Signal::TokensPerCharacter,
        SignalType::Language => Signal::Language,
        SignalType::TokenDistribution => Signal::TokenDistribution,
        SignalType::PromptEmbedding => Signal::PromptEmbedding,
        SignalType::OutputTokens => Signal::OutputTokens,
        SignalType::OutputLogprob => Signal::OutputLogprob,
        SignalType::OutputEntropy => Signal::OutputEntropy,
        SignalType::FinishReasonLength => Signal::FinishReasonLength,
        SignalType::RefusalRate => Signal::RefusalRate,
        SignalType::RepetitionRate => Signal::RepetitionRate,
        SignalType::EmptyRate => Signal::EmptyRate,
        SignalType::NegativeFeedback => Signal::NegativeFeedback,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_in_both_words_and_defaults_are_valid() {
        for kind in SignalType::ALL {
            assert_eq!(format!("{kind:?}"), format!("{:?}", signal(kind)));
        }
        let spec: DriftPolicySpec =
            serde_json::from_value(serde_json::json!({"targetRef": {"name": "tiny"}})).expect("a spec");
        let policy = policy(&spec);
        assert_eq!(policy.validate(), Ok(()));
        let default = Policy {
            signals: policy.signals.clone(),
            ..Policy::default()
        };
        assert_eq!(policy, default);
    }

    #[test]
    fn a_new_baseline_is_learned_for_what_it_depends_on_and_for_nothing_else() {
        let spec = |more: serde_json::Value| -> DriftPolicySpec {
            let mut spec = serde_json::json!({"targetRef": {"name": "tiny"}});
            for (key, value) in more.as_object().expect("an object") {
                spec[key] = value.clone();
            }
            serde_json::from_value(spec).expect("a spec")
        };
        let about = |spec: &DriftPolicySpec| About::new(spec, "uid", "sha256:a", None);
        let before = about(&spec(serde_json::json!({})));
        let confirm = about(&spec(
            serde_json::json!({"confirmSeconds": 5, "falseAlarms": {"perDays": 7}}),
        ));
        assert_eq!(confirm.differs(&before), None);
        for more in [
            serde_json::json!({"observation": {"paneSeconds": 60}}),
            serde_json::json!({"baseline": {"learned": {"season": "None"}}}),
        ] {
            assert!(about(&spec(more)).differs(&before).is_some());
        }
        let model = About::new(&spec(serde_json::json!({})), "uid", "sha256:b", None);
        assert_eq!(model.differs(&before), Some("another model serves"));
        let again = About::new(&spec(serde_json::json!({})), "uid", "sha256:a", Some("1"));
        assert!(again.differs(&before).is_some());
        // Taking the annotation away asks for nothing.
        assert_eq!(before.differs(&again), None);
    }
}
