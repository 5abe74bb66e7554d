//! A control plane of its own for a test program: etcd, API server, controller-manager, scheduler.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, Config};

/// Where the cluster's program is, if not at its usual place.
pub const PROGRAM_VARIABLE: &str = "PERENNIAL_TESTCLUSTER";
const CRDS: [&str; 2] = ["llmdeployments.perennial.dev", "driftpolicies.perennial.dev"];

/// A running control plane. It ends when this value is dropped, and also when this process dies in whatever way: its
/// launcher waits for the end of a pipe that only this process holds.
pub struct Cluster {
    launcher: Child,
    leash: Option<ChildStdin>,
    state: PathBuf,
    program: PathBuf,
}

impl Cluster {
    /// Starts a control plane and installs the CRDs.
    ///
    /// # Errors
    /// If the cluster's program is missing or does not come up.
    pub async fn start() -> Result<Self> {
        // Fails only if a provider was installed before, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let cluster = tokio::task::spawn_blocking(Self::launch).await??;
        cluster.install_crds().await?;
        Ok(cluster)
    }

    fn launch() -> Result<Self> {
        let program = program()?;
        // The cluster removes its folder when it ends.
        let state = tempfile::Builder::new().prefix("perennial-test-").tempdir()?.keep();
        let mut launcher = Command::new(&program)
            .args(["run", "--control-plane-only", "--audit-log", "--state"])
            .arg(&state)
            .args(["--", "sh", "-c", "echo up; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let leash = launcher.stdin.take();
        let output = launcher.stdout.take().context("the launcher has no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let cluster = Self {
            launcher,
            leash,
            state,
            program,
        };
        ensure!(
            line.trim() == "up",
            "the test cluster did not start; see what it said above"
        );
        Ok(cluster)
    }

    /// The folder with its logs and keys.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.state().join("kubeconfig")
    }

    /// Runs kubectl against this cluster and returns what it printed.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.program)
            .arg("kubectl")
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(arguments)
            .output()?;
        ensure!(
            output.status.success(),
            "kubectl {arguments:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Stops or starts a component, as `testcluster component` does.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub fn component(&self, arguments: &[&str]) -> Result<()> {
        let output = Command::new(&self.program)
            .arg("component")
            .args(arguments)
            .arg("--state")
            .arg(self.state())
            .output()?;
        ensure!(
            output.status.success(),
            "component {arguments:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Settings of a client as administrator.
    ///
    /// # Errors
    /// If the kubeconfig cannot be read.
    pub async fn config(&self) -> Result<Config> {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig())?;
        Ok(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
    }

    /// A client as administrator. Belongs to the runtime that it is made in.
    ///
    /// # Errors
    /// If the kubeconfig cannot be read.
    pub async fn client(&self) -> Result<Client> {
        Ok(ClientBuilder::try_from(self.config().await?)?.build())
    }

    async fn install_crds(&self) -> Result<()> {
        let client = self.client().await?;
        let api: Api<CustomResourceDefinition> = Api::all(client);
        for name in CRDS {
            let text = std::fs::read_to_string(repository().join(format!("crds/{name}.yaml")))?;
            let crd: serde_json::Value = serde_yaml::from_str(&text)?;
            api.patch(
                name,
                &PatchParams::apply("perennial-tests").force(),
                &Patch::Apply(&crd),
            )
            .await?;
            let established = await_condition(api.clone(), name, is_crd_established());
            tokio::time::timeout(Duration::from_secs(30), established)
                .await
                .with_context(|| format!("the CRD {name} was not established within 30 s"))??;
        }
        Ok(())
    }

    /// Ends the cluster and waits until all of it is gone.
    pub fn stop(&mut self) {
        self.leash = None;
        // An error means that the launcher is gone already.
        let _ = self.launcher.wait();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The root of the repository.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or_else(|| Path::new("."))
}

fn program() -> Result<PathBuf> {
    let program = std::env::var_os(PROGRAM_VARIABLE)
        .map_or_else(|| repository().join("target/cluster/testcluster"), PathBuf::from);
    if program.is_file() {
        return Ok(program);
    }
    bail!(
        "the test cluster is not at {}: build it with hack/cluster-build.sh, or name it in {PROGRAM_VARIABLE}",
        program.display()
    )
}
