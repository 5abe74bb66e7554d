//! What a request leaves behind besides its answer: counts in drift panes, and perhaps a record for retraining.

use perennial_crds::capture::Level;

use crate::capture::Draft;
use crate::observation::{End, Question, Recording};
use crate::shared::{Shared, seconds_since_1970};

/// What is known of a request before its answer, for those who want to know; nothing of a request that nobody is to look at.
#[derive(Default)]
pub struct Asked {
    /// For drift panes.
    pub question: Option<Question>,
    /// For retraining.
    pub draft: Option<Draft>,
}

/// The same with the answer, as it grows.
pub(super) struct Traces {
    recording: Option<Recording>,
    draft: Option<Draft>,
    prompt_tokens: usize,
}

impl Traces {
    /// Begins with the tokens of the whole prompt.
    pub(super) fn new(asked: Asked, prompt: &[u32]) -> Self {
        Self {
            recording: asked.question.map(|question| Recording::new(question, prompt)),
            draft: asked.draft,
            prompt_tokens: prompt.len(),
        }
    }

    /// More of the answer.
    pub(super) fn push(&mut self, text: &str) {
        if let Some(recording) = &mut self.recording {
            recording.push(text);
        }
        if let Some(draft) = &mut self.draft {
            draft.push(text);
        }
    }

    /// The request ended; only the first end counts. What may be kept is decided now, not when it began.
    pub(super) fn end(&mut self, shared: &Shared, end: End) {
        if let Some(recording) = self.recording.take()
            && shared.capture.level() > Level::None
        {
            shared.observer.hand_over(recording.end(end));
        }
        if let Some(draft) = self.draft.take() {
            let now = i64::try_from(seconds_since_1970()).unwrap_or(i64::MAX);
            let ended = draft.end(end.outcome, self.prompt_tokens, end.output_tokens, now);
            shared.capture.hand_over(ended);
        }
    }
}
