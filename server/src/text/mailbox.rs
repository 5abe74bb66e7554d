//! Where one request's tokens wait for it.
//!
//! Bounded by the request's own `max_tokens`, so the sender never waits and nothing is lost.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use perennial_engine::{Confidence, FinishReason};
use tokio::sync::Notify;

#[derive(Default)]
struct Content {
    tokens: Vec<u32>,
    finished: Option<FinishReason>,
    /// When the first token came, and the last.
    came: Option<(Instant, Instant)>,
    count: u32,
    confidence: Mean,
}

/// Of the tokens that were measured.
#[derive(Default)]
struct Mean {
    logprob: f64,
    entropy: f64,
    count: u32,
}

pub(super) struct Mailbox {
    arrived: Instant,
    content: Mutex<Content>,
    notify: Notify,
}

/// How sure the model was of an answer, and how fast its tokens came, whenever they were taken.
pub(super) struct Course {
    /// From the arrival of the request to the first token.
    pub(super) first_token: Option<Duration>,
    /// Mean between two tokens.
    pub(super) between_tokens: Option<Duration>,
    /// Mean log-probability of the tokens that were measured, nats.
    pub(super) logprob: Option<f64>,
    /// Mean entropy at them, nats.
    pub(super) entropy: Option<f64>,
}

impl Mailbox {
    /// For a request that arrived at this time.
    pub(super) fn new(arrived: Instant) -> Self {
        Self {
            arrived,
            content: Mutex::default(),
            notify: Notify::new(),
        }
    }

    pub(super) fn put(
        &self,
        token: Option<u32>,
        confidence: Option<Confidence>,
        finished: Option<FinishReason>,
        now: Instant,
    ) {
        if token.is_none() && finished.is_none() {
            return;
        }
        {
            let mut content = self.content.lock();
            if let Some(token) = token {
                content.tokens.push(token);
                content.count += 1;
                content.came = Some((content.came.map_or(now, |(first, _)| first), now));
            }
            if let Some(Confidence { logprob, entropy }) = confidence {
                let mean = &mut content.confidence;
                mean.logprob += f64::from(logprob);
                mean.entropy += f64::from(entropy);
                mean.count += 1;
            }
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

    /// What is known of the tokens so far.
    pub(super) fn course(&self) -> Course {
        let content = self.content.lock();
        let between = |(first, last): (Instant, Instant)| {
            let gaps = content.count.saturating_sub(1);
            (gaps > 0).then(|| (last - first) / gaps)
        };
        let Mean {
            logprob,
            entropy,
            count,
        } = content.confidence;
        let mean = |sum: f64| (count > 0).then(|| sum / f64::from(count));
        Course {
            first_token: content.came.map(|(first, _)| first - self.arrived),
            between_tokens: content.came.and_then(between),
            logprob: mean(logprob),
            entropy: mean(entropy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_of_the_tokens_and_not_of_who_takes_them() {
        let arrived = Instant::now();
        let mailbox = Mailbox::new(arrived);
        let at = |milliseconds| arrived + Duration::from_millis(milliseconds);
        let pace = || {
            let course = mailbox.course();
            (course.first_token, course.between_tokens)
        };
        assert_eq!(pace(), (None, None));
        mailbox.put(Some(1), None, None, at(500));
        assert_eq!(pace(), (Some(Duration::from_millis(500)), None));
        for milliseconds in [540, 560, 620] {
            mailbox.put(Some(1), None, None, at(milliseconds));
        }
        mailbox.put(None, None, Some(FinishReason::End), at(9000));
        let expected = (Some(Duration::from_millis(500)), Some(Duration::from_millis(40)));
        assert_eq!(pace(), expected);
    }

    #[test]
    fn the_confidence_is_the_mean_of_what_was_measured() {
        let now = Instant::now();
        let mailbox = Mailbox::new(now);
        let means = || {
            let course = mailbox.course();
            (course.logprob, course.entropy)
        };
        mailbox.put(Some(1), None, None, now);
        assert_eq!(means(), (None, None));
        for (logprob, entropy) in [(-0.5, 2.0), (-1.5, 1.0)] {
            mailbox.put(Some(1), Some(Confidence { logprob, entropy }), None, now);
            mailbox.put(Some(1), None, None, now);
        }
        mailbox.put(None, None, Some(FinishReason::Length), now);
        assert_eq!(means(), (Some(-1.0), Some(1.5)));
    }
}
