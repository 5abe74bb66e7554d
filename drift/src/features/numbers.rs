//! The features of an exchange, and how each follows from what is known of it.

use super::{Exchange, FOURIER, FinishReason, TOKEN_BUCKETS, cut, hash, json, repetition};
use crate::signal::Signal;

/// Seeds that keep hashes of different things apart.
const SAMPLE: u64 = 1;
const TOKEN: u64 = 2;
const WORD: u64 = 3;
const REQUESTER: u64 = 4;
const PROMPT: u64 = 5;
/// Bytes of a prompt in which a word is sampled.
const SAMPLED: usize = 1 << 16;
/// Characters of a word to either side of the sampled place: what is longer is no word.
const REACH: usize = 24;
/// Log-probabilities above zero, entropies below it by no more than this are rounding.
const ROUNDING: f64 = 1e-6;

/// The signals that are numbers, in the order of [`Features::numbers`].
pub const NUMERIC: [Signal; 8] = [
    Signal::PromptTokens,
    Signal::TokensPerCharacter,
    Signal::PromptPerplexity,
    Signal::OutputTokens,
    Signal::OutputLogprob,
    Signal::OutputEntropy,
    Signal::TimeToFirstToken,
    Signal::InterTokenLatency,
];

/// The signals that are events, in the order of [`Features::events`].
pub const RATES: [Signal; 8] = [
    Signal::FinishReasonLength,
    Signal::RefusalRate,
    Signal::RepetitionRate,
    Signal::EmptyRate,
    Signal::InvalidJSONRate,
    Signal::ToolCallFailureRate,
    Signal::NegativeFeedback,
    Signal::ErrorRate,
];

/// One exchange in numbers; `None` is missing. No text can be read back from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// Values of [`NUMERIC`] as they are, before any transform.
    ///
    /// What cannot be (not finite, negative where impossible, a latency or a ratio of zero) is missing. A request that
    /// failed has no answer: its output numbers are missing, its latencies count if they were measured.
    pub numbers: [Option<f64>; 8],
    /// Whether each of [`RATES`] happened; missing where the exchange is no trial of it. See [`Features::event`].
    pub events: [Option<bool>; 8],
    /// Category of the prompt's language, see [`super::language`]; missing without a prompt.
    pub language: Option<u8>,
    /// One token of the prompt, chosen by the request's identity, hashed into [`TOKEN_BUCKETS`]; where token ids are not
    /// known, one word. A model's observer must not change from one to the other within a baseline.
    pub token_bucket: Option<u16>,
    /// Random Fourier features of the prompt's embedding, see [`super::fourier`].
    pub fourier: Option<Box<[i32; FOURIER]>>,
    /// Hash of who asked.
    pub requester: Option<u64>,
    /// Hash of the prompt (its text, or its token ids where the text is not known).
    pub prompt_hash: Option<u64>,
}

impl Features {
    /// The raw value of a signal that is a number; `None` where it is missing or the signal is of another kind.
    #[must_use]
    pub fn number(&self, signal: Signal) -> Option<f64> {
        NUMERIC
            .iter()
            .zip(self.numbers)
            .find_map(|(known, value)| if *known == signal { value } else { None })
    }

    /// Did the event of a rate signal happen? `None` where the exchange is no trial, or the signal is of another kind.
    ///
    /// | signal | a trial when | the event |
    /// |---|---|---|
    /// | FinishReasonLength | the reason is known | it is the limit |
    /// | RefusalRate | there is an answer of text, not of tool calls | it refuses |
    /// | RepetitionRate | there is an answer | it ends in a loop |
    /// | EmptyRate | there is an answer | no visible character and no tool call |
    /// | InvalidJSONRate | JSON was asked for and the answer was neither cut off, nor filtered, nor tool calls | no JSON |
    /// | ToolCallFailureRate | at least one tool call, and the answer was not cut off | any arguments are no JSON object |
    /// | NegativeFeedback | a person rated | the rating is bad |
    /// | ErrorRate | always | the request failed |
    ///
    /// A request that failed has no answer. What the limit cut off is broken JSON by necessity; it counts once, in
    /// FinishReasonLength. An empty answer where JSON was asked for is invalid as well as empty: its reader fails.
    #[must_use]
    pub fn event(&self, signal: Signal) -> Option<bool> {
        RATES
            .iter()
            .zip(self.events)
            .find_map(|(known, value)| if *known == signal { value } else { None })
    }
}

pub(super) fn numbers(exchange: &Exchange<'_>) -> [Option<f64>; 8] {
    let answered = !exchange.failed;
    let tokens_per_character = exchange
        .prompt_tokens
        .zip(characters(exchange))
        .map(|(tokens, characters)| f64::from(tokens) / characters);
    [
        exchange.prompt_tokens.map(f64::from),
        positive(tokens_per_character),
        not_negative(exchange.prompt_perplexity),
        exchange.output_tokens.map(f64::from).filter(|_| answered),
        // Turned round twice, and never a negative zero.
        not_negative(exchange.output_logprob.map(|value| -value))
            .map(|value| 0.0 - value)
            .filter(|_| answered),
        not_negative(exchange.output_entropy).filter(|_| answered),
        positive(exchange.time_to_first_token),
        positive(exchange.inter_token_latency),
    ]
}

