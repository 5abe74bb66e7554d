//! The same prompts, asked again and again of one revision. When their answers change, the service has, not the traffic.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cause::Probes;
use crate::envelope::{self, Content, EnvelopeError};
use crate::evidence::bernoulli::{self, Bounds};
use crate::evidence::recursion::Line;
use crate::evidence::{bounded, log_mean};
use crate::math::beta_quantile;
use crate::policy::Policy;
use crate::tally::Tally;

/// How a fixed prompt was answered, greedily.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// Log-probability of each, nats; may be empty.
    pub logprobs: Vec<f64>,
}

/// All probes once, always in the same order.
pub type Run = Vec<Answer>;

/// Runs that a reference is made of: how alike they are is how alike answers can be.
pub const REFERENCE_RUNS: usize = 3;
/// Multiples of the rate of disagreement that are looked for.
const RATIOS: [f64; 4] = [2.0, 4.0, 8.0, 16.0];
/// Sizes of shifts of the log-probability that are looked for, in standard deviations of a prompt's noise.
const SHIFTS: [f64; 6] = [-2.0, -1.0, -0.5, 0.5, 1.0, 2.0];
/// A difference of log-probabilities is noise at least up to this, nats: half of what 16-bit numbers resolve at 1.
const LEAST_NOISE: f64 = 0.004;

/// Why runs cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProbeError {
    /// Too few.
    #[error("{0} runs are too few: a reference needs {REFERENCE_RUNS}")]
    Few(usize),
    /// Another number of prompts.
    #[error(
        "a run of {got} prompts where the reference has {expected}: the probe set has changed, learn a new reference"
    )]
    Prompts {
        /// Its own.
        got: usize,
        /// The reference's.
        expected: usize,
    },
    /// No prompts.
    #[error("a probe set without prompts shows nothing")]
    Empty,
}

/// How the probes are answered when all is well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    answers: Run,
    /// Bound of the rate at which answers differ by chance.
    disagreement: f64,
    /// Standard deviation of the mean difference of log-probabilities of one prompt.
    noise: f64,
    /// The mean that this difference has by itself.
    offset: f64,
}

/// Evidence so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    disagreement: Vec<Line>,
    shift: Vec<Line>,
}

impl Default for Evidence {
    fn default() -> Self {
        Self {
            disagreement: vec![Line::default(); RATIOS.len()],
            shift: vec![Line::default(); SHIFTS.len()],
        }
    }
}

/// A reference, and what speaks against it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    reference: Reference,
    evidence: Evidence,
    verdict: Option<Verdict>,
}

/// What a run says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Changed or not.
    pub probes: Probes,
    /// Part of the answers that are the reference's, token by token.
    pub agreement: f64,
    /// Mean difference of log-probability on the tokens that agree, nats.
    pub difference: f64,
    /// Evidence, in logarithms.
    pub log_evidence: f64,
    /// At which it is a change.
    pub log_threshold: f64,
}

/// Tokens that agree from the beginning on.
fn common(a: &Answer, b: &Answer) -> usize {
    a.tokens.iter().zip(&b.tokens).take_while(|(a, b)| a == b).count()
}

/// Mean difference of log-probability where the tokens agree, if both have some.
fn difference(reference: &Answer, answer: &Answer) -> Option<f64> {
    let count = common(reference, answer)
        .min(reference.logprobs.len())
        .min(answer.logprobs.len());
    let sum: f64 = answer
        .logprobs
        .iter()
        .zip(&reference.logprobs)
        .take(count)
        .map(|(now, before)| now - before)
        .sum();
    (count > 0 && sum.is_finite()).then(|| sum / count as f64)
}

impl Reference {
    /// From some runs of one revision.
    ///
    /// # Errors
    /// [`ProbeError`] for too few, or runs of different prompts.
    pub fn learn(runs: &[Run]) -> Result<Self, ProbeError> {
        let [answers, others @ ..] = runs else {
            return Err(ProbeError::Few(0));
        };
        if runs.len() < REFERENCE_RUNS {
            return Err(ProbeError::Few(runs.len()));
        }
        if answers.is_empty() {
            return Err(ProbeError::Empty);
        }
        let (mut events, mut trials, mut differences) = (0.0, 0.0, Vec::new());
        for run in others {
            same_length(answers, run)?;
            for (reference, answer) in answers.iter().zip(run) {
                trials += 1.0;
                events += f64::from(u8::from(reference.tokens != answer.tokens));
                differences.extend(difference(reference, answer));
            }
        }
        let count = differences.len().max(1) as f64;
        let offset = differences.iter().sum::<f64>() / count;
        let variance = differences.iter().map(|x| (x - offset) * (x - offset)).sum::<f64>() / count;
        Ok(Self {
            answers: answers.clone(),
            disagreement: beta_quantile(events + 0.5, trials - events + 0.5, 0.99),
            noise: libm::sqrt(variance).max(LEAST_NOISE),
            offset,
        })
    }

