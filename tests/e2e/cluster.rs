//! The cluster, a namespace in it, and waiting.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use perennial_crds::LLMDeployment;
use serde_json::{Value, json};

/// Registry of the test cluster.
pub const REGISTRY: &str = "198.18.0.1:5000";
/// Where Perennial is installed.
pub const SYSTEM: &str = "perennial-system";

/// Root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .expect("the repository is there")
}

/// Runs a program in the root of the repository and gives back what it printed.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let path = format!(
        "{}:{}",
        root().join("target/cluster").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .env("PATH", path)
        .env("KUBECONFIG", kubeconfig())
        .output()
        .map_err(|error| format!("{program} cannot be started: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(format!(
        "{program} {arguments:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// kubectl, which must succeed.
pub fn kubectl(arguments: &[&str]) -> String {
    run("kubectl", arguments).unwrap_or_else(|error| panic!("{error}"))
}

/// Kills all operators at once, without a word: whoever leads is among them.
pub fn kill_operators() {
    let all = "app.kubernetes.io/name=perennial";
    kubectl(&[
        "-n",
        SYSTEM,
        "delete",
        "pods",
        "-l",
        all,
        "--grace-period=0",
        "--force",
        "--wait=false",
    ]);
}

/// The part of the cluster that is to stop or start.
pub fn component(verb: &str, name: &str) {
    run("testcluster", &["component", verb, name]).unwrap_or_else(|error| panic!("{error}"));
}

fn kubeconfig() -> PathBuf {
    let state = std::env::var("TESTCLUSTER_STATE").unwrap_or_else(|_| "/var/lib/testcluster".to_owned());
    Path::new(&state).join("kubeconfig")
}

fn start() -> Result<(), String> {
    let path = format!(
        "{}:{}",
        root().join("target/cluster").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    // The audit log shows who wrote what; two devices let a third one be missing.
    let output = Command::new("hack/cluster-up.sh")
        .args(["--audit-log", "--gpus", "2"])
        .current_dir(root())
        .env("PATH", path)
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// A client for the cluster, which the first caller starts.
pub async fn client() -> Client {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let started = STARTED.get_or_init(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
        if std::env::var("PERENNIAL_E2E_REUSE").is_ok() {
            Ok(())
        } else {
            start()
        }
    });
    started
        .as_ref()
        .unwrap_or_else(|error| panic!("the cluster did not start: {error}"));
    let kubeconfig = Kubeconfig::read_from(kubeconfig()).expect("the cluster has a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("it is valid");
    Client::try_from(config).expect("it has certificates")
}

/// Waits until the node takes pods: a test before may have had the API server away for so long that the node's heartbeats
/// were missed, and it stays tainted until they are seen again.
async fn schedulable(client: &Client) {
    let nodes: Api<Node> = Api::all(client.clone());
    let untainted = eventually(Duration::from_secs(120), || async {
        let nodes = nodes.list(&ListParams::default()).await.ok()?.items;
        let tainted = |node: &Node| {
            let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
            taints.is_some_and(|taints| !taints.is_empty())
        };
        (!nodes.is_empty() && !nodes.iter().any(tainted)).then_some(())
    });
    assert!(untainted.await.is_some(), "the node takes no pods");
}

/// A namespace for one test.
pub struct Bed {
    pub client: Client,
    pub namespace: String,
}

impl Bed {
    /// A new namespace that enforces the restricted Pod Security Standard.
    pub async fn new(name: &str) -> Self {
        let client = client().await;
        schedulable(&client).await;
        let stamp = jiff::Timestamp::now().as_millisecond() % 1_000_000;
        let namespace = format!("e2e-{name}-{stamp}");
        let object: Namespace = serde_json::from_value(json!({
            "metadata": {"name": namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
        }))
        .expect("a namespace");
        let api: Api<Namespace> = Api::all(client.clone());
        api.create(&PostParams::default(), &object)
            .await
            .expect("the namespace can be made");
        Self { client, namespace }
    }

    /// LLMDeployments of this namespace.
    pub fn llms(&self) -> Api<LLMDeployment> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Pods of this namespace.
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Applies an LLMDeployment as `kubectl apply --server-side` would.
    pub async fn apply(&self, name: &str, spec: Value) -> LLMDeployment {
        let object = json!({
            "apiVersion": "perennial.dev/v1alpha1", "kind": "LLMDeployment", "metadata": {"name": name}, "spec": spec,
        });
        let parameters = PatchParams::apply("e2e").force();
        self.llms()
            .patch(name, &parameters, &Patch::Apply(&object))
            .await
            .expect("the object is accepted")
    }

    /// Changes a part of the spec.
    pub async fn change(&self, name: &str, spec: Value) -> LLMDeployment {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.llms()
            .patch(name, &PatchParams::default(), &patch)
            .await
            .expect("the change is accepted")
    }

    /// Waits until the object is as described.
    pub async fn until(
        &self,
        name: &str,
        what: &str,
        limit: Duration,
        is: impl Fn(&LLMDeployment) -> bool,
    ) -> LLMDeployment {
        let (llms, is) = (self.llms(), &is);
        let found = eventually(limit, || {
            let llms = llms.clone();
            async move { llms.get(name).await.ok().filter(|object| is(object)) }
        })
        .await;
        found.unwrap_or_else(|| {
            self.explain(name);
            panic!("{name} is not {what} after {} s", limit.as_secs())
        })
    }

    /// Waits until the spec as it is now serves, alone.
    pub async fn settled(&self, name: &str, limit: Duration) -> LLMDeployment {
        self.until(name, "settled", limit, |object| {
            let Some(status) = &object.status else { return false };
            status.observed_generation == object.metadata.generation.unwrap_or(0)
                && condition(object, "Ready").is_some_and(|(status, _, _)| status == "True")
                && condition(object, "Reconciling").is_none()
                && status.stable_revision == status.update_revision
                && status.ready_replicas == object.spec.replicas
        })
        .await
    }

    /// `http://ADDRESS` of the Service of an object, as soon as it answers here: kube-proxy hears of the pods at the
    /// same time as we do, and a connection that goes before its rules hangs.
    pub async fn url(&self, name: &str) -> String {
        let services: Api<Service> = Api::namespaced(self.client.clone(), &self.namespace);
        let service = services.get(name).await.expect("the Service is there");
        let address = service
            .spec
            .and_then(|spec| spec.cluster_ip)
            .expect("it has an address");
        let url = format!("http://{address}");
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(1))
            .build()
            .expect("a client");
        let answers = eventually(Duration::from_secs(20), || async {
            let answer = http.get(format!("{url}/v1/models")).send().await.ok()?;
            answer.status().is_success().then_some(())
        });
        assert!(answers.await.is_some(), "{url} does not answer");
        url
    }

    /// Prints what a person would look at.
    pub fn explain(&self, name: &str) {
        for arguments in [
            vec!["-n", &self.namespace, "get", "llm", name, "-o", "yaml"],
            vec!["-n", &self.namespace, "get", "pods,deployments,jobs", "-o", "wide"],
            vec!["-n", &self.namespace, "get", "events", "--sort-by=.lastTimestamp"],
            vec![
                "-n",
                &self.namespace,
                "logs",
                "--all-containers",
                "--tail=20",
                "--prefix",
                "-l",
                "perennial.dev/name",
            ],
            vec![
                "-n",
                SYSTEM,
                "logs",
                "--tail=40",
                "--prefix",
                "-l",
                "app.kubernetes.io/name=perennial",
            ],
        ] {
            println!("--- kubectl {}", arguments.join(" "));
            println!("{}", run("kubectl", &arguments).unwrap_or_else(|error| error));
        }
    }

    /// Removes the namespace; called at the end of a test that went well.
    pub async fn remove(self) {
        let api: Api<Namespace> = Api::all(self.client.clone());
        api.delete(&self.namespace, &DeleteParams::background())
            .await
            .expect("the namespace can be deleted");
    }

    /// Names of what carries the label of an object, of all kinds that Perennial makes.
    pub fn leftovers(&self, name: &str) -> String {
        let kinds = "pods,deployments,replicasets,services,endpointslices,controllerrevisions,jobs,serviceaccounts,poddisruptionbudgets";
        let label = format!("perennial.dev/name={name}");
        kubectl(&["-n", &self.namespace, "get", kinds, "-l", &label, "-o", "name"])
    }

    /// Pods of one revision.
    pub async fn pods_of(&self, revision: &str) -> Vec<Pod> {
        let parameters = ListParams::default().labels(&format!("perennial.dev/revision={revision}"));
        self.pods().list(&parameters).await.expect("pods can be listed").items
    }
}

/// Status, reason and message of a condition.
pub fn condition<'a>(object: &'a LLMDeployment, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let found = object
        .status
        .as_ref()?
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind)?;
    Some((&found.status, &found.reason, &found.message))
}

/// Looks until there is something, for as long as allowed.
pub async fn eventually<T, F>(limit: Duration, mut look: impl FnMut() -> F) -> Option<T>
where
    F: Future<Output = Option<T>>,
{
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look().await {
            return Some(found);
        }
        if Instant::now() > end {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

/// `HOST/REPOSITORY@sha256:...` of the real model in the cluster's registry.
pub async fn model_reference() -> String {
    let address = format!("http://{REGISTRY}/v2/models/smollm2/manifests/135m-instruct-q4");
    let answer = reqwest::Client::new()
        .head(address)
        .send()
        .await
        .expect("the registry answers");
    let digest = answer
        .headers()
        .get("docker-content-digest")
        .expect("it has the model")
        .to_str()
        .expect("a digest");
    format!("{REGISTRY}/models/smollm2@{digest}")
}

/// A spec that serves the real model with the simulated engine: quick, many tokens, all the rest real.
pub async fn simulated(replicas: i32) -> Value {
    json!({
        "model": {"source": {"oci": {"reference": model_reference().await}}},
        "replicas": replicas,
        "resources": {"cpu": "200m", "memory": "512Mi"},
        "runtime": {"extraArgs": ["--engine=simulated", "--simulated-decode-tokens-per-second=100"]},
        "lifecycle": {"drainSeconds": 30},
    })
}
