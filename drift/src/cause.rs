//! Why traffic moved, before anything is done about it. The wrong cure is worse than none.

use serde::{Deserialize, Serialize};

use crate::baseline::Baseline;
use crate::decision::{State, moved};
use crate::pane::requesters::{Requesters, Stratum};
use crate::policy::Policy;
use crate::signal::{Class, Signal};

/// Why a stretch of time is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mask {
    /// A rollout of our own.
    Rollout,
    /// The first replica after a time at zero.
    WakeFromZero,
    /// One of the two panes after a replica's restart.
    Restart,
    /// The reader was away for longer than the replicas keep panes.
    Gap,
    /// Traffic of a candidate.
    Canary,
    /// Traffic of probes, evaluations and shadows.
    Probe,
}

/// What replayed prompts say of one revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Probes {
    /// There are none.
    Unknown,
    /// They are answered as ever.
    Same,
    /// They are answered differently.
    Changed,
}

/// What is known when a drift is confirmed.
#[derive(Clone, Debug, PartialEq)]
pub struct Findings<'a> {
    /// Signals that moved.
    pub moved: &'a [Signal],
    /// What the probes say.
    pub probes: Probes,
    /// Why it is not to be looked at, if so.
    pub mask: Option<Mask>,
    /// One requester alone explains the inputs' change.
    pub single_source: bool,
}

/// The verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// What is asked has changed.
    InputDrift,
    /// The same prompts are answered differently by the same revision.
    ServingRegression,
    /// Answers have changed, neither prompts nor the service have.
    OutputShift,
    /// Answers are worth less.
    QualityDrop,
    /// One requester alone has changed.
    SingleSource,
    /// During something of our own.
    Masked,
    /// Answers changed or got worse, and there are no probes to tell the service from the model.
    Undetermined,
    /// Nothing moved.
    Nothing,
}

/// What is done about it unless the owner says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Nothing.
    Ignore,
    /// Tell a person.
    Alert,
    /// Retrain, judge, and roll out if better.
    Retrain,
    /// Go back to the revision before.
    Rollback,
}

/// The verdict on what was found.
///
/// Probes decide first: prompts that never change cannot be answered differently because of the traffic. So a regression
/// of the service is never answered by retraining, whatever else moved.
#[must_use]
pub fn cause(findings: &Findings<'_>) -> Cause {
    let of = |class| findings.moved.iter().any(|signal| signal.class() == class);
    if findings.mask.is_some() {
        Cause::Masked
    } else if findings.probes == Probes::Changed {
        Cause::ServingRegression
    } else if of(Class::Input) {
        if findings.single_source && !of(Class::Quality) {
            Cause::SingleSource
        } else {
            Cause::InputDrift
        }
    } else if !of(Class::Quality) && !of(Class::Output) {
        Cause::Nothing
    } else if findings.probes == Probes::Unknown {
        Cause::Undetermined
    } else if of(Class::Quality) {
        Cause::QualityDrop
    } else {
        Cause::OutputShift
    }
}

impl Cause {
    /// The default response.
    #[must_use]
    pub fn response(self) -> Response {
        match self {
            Self::InputDrift | Self::QualityDrop => Response::Retrain,
            Self::ServingRegression => Response::Rollback,
            Self::OutputShift | Self::SingleSource | Self::Undetermined => Response::Alert,
            Self::Masked | Self::Nothing => Response::Ignore,
        }
    }

    /// What it means, for a person.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::InputDrift => "What users ask has changed; a model trained on recent traffic may serve them better.",
            Self::ServingRegression => {
                "Fixed prompts are answered differently by the same revision: look at the engine, quantization, template or driver; retraining would not help."
            }
            Self::OutputShift => {
                "Answers have changed although prompts and probes have not: look at sampling settings and clients."
            }
            Self::QualityDrop => "Answers are rated worse although the service answers its probes as ever.",
            Self::SingleSource => "One requester alone has changed: a load test, a new client, or abuse.",
            Self::Masked => "Something of our own was under way; this time is not judged.",
            Self::Undetermined => {
                "Answers have changed and there are no probes to tell the service from the model: give the policy a probe set."
            }
            Self::Nothing => "Nothing moved.",
        }
    }
}

