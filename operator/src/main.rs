//! The operator's process: arguments, log, signals.

use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use perennial_operator::args::{Args, LogFormat};
use perennial_operator::metrics::Metrics;
use perennial_operator::{client, run};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let filter = EnvFilter::try_new(&args.log_level).context("--log-level is not a filter")?;
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    match args.log_format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.init(),
    }
    // Fails only if a provider was installed before, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let metrics = Arc::new(Metrics::new().context("cannot register the metrics")?);
    let client = client::from_environment(Arc::clone(&metrics))
        .await
        .context("cannot find the cluster")?;
    let cancel = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = cancel.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    run::run(args, client, metrics, cancel).await
}