fn characters(exchange: &Exchange<'_>) -> Option<f64> {
    match exchange.prompt_characters {
        Some(characters) => Some(f64::from(characters)),
        None => exchange.prompt.map(|prompt| prompt.chars().count() as f64),
    }
}

fn positive(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite() && *value > 0.0)
}

fn not_negative(value: Option<f64>) -> Option<f64> {
    value
        .filter(|value| value.is_finite() && *value >= -ROUNDING)
        .map(|value| value.max(0.0))
}

pub(super) fn events(exchange: &Exchange<'_>, refuses: impl Fn(&str) -> bool) -> [Option<bool>; 8] {
    let reason = exchange.finish_reason;
    let calls = reason == Some(FinishReason::ToolCalls) || !exchange.tool_arguments.is_empty();
    let answer = exchange.output.filter(|_| !exchange.failed);
    let whole = !exchange.failed && reason != Some(FinishReason::Length);
    let json_expected = exchange.json_requested && whole && !calls && reason != Some(FinishReason::ContentFilter);
    let called = whole && !exchange.tool_arguments.is_empty();
    [
        reason
            .filter(|_| !exchange.failed)
            .map(|reason| reason == FinishReason::Length),
        answer.filter(|_| !calls).map(refuses),
        answer.map(repetition::is_loop),
        answer.map(|answer| !calls && is_empty(answer)),
        answer.filter(|_| json_expected).map(|answer| !json::is_valid(answer)),
        called.then(|| {
            exchange
                .tool_arguments
                .iter()
                .any(|arguments| !json::is_object(arguments))
        }),
        exchange.negative_feedback,
        Some(exchange.failed),
    ]
}

/// Nothing that a reader would see.
fn is_empty(answer: &str) -> bool {
    answer.chars().all(|character| {
        character.is_whitespace()
            || character.is_control()
            || matches!(character, '\u{200B}'..='\u{200F}' | '\u{2060}' | '\u{FEFF}' | '\u{AD}')
    })
}

pub(super) fn token_bucket(exchange: &Exchange<'_>) -> Option<u16> {
    // Without an identity the prompt itself decides: never always the first token, which is the template's.
    let chosen = if exchange.id.is_empty() {
        prompt_hash(exchange)?
    } else {
        hash::hash(exchange.id.as_bytes(), SAMPLE)
    };
    let hashed = match exchange.prompt_token_ids {
        Some(ids) if !ids.is_empty() => {
            let id = ids.get(hash::below(chosen, ids.len()))?;
            hash::hash(&id.to_le_bytes(), TOKEN)
        }
        _ => hash_of_word(word(cut(exchange.prompt?, SAMPLED), chosen)?),
    };
    u16::try_from(hash::below(hashed, TOKEN_BUCKETS)).ok()
}

/// The word at a place of the text, or the next one, or the first. Long words are chosen more often, as tokens are.
fn word(text: &str, chosen: u64) -> Option<&str> {
    let at = cut(text, hash::below(chosen, text.len().max(1))).len();
    let (before, after) = text.split_at_checked(at)?;
    let Some(skipped) = after.find(char::is_alphanumeric) else {
        let first = before.find(char::is_alphanumeric)?;
        return Some(leading_word(before.get(first..)?));
    };
    let mut start = at + skipped;
    if skipped == 0 {
        for (index, character) in before.char_indices().rev().take(REACH) {
            if !character.is_alphanumeric() || is_own_word(character) {
                break;
            }
            start = index;
        }
        if text.get(at..)?.chars().next().is_some_and(is_own_word) {
            start = at;
        }
    }
    Some(leading_word(text.get(start..)?))
}

fn leading_word(text: &str) -> &str {
    let mut end = 0;
    for character in text.chars().take(2 * REACH) {
        if end > 0 && (!character.is_alphanumeric() || is_own_word(character)) {
            break;
        }
        end += character.len_utf8();
        if is_own_word(character) {
            break;
        }
    }
    cut(text, end)
}

/// Of a script without spaces between words.
fn is_own_word(character: char) -> bool {
    matches!(character, '\u{0E00}'..='\u{0EFF}' | '\u{2E80}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{3FFFF}')
}

fn hash_of_word(word: &str) -> u64 {
    hash::hash(word.to_lowercase().as_bytes(), WORD)
}

pub(super) fn requester(exchange: &Exchange<'_>) -> Option<u64> {
    exchange
        .requester
        .map(|requester| hash::hash(requester.as_bytes(), REQUESTER))
}

pub(super) fn prompt_hash(exchange: &Exchange<'_>) -> Option<u64> {
    match (exchange.prompt, exchange.prompt_token_ids) {
        (Some(prompt), _) => Some(hash::hash(prompt.as_bytes(), PROMPT)),
        (None, Some(ids)) => Some(ids.iter().fold(PROMPT, |state, &id| hash::mix(state ^ u64::from(id)))),
        (None, None) => None,
    }
}

#[cfg(test)]
#[path = "numbers_tests.rs"]
mod tests;
