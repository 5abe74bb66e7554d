//! From rows of text to tokens, and which of them are learned.

use std::collections::BTreeSet;

use perennial_crds::capture;
use perennial_crds::retrain::TrainingRow;
use perennial_engine::model::Description;
use perennial_engine::template::{ChatTemplate, Message};
use perennial_engine::tokenizer::ModelTokenizer;

use super::model::{Batch, Target};
use super::random::Random;

/// Stands for an answer while the end of a turn is looked for.
const ANSWER: &str = "PERENNIAL";
/// How much more or less than the mean row one row may count.
const MOST_WEIGHT: f64 = 10.0;
/// One example in so many is held out to measure with, where nothing else is there for that.
const HELD_OUT_SHARE: usize = 20;
/// Of the random numbers that decide which; others begin with the orders of epochs.
const HOLDING_OUT: u64 = 2 << 32;

/// A sequence of which the end is learned.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// All tokens.
    pub tokens: Vec<u32>,
    /// The first token that is learned; at least 1.
    pub learned_from: usize,
    /// What each of its learned tokens counts.
    pub weight: f32,
}

impl Example {
    /// Tokens that are computed: the last one is only predicted.
    #[must_use]
    pub fn computed(&self) -> usize {
        self.tokens.len() - 1
    }

    /// Tokens that are learned.
    #[must_use]
    pub fn learned(&self) -> usize {
        self.tokens.len() - self.learned_from
    }

    /// Adds it to a batch; each learned token counts the example's weight times `factor`.
    pub fn add_to(&self, batch: &mut Batch, factor: f32) {
        let targets: Vec<Target> = (self.learned_from..self.tokens.len())
            .map(|at| Target {
                row: at - 1,
                token: self.tokens[at],
                weight: self.weight * factor,
            })
            .collect();
        batch.push(&self.tokens[..self.computed()], &targets);
    }
}

/// Why a row is not used. Holds no text of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It has more tokens than may be computed.
    #[error("it is too long")]
    TooLong,
    /// The model's chat template or tokenizer does not take it.
    #[error("the model's chat template or tokenizer does not take it")]
    Refused,
    /// There is nothing in it to learn.
    #[error("there is nothing in it")]
    Empty,
}

/// The text side of a model, for training and judging.
pub struct Encoder {
    tokenizer: ModelTokenizer,
    template: Option<ChatTemplate>,
    turn_end: Option<u32>,
    text_end: Option<u32>,
    vocabulary: usize,
}

impl Encoder {
    /// Of a model. A template that cannot be compiled counts as none, as it does when the model is served.
    #[must_use]
    pub fn new(description: &Description) -> Self {
        let tokenizer = description.tokenizer.clone();
        let special = tokenizer.special_tokens().clone();
        let compiled = description
            .chat_template
            .clone()
            .map(|source| ChatTemplate::new(source, special));
        let template = compiled.transpose().ok().flatten();
        let ends = &description.end_tokens;
        let text_end = text_end(&tokenizer, ends);
        let turn_end = template
            .as_ref()
            .and_then(|template| turn_end(template, &tokenizer, ends))
            .or(text_end);
        Self {
            tokenizer,
            template,
            turn_end,
            text_end,
            vocabulary: description.config.vocabulary,
        }
    }

