//! What replicas count of their traffic in one stretch of time.
//!
//! A pane holds only states that add: merging any split of the same requests over replicas, in any order, gives the same
//! bytes as one process. Nothing in it can be turned back into a prompt. About 31 KiB, however many requests there are.

pub mod distinct;
pub mod histogram;
pub mod key;
pub mod layout;
pub mod requesters;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::envelope::{self, Content, EnvelopeError};
use crate::features::{FOURIER, Features, LANGUAGES, ONE, TOKEN_BUCKETS};
use crate::signal::{Kind, Signal};
use distinct::Distinct;
use histogram::Histogram;
use layout::Layout;
use requesters::Requesters;

/// Version of the encoding of panes.
pub const VERSION: u16 = 1;
/// Requests that a pane may count; below it no sum can overflow.
pub const MAX_REQUESTS: u64 = 1 << 34;

/// Trials and how many of them were events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Requests for which the question has an answer.
    pub trials: u64,
    /// Those for which the answer is yes.
    pub events: u64,
}

/// Sums of random Fourier features, 2^24 is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FourierSum {
    /// Requests with an embedding.
    pub(crate) count: u64,
    pub(crate) sums: Vec<i64>,
}

impl Default for FourierSum {
    fn default() -> Self {
        Self {
            count: 0,
            sums: vec![0; FOURIER],
        }
    }
}

/// A pane. [`Pane::new`] is the identity of [`Pane::merge`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pane {
    /// Its beginning, seconds since 1970, a multiple of `seconds`.
    pub(crate) start: i64,
    /// Its length.
    pub(crate) seconds: u32,
    pub(crate) requests: u64,
    pub(crate) numbers: Vec<Histogram>,
    pub(crate) rates: Vec<Rate>,
    pub(crate) languages: Vec<u64>,
    pub(crate) tokens: Vec<u64>,
    pub(crate) embedding: FourierSum,
    pub(crate) requesters: Requesters,
    pub(crate) distinct_requesters: Distinct,
    pub(crate) distinct_prompts: Distinct,
    #[serde(skip)]
    pub(crate) layout: u64,
}

/// Why two panes cannot be added. Both are as they were.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MergeError {
    /// Of different layouts.
    #[error("panes of the layouts {0:016x} and {1:016x} do not add: the servers differ in version or encoder")]
    Layout(u64, u64),
    /// Of different times.
    #[error("a pane of {0} s from {1} and one of {2} s from {3} do not add: they are not of the same time")]
    Time(u32, i64, u32, i64),
    /// More than a pane can count.
    #[error("together these panes count more than {MAX_REQUESTS} requests: make panes shorter")]
    TooMany,
}

impl Pane {
    /// An empty pane that begins at the last multiple of `seconds` (at least one) up to `time`, seconds since 1970.
    #[must_use]
    pub fn new(layout: &Layout, time: i64, seconds: u32) -> Self {
        let seconds = seconds.max(1);
        Self {
            start: time - time.rem_euclid(i64::from(seconds)),
            seconds,
            requests: 0,
            numbers: layout::numeric().map(|_| Histogram::default()).collect(),
            rates: layout::rates().map(|_| Rate::default()).collect(),
            languages: vec![0; LANGUAGES],
            tokens: vec![0; TOKEN_BUCKETS],
            embedding: FourierSum::default(),
            requesters: Requesters::default(),
            distinct_requesters: Distinct::default(),
            distinct_prompts: Distinct::default(),
            layout: layout.fingerprint(),
        }
    }

    /// Its beginning, seconds since 1970.
    #[must_use]
    pub fn start(&self) -> i64 {
        self.start
    }

    /// Its end, which it does not contain.
    #[must_use]
    pub fn end(&self) -> i64 {
        self.start + i64::from(self.seconds)
    }