    /// Weighs a run.
    ///
    /// # Errors
    /// [`ProbeError::Prompts`]; then the evidence is as it was.
    pub fn compare(
        &self,
        evidence: &mut Evidence,
        run: &Run,
        time: i64,
        policy: &Policy,
    ) -> Result<Verdict, ProbeError> {
        same_length(&self.answers, run)?;
        let pairs = || self.answers.iter().zip(run);
        let events = pairs()
            .filter(|(reference, answer)| reference.tokens != answer.tokens)
            .count() as f64;
        let trials = run.len() as f64;
        let bounds = Bounds {
            lower: 0.0,
            upper: self.disagreement,
        };
        let none = Tally::default();
        let logs = bernoulli::log_e(events, trials, bounds, &RATIOS, 1.0);
        for (line, log_e) in evidence.disagreement.iter_mut().zip(logs) {
            line.update(log_e, time, &none);
        }
        let differences: Vec<f64> = pairs()
            .filter_map(|(reference, answer)| difference(reference, answer))
            .collect();
        let count = differences.len() as f64;
        let sum: f64 = differences.iter().map(|x| (x - self.offset) / self.noise).sum();
        if count > 0.0 {
            for (line, shift) in evidence.shift.iter_mut().zip(SHIFTS) {
                line.update(bounded(shift * sum - count * shift * shift / 2.0), time, &none);
            }
        }
        let log_of = |lines: &[Line]| log_mean(lines.iter().map(|line| line.log_m), lines.len());
        // Two families, half of the threshold's inverse for each.
        let log_evidence = log_of(&evidence.disagreement).max(log_of(&evidence.shift)) - libm::log(2.0);
        let log_threshold = libm::log(policy.probe_capacity());
        Ok(Verdict {
            probes: if log_evidence >= log_threshold {
                Probes::Changed
            } else {
                Probes::Same
            },
            agreement: 1.0 - events / trials,
            difference: if count > 0.0 {
                differences.iter().sum::<f64>() / count
            } else {
                0.0
            },
            log_evidence,
            log_threshold,
        })
    }
}

impl Watch {
    /// Version of its bytes.
    const VERSION: u16 = 1;

    /// From some runs of one revision.
    ///
    /// # Errors
    /// As [`Reference::learn`].
    pub fn learn(runs: &[Run]) -> Result<Self, ProbeError> {
        Ok(Self {
            reference: Reference::learn(runs)?,
            evidence: Evidence::default(),
            verdict: None,
        })
    }

    /// Weighs a run.
    ///
    /// # Errors
    /// As [`Reference::compare`].
    pub fn take(&mut self, run: &Run, time: i64, policy: &Policy) -> Result<Verdict, ProbeError> {
        let verdict = self.reference.compare(&mut self.evidence, run, time, policy)?;
        self.verdict = Some(verdict);
        Ok(verdict)
    }

    /// What the last run said; nothing before the first.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    /// Whether one more run is worth asking before anything is decided: the last one differs from the reference by more than
    /// answers do by chance, and there is not yet enough evidence for a change.
    #[must_use]
    pub fn is_unsure(&self) -> bool {
        self.verdict.is_some_and(|verdict| {
            verdict.probes == Probes::Same
                && (1.0 - verdict.agreement > self.reference.disagreement
                    || verdict.log_evidence > verdict.log_threshold / 2.0)
        })
    }

    /// Its bytes, in the form of [`crate::envelope`].
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn encode(&self) -> Result<Vec<u8>, EnvelopeError> {
        envelope::seal(Content::Probes, Self::VERSION, 0, self)
    }

    /// Reads its bytes.
    ///
    /// # Errors
    /// [`EnvelopeError`] for what was cut, changed or is of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        envelope::open(Content::Probes, Self::VERSION, 0, bytes)
    }
}

fn same_length(reference: &Run, run: &Run) -> Result<(), ProbeError> {
    if reference.len() == run.len() {
        Ok(())
    } else {
        Err(ProbeError::Prompts {
            got: run.len(),
            expected: reference.len(),
        })
    }
}