    /// The tokens before an answer: of a chat, or of a plain prompt if there are no messages.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn prompt(&self, messages: &[capture::Message], prompt: Option<&str>) -> Result<Vec<u32>, Unusable> {
        let ids = if messages.is_empty() {
            self.tokenizer.encode_prompt(prompt.ok_or(Unusable::Empty)?)
        } else {
            let template = self.template.as_ref().ok_or(Unusable::Refused)?;
            let messages: Vec<Message> = messages
                .iter()
                .map(|message| Message {
                    role: message.role.clone(),
                    content: message.content.clone(),
                })
                .collect();
            let text = template.render(&messages).map_err(|_| Unusable::Refused)?;
            self.tokenizer.encode_rendered(&text)
        };
        self.known(ids.map_err(|_| Unusable::Refused)?)
    }

    /// The tokens of an answer, with the one that ends it.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn answer(&self, answer: &str, chat: bool) -> Result<Vec<u32>, Unusable> {
        let end = if chat { self.turn_end } else { self.text_end };
        let ids = self.tokenizer.encode_rendered(answer).map_err(|_| Unusable::Refused)?;
        self.known(ids.into_iter().chain(end).collect())
    }

    /// The text of tokens.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn text(&self, ids: &[u32]) -> Result<String, Unusable> {
        self.tokenizer.decode(ids).map_err(|_| Unusable::Refused)
    }

    /// A prompt and its answer, of which the answer is learned.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn pair(
        &self,
        messages: &[capture::Message],
        prompt: Option<&str>,
        answer: &str,
        most_tokens: usize,
    ) -> Result<Example, Unusable> {
        let mut tokens = self.prompt(messages, prompt)?;
        let learned_from = tokens.len();
        tokens.extend(self.answer(answer, !messages.is_empty())?);
        if learned_from == 0 || tokens.len() == learned_from {
            return Err(Unusable::Empty);
        }
        if tokens.len() > most_tokens + 1 {
            return Err(Unusable::TooLong);
        }
        Ok(Example {
            tokens,
            learned_from,
            weight: 1.0,
        })
    }

    /// A row: its answer is learned, or all of it if it has none. Text is cut at `most_tokens`; an answer is not, because
    /// its end is what it is about.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn row(&self, row: &TrainingRow, most_tokens: usize) -> Result<Example, Unusable> {
        if let Some(answer) = &row.answer {
            return self.pair(&row.messages, row.prompt.as_deref(), answer, most_tokens);
        }
        let mut tokens = self.prompt(&row.messages, row.prompt.as_deref())?;
        tokens.truncate(most_tokens + 1);
        if tokens.len() < 2 {
            return Err(Unusable::Empty);
        }
        Ok(Example {
            tokens,
            learned_from: 1,
            weight: 1.0,
        })
    }

    fn known(&self, ids: Vec<u32>) -> Result<Vec<u32>, Unusable> {
        if ids.iter().all(|&id| (id as usize) < self.vocabulary) {
            Ok(ids)
        } else {
            Err(Unusable::Refused)
        }
    }
}

/// The token that ends an answer in a chat: the first end token that the template puts behind one.
fn turn_end(template: &ChatTemplate, tokenizer: &ModelTokenizer, ends: &[u32]) -> Option<u32> {
    let message = |role: &str, content: &str| Message {
        role: role.to_owned(),
        content: content.to_owned(),
    };
    let text = template
        .render(&[message("user", "Hello"), message("assistant", ANSWER)])
        .ok()?;
    let (_, behind) = text.rsplit_once(ANSWER)?;
    let ids = tokenizer.encode_rendered(behind).ok()?;
    ids.into_iter().find(|id| ends.contains(id))
}

/// The token that ends a text: the declared one, or else the first that ends an answer.
fn text_end(tokenizer: &ModelTokenizer, ends: &[u32]) -> Option<u32> {
    let declared = tokenizer.special_tokens().end.as_deref();
    let ids = declared.and_then(|text| tokenizer.encode_rendered(text).ok());
    match ids.as_deref() {
        Some([id]) if ends.contains(id) => Some(*id),
        _ => ends.first().copied(),
    }
}

/// Rows as examples, and what could not be used of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Examples {
    /// What is used, in the order of the rows.
    pub used: Vec<Example>,
    /// Rows that are too long.
    pub too_long: usize,
    /// Rows that the model does not take, or with nothing in them.
    pub refused: usize,
}

impl Examples {
    /// Makes examples of rows. A row counts its sampling weight, relative to the mean, within a tenth and tenfold.
    #[must_use]
    pub fn of(encoder: &Encoder, rows: &[TrainingRow], most_tokens: usize) -> Self {
        let mut examples = Self::default();
        let mean = rows.iter().map(weight).sum::<f64>() / rows.len().max(1) as f64;
        for row in rows {
            match encoder.row(row, most_tokens) {
                Ok(example) => examples.used.push(Example {
                    weight: (weight(row) / mean).clamp(1.0 / MOST_WEIGHT, MOST_WEIGHT) as f32,
                    ..example
                }),
                Err(Unusable::TooLong) => examples.too_long += 1,
                Err(Unusable::Refused | Unusable::Empty) => examples.refused += 1,
            }
        }
        examples
    }

