//! Answers as they grow: server-sent events.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::error::ApiError;
use crate::shared::Shared;
use crate::text::{Finish, Generation};

/// Events that may wait for the client.
const UNREAD_EVENTS: usize = 64;
/// A client that takes no event for so long is given up.
const SLOW_CLIENT: Duration = Duration::from_secs(30);

/// The shape of an endpoint's events.
pub(super) trait Events: Send + 'static {
    /// An event before any text.
    fn begin(&self) -> Option<Value>;
    /// An event with text, or with the reason of the end.
    fn piece(&self, text: &str, finish: Option<&'static str>) -> Value;
    /// An event with token counts.
    fn usage(&self, usage: Value) -> Value;
}

/// Token counts.
pub(super) fn usage(generation: &Generation) -> Value {
    let (prompt, generated) = (generation.prompt_tokens(), generation.generated_tokens());
    json!({"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated})
}

/// Why an answer ended, in OpenAI's words; `Err` if it failed.
pub(super) fn finish_reason(finish: Finish) -> Result<&'static str, ApiError> {
    match finish {
        Finish::Stop => Ok("stop"),
        Finish::Length => Ok("length"),
        Finish::Failed(reason) => Err(ApiError::internal(format!(
            "the answer could not be finished: {reason}"
        ))),
    }
}

/// Starts to send a generation; it is cancelled when the client goes away or takes no event for too long.
pub(super) fn respond(
    shared: &Arc<Shared>,
    generation: Generation,
    events: impl Events,
    include_usage: bool,
) -> Response {
    let (sender, receiver) = mpsc::channel(UNREAD_EVENTS);
    let sender = Sender(sender);
    shared.in_flight.spawn(async move {
        if pump(&sender, generation, events, include_usage).await.is_none() {
            tracing::debug!("a stream ended early: the client went away or was too slow");
        }
    });
    let receiver = futures::stream::unfold((receiver, false), |(mut receiver, done)| async move {
        match receiver.recv().await {
            Some(Sent::Event(event)) => Some((Ok(event), (receiver, false))),
            Some(Sent::End) => None,
            // Without an end the client must not take the answer for a whole one.
            None if !done => Some((Err(std::io::Error::other("the stream was aborted")), (receiver, true))),
            None => None,
        }
    });
    let mut response = Response::new(Body::from_stream(receiver.fuse()));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

enum Sent {
    Event(Bytes),
    End,
}

struct Sender(mpsc::Sender<Sent>);

impl Sender {
    /// `None` when the client is gone or too slow.
    async fn send(&self, event: &Value) -> Option<()> {
        self.put(Sent::Event(format!("data: {event}\n\n").into())).await
    }

    async fn put(&self, sent: Sent) -> Option<()> {
        tokio::time::timeout(SLOW_CLIENT, self.0.send(sent)).await.ok()?.ok()
    }
}

async fn pump(sender: &Sender, mut generation: Generation, events: impl Events, include_usage: bool) -> Option<()> {
    if let Some(begin) = events.begin() {
        sender.send(&begin).await?;
    }
    loop {
        let piece = tokio::select! {
            piece = generation.next() => piece?,
            () = sender.0.closed() => return None,
        };
        if !piece.text.is_empty() {
            sender.send(&events.piece(&piece.text, None)).await?;
        }
        let Some(finish) = piece.finish else { continue };
        match finish_reason(finish) {
            Ok(reason) => sender.send(&events.piece("", Some(reason))).await?,
            Err(error) => sender.send(&error.body()).await?,
        }
        break;
    }
    if include_usage {
        sender.send(&events.usage(usage(&generation))).await?;
    }
    sender.put(Sent::Event(Bytes::from_static(b"data: [DONE]\n\n"))).await?;
    sender.put(Sent::End).await
}

/// Waits for the whole answer.
pub(super) async fn collect(mut generation: Generation) -> Result<(String, &'static str, Value), ApiError> {
    let mut text = String::new();
    while let Some(piece) = generation.next().await {
        text.push_str(&piece.text);
        if let Some(finish) = piece.finish {
            return Ok((text, finish_reason(finish)?, usage(&generation)));
        }
    }
    Err(ApiError::internal("the answer ended without an end"))
}
