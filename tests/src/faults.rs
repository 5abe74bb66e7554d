//! A layer in an operator's client that makes one write go wrong, or its watches lag, break and lose their place.
//!
//! It sits above the client's own retries, so that the operator itself meets every fault.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body as Answer, Bytes};
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::json;
use tokio::sync::watch;
use tower::{BoxError, Layer, Service};

use crate::ledger::{Ledger, Write, target};

/// Watches that an operator of one namespace keeps.
const WATCHES: usize = 10;

/// What happens to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operator dies before the write is sent.
    CrashBefore,
    /// The operator dies after the write took effect and before it hears so.
    CrashAfter,
    /// The API server answers 409.
    Conflict,
    /// The API server answers 429 and asks to come back in a second.
    TooManyRequests,
    /// The API server answers 500.
    ServerError,
    /// No answer ever comes, and nothing was done.
    HangBefore,
    /// No answer ever comes, but it was done.
    HangAfter,
}

impl Fault {
    /// Whether the operator dies of it.
    #[must_use]
    pub fn is_crash(self) -> bool {
        matches!(self, Self::CrashBefore | Self::CrashAfter)
    }
}

/// What happens to watches.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    /// Raised to break off every watch that runs.
    breaks: u64,
    /// Events are held back while this is set.
    held: bool,
}

struct Shared {
    ledger: Ledger,
    plan: Mutex<Option<(usize, Fault)>>,
    writes: AtomicUsize,
    /// So many of the next watches are told that their place in the history is gone.
    gone: AtomicUsize,
    weather: watch::Sender<Weather>,
    dead: watch::Sender<bool>,
}

/// One operator's wire to the API server. Cheap to clone.
#[derive(Clone)]
pub struct Wire(Arc<Shared>);

impl Wire {
    /// A wire without faults.
    #[must_use]
    pub fn new(ledger: Ledger) -> Self {
        Self(Arc::new(Shared {
            ledger,
            plan: Mutex::new(None),
            writes: AtomicUsize::new(0),
            gone: AtomicUsize::new(0),
            weather: watch::channel(Weather::default()).0,
            dead: watch::channel(false).0,
        }))
    }

    /// Plans a fault for the n-th write, from 0.
    #[must_use]
    pub fn failing(self, index: usize, fault: Fault) -> Self {
        *self.0.plan.lock().unwrap_or_else(PoisonError::into_inner) = Some((index, fault));
        self
    }

    /// Whether the planned fault was played.
    #[must_use]
    pub fn was_played(&self) -> bool {
        self.0.plan.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Waits until a planned crash came.
    pub async fn crashed(&self) {
        // The sender lives as long as this wire, so waiting cannot fail.
        let _ = self.0.dead.subscribe().wait_for(|dead| *dead).await;
    }

    /// Breaks off all watches. With `lose_place` they have to list anew, and so miss what was between.
    pub fn break_watches(&self, lose_place: bool) {
        if lose_place {
            self.0.gone.store(WATCHES, Ordering::SeqCst);
        }
        self.0.weather.send_modify(|weather| weather.breaks += 1);
    }

    /// Holds events back from now on, or lets them through again: what the operator knows gets old.
    pub fn hold_events(&self, held: bool) {
        self.0.weather.send_modify(|weather| weather.held = held);
    }

    fn fault(&self, index: usize) -> Option<Fault> {
        let mut plan = self.0.plan.lock().unwrap_or_else(PoisonError::into_inner);
        plan.take_if(|(at, _)| *at == index).map(|(_, fault)| fault)
    }

    fn is_dead(&self) -> bool {
        *self.0.dead.borrow()
    }
}

impl<S> Layer<S> for Wire {
    type Service = OnTheWire<S>;

