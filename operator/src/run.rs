//! Start, leadership, stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, Client};
use perennial_crds::LLMDeployment;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, Health};
use crate::apply::Writer;
use crate::args::Args;
use crate::autoscaling::board::Board;
use crate::controller::{self, Limits};
use crate::deployment::build::Environment;
use crate::deployment::observe::Indexes;
use crate::deployment::reconcile::Shell;
use crate::drift::pane_reader::PaneReader;
use crate::drift::words::Words;
use crate::lease::{Candidate, Lost, Timing};
use crate::loading::LoadingReader;
use crate::metrics::Metrics;
use crate::remember::Remembered;

/// How often it is looked whether the CRDs have come.
const CRD_RETRY: Duration = Duration::from_secs(2);

/// Runs an operator until cancelled.
///
/// # Errors
/// If the admin port is taken.
pub async fn run(args: Args, client: Client, metrics: Arc<Metrics>, cancel: CancellationToken) -> anyhow::Result<()> {
    let health = Health::default();
    let listener = TcpListener::bind(args.admin_address)
        .await
        .with_context(|| format!("cannot listen on --admin-address {}", args.admin_address))?;
    let tracker = TaskTracker::new();
    let admin_stop = CancellationToken::new();
    tracker.spawn(admin::serve(
        listener,
        health.clone(),
        Arc::clone(&metrics),
        admin_stop.clone(),
    ));
    let outcome = work(&args, &client, &metrics, &health, &cancel).await;
    admin_stop.cancel();
    tracker.close();
    tracker.wait().await;
    outcome
}

async fn work(
    args: &Args,
    client: &Client,
    metrics: &Arc<Metrics>,
    health: &Health,
    cancel: &CancellationToken,
) -> anyhow::Result<()> {
    if !wait_for_crds(args, client, health, cancel).await {
        return Ok(());
    }
    metrics.set_max_concurrent(args.concurrency);
    metrics.set_leader(&args.lease_name, false);
    // A stand-by is ready too: it is there to take over.
    health.ready();
    if !args.leader_elect {
        metrics.set_leader(&args.lease_name, true);
        lead(args, client, metrics, Arc::new(AtomicBool::new(true)), cancel.clone()).await?;
        return Ok(());
    }
    let candidate = Candidate::new(
        client.clone(),
        &args.lease_namespace,
        &args.lease_name,
        &args.identity,
        Timing::default(),
    );
    while let Some(lease) = candidate.acquire(cancel).await {
        tracing::info!(
            lease = args.lease_name,
            identity = args.identity,
            "This operator leads."
        );
        metrics.set_leader(&args.lease_name, true);
        let term = term(args, client, metrics, &candidate, lease, cancel).await;
        metrics.set_leader(&args.lease_name, false);
        match term? {
            Ended::Released => {
                tracing::info!(lease = args.lease_name, "Stopped and gave the lease back.");
                return Ok(());
            }
            // Models go on serving; this operator stands by until the lease is free again.
            Ended::Lost(why) => tracing::warn!(%why, "This operator does not lead any more; standing by."),
        }
    }
    Ok(())
}

/// How a term of leadership ended.
enum Ended {
    /// On request, with the lease given back.
    Released,
    /// Somebody else may lead now.
    Lost(Lost),
}

/// Works while the lease is held.
async fn term(
    args: &Args,
    client: &Client,
    metrics: &Arc<Metrics>,
    candidate: &Candidate,
    lease: Lease,
    cancel: &CancellationToken,
) -> anyhow::Result<Ended> {
    let leads = Arc::new(AtomicBool::new(true));
    let (stop_working, stop_renewing) = (CancellationToken::new(), CancellationToken::new());
    let work = lead(args, client, metrics, Arc::clone(&leads), stop_working.clone());
    let keep = candidate.keep(lease, &stop_renewing);
    tokio::pin!(work, keep);
    let mut stopping = false;
    // Looks that are under way are finished while the lease is still renewed; only then it is given back. When the
    // lease is lost they are dropped where they stand: every step can be taken up again by another operator.
    let lease = loop {
        tokio::select! {
            () = cancel.cancelled(), if !stopping => {
                stopping = true;
                stop_working.cancel();
            }
            ended = &mut work => {
                leads.store(false, Ordering::SeqCst);
                ended?;
                anyhow::ensure!(stopping, "the controllers ended by themselves");
                stop_renewing.cancel();
                match keep.await {
                    Ok(lease) => break lease,
                    Err(lost) => return Ok(Ended::Lost(lost)),
                }
            }
            ended = &mut keep => {
                leads.store(false, Ordering::SeqCst);
                match ended {
                    Ok(lease) => break lease,
                    Err(lost) => return Ok(Ended::Lost(lost)),
                }
            }
        }
    };
    candidate.release(&lease).await;
    Ok(Ended::Released)
}

/// Runs one controller per watched namespace, or one for all.
async fn lead(
    args: &Args,
    client: &Client,
    metrics: &Arc<Metrics>,
    leads: Arc<AtomicBool>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let limits = Limits {
        concurrency: args.concurrency,
        timeout: Duration::from_secs(args.reconcile_timeout_seconds),
    };
    let mut namespaces: Vec<Option<&str>> = args.watch_namespaces.iter().map(|name| Some(name.as_str())).collect();
    if namespaces.is_empty() {
        namespaces.push(None);
    }
    let loading = LoadingReader::new().context("cannot set up the reader of pods' progress")?;
    let panes = PaneReader::new().context("cannot set up the reader of panes")?;
    let controllers = namespaces.into_iter().map(|namespace| {
        let indexes = Indexes::default();
        let (board, nudges) = Board::new();
        let shell = Shell {
            writer: Writer::new(client.clone(), &args.identity, Arc::clone(&leads), indexes.clone()),
            indexes,
            loading: loading.clone(),
            panes: panes.clone(),
            environment: Environment {
                server_image: args.server_image.clone(),
                trainer_image: args.trainer_image.clone(),
                plain_http_registries: args.plain_http_registries.clone(),
            },
            board,
            words: Words::default(),
            outages: metrics.outages.clone(),
            remembered: Remembered::default(),
        };
        controller::run(
            client.clone(),
            namespace,
            shell,
            nudges,
            Arc::clone(metrics),
            limits,
            cancel.clone(),
        )
    });
    futures::future::join_all(controllers).await;
    Ok(())
}

/// Waits until the API server knows LLMDeployments. `false` when cancelled first.
async fn wait_for_crds(args: &Args, client: &Client, health: &Health, cancel: &CancellationToken) -> bool {
    let mut told = false;
    loop {
        let api: Api<LLMDeployment> = match args.watch_namespaces.first() {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        let why = match api.list(&ListParams::default().limit(1)).await {
            Ok(_) => return true,
            Err(kube::Error::Api(status)) if status.code == 404 => {
                "the CRD llmdeployments.perennial.dev is not installed: install the chart perennial-crds, or kubectl apply -f crds/"
                    .to_owned()
            }
            // An object that cannot be read is there, and so is its CRD.
            Err(kube::Error::SerdeError(_)) => return true,
            Err(error) => format!("the API server cannot be asked for LLMDeployments: {error}"),
        };
        if !told {
            tracing::warn!(why, "Waiting.");
            told = true;
        }
        health.unready(why);
        tokio::select! {
            () = cancel.cancelled() => return false,
            () = tokio::time::sleep(CRD_RETRY) => {}
        }
    }
}
