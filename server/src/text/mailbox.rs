//! Where one request's tokens wait for it.
//!
//! Bounded by the request's own `max_tokens`, so the sender never waits and nothing is lost.

use parking_lot::Mutex;
use perennial_engine::FinishReason;
use tokio::sync::Notify;

#[derive(Default)]
struct Content {
    tokens: Vec<u32>,
    finished: Option<FinishReason>,
}

#[derive(Default)]
pub(super) struct Mailbox {
    content: Mutex<Content>,
    notify: Notify,
}

impl Mailbox {
    pub(super) fn put(&self, token: Option<u32>, finished: Option<FinishReason>) {
        if token.is_none() && finished.is_none() {
            return;
        }
        {
            let mut content = self.content.lock();
            content.tokens.extend(token);
            if content.finished.is_none() {
                content.finished = finished;
            }
        }
        self.notify.notify_one();
    }

    /// Everything that came since the last call; waits until there is something.
    pub(super) async fn take(&self) -> (Vec<u32>, Option<FinishReason>) {
        loop {
            {
                let mut content = self.content.lock();
                if !content.tokens.is_empty() || content.finished.is_some() {
                    return (std::mem::take(&mut content.tokens), content.finished.clone());
                }
            }
            self.notify.notified().await;
        }
    }
}
