//! Coarse counts by a hash of who asked: enough to see that one requester alone moved, too little to know who.

use serde::{Deserialize, Serialize};

use crate::features::Features;
use crate::pane::histogram::add;
use crate::pane::layout::{BINS, STRATA};
use crate::signal::{Kind, Scale, Signal};

/// Bins of a stratum's histograms: eight of the pane's in one.
pub(crate) const COARSE: usize = 16;
/// Groups that languages fall into.
pub(crate) const TONGUES: usize = 8;
/// Random Fourier features that a stratum keeps: the first few cosines.
pub(crate) const WAVES: usize = 16;

/// What requesters with the same hash did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stratum {
    pub(crate) requests: u64,
    pub(crate) prompt_tokens: [u64; COARSE],
    pub(crate) tokens_per_character: [u64; COARSE],
    pub(crate) languages: [u64; TONGUES],
    pub(crate) embedded: u64,
    pub(crate) waves: [i64; WAVES],
}

/// All strata. Requests of unknown requesters are in none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requesters {
    pub(crate) strata: Vec<Stratum>,
}

impl Default for Requesters {
    fn default() -> Self {
        Self {
            strata: vec![Stratum::default(); STRATA],
        }
    }
}

fn coarse(scale: &Scale, value: f64) -> Option<usize> {
    let bin = scale.bin(scale.transformed(value)?);
    Some((bin.saturating_sub(1) * COARSE / BINS).min(COARSE - 1))
}

impl Stratum {
    fn add(&mut self, features: &Features) {
        self.requests += 1;
        let place = |signal: Signal| match signal.kind() {
            Kind::Numeric(scale) => features.number(signal).and_then(|value| coarse(&scale, value)),
            _ => None,
        };
        if let Some(bin) = place(Signal::PromptTokens) {
            self.prompt_tokens[bin] += 1;
        }
        if let Some(bin) = place(Signal::TokensPerCharacter) {
            self.tokens_per_character[bin] += 1;
        }
        if let Some(language) = features.language {
            self.languages[usize::from(language) % TONGUES] += 1;
        }
        if let Some(fourier) = &features.fourier {
            self.embedded += 1;
            for (sum, value) in self.waves.iter_mut().zip(fourier.iter()) {
                *sum += i64::from(*value);
            }
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        add(&mut self.prompt_tokens, &other.prompt_tokens);
        add(&mut self.tokens_per_character, &other.tokens_per_character);
        add(&mut self.languages, &other.languages);
        self.embedded += other.embedded;
        for (into, from) in self.waves.iter_mut().zip(&other.waves) {
            *into += from;
        }
    }

    fn possible(&self) -> bool {
        let within = |counts: &[u64]| {
            let total = counts.iter().try_fold(0_u64, |total, count| total.checked_add(*count));
            total.is_some_and(|total| total <= self.requests)
        };
        let largest = crate::features::ONE as u64 + 1;
        within(&self.prompt_tokens)
            && within(&self.tokens_per_character)
            && within(&self.languages)
            && self.embedded <= self.requests
            && self
                .waves
                .iter()
                .all(|sum| sum.unsigned_abs() <= self.embedded.saturating_mul(largest))
    }
}

impl Requesters {
    pub(crate) fn add(&mut self, features: &Features) {
        if let Some(requester) = features.requester {
            self.strata[(requester % STRATA as u64) as usize].add(features);
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (into, from) in self.strata.iter_mut().zip(&other.strata) {
            into.merge(from);
        }
    }

    pub(crate) fn contradiction(&self, requests: u64) -> Option<&'static str> {
        if self.strata.len() != STRATA {
            return Some("it has another number of strata");
        }
        let total = self
            .strata
            .iter()
            .try_fold(0_u64, |total, stratum| total.checked_add(stratum.requests));
        if total.is_none_or(|total| total > requests) || !self.strata.iter().all(Stratum::possible) {
            return Some("its strata count more than there was");
        }
        None
    }
}
