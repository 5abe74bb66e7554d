//! An operator that is killed at any moment goes on to the same end.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::{Bed, SYSTEM, eventually, kubectl, root, run, simulated};

const KILLS: u32 = 20;
/// Label of the operators that the chart has installed.
const OPERATORS: &str = "app.kubernetes.io/name=perennial";
const MINUTE: Duration = Duration::from_secs(60);

/// The operator as a process of this machine, so that it can be killed and started at will.
struct Operator(Child);

impl Operator {
    fn start() -> Self {
        let config = String::from_utf8(
            Command::new(root().join("target/cluster/testcluster"))
                .arg("kubeconfig")
                .output()
                .expect("it runs")
                .stdout,
        )
        .expect("a path");
        let image = kubectl(&[
            "-n",
            SYSTEM,
            "get",
            "deployment",
            "-l",
            OPERATORS,
            "-o",
            "jsonpath={.items[0].spec.template.spec.containers[0].args}",
        ]);
        let arguments: Vec<String> = serde_json::from_str(&image).expect("a list");
        let image = |flag: &str| {
            let mut arguments = arguments.iter();
            arguments.find(|one| one.starts_with(flag)).expect("the chart sets it")
        };
        let target = std::env::var("CARGO_TARGET_DIR").map_or_else(|_| root().join("target"), Into::into);
        let child = Command::new(target.join("ci/perennial-operator"))
            .args([
                image("--server-image="),
                image("--trainer-image="),
                "--plain-http-registries=198.18.0.1:5000",
                "--identity=killed",
                "--lease-namespace=default",
            ])
            .args(["--admin-address=127.0.0.1:0", "--log-level=warn"])
            .env("KUBECONFIG", config.trim())
            .stdout(Stdio::null())
            .spawn()
            .expect("the operator starts");
        Self(child)
    }

    /// SIGKILL.
    fn kill(mut self) {
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
struct ChartOperators;

impl ChartOperators {
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

#[tokio::test]
async fn twenty_kills_at_random_moments_of_a_rollout_end_alike() {
    let bed = Bed::new("killed").await;
    let chart = ChartOperators;
    ChartOperators::replicas(0).expect("the chart's operators can be stopped");
    let gone = eventually(MINUTE, || async {
        let pods = kubectl(&["-n", SYSTEM, "get", "pods", "-l", OPERATORS, "-o", "name"]);
        pods.trim().is_empty().then_some(())
    });
    assert!(gone.await.is_some(), "the chart's operators do not stop");

    let mut operator = Operator::start();
    bed.apply("model", simulated(1).await).await;
    bed.settled("model", 2 * MINUTE).await;
    // Both specs once, so that the history is the same from the first kill on.
    for tokens in [1024, 1025] {
        bed.change("model", json!({"model": {"maxContextTokens": tokens}}))
            .await;
        bed.settled("model", MINUTE).await;
    }
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut random = seed;
    let mut ends = Vec::new();
    for kill in 1..=KILLS {
        // Back and forth between two specs, so that all ends of one kind must be equal.
        bed.change("model", json!({"model": {"maxContextTokens": 1024 + kill % 2}}))
            .await;
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let moment = Duration::from_millis((random >> 33) % 4000);
        tokio::time::sleep(moment).await;
        operator.kill();
        operator = Operator::start();
        bed.settled("model", MINUTE).await;
        let end = eventually(MINUTE, || async { one_revision_is_left(&bed) }).await;
        let end = end.unwrap_or_else(|| {
            bed.explain("model");
            panic!("kill {kill} after {moment:?}: old pods or Deployments are left")
        });
        ends.push((kill, moment, end));
    }
    for (kill, moment, end) in &ends {
        let (_, _, reference) = ends
            .iter()
            .find(|(other, _, _)| other % 2 == kill % 2)
            .expect("itself at least");
        assert_eq!(end, reference, "kill {kill} after {moment:?} ended differently");
    }
    println!("{KILLS} kills, the same end each time");
    operator.kill();
    drop(chart);
    bed.remove().await;
}

/// What there is in the end, without what differs each time; `None` while something old is left.
fn one_revision_is_left(bed: &Bed) -> Option<Value> {
    let kinds = "llm,deployments,pods,services,controllerrevisions,serviceaccounts,poddisruptionbudgets,jobs";
    let all: Value = serde_json::from_str(&kubectl(&[
        "-n",
        &bed.namespace,
        "get",
        kinds,
        "-l",
        "perennial.dev/name=model",
        "-o",
        "json",
    ]))
    .ok()?;
    let items = all["items"].as_array()?;
    let of_kind = |kind: &str| items.iter().filter(|item| item["kind"] == kind).collect::<Vec<_>>();
    let (deployments, pods) = (of_kind("Deployment"), of_kind("Pod"));
    if deployments.len() != 1 || pods.len() != 1 {
        return None;
    }
    let names = |kind: &str| {
        let mut names: Vec<&str> = of_kind(kind)
            .iter()
            .filter_map(|item| item["metadata"]["name"].as_str())
            .collect();
        names.sort_unstable();
        names.join(" ")
    };
    Some(json!({
        "deployment": deployments[0]["metadata"]["name"],
        "template": deployments[0]["spec"]["template"],
        "replicas": deployments[0]["spec"]["replicas"],
        "selector": of_kind("Service").first()?["spec"]["selector"],
        "revisions": names("ControllerRevision"),
        "others": [names("ServiceAccount"), names("PodDisruptionBudget"), names("Job"), names("Service")],
        "images": pods[0]["spec"]["containers"][0]["image"],
    }))
}