    /// Requests that it counts.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Bytes of memory that it takes, however many requests it counts.
    #[must_use]
    pub fn memory(&self) -> usize {
        let words: usize = self.numbers.iter().map(|histogram| histogram.bins.len()).sum::<usize>()
            + self.languages.len()
            + self.tokens.len()
            + self.embedding.sums.len();
        size_of::<Self>()
            + 8 * words
            + size_of::<Histogram>() * self.numbers.len()
            + size_of::<Rate>() * self.rates.len()
            + size_of::<requesters::Stratum>() * self.requesters.strata.len()
            + self.distinct_requesters.memory()
            + self.distinct_prompts.memory()
    }

    /// About how many requesters, and how many prompts, were different.
    #[must_use]
    pub fn distinct(&self) -> (f64, f64) {
        (self.distinct_requesters.estimate(), self.distinct_prompts.estimate())
    }

    /// Counts one request. A full pane ([`MAX_REQUESTS`]) stays as it is.
    pub fn add(&mut self, features: &Features) {
        if self.requests >= MAX_REQUESTS {
            return;
        }
        self.requests += 1;
        let (mut number, mut rate) = (0, 0);
        for signal in Signal::ALL {
            match signal.kind() {
                Kind::Numeric(scale) => {
                    self.numbers[number].add(&scale, features.number(signal));
                    number += 1;
                }
                Kind::Rate => {
                    if let Some(event) = features.event(signal) {
                        self.rates[rate].trials += 1;
                        self.rates[rate].events += u64::from(event);
                    }
                    rate += 1;
                }
                Kind::Categories(_) | Kind::Embedding => {}
            }
        }
        if let Some(count) = features
            .language
            .and_then(|language| self.languages.get_mut(usize::from(language)))
        {
            *count += 1;
        }
        if let Some(count) = features
            .token_bucket
            .and_then(|bucket| self.tokens.get_mut(usize::from(bucket)))
        {
            *count += 1;
        }
        if let Some(fourier) = &features.fourier {
            self.embedding.count += 1;
            for (sum, value) in self.embedding.sums.iter_mut().zip(fourier.iter()) {
                *sum += i64::from(*value);
            }
        }
        self.requesters.add(features);
        if let Some(requester) = features.requester {
            self.distinct_requesters.add(requester);
        }
        if let Some(prompt) = features.prompt_hash {
            self.distinct_prompts.add(prompt);
        }
    }

    /// Counts what a person thought of an answer, which is heard of later than its request: in this pane, whenever the request
    /// was. A full count stays as it is.
    pub fn add_rating(&mut self, bad: bool) {
        let position = layout::rates().position(|signal| signal == Signal::NegativeFeedback);
        if let Some(rate) = position.and_then(|position| self.rates.get_mut(position))
            && rate.trials < MAX_REQUESTS
        {
            rate.trials += 1;
            rate.events += u64::from(bad);
        }
    }

    /// Adds the requests of a pane of the same time from another replica.
    ///
    /// # Errors
    /// [`MergeError`]; then this pane is as it was.
    pub fn merge(&mut self, other: &Self) -> Result<(), MergeError> {
        if self.layout != other.layout {
            return Err(MergeError::Layout(self.layout, other.layout));
        }
        if (self.start, self.seconds) != (other.start, other.seconds) {
            return Err(MergeError::Time(self.seconds, self.start, other.seconds, other.start));
        }
        let ratings = |pane: &Self| pane.rate(Signal::NegativeFeedback).map_or(0, |rate| rate.trials);
        if self.requests + other.requests > MAX_REQUESTS || ratings(self) + ratings(other) > MAX_REQUESTS {
            return Err(MergeError::TooMany);
        }
        self.requests += other.requests;
        for (into, from) in self.numbers.iter_mut().zip(&other.numbers) {
            into.merge(from);
        }
        for (into, from) in self.rates.iter_mut().zip(&other.rates) {
            into.trials += from.trials;
            into.events += from.events;
        }
        histogram::add(&mut self.languages, &other.languages);
        histogram::add(&mut self.tokens, &other.tokens);
        self.embedding.count += other.embedding.count;
        for (into, from) in self.embedding.sums.iter_mut().zip(&other.embedding.sums) {
            *into += from;
        }
        self.requesters.merge(&other.requesters);
        self.distinct_requesters.merge(&other.distinct_requesters);
        self.distinct_prompts.merge(&other.distinct_prompts);
        Ok(())
    }

