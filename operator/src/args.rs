//! Command line and environment.

use std::net::SocketAddr;

use clap::{Parser, ValueEnum};

/// Perennial's operator: serves LLMs as LLMDeployments say, changes them safely, reports truthfully.
///
/// It watches LLMDeployments (perennial.dev/v1alpha1) in all namespaces or in the given ones and keeps their Deployments,
/// Services, disruption budgets and revisions. It finds the cluster by its service account, or by KUBECONFIG.
#[derive(Clone, Debug, Parser)]
#[command(name = "perennial-operator", version, max_term_width = 120)]
pub struct Args {
    /// Image of the inference server for LLMDeployments that name none. Frozen in each revision: changing it restarts
    /// no model that runs.
    #[arg(long, env = "PERENNIAL_SERVER_IMAGE")]
    pub server_image: String,

    /// Image of the collector of requests and of the default Jobs of a retraining cycle.
    #[arg(long, env = "PERENNIAL_TRAINER_IMAGE")]
    pub trainer_image: String,

    /// Namespaces to watch, separated by commas. Absent: all of them.
    #[arg(long, env = "PERENNIAL_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,

    /// Registries, HOST:PORT separated by commas, that serving pods may talk to without TLS.
    #[arg(long, env = "PERENNIAL_PLAIN_HTTP_REGISTRIES", value_delimiter = ',')]
    pub plain_http_registries: Vec<String>,

    /// Write only while holding a lease, so that several operators can stand by for one another.
    #[arg(long, env = "PERENNIAL_LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub leader_elect: bool,

    /// Name of the lease.
    #[arg(long, env = "PERENNIAL_LEASE_NAME", default_value = "perennial-operator")]
    pub lease_name: String,

    /// Namespace of the lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub lease_namespace: String,

    /// Name of this operator in the lease and in events; must differ between operators.
    #[arg(long, env = "POD_NAME", default_value_t = default_identity())]
    pub identity: String,

    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, env = "PERENNIAL_ADMIN_ADDRESS", default_value = "0.0.0.0:8081")]
    pub admin_address: SocketAddr,

    /// Objects that are looked at at the same time.
    #[arg(long, env = "PERENNIAL_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,

    /// Seconds after which one look at one object is given up and tried again; twice as many for a DriftPolicy, whose pods
    /// are asked, too.
    #[arg(long, env = "PERENNIAL_RECONCILE_TIMEOUT_SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub reconcile_timeout_seconds: u64,

    /// Shape of the log.
    #[arg(long, env = "PERENNIAL_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,

    /// What is logged: error, warn, info, debug, trace, or filters such as `info,perennial_operator=debug`.
    #[arg(long, env = "PERENNIAL_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

/// Shape of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    Json,
    /// One line, for people.
    Text,
}

fn default_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!(
        "{}-{}",
        if host.is_empty() { "operator" } else { host },
        std::process::id()
    )
}
