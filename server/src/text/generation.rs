//! One answer as it grows.

use std::sync::Arc;

use perennial_engine::tokenizer::{ModelTokenizer, TokenStream, TokenizerError};
use perennial_engine::{FinishReason, RequestControl, RequestId};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::demux::Demux;
use super::mailbox::Mailbox;
use super::stop::StopStrings;
use super::traces::Traces;
use crate::metrics::Outcome;
use crate::observation::End;
use crate::shared::Shared;

/// How an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// End token or stop string.
    Stop,
    /// As many tokens as were asked for, or as fit.
    Length,
    /// It failed; the text says how.
    Failed(String),
}

/// More of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Text; may be empty.
    pub text: String,
    /// Set on the last piece.
    pub finish: Option<Finish>,
}

/// An answer as it grows. Dropping it cancels what is left.
pub struct Generation {
    id: RequestId,
    control: Option<RequestControl>,
    mailbox: Arc<Mailbox>,
    demux: Arc<Demux>,
    shared: Arc<Shared>,
    text: TokenStream,
    stop: StopStrings,
    traces: Traces,
    prompt_tokens: usize,
    generated_tokens: usize,
    finished: bool,
    /// Keeps the process alive while it drains.
    _in_flight: TaskTrackerToken,
}

impl Generation {
    #[expect(
        clippy::too_many_arguments,
        reason = "called from one place, and each argument has a type of its own"
    )]
    pub(super) fn new(
        id: RequestId,
        control: RequestControl,
        mailbox: Arc<Mailbox>,
        demux: Arc<Demux>,
        shared: Arc<Shared>,
        tokenizer: ModelTokenizer,
        stop: StopStrings,
        traces: Traces,
        prompt_tokens: usize,
    ) -> Self {
        Self {
            id,
            control: Some(control),
            mailbox,
            demux,
            text: TokenStream::new(tokenizer),
            stop,
            traces,
            prompt_tokens,
            generated_tokens: 0,
            finished: false,
            _in_flight: shared.in_flight.token(),
            shared,
        }
    }

    /// Tokens of the prompt.
    #[must_use]
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// Tokens of the answer so far.
    #[must_use]
    pub fn generated_tokens(&self) -> usize {
        self.generated_tokens
    }

    /// The next piece; `None` after the last. Pieces without text are passed over, except the last.
    pub async fn next(&mut self) -> Option<Piece> {
        if self.finished {
            return None;
        }
        loop {
            let abort = self.shared.abort.clone();
            let piece = tokio::select! {
                biased;
                (tokens, finished) = self.mailbox.take() => self.advance(tokens, finished),
                () = abort.cancelled() => Ok(failed("the server is shutting down and the drain period is over")),
            };
            let piece = piece.unwrap_or_else(|error| failed(&error.to_string()));
            self.traces.push(&piece.text);
            if let Some(finish) = &piece.finish {
                self.close(outcome(finish));
                return Some(piece);
            }
            if !piece.text.is_empty() {
                return Some(piece);
            }
        }
    }

    fn advance(&mut self, tokens: Vec<u32>, finished: Option<FinishReason>) -> Result<Piece, TokenizerError> {
        let mut text = String::new();
        for token in tokens {
            self.generated_tokens += 1;
            let (certain, stopped) = self.stop.push(&self.text.push(token)?);
            text.push_str(&certain);
            if stopped {
                return Ok(Piece {
                    text,
                    finish: Some(Finish::Stop),
                });
            }
        }
        let finish = match finished {
            None => return Ok(Piece { text, finish: None }),
            Some(FinishReason::End) => Finish::Stop,
            Some(FinishReason::Length) => Finish::Length,
            Some(FinishReason::Cancelled) => Finish::Failed("the request was cancelled".to_owned()),
            Some(FinishReason::Failed(reason)) => Finish::Failed(reason.to_string()),
        };
        let (certain, stopped) = self.stop.push(&self.text.finish()?);
        text.push_str(&certain);
        if stopped {
            return Ok(Piece {
                text,
                finish: Some(Finish::Stop),
            });
        }
        text.push_str(&self.stop.finish());
        Ok(Piece {
            text,
            finish: Some(finish),
        })
    }

    /// Gives everything back at the first end, whoever saw it.
    fn close(&mut self, outcome: Outcome) {
        self.finished = true;
        self.control = None;
        self.demux.finish(self.id, outcome, &self.shared.metrics);
        let course = self.mailbox.course();
        let end = End {
            outcome,
            output_tokens: self.generated_tokens,
            first_token: course.first_token,
            between_tokens: course.between_tokens,
            logprob: course.logprob,
            entropy: course.entropy,
        };
        self.traces.end(&self.shared, end);
    }
}

fn outcome(finish: &Finish) -> Outcome {
    match finish {
        Finish::Stop => Outcome::Stop,
        Finish::Length => Outcome::Length,
        Finish::Failed(_) => Outcome::Error,
    }
}

fn failed(reason: &str) -> Piece {
    Piece {
        text: String::new(),
        finish: Some(Finish::Failed(reason.to_owned())),
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if !self.finished {
            self.close(Outcome::Abort);
        }
    }
}
