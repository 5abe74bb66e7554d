//! An operator in this process, on a runtime of its own, so that it can die as a whole at any moment.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use kube::Config;
use kube::client::ClientBuilder;
use perennial_operator::args::Args;
use perennial_operator::client::Counting;
use perennial_operator::metrics::Metrics;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::faults::Wire;

/// Image of the server in tests; nothing pulls it.
pub const SERVER_IMAGE: &str = "registry.example/perennial-server:test";
/// Image of the collector and of Jobs in tests; nothing pulls it.
pub const TRAINER_IMAGE: &str = "registry.example/perennial-trainer:test";

/// A running operator. Dropped, it is killed.
pub struct Operator {
    runtime: Option<Runtime>,
    cancel: CancellationToken,
    ended: Option<oneshot::Receiver<Result<()>>>,
    /// Its figures.
    pub metrics: Arc<Metrics>,
    /// Its wire to the API server.
    pub wire: Wire,
}

/// What an operator is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespaces to watch; none means all.
    pub namespaces: Vec<String>,
    /// Namespace of the lease; without one it leads at once.
    pub lease: Option<String>,
    /// Its name in the lease.
    pub identity: String,
    /// Image of servers.
    pub image: String,
    /// Address of its own port.
    pub admin: String,
    /// Seconds for one look at one object.
    pub timeout: u64,
}

impl Settings {
    /// Watches one namespace, without lease.
    #[must_use]
    pub fn of(namespace: &str) -> Self {
        Self {
            namespaces: vec![namespace.to_owned()],
            lease: None,
            identity: "operator".to_owned(),
            image: SERVER_IMAGE.to_owned(),
            admin: "127.0.0.1:0".to_owned(),
            timeout: 30,
        }
    }

    fn args(&self) -> Result<Args> {
        let mut line = vec![
            "perennial-operator".to_owned(),
            format!("--server-image={}", self.image),
            format!("--trainer-image={TRAINER_IMAGE}"),
            format!("--leader-elect={}", self.lease.is_some()),
            format!("--lease-namespace={}", self.lease.as_deref().unwrap_or("default")),
            format!("--identity={}", self.identity),
            format!("--admin-address={}", self.admin),
            format!("--reconcile-timeout-seconds={}", self.timeout),
        ];
        if !self.namespaces.is_empty() {
            line.push(format!("--watch-namespaces={}", self.namespaces.join(",")));
        }
        Ok(Args::try_parse_from(line)?)
    }
}

impl Operator {
    /// Starts an operator.
    ///
    /// # Errors
    /// If its arguments are refused.
    pub fn start(config: Config, settings: &Settings, wire: Wire) -> Result<Self> {
        let args = settings.args()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .thread_name("operator")
            .build()?;
        let cancel = CancellationToken::new();
        let metrics = Arc::new(Metrics::new()?);
        let (told, ended) = oneshot::channel();
        let (stop, counted, on_wire) = (cancel.clone(), Arc::clone(&metrics), wire.clone());
        runtime.spawn(async move {
            let outcome = work(args, config, counted, on_wire, stop).await;
            // Nobody waits for an operator that is killed.
            let _ = told.send(outcome);
        });
        Ok(Self {
            runtime: Some(runtime),
            cancel,
            ended: Some(ended),
            metrics,
            wire,
        })
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Ends it as SIGTERM does, and waits until it has.
    ///
    /// # Errors
    /// If it fails, or takes longer than 30 s.
    pub async fn stop(self) -> Result<()> {
        self.cancel.cancel();
        self.ended().await
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// What it ended with; that it has not after 30 s.
    pub async fn ended(mut self) -> Result<()> {
        let ended = self.ended.take().context("it was stopped before")?;
        tokio::time::timeout(Duration::from_secs(30), ended)
            .await
            .context("the operator did not end within 30 s")??
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn work(args: Args, config: Config, metrics: Arc<Metrics>, wire: Wire, cancel: CancellationToken) -> Result<()> {
    let client = ClientBuilder::try_from(config)?
        .with_layer(&Counting(Arc::clone(&metrics)))
        .with_layer(&wire)
        .build();
    perennial_operator::run::run(args, client, metrics, cancel).await
}
