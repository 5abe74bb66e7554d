//! Records that might be trained on. Pure.

use std::collections::BTreeMap;

use perennial_crds::capture::ExchangeRecord;
use perennial_crds::retrain::{Include, TrainingRow};

use super::join::{Label, Opinions, label};
use super::prompt::{Asks, PromptHash, lot};

/// A record that might be trained on.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The record.
    pub exchange: ExchangeRecord,
    /// What is known of its answer.
    pub label: Label,
    /// Hash of what was asked.
    pub prompt: PromptHash,
    /// Hashes of all that the user says in it.
    pub said: Vec<PromptHash>,
    /// Who asked. A record that does not say so is its own.
    pub owner: String,
    /// What decides where chance decides.
    pub lot: [u8; 32],
}

/// The candidates among records in a window, sorted by request, and how many records are none: those that ask nothing, and
/// those that share their id with others, because nobody knows which of them feedback was about.
#[must_use]
pub fn candidates(
    exchanges: Vec<ExchangeRecord>,
    opinions: &Opinions,
    window: std::ops::Range<i64>,
    seed: u64,
) -> (Vec<Candidate>, u64) {
    let mut by_id: BTreeMap<String, Vec<ExchangeRecord>> = BTreeMap::new();
    for exchange in exchanges.into_iter().filter(|exchange| window.contains(&exchange.time)) {
        let same = by_id.entry(exchange.request_id.clone()).or_default();
        // A batch that was torn and came again.
        if !same.contains(&exchange) {
            same.push(exchange);
        }
    }
    let (mut found, mut unusable) = (Vec::new(), 0);
    for (id, mut same) in by_id {
        let only = if same.len() == 1 { same.pop() } else { None };
        let asked = only.and_then(|exchange| exchange.hash().map(|prompt| (exchange, prompt)));
        let Some((exchange, prompt)) = asked else {
            unusable += same.len().max(1) as u64;
            continue;
        };
        found.push(Candidate {
            label: label(&exchange, opinions.get(&id)),
            said: exchange.hashes(),
            prompt,
            owner: match &exchange.requester {
                Some(requester) => format!("requester {requester}"),
                None => format!("request {id}"),
            },
            lot: lot(seed, "record", id.as_bytes()),
            exchange,
        });
    }
    (found, unusable)
}

impl Candidate {
    /// What is learned from it, if anything may be. The model's own answer is only if somebody found it good.
    #[must_use]
    pub fn row(&self, include: &[Include]) -> Option<TrainingRow> {
        let exchange = &self.exchange;
        let (answer, label) = match &self.label {
            Label::Corrected(corrected) if include.contains(&Include::CorrectedOutputs) => {
                (corrected.clone(), Include::CorrectedOutputs)
            }
            Label::RatedGood if include.contains(&Include::RatedGood) => (exchange.answer.clone(), Include::RatedGood),
            _ if include.contains(&Include::UserPrompts) => {
                return Some(TrainingRow {
                    messages: Vec::new(),
                    // Of a chat only what the user said last: answers in it are the model's own.
                    prompt: Some(exchange.question()?.to_owned()),
                    answer: None,
                    label: Include::UserPrompts,
                    sampling_weight: self.weight(),
                    served_revision: exchange.revision.clone(),
                });
            }
            _ => return None,
        };
        Some(TrainingRow {
            messages: exchange.messages.clone(),
            prompt: exchange.prompt.clone(),
            answer: Some(answer),
            label,
            sampling_weight: self.weight(),
            served_revision: exchange.revision.clone(),
        })
    }

    fn weight(&self) -> f64 {
        let weight = self.exchange.sampling_weight;
        if weight.is_finite() && weight > 0.0 {
            weight
        } else {
            1.0
        }
    }
}
