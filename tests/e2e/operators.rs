//! Operators that a test may kill, in place of those of the chart.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::cluster::{SYSTEM, eventually, kubectl, root, run};

/// Label of the operators that the chart has installed.
const OPERATORS: &str = "app.kubernetes.io/name=perennial";

/// How operators are started: as the chart does it.
pub struct Launch {
    images: Vec<String>,
    kubeconfig: String,
}

impl Launch {
    /// Reads it from the cluster.
    pub fn like_the_chart() -> Self {
        let path = "jsonpath={.items[0].spec.template.spec.containers[0].args}";
        let arguments = kubectl(&["-n", SYSTEM, "get", "deployment", "-l", OPERATORS, "-o", path]);
        let arguments: Vec<String> = serde_json::from_str(&arguments).expect("a list");
        let image = |flag: &str| {
            let found = arguments.iter().find(|one| one.starts_with(flag));
            found.expect("the chart sets it").clone()
        };
        Self {
            images: vec![image("--server-image="), image("--trainer-image=")],
            kubeconfig: run("testcluster", &["kubeconfig"]).unwrap_or_else(|error| panic!("{error}")),
        }
    }

    /// One of this name: who takes its place under the same name leads at once.
    pub fn start(&self, identity: &str) -> Operator {
        let target = std::env::var("CARGO_TARGET_DIR").map_or_else(|_| root().join("target"), Into::into);
        let child = Command::new(target.join("ci/perennial-operator"))
            .args(&self.images)
            .args([
                "--plain-http-registries=198.18.0.1:5000",
                &format!("--identity={identity}"),
                "--lease-namespace=default",
            ])
            .args(["--admin-address=127.0.0.1:0", "--log-level=warn"])
            .env("KUBECONFIG", self.kubeconfig.trim())
            .stdout(Stdio::null())
            .spawn()
            .expect("the operator starts");
        Operator(child)
    }
}

/// The operator as a process of this machine, so that it can be killed and started at will.
pub struct Operator(Child);

impl Operator {
    /// SIGKILL.
    pub fn kill(mut self) {
        self.0.kill().expect("it can be killed");
        let _ = self.0.wait();
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Puts the operators of the chart back, also when the test fails.
pub struct ChartOperators;

impl ChartOperators {
    /// Stops them.
    pub async fn away() -> Self {
        let chart = Self;
        Self::replicas(0).expect("the chart's operators can be stopped");
        let gone = eventually(Duration::from_secs(60), || async {
            let pods = kubectl(&["-n", SYSTEM, "get", "pods", "-l", OPERATORS, "-o", "name"]);
            pods.trim().is_empty().then_some(())
        });
        assert!(gone.await.is_some(), "the chart's operators do not stop");
        chart
    }

    fn replicas(number: u32) -> Result<String, String> {
        let replicas = format!("--replicas={number}");
        run(
            "kubectl",
            &["-n", SYSTEM, "scale", "deployment", "-l", OPERATORS, &replicas],
        )
    }
}

impl Drop for ChartOperators {
    fn drop(&mut self) {
        // A panic while another is under way would end the whole run.
        let back = Self::replicas(2).and_then(|_| {
            run(
                "kubectl",
                &[
                    "-n",
                    SYSTEM,
                    "rollout",
                    "status",
                    "deployment",
                    "-l",
                    OPERATORS,
                    "--timeout=2m",
                ],
            )
        });
        if let Err(error) = back {
            println!("the chart's operators are not back: {error}");
        }
    }
}
