//! One round: every pod is asked once, many at the same time.

use std::sync::Arc;

use parking_lot::Mutex;
use perennial_crds::serving::Load;

use super::load_client::{Error, LONGEST_ANSWER, LoadClient};

/// Pods that are asked at the same time. One that does not answer holds its place for a second.
const CONCURRENCY: usize = 256;

/// A pod that is asked in every round.
#[derive(Debug)]
pub struct Asked {
    /// Its UID.
    pub pod: Arc<str>,
    /// How it is asked.
    pub client: LoadClient,
    /// What it said in the last round.
    pub answer: Option<Result<Load, Error>>,
}

/// The places at which pods are asked, each with the buffer it needs; kept from round to round.
#[derive(Debug, Default)]
pub struct Scraper {
    buffers: Vec<Vec<u8>>,
}

impl Scraper {
    /// Asks every pod once and leaves the answers with them.
    pub async fn round(&mut self, pods: &mut [Asked]) {
        let places = CONCURRENCY.min(pods.len());
        while self.buffers.len() < places {
            self.buffers.push(vec![0; LONGEST_ANSWER]);
        }
        let rest = Mutex::new(pods.iter_mut());
        let work = self.buffers.iter_mut().take(places).map(|buffer| {
            let rest = &rest;
            async move {
                loop {
                    let next = rest.lock().next();
                    let Some(asked) = next else { break };
                    asked.answer = Some(asked.client.ask(buffer).await);
                }
            }
        });
        futures::future::join_all(work).await;
    }
}
