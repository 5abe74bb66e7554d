//! The client: kube's, with its requests counted.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use http::header::{HeaderValue, USER_AGENT};
use http::{Request, Response};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tower::{Layer, Service};

use crate::metrics::Metrics;

/// A client for the cluster that the environment names.
///
/// # Errors
/// If neither a service account nor a kubeconfig is found, or TLS cannot be set up.
pub async fn from_environment(metrics: Arc<Metrics>) -> anyhow::Result<Client> {
    let mut config = Config::infer().await?;
    // A request that hangs must not hang a reconciliation for ever; watches have a time of their own.
    config.connect_timeout = Some(Duration::from_secs(5));
    config.write_timeout = Some(Duration::from_secs(30));
    // Under this name the API server's audit log counts our requests.
    let agent = HeaderValue::from_static(concat!("perennial-operator/", env!("CARGO_PKG_VERSION")));
    config.headers.push((USER_AGENT, agent));
    Ok(ClientBuilder::try_from(config)?.with_layer(&Counting(metrics)).build())
}

/// Counts every answer of the API server.
#[derive(Clone)]
pub struct Counting(pub Arc<Metrics>);

impl<S> Layer<S> for Counting {
    type Service = CountingService<S>;

    fn layer(&self, inner: S) -> CountingService<S> {
        CountingService {
            inner,
            metrics: Arc::clone(&self.0),
        }
    }
}

/// See [`Counting`].
#[derive(Clone)]
pub struct CountingService<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S, B> Service<Request<Body>> for CountingService<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = request.method().to_string();
        let metrics = Arc::clone(&self.metrics);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let code = answer
                .as_ref()
                .map_or("error".to_owned(), |answer| answer.status().as_str().to_owned());
            metrics.request(&code, &method);
            match &answer {
                // A proxy before the API server answers 502 to 504 in its place.
                Ok(answer) if !answer.status().is_server_error() => metrics.outages.answered(Instant::now()),
                Ok(_) | Err(_) => metrics.outages.failed(Instant::now()),
            }
            answer
        })
    }
}
