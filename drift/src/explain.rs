//! What a platform engineer reads: which signals, since when, how much, and what share of the evidence is theirs.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::baseline::{Baseline, Model, SignalBaseline};
use crate::decision::watch::{SignalEvidence, armed};
use crate::decision::{Left, Phase, State, moved};
use crate::effect::{self, Effect, Measure};
use crate::policy::Policy;
use crate::signal::{Class, Kind, Signal};
use crate::tally::Tally;

/// Where one signal stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignalReport {
    /// The owner's name for it.
    pub name: String,
    /// Which.
    pub signal: Signal,
    /// What it speaks of.
    pub class: Class,
    /// Its own evidence, in logarithms, never below 0; half of the threshold is enough to be named as moved.
    pub log_evidence: f64,
    /// Its part of all signals' evidence, percent.
    pub share_of_evidence_percent: f64,
    /// It has moved.
    pub moved: bool,
    /// Its change certainly is as large as the owner said matters.
    pub matters: bool,
    /// How large the change is, since then.
    pub effects: Vec<Effect>,
    /// The likely beginning of the change, seconds since 1970.
    pub since: i64,
    /// All of this in a sentence.
    pub sentence: String,
}

/// Where a policy stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Phase.
    pub phase: Phase,
    /// Since when.
    pub phase_since: i64,
    /// Evidence of all signals together, in logarithms.
    pub log_evidence: f64,
    /// What it is held against.
    pub log_threshold: f64,
    /// Panes that were weighed.
    pub updates: u64,
    /// What was left out.
    pub left: Left,
    /// Armed signals, most evidence first.
    pub signals: Vec<SignalReport>,
    /// Signals of the policy that are not armed, and why.
    pub unarmed: Vec<(Signal, Unarmed)>,
}

/// Why a signal is not armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unarmed {
    /// It was seen too rarely in the baseline.
    InsufficientData,
    /// The halves of its baseline alarm against each other.
    BaselineUnstable,
}

/// Reports on a state.
#[must_use]
pub fn report(state: &State, baseline: &Baseline, policy: &Policy) -> Report {
    let evidence = |signal: &SignalEvidence| signal.log_evidence().max(0.0);
    let all: f64 = state.watch.signals.iter().map(evidence).sum();
    let mut signals: Vec<SignalReport> = armed(baseline, policy)
        .zip(&state.watch.signals)
        .map(|(signal, evidence)| of_signal(signal, evidence, all, policy))
        .collect();
    signals.sort_by(|a, b| b.log_evidence.total_cmp(&a.log_evidence));
    let unarmed = policy
        .signals
        .iter()
        .filter(|watched| policy.weight(watched.signal) > 0.0)
        .filter_map(|watched| {
            let why = match baseline.signal(watched.signal) {
                None => Unarmed::InsufficientData,
                Some(signal) if !signal.stable => Unarmed::BaselineUnstable,
                Some(_) => return None,
            };
            Some((watched.signal, why))
        });
    Report {
        phase: state.phase,
        phase_since: state.phase_since,
        log_evidence: state.watch.log_evidence(policy).max(0.0),
        log_threshold: State::log_threshold(policy),
        updates: state.updates,
        left: state.left,
        signals,
        unarmed: unarmed.collect(),
    }
}

fn of_signal(baseline: &SignalBaseline, evidence: &SignalEvidence, all: f64, policy: &Policy) -> SignalReport {
    let signal = baseline.signal;
    let log_evidence = evidence.log_evidence().max(0.0);
    let nothing = crate::evidence::recursion::Line::default();
    let line = evidence.winner().unwrap_or(&nothing);
    let effects = effect::effects(baseline, &line.tally);
    let moved = moved(log_evidence, policy);
    SignalReport {
        name: policy.name(signal),
        signal,
        class: signal.class(),
        log_evidence,
        share_of_evidence_percent: if all > 0.0 { 100.0 * log_evidence / all } else { 0.0 },
        moved,
        matters: moved && effect::matters(&effects, &policy.min_effect(signal)),
        since: line.since,
        sentence: if moved {
            sentence(baseline, &line.tally, &effects, line.since)
        } else {
            format!("{} as in the baseline.", noun(signal))
        },
        effects,
    }
}