    /// Its bytes, in the form of [`crate::envelope`].
    ///
    /// # Errors
    /// Never, for a pane that is within [`MAX_REQUESTS`].
    pub fn encode(&self) -> Result<Vec<u8>, EnvelopeError> {
        envelope::seal(Content::Pane, VERSION, self.layout, self)
    }

    /// A pane of this layout from its bytes.
    ///
    /// # Errors
    /// [`EnvelopeError`] when it is not one, was damaged, or contradicts itself.
    pub fn decode(layout: &Layout, bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let mut pane: Self = envelope::open(Content::Pane, VERSION, layout.fingerprint(), bytes)?;
        pane.layout = layout.fingerprint();
        match pane.contradiction() {
            Some(why) => Err(EnvelopeError::Impossible { what: "pane", why }),
            None => Ok(pane),
        }
    }

    fn contradiction(&self) -> Option<&'static str> {
        if self.requests > MAX_REQUESTS {
            return Some("it counts more requests than a pane can");
        }
        let aligned = self.seconds > 0 && self.start.rem_euclid(i64::from(self.seconds)) == 0;
        if !aligned || self.start.checked_add(i64::from(self.seconds)).is_none() {
            return Some("it does not begin at a multiple of its length");
        }
        if self.numbers.len() != layout::numeric().count() || self.rates.len() != layout::rates().count() {
            return Some("it has another number of signals");
        }
        for (histogram, signal) in self.numbers.iter().zip(layout::numeric()) {
            if let Kind::Numeric(scale) = signal.kind()
                && let Some(why) = histogram.contradiction(&scale, self.requests)
            {
                return Some(why);
            }
        }
        // Ratings may be of requests of an earlier pane.
        let most = |signal| {
            if signal == Signal::NegativeFeedback {
                MAX_REQUESTS
            } else {
                self.requests
            }
        };
        if self
            .rates
            .iter()
            .zip(layout::rates())
            .any(|(rate, signal)| rate.events > rate.trials || rate.trials > most(signal))
        {
            return Some("a rate has more events than trials, or more trials than requests");
        }
        let counted = |counts: &[u64]| {
            let total = counts.iter().try_fold(0_u64, |total, count| total.checked_add(*count));
            total.is_some_and(|total| total <= self.requests)
        };
        if self.languages.len() != LANGUAGES || self.tokens.len() != TOKEN_BUCKETS {
            return Some("it has another number of categories");
        }
        if !counted(&self.languages) || !counted(&self.tokens) || self.embedding.count > self.requests {
            return Some("it counts more values than requests");
        }
        let largest = self.embedding.count.saturating_mul(ONE as u64 + 1);
        if self.embedding.sums.len() != FOURIER || self.embedding.sums.iter().any(|sum| sum.unsigned_abs() > largest) {
            return Some("its Fourier sums are larger than their terms can be");
        }
        self.requesters
            .contradiction(self.requests)
            .or_else(|| self.distinct_requesters.contradiction())
            .or_else(|| self.distinct_prompts.contradiction())
    }

    /// Requests whose prompt has an embedding.
    #[must_use]
    pub fn embedded(&self) -> u64 {
        self.embedding.count
    }

    /// The histogram of a numeric signal.
    #[must_use]
    pub fn number(&self, signal: Signal) -> Option<&Histogram> {
        self.numbers.get(layout::numeric().position(|other| other == signal)?)
    }

    /// Trials and events of a rate.
    #[must_use]
    pub fn rate(&self, signal: Signal) -> Option<Rate> {
        self.rates
            .get(layout::rates().position(|other| other == signal)?)
            .copied()
    }

    /// Counts by category: of the language, or of the buckets of tokens.
    #[must_use]
    pub fn categories(&self, signal: Signal) -> Option<&[u64]> {
        match signal {
            Signal::Language => Some(&self.languages),
            Signal::TokenDistribution => Some(&self.tokens),
            _ => None,
        }
    }
}