    /// Takes a twentieth out by lot, at least one, to measure with; none of a single one, which is to be learned from.
    pub fn hold_out(&mut self, seed: u64) -> Vec<Example> {
        let count = self.used.len();
        let wanted = if count < 2 { 0 } else { (count / HELD_OUT_SHARE).max(1) };
        let order = Random::new(seed, HOLDING_OUT).order(count);
        let chosen: BTreeSet<usize> = order.into_iter().take(wanted).collect();
        let (mut held, mut used) = (Vec::new(), Vec::new());
        for (index, example) in std::mem::take(&mut self.used).into_iter().enumerate() {
            let side = if chosen.contains(&index) { &mut held } else { &mut used };
            side.push(example);
        }
        self.used = used;
        held
    }

    /// The longest sequence that is computed.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.used.iter().map(Example::computed).max().unwrap_or(0)
    }
}

/// A row's weight, if it makes sense.
fn weight(row: &TrainingRow) -> f64 {
    if row.sampling_weight.is_finite() && row.sampling_weight > 0.0 {
        row.sampling_weight
    } else {
        1.0
    }
}

/// Neighbouring examples that are computed together: as many as have `most_tokens`, and at least one.
#[must_use]
pub fn together(lengths: &[usize], most_tokens: usize) -> Vec<std::ops::Range<usize>> {
    let mut groups: Vec<std::ops::Range<usize>> = Vec::new();
    let mut tokens = 0;
    for (index, length) in lengths.iter().enumerate() {
        tokens += length;
        match groups.last_mut() {
            Some(group) if tokens <= most_tokens => group.end = index + 1,
            _ => {
                groups.push(index..index + 1);
                tokens = *length;
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_computed_together_up_to_a_number_of_tokens() {
        assert_eq!(together(&[3, 3, 3, 9, 1, 1], 6), [0..2, 2..3, 3..4, 4..6]);
        assert_eq!(together(&[7, 7], 6), [0..1, 1..2]);
        assert!(together(&[], 6).is_empty());
    }

    #[test]
    fn a_twentieth_is_held_out_by_lot_and_at_least_one_is_left_to_learn_from() {
        let examples = |count: u32| Examples {
            used: (0..count)
                .map(|number| Example {
                    tokens: vec![0, number],
                    learned_from: 1,
                    weight: 1.0,
                })
                .collect(),
            ..Examples::default()
        };
        let split = |count: u32, seed: u64| {
            let mut left = examples(count);
            let held = left.hold_out(seed);
            let number = |example: &Example| example.tokens[1];
            let held: Vec<u32> = held.iter().map(number).collect();
            (held, left.used.iter().map(number).collect::<Vec<u32>>())
        };
        for (count, wanted) in [(0, 0), (1, 0), (2, 1), (39, 1), (40, 2), (100, 5)] {
            let (held, mut all) = split(count, 7);
            assert_eq!(held.len(), wanted, "of {count}");
            all.extend(held);
            all.sort_unstable();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
        assert_eq!(split(100, 7), split(100, 7));
        assert_ne!(split(100, 7), split(100, 8));
    }

    #[test]
    fn an_example_predicts_each_learned_token_from_the_one_before() {
        let example = Example {
            tokens: vec![5, 6, 7, 8],
            learned_from: 2,
            weight: 0.5,
        };
        let mut batch = Batch::default();
        example.add_to(&mut batch, 1.0);
        example.add_to(&mut batch, 2.0);
        assert_eq!((example.computed(), example.learned()), (3, 2));
        assert_eq!(batch.tokens(), [5, 6, 7, 5, 6, 7]);
        let targets: Vec<_> = batch
            .targets()
            .iter()
            .map(|target| (target.row, target.token, target.weight))
            .collect();
        assert_eq!(targets, [(1, 7, 0.5), (2, 8, 0.5), (4, 7, 1.0), (5, 8, 1.0)]);
    }
}