    fn layer(&self, inner: S) -> OnTheWire<S> {
        OnTheWire {
            inner,
            wire: self.clone(),
        }
    }
}

/// See [`Wire`].
#[derive(Clone)]
pub struct OnTheWire<S> {
    inner: S,
    wire: Wire,
}

impl<S, B> Service<Request<Body>> for OnTheWire<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: axum::body::HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Answer>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Answer>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let wire = self.wire.clone();
        if wire.is_dead() {
            return Box::pin(std::future::pending());
        }
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        if method == Method::GET {
            if is_watch && take_one(&wire.0.gone) {
                return Box::pin(std::future::ready(Ok(refusal(StatusCode::GONE, "Expired"))));
            }
            let sent = self.inner.call(request);
            return Box::pin(async move {
                let answer = sent.await?.map(Answer::new);
                Ok(if is_watch {
                    answer.map(|body| wire.watched(body))
                } else {
                    answer
                })
            });
        }
        let (resource, name) = target(&path);
        if resource == "leases" {
            let sent = self.inner.call(request);
            return Box::pin(async move { Ok(sent.await?.map(Answer::new)) });
        }
        let write = Write {
            index: wire.0.writes.fetch_add(1, Ordering::SeqCst),
            method,
            resource,
            name,
            code: None,
            at: Instant::now(),
        };
        let fault = wire.fault(write.index);
        if let Some(answer) = before(&wire, &write, fault) {
            return answer;
        }
        let sent = self.inner.call(request);
        // In a task of its own, so that a write is on the ledger also when the operator gave it up for its time.
        let written = tokio::spawn(async move { wire.written(write, fault, sent.await?.map(Answer::new)).await });
        Box::pin(async move { written.await? })
    }
}

/// Faults that keep a write from being sent.
fn before(
    wire: &Wire,
    write: &Write,
    fault: Option<Fault>,
) -> Option<BoxFuture<'static, Result<Response<Answer>, BoxError>>> {
    let refused = match fault? {
        Fault::CrashAfter | Fault::HangAfter => return None,
        Fault::CrashBefore | Fault::HangBefore => None,
        Fault::Conflict => Some(refusal(StatusCode::CONFLICT, "Conflict")),
        Fault::TooManyRequests => Some(refusal(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests")),
        Fault::ServerError => Some(refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalError")),
    };
    wire.0.ledger.add(write.clone());
    if fault == Some(Fault::CrashBefore) {
        wire.0.dead.send_replace(true);
    }
    Some(match refused {
        Some(answer) => Box::pin(std::future::ready(Ok(answer))),
        None => Box::pin(std::future::pending()),
    })
}

impl Wire {
    async fn written(
        &self,
        write: Write,
        fault: Option<Fault>,
        answer: Response<Answer>,
    ) -> Result<Response<Answer>, BoxError> {
        self.0.ledger.add(Write {
            code: Some(answer.status().as_u16()),
            ..write
        });
        match fault {
            Some(Fault::CrashAfter) => {
                self.0.dead.send_replace(true);
                std::future::pending().await
            }
            Some(Fault::HangAfter) => std::future::pending().await,
            _ => Ok(answer),
        }
    }

    /// The body of a watch, which ends and lags as the weather has it.
    fn watched(&self, body: Answer) -> Answer {
        let mut weather = self.0.weather.subscribe();
        let breaks = weather.borrow().breaks;
        let broken = async move {
            // The sender lives as long as the wire; an operator whose wire is gone reads nothing more.
            let _ = weather.wait_for(|weather| weather.breaks != breaks).await;
        };
        let weather = self.0.weather.subscribe();
        let chunks = body.into_data_stream().then(move |chunk| {
            let mut weather = weather.clone();
            async move {
                let _ = weather.wait_for(|weather| !weather.held).await;
                chunk
            }
        });
        Answer::from_stream(chunks.take_until(Box::pin(broken)))
    }
}

fn take_one(count: &AtomicUsize) -> bool {
    count
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
        .is_ok()
}

fn refusal(code: StatusCode, reason: &str) -> Response<Answer> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "a fault that a test put in", "reason": reason, "code": code.as_u16(),
    });
    let bytes = Bytes::from(status.to_string());
    let mut answer = Response::new(Answer::from_stream(stream::once(async { Ok::<_, Infallible>(bytes) })));
    *answer.status_mut() = code;
    if code == StatusCode::TOO_MANY_REQUESTS {
        let after = http::HeaderValue::from(Duration::from_secs(1).as_secs());
        answer.headers_mut().insert(http::header::RETRY_AFTER, after);
    }
    answer
}
