//! What is known of one request until it is counted, as much of it as features are made of.
//!
//! Nothing here can be printed: prompts and answers belong into no log.

use std::time::Duration;

use perennial_drift::features::{Exchange, FinishReason};

use crate::metrics::Outcome;

/// Bytes kept of a prompt. Features read the first 4 KiB; only the hash that tells prompts apart, which is for information
/// and not for decisions, reads more, and takes two prompts for one that differ behind this.
const PROMPT_BYTES: usize = 16 << 10;
/// Token ids kept of a prompt; of more, every second, third and so on. Features are made of a single one, drawn at random.
const TOKEN_IDS: usize = 4096;
/// Bytes kept of an answer's beginning. Refusals are found in the first 300 characters behind a model's reasoning; behind
/// longer reasoning they are missed.
const ANSWER_BEGINNING: usize = 16 << 10;
/// Bytes kept of an answer's end, in which loops are found.
const ANSWER_END: usize = 4 << 10;

/// A request before its answer.
pub struct Question {
    id: String,
    requester: Option<String>,
    prompt: Option<String>,
    prompt_characters: Option<u32>,
}

impl Question {
    /// A request of this identity by whoever asked.
    ///
    /// `prompt` is the text of the last user message, or the prompt; `characters` are those of all messages. Both are
    /// `None` where only token ids are known.
    #[must_use]
    pub fn new(id: String, requester: Option<String>, prompt: Option<&str>, characters: Option<usize>) -> Self {
        Self {
            id,
            requester,
            prompt: prompt.map(|prompt| prompt[..prompt.floor_char_boundary(PROMPT_BYTES)].to_owned()),
            prompt_characters: characters.map(narrow),
        }
    }
}

/// A request while its answer grows.
pub struct Recording {
    question: Question,
    prompt_tokens: u32,
    token_ids: Vec<u32>,
    answer: String,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct End {
    /// Why.
    pub outcome: Outcome,
    /// Tokens of the answer.
    pub output_tokens: usize,
    /// From the arrival to the first token.
    pub first_token: Option<Duration>,
    /// Mean between two tokens.
    pub between_tokens: Option<Duration>,
    /// Mean log-probability of the answer's tokens, of those that were measured, nats.
    pub logprob: Option<f64>,
    /// Mean entropy at them, nats.
    pub entropy: Option<f64>,
}

/// A request that ended.
pub struct Record {
    recording: Recording,
    end: End,
}

impl Recording {
    /// Begins with the tokens of the whole prompt.
    #[must_use]
    pub fn new(question: Question, prompt: &[u32]) -> Self {
        let step = prompt.len().div_ceil(TOKEN_IDS).max(1);
        Self {
            question,
            prompt_tokens: narrow(prompt.len()),
            token_ids: prompt.iter().step_by(step).copied().collect(),
            answer: String::new(),
        }
    }

    /// More of the answer. Of a long one the middle is forgotten.
    pub fn push(&mut self, text: &str) {
        self.answer.push_str(text);
        // Twice the end, so that it is moved once in a while and not with every piece.
        if self.answer.len() >= ANSWER_BEGINNING + 2 * ANSWER_END {
            let from = self.answer.floor_char_boundary(ANSWER_BEGINNING);
            let to = self.answer.floor_char_boundary(self.answer.len() - ANSWER_END);
            self.answer.replace_range(from..to, "");
        }
    }

    /// The request ended.
    #[must_use]
    pub fn end(self, end: End) -> Record {
        Record { recording: self, end }
    }
}

impl Record {
    /// What features are made of.
    #[must_use]
    pub fn exchange(&self) -> Exchange<'_> {
        let Recording {
            question,
            prompt_tokens,
            token_ids,
            answer,
        } = &self.recording;
        let finish_reason = match self.end.outcome {
            Outcome::Stop => Some(FinishReason::Stop),
            Outcome::Length => Some(FinishReason::Length),
            Outcome::Abort | Outcome::Error => None,
        };
        // Of whoever went away before the first word nobody knows whether the answer would have been empty.
        let answered = finish_reason.is_some() || !answer.trim().is_empty();
        Exchange {
            id: &question.id,
            requester: question.requester.as_deref(),
            prompt: question.prompt.as_deref(),
            prompt_tokens: Some(*prompt_tokens),
            prompt_characters: question.prompt_characters,
            prompt_token_ids: Some(token_ids),
            output: answered.then_some(answer.as_str()),
            output_tokens: Some(narrow(self.end.output_tokens)),
            finish_reason,
            output_logprob: self.end.logprob,
            output_entropy: self.end.entropy,
            time_to_first_token: self.end.first_token.map(|after| after.as_secs_f64()),
            inter_token_latency: self.end.between_tokens.map(|between| between.as_secs_f64()),
            failed: self.end.outcome == Outcome::Error,
            ..Exchange::default()
        }
    }
}

fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use perennial_drift::features::{Encoder, Extractor, Features};
    use perennial_drift::signal::Signal;
    use proptest::prelude::*;

    use super::*;

    fn record(prompt: &str, ids: &[u32], answer: &str, piece: usize, outcome: Outcome) -> Record {
        let question = Question::new(
            "req-1".to_owned(),
            Some("me".to_owned()),
            Some(prompt),
            Some(prompt.chars().count()),
        );
        let mut recording = Recording::new(question, ids);
        let mut rest = answer;
        while !rest.is_empty() {
            let (text, behind) = rest.split_at(rest.ceil_char_boundary(piece.min(rest.len())));
            recording.push(text);
            rest = behind;
        }
        recording.end(End {
            outcome,
            output_tokens: 7,
            first_token: Some(Duration::from_millis(250)),
            between_tokens: None,
            logprob: Some(-0.75),
            entropy: Some(1.25),
        })
    }

    fn features(exchange: &Exchange<'_>) -> Features {
        thread_local!(static EXTRACTOR: Extractor = Extractor::new(Encoder::Ngrams).expect("lists"));
        EXTRACTOR.with(|extractor| extractor.features(exchange))
    }

    /// The features of the exchange with its whole texts.
    fn of_whole(record: &Record, prompt: &str, ids: &[u32], answer: &str) -> Features {
        features(&Exchange {
            prompt: Some(prompt),
            prompt_token_ids: Some(ids),
            output: Some(answer),
            ..record.exchange()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn what_is_kept_of_long_answers_has_the_features_of_the_whole(
            opening in prop_oneof!["I'm sorry, but I can't help with that\\. ", "[a-zé ]{0,40}", "<think>[a-z ]{0,4000}</think>I cannot assist with that\\. "],
            middle in "[a-zß中 ]{0,30}", times in 0_usize..2000, end in "[a-zß中 ]{1,20}", repeated in 0_usize..300, piece in 1_usize..9000,
        ) {
            let answer = format!("{opening}{}{}", middle.repeat(times), end.repeat(repeated));
            let record = record("Why?", &[1, 2, 3], &answer, piece, Outcome::Stop);
            prop_assert!(record.recording.answer.len() < ANSWER_BEGINNING + 2 * ANSWER_END);
            prop_assert_eq!(features(&record.exchange()), of_whole(&record, "Why?", &[1, 2, 3], &answer));
        }
    }

    #[test]
    fn what_is_kept_of_long_prompts_has_the_features_of_the_whole_but_its_hash() {
        let prompt = "Warum ist der Himmel über uns blau? ".repeat(1000);
        let ids: Vec<u32> = (0..TOKEN_IDS as u32).collect();
        let record = record(&prompt, &ids, "Darum.", 100, Outcome::Stop);
        let kept = features(&record.exchange());
        let mut whole = of_whole(&record, &prompt, &ids, "Darum.");
        assert_ne!(kept.prompt_hash, whole.prompt_hash);
        whole.prompt_hash = kept.prompt_hash;
        assert_eq!(kept, whole);
    }

    #[test]
    fn of_very_many_token_ids_some_of_all_places_are_kept() {
        let ids: Vec<u32> = (0..10_000).collect();
        let record = record("", &ids, "", 1, Outcome::Stop);
        let exchange = record.exchange();
        let kept = exchange.prompt_token_ids.expect("ids");
        assert!(kept.len() <= TOKEN_IDS && kept[0] == 0 && kept[kept.len() - 1] > 9_990);
        assert_eq!(exchange.prompt_tokens, Some(10_000));
        let none = Recording::new(Question::new(String::new(), None, None, None), &[]);
        assert!(none.token_ids.is_empty());
    }

    #[test]
    fn an_answer_that_nobody_waited_for_is_not_an_empty_one() {
        for (outcome, answer, empty, length, failed) in [
            (Outcome::Stop, "", Some(true), Some(false), false),
            (Outcome::Length, "word", Some(false), Some(true), false),
            (Outcome::Abort, " ", None, None, false),
            (Outcome::Abort, "word", Some(false), None, false),
            (Outcome::Error, "word", None, None, true),
        ] {
            let record = record("Why?", &[1], answer, 9, outcome);
            let features = features(&record.exchange());
            let what = format!("{outcome:?} of {answer:?}");
            assert_eq!(features.event(Signal::EmptyRate), empty, "{what}");
            assert_eq!(features.event(Signal::FinishReasonLength), length, "{what}");
            assert_eq!(features.event(Signal::ErrorRate), Some(failed), "{what}");
            assert_eq!(features.number(Signal::TimeToFirstToken), Some(0.25), "{what}");
            for (signal, value) in [
                (Signal::OutputTokens, 7.0),
                (Signal::OutputLogprob, -0.75),
                (Signal::OutputEntropy, 1.25),
            ] {
                assert_eq!(features.number(signal), (!failed).then_some(value), "{what}");
            }
        }
    }
}
