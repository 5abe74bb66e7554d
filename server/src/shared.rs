//! What HTTP handlers, probes and startup share.

use std::sync::{Arc, OnceLock};

use perennial_crds::capture::Level;
use perennial_loader::Progress;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::capture::{Capture, CaptureError};
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::observation::{Observer, ObserverError, StaticEncoder};
use crate::text::Service;

/// Why a server has no state.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// Two metrics of one name, which is a bug.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Requests cannot be observed.
    #[error(transparent)]
    Observer(#[from] ObserverError),
    /// Nothing of requests can be kept.
    #[error(transparent)]
    Capture(#[from] CaptureError),
}

/// One server's state.
pub struct Shared {
    /// The name in `model`.
    pub served_model_name: String,
    /// Seconds since 1970 at the start, for `/v1/models`.
    pub created: u64,
    /// Whether work is taken.
    pub lifecycle: Lifecycle,
    /// How far loading is.
    pub progress: Progress,
    /// Counters and histograms.
    pub metrics: Metrics,
    /// Counts requests in drift panes.
    pub observer: Arc<Observer>,
    /// Keeps a sample of requests for retraining, if that is wanted.
    pub capture: Capture,
    /// Counts responses that are still being produced.
    pub in_flight: TaskTracker,
    /// Ends every generation with an error: the drain period is over.
    pub abort: CancellationToken,
    service: OnceLock<Service>,
}

impl Shared {
    /// A server that has not loaded its model, and embeds prompts by their n-grams. Of what it keeps of requests, at most
    /// `capture_bytes` wait for the collector.
    ///
    /// # Errors
    /// When the metrics cannot be registered, or requests not be observed or kept.
    pub fn new(served_model_name: String, vllm_alias: bool, capture_bytes: usize) -> Result<Self, SharedError> {
        Self::with_encoder(served_model_name, vllm_alias, capture_bytes, None)
    }

    /// The same with an encoder of prompts.
    ///
    /// # Errors
    /// As [`Shared::new`].
    pub fn with_encoder(
        served_model_name: String,
        vllm_alias: bool,
        capture_bytes: usize,
        encoder: Option<StaticEncoder>,
    ) -> Result<Self, SharedError> {
        let metrics = Metrics::new(&served_model_name, vllm_alias)?;
        let observer = Arc::new(Observer::start(metrics.observation.clone(), encoder)?);
        let counts = Arc::clone(&observer);
        let follow = move |level| counts.set_counting(level > Level::None);
        Ok(Self {
            capture: Capture::telling(metrics.capture.clone(), capture_bytes, follow)?,
            observer,
            metrics,
            served_model_name,
            created: seconds_since_1970(),
            lifecycle: Lifecycle::default(),
            progress: Progress::new(),
            in_flight: TaskTracker::new(),
            abort: CancellationToken::new(),
            service: OnceLock::new(),
        })
    }

    /// The loaded model.
    #[must_use]
    pub fn service(&self) -> Option<&Service> {
        self.service.get()
    }

    /// Sets the loaded model; only the first counts.
    pub fn set_service(&self, service: Service) {
        let _ = self.service.set(service);
    }
}

/// The time as OpenAI writes it.
#[must_use]
pub fn seconds_since_1970() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}
