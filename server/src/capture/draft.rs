//! One exchange that is kept, while it grows and until it is redacted.
//!
//! Nothing here can be printed: prompts and answers belong into no log.

use std::collections::BTreeMap;

use perennial_crds::capture::{ExchangeRecord, FeedbackRecord, Finish, MAX_TEXT_BYTES, Message};

use super::redact::{LOOK_AHEAD, Redactor};
use super::rules::Rules;
use crate::metrics::Outcome;

/// Bytes kept of one text until it is redacted.
const TEXT_BYTES: usize = MAX_TEXT_BYTES + LOOK_AHEAD;
/// Bytes kept of all messages of a chat: of longer ones the beginning is left out.
const CHAT_BYTES: usize = 4 * MAX_TEXT_BYTES;
/// What a message costs besides its text, so that empty ones are bounded, too.
const MESSAGE_BYTES: usize = 64;
/// Room for an ordinary answer.
const ANSWER_BYTES: usize = 4 << 10;

/// What was asked.
#[derive(Clone, Copy)]
pub enum Texts<'a> {
    /// Messages.
    Chat(&'a [crate::text::Message]),
    /// A text to continue.
    Prompt(&'a str),
}

/// A request that is kept, while its answer grows.
pub struct Draft {
    request_id: String,
    requester: Option<String>,
    weight: f64,
    messages: Vec<Message>,
    prompt: Option<String>,
    answer: String,
    answer_is_cut: bool,
    messages_left_out: bool,
    /// How often the level had been lowered when it began.
    lowered: u64,
}

/// An exchange that ended.
pub struct Ended {
    draft: Draft,
    outcome: Outcome,
    prompt_tokens: usize,
    output_tokens: usize,
    time: i64,
}

impl Draft {
    /// Begins with what was asked, by whom, in a request that stands for `weight` of them.
    #[must_use]
    pub fn new(request_id: String, requester: Option<String>, weight: f64, texts: Texts<'_>) -> Self {
        let (messages, prompt) = match texts {
            Texts::Chat(messages) => (messages, None),
            Texts::Prompt(prompt) => (&[][..], Some(beginning(prompt).to_owned())),
        };
        let kept = latest(messages);
        Self {
            request_id,
            requester,
            weight,
            messages_left_out: kept.len() < messages.len(),
            messages: kept,
            prompt,
            answer: String::with_capacity(ANSWER_BYTES),
            answer_is_cut: false,
            lowered: 0,
        }
    }

    /// The same, begun when the level had been lowered so often.
    pub(super) fn since(self, lowered: u64) -> Self {
        Self { lowered, ..self }
    }

    /// More of the answer. Of a long one the end is left out.
    pub fn push(&mut self, text: &str) {
        if self.answer_is_cut {
            return;
        }
        let fits = text.floor_char_boundary(TEXT_BYTES - self.answer.len());
        self.answer.push_str(&text[..fits]);
        self.answer_is_cut = fits < text.len();
    }

    /// The request ended at this time, seconds since 1970.
    #[must_use]
    pub fn end(self, outcome: Outcome, prompt_tokens: usize, output_tokens: usize, time: i64) -> Ended {
        Ended {
            draft: self,
            outcome,
            prompt_tokens,
            output_tokens,
            time,
        }
    }
}

impl Ended {
    /// How often the level had been lowered when it began.
    pub(super) fn lowered(&self) -> u64 {
        self.draft.lowered
    }

    /// What is kept of it by these rules.
    #[must_use]
    pub fn record(self, rules: &Rules) -> ExchangeRecord {
        let draft = self.draft;
        let mut texts = Cleaner {
            redactor: &rules.redactor,
            finds: BTreeMap::new(),
            truncated: draft.messages_left_out,
        };
        let clean = |message: Message| Message {
            content: texts.clean(&message.content),
            role: message.role,
        };
        let messages = draft.messages.into_iter().map(clean).collect();
        let prompt = draft.prompt.map(|prompt| texts.clean(&prompt));
        let answer = texts.clean(&draft.answer);
        ExchangeRecord {
            request_id: draft.request_id,
            time: self.time,
            revision: rules.revision.clone(),
            requester: draft.requester,
            messages,
            prompt,
            answer,
            finish: match self.outcome {
                Outcome::Stop => Finish::Stop,
                Outcome::Length => Finish::Length,
                Outcome::Abort => Finish::Abort,
                Outcome::Error => Finish::Error,
            },
            prompt_tokens: narrow(self.prompt_tokens),
            output_tokens: narrow(self.output_tokens),
            sampling_weight: draft.weight,
            redactions: texts.finds,
            truncated: texts.truncated,
        }
    }
}

/// Takes out of a correction what the rules find; tells how often each found something.
#[must_use]
pub fn clean_feedback(mut feedback: FeedbackRecord, rules: &Rules) -> (FeedbackRecord, BTreeMap<String, u32>) {
    let mut texts = Cleaner {
        redactor: &rules.redactor,
        finds: BTreeMap::new(),
        truncated: false,
    };
    feedback.corrected_output = feedback.corrected_output.map(|text| texts.clean(&text));
    (feedback, texts.finds)
}

/// Redacts the texts of one record.
struct Cleaner<'a> {
    redactor: &'a Redactor,
    finds: BTreeMap<String, u32>,
    truncated: bool,
}

impl Cleaner<'_> {
    fn clean(&mut self, text: &str) -> String {
        let redacted = self.redactor.redact(text, MAX_TEXT_BYTES, &mut self.finds);
        self.truncated |= redacted.truncated;
        redacted.text
    }
}

/// The last messages, as many as there is room for.
fn latest(messages: &[crate::text::Message]) -> Vec<Message> {
    let mut room = CHAT_BYTES;
    let fits = |message: &&crate::text::Message| {
        let left = room.checked_sub(beginning(&message.content).len() + MESSAGE_BYTES);
        room = left.unwrap_or(0);
        left.is_some()
    };
    let count = messages.iter().rev().take_while(fits).count();
    let keep = |message: &crate::text::Message| Message {
        role: message.role.clone(),
        content: beginning(&message.content).to_owned(),
    };
    messages[messages.len() - count..].iter().map(keep).collect()
}

fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES)]
}

fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "draft_tests.rs"]
mod tests;