/// Signals that moved, by the evidence of a state.
#[must_use]
pub fn moved_signals(state: &State, policy: &Policy) -> Vec<Signal> {
    state
        .watch
        .signals
        .iter()
        .filter(|evidence| moved(evidence.log_evidence(), policy))
        .map(|evidence| evidence.signal)
        .collect()
}

/// A part of the change that is left when one requester is taken out; at or below it that requester explains the change.
const LEFT: f64 = 0.25;
/// Requests that must be left to compare.
const ENOUGH: u64 = 50;

/// Whether taking out one stratum of requesters takes the change of the inputs away.
///
/// Each input signal of which strata keep counts is looked at: with all requesters, and without one stratum on both
/// sides. What is known of no stratum decides nothing.
#[must_use]
pub fn single_source(moved: &[Signal], baseline: &Baseline, state: &State) -> bool {
    explained_by_one(moved, &baseline.requesters, &state.requesters)
}

fn explained_by_one(moved: &[Signal], before: &Requesters, now: &Requesters) -> bool {
    let comparable: Vec<Signal> = moved
        .iter()
        .copied()
        .filter(|signal| {
            matches!(
                signal,
                Signal::PromptTokens | Signal::TokensPerCharacter | Signal::Language | Signal::PromptEmbedding
            )
        })
        .collect();
    if comparable.is_empty() {
        return false;
    }
    let all = (sum(before, None), sum(now, None));
    (0..now.strata.len()).any(|out| {
        let rest = (sum(before, Some(out)), sum(now, Some(out)));
        if rest.0.requests < ENOUGH || rest.1.requests < ENOUGH {
            return false;
        }
        comparable
            .iter()
            .all(|signal| distance(*signal, &rest.0, &rest.1) <= LEFT * distance(*signal, &all.0, &all.1))
    })
}

fn sum(requesters: &Requesters, without: Option<usize>) -> Stratum {
    let mut sum = Stratum::default();
    for (position, stratum) in requesters.strata.iter().enumerate() {
        if Some(position) != without {
            sum.merge(stratum);
        }
    }
    sum
}

/// How far apart two strata are, without what chance alone gives.
fn distance(signal: Signal, before: &Stratum, now: &Stratum) -> f64 {
    match signal {
        Signal::PromptTokens => index(&before.prompt_tokens, &now.prompt_tokens),
        Signal::TokensPerCharacter => index(&before.tokens_per_character, &now.tokens_per_character),
        Signal::Language => index(&before.languages, &now.languages),
        _ => {
            let (n, m) = (now.embedded.max(1) as f64, before.embedded.max(1) as f64);
            let apart = |(now, before): (&i64, &i64)| (*now as f64 / n - *before as f64 / m) / crate::features::ONE;
            let squared: f64 = now
                .waves
                .iter()
                .zip(&before.waves)
                .map(|pair| apart(pair) * apart(pair))
                .sum();
            // A feature's variance is at most half of 1 / FREQUENCIES.
            let chance = now.waves.len() as f64 / (2.0 * crate::features::FREQUENCIES as f64) * (1.0 / n + 1.0 / m);
            (squared - chance).max(0.0)
        }
    }
}

/// Population stability index without its bias.
fn index(before: &[u64], now: &[u64]) -> f64 {
    let groups = before.len() as f64;
    let (m, n) = (before.iter().sum::<u64>() as f64, now.iter().sum::<u64>() as f64);
    let raw: f64 = before
        .iter()
        .zip(now)
        .map(|(before, now)| {
            (
                (*before as f64 + 0.5) / (m + 0.5 * groups),
                (*now as f64 + 0.5) / (n + 0.5 * groups),
            )
        })
        .map(|(before, now)| (now - before) * libm::log(now / before))
        .sum();
    (raw - (groups - 1.0) * (1.0 / n.max(1.0) + 1.0 / m.max(1.0))).max(0.0)
}