/// A time as people write it.
#[must_use]
pub fn time(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(
        |_| seconds.to_string(),
        |time| time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
    )
}

fn sentence(baseline: &SignalBaseline, tally: &Tally, effects: &[Effect], since: i64) -> String {
    let signal = baseline.signal;
    let what = match (&baseline.model, effects.first()) {
        (Model::Numeric(model), Some(shift)) if shift.measure == Measure::Shift && shift.lower > 0.0 => {
            let (now, before) = means(signal, model, tally);
            format!(
                "{} {}: {} in the middle instead of {} ({:+.2} sigma, at least {:.2})",
                noun(signal),
                if shift.estimate > 0.0 { "rose" } else { "fell" },
                number(now),
                number(before),
                shift.estimate,
                shift.lower
            )
        }
        (Model::Rate(model), Some(increase)) => {
            let (before, _, _) = model.reference(tally);
            let now = tally.groups.first().copied().unwrap_or(0) as f64 / tally.count.max(1) as f64;
            format!(
                "{} {} from {:.2} % to {:.2} % of requests (by {:+.0} %, at least {:+.0} %)",
                noun(signal),
                if now > before { "rose" } else { "fell" },
                100.0 * before,
                100.0 * now,
                100.0 * increase.estimate,
                // Of a fall the bound that is nearer to none is the upper one.
                100.0 * if now > before { increase.lower } else { increase.upper }
            )
        }
        (_, Some(effect)) => {
            let psi = effects.last().unwrap_or(effect);
            let unit = if psi.measure == Measure::Mmd { "MMD" } else { "PSI" };
            format!(
                "{} spread otherwise than in the baseline ({unit} {:.3}, at least {:.3})",
                noun(signal),
                psi.estimate,
                psi.lower
            )
        }
        (_, None) => format!("{} moved", noun(signal)),
    };
    format!("{what}, since about {}.", time(since))
}

/// Typical values now and before, on the scale that people know: the mean of logarithms is the middle of the values.
fn means(signal: Signal, model: &crate::baseline::numeric::Numeric, tally: &Tally) -> (f64, f64) {
    let count = tally.count.max(1) as f64;
    let now = tally.sums.first().map_or(0.0, |sum| *sum as f64 / crate::features::ONE) / count;
    let before = now - model.standardised(tally) * model.sigma / count;
    match signal.kind() {
        Kind::Numeric(scale) => (scale.raw(now), scale.raw(before)),
        _ => (now, before),
    }
}

fn number(value: f64) -> String {
    if value.abs() >= 10.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.3}")
    }
}

/// What a signal is called in a sentence.
#[must_use]
pub fn noun(signal: Signal) -> &'static str {
    match signal {
        Signal::PromptTokens => "Tokens per prompt",
        Signal::TokensPerCharacter => "Tokens per character of prompts",
        Signal::PromptPerplexity => "Surprise at prompts (nats per token)",
        Signal::Language => "Languages of prompts",
        Signal::TokenDistribution => "Words of prompts",
        Signal::PromptEmbedding => "Subjects of prompts",
        Signal::OutputTokens => "Tokens per answer",
        Signal::OutputLogprob => "Log-probability of answers (nats per token)",
        Signal::OutputEntropy => "Entropy of answers (nats per token)",
        Signal::FinishReasonLength => "Answers cut off by their limit",
        Signal::RefusalRate => "Refusals",
        Signal::RepetitionRate => "Answers caught in a loop",
        Signal::EmptyRate => "Empty answers",
        Signal::InvalidJSONRate => "Answers that are no JSON where JSON was asked for",
        Signal::ToolCallFailureRate => "Unreadable tool calls",
        Signal::NegativeFeedback => "Bad ratings",
        Signal::TimeToFirstToken => "Seconds to the first token",
        Signal::InterTokenLatency => "Seconds between tokens",
        Signal::ErrorRate => "Failed requests",
    }
}
