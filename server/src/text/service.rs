//! A loaded model with its text side: templates, tokens, generations.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use perennial_engine::template::{ChatTemplate, Message, TemplateError};
use perennial_engine::tokenizer::{ModelTokenizer, TokenizerError};
use perennial_engine::{Engine, Queued, Rejected, RequestId, Sampling};

use super::demux::Demux;
use super::generation::Generation;
use super::stop::StopStrings;
use super::traces::{Asked, Traces};
use crate::shared::Shared;

/// Longer prompts are tokenised on a thread for blocking work, so that other requests' tokens keep flowing.
const INLINE_PROMPT_BYTES: usize = 2048;

/// A loaded model.
#[derive(Clone)]
pub struct Service {
    engine: Arc<dyn Engine>,
    tokenizer: ModelTokenizer,
    template: Option<Arc<ChatTemplate>>,
    demux: Arc<Demux>,
    next_id: Arc<AtomicU64>,
}

/// How an answer is to be made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextOptions {
    /// Most tokens; what the context leaves when absent.
    pub max_tokens: Option<usize>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end the answer.
    pub stop: Vec<String>,
}

/// Why a generation could not begin.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Messages do not fit the template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The text has no tokens.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The engine did not take it.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// A thread for blocking work was lost.
    #[error("tokenising was interrupted: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

impl Service {
    /// Joins an engine with its text side. `demux` must be run on the engine's updates.
    #[must_use]
    pub fn new(
        engine: Arc<dyn Engine>,
        tokenizer: ModelTokenizer,
        template: Option<ChatTemplate>,
        demux: Arc<Demux>,
    ) -> Self {
        Self {
            engine,
            tokenizer,
            template: template.map(Arc::new),
            demux,
            next_id: Arc::default(),
        }
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    /// The token ids of a chat.
    ///
    /// # Errors
    /// When the template refuses the messages.
    pub async fn encode_chat(&self, messages: Vec<Message>) -> Result<Vec<u32>, SubmitError> {
        let template = self.template.clone().ok_or(TemplateError::Missing)?;
        let tokenizer = self.tokenizer.clone();
        let bytes = messages.iter().map(|message| message.content.len()).sum();
        off_thread(bytes, move || {
            Ok(tokenizer.encode_rendered(&template.render(&messages)?)?)
        })
        .await
    }

    /// The token ids of a plain prompt.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub async fn encode_prompt(&self, prompt: String) -> Result<Vec<u32>, SubmitError> {
        let tokenizer = self.tokenizer.clone();
        off_thread(prompt.len(), move || Ok(tokenizer.encode_prompt(&prompt)?)).await
    }

    /// Begins to generate. What `asked` says is counted and kept with the answer.
    ///
    /// # Errors
    /// What the engine refuses.
    pub fn generate(
        &self,
        shared: &Arc<Shared>,
        prompt: Vec<u32>,
        options: TextOptions,
        asked: Asked,
    ) -> Result<Generation, SubmitError> {
        let id = RequestId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let prompt_tokens = prompt.len();
        let left = self.engine.info().max_length.saturating_sub(prompt_tokens);
        let max_tokens = options.max_tokens.unwrap_or(left).max(1);
        let measured = asked.question.is_some();
        let traces = Traces::new(asked, &prompt);
        let mailbox = self.demux.register(id, prompt_tokens);
        let request = Queued {
            id,
            prompt,
            max_tokens,
            sampling: options.sampling,
            measured,
        };
        match self.engine.submit(request) {
            Ok(control) => {
                shared.metrics.accepted(prompt_tokens);
                let stop = StopStrings::new(options.stop);
                let demux = Arc::clone(&self.demux);
                let tokenizer = self.tokenizer.clone();
                Ok(Generation::new(
                    id,
                    control,
                    mailbox,
                    demux,
                    Arc::clone(shared),
                    tokenizer,
                    stop,
                    traces,
                    prompt_tokens,
                ))
            }
            Err(rejected) => {
                self.demux.forget(id);
                if matches!(rejected, Rejected::QueueFull { .. }) {
                    shared.metrics.rejected();
                }
                Err(rejected.into())
            }
        }
    }
}

async fn off_thread<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, SubmitError> + Send + 'static,
) -> Result<T, SubmitError> {
    if bytes <= INLINE_PROMPT_BYTES {
        work()
    } else {
        tokio::task::spawn_blocking(work).await?
    }
}
