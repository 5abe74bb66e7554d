//! 1,000 LLMDeployments on a control plane alone: time until all are settled, API calls, memory, and writes at rest.
//!
//! The operator is the real program; pods are played. `BENCH_OBJECTS` and `BENCH_REST_SECONDS` make it shorter.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use perennial_crds::LLMDeployment;
use perennial_tests::figures::{self, Figure, machine};
use perennial_tests::waiting::until;
use perennial_tests::world::{pinned, settled};
use perennial_tests::{Cluster, Player};
use serde_json::{Value, json};

/// Name of the operator in the audit log: its own credentials, as an installed one has.
const USER: &str = "bench-operator";
const NAMESPACES: usize = 10;

fn number(variable: &str, default: usize) -> usize {
    let given = std::env::var(variable).ok().and_then(|text| text.parse().ok());
    given.unwrap_or(default)
}

#[tokio::main]
async fn main() -> Result<()> {
    let (objects, rest) = (number("BENCH_OBJECTS", 1000), number("BENCH_REST_SECONDS", 300));
    let cluster = Cluster::start().await?;
    let client = cluster.client().await?;
    let _player = Player::start(client.clone()).await?;
    for number in 0..NAMESPACES {
        cluster.kubectl(&["create", "namespace", &namespace(number)])?;
    }
    let mut operator = Operator::start(&cluster)?;
    let figures = measure(&cluster, &client, &operator, objects, rest).await;
    operator.stop();
    let figures = figures?;
    for figure in &figures {
        println!(
            "{:<34} {:>10.2} {:<10} {}",
            figure.id, figure.value, figure.unit, figure.what
        );
    }
    figures::write("operator", &figures)
}

fn namespace(number: usize) -> String {
    format!("bench-{}", number % NAMESPACES)
}

/// The operator as a process.
struct Operator {
    process: Child,
    admin: String,
}

impl Operator {
    fn start(cluster: &Cluster) -> Result<Self> {
        let program = std::env::current_exe()?.with_file_name("perennial-operator");
        ensure!(
            program.is_file(),
            "{} is not there: cargo build --profile ci -p perennial-operator",
            program.display()
        );
        let admin = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let kubeconfig = impersonating(cluster)?;
        let process = Command::new(program)
            .args([
                "--server-image=registry.example/perennial-server:bench",
                "--trainer-image=registry.example/perennial-trainer:bench",
                "--log-level=warn",
            ])
            .arg(format!("--admin-address={admin}"))
            .env("KUBECONFIG", kubeconfig)
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { process, admin })
    }

    /// Resident memory in MiB, now and at its highest.
    fn memory(&self) -> Result<(f64, f64)> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let field = |name: &str| -> Result<f64> {
            let line = text
                .lines()
                .find(|line| line.starts_with(name))
                .context("no such field")?;
            let kib: f64 = line.split_whitespace().nth(1).context("no value")?.parse()?;
            Ok(kib / 1024.0)
        };
        Ok((field("VmRSS:")?, field("VmHWM:")?))
    }

    async fn figures(&self) -> Result<String> {
        let answer = reqwest::get(format!("http://{}/metrics", self.admin)).await?;
        Ok(answer.text().await?)
    }

    /// Seconds of processor time.
    async fn processor_seconds(&self) -> Result<f64> {
        let text = self.figures().await?;
        let line = text.lines().find(|line| line.starts_with("process_cpu_seconds_total"));
        let value = line
            .and_then(|line| line.split_whitespace().nth(1))
            .context("no processor time")?;
        Ok(value.parse()?)
    }

    fn stop(&mut self) {
        // It is gone already, or it goes now.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The administrator's kubeconfig, used under the operator's name: so the audit log tells its requests from others'.
fn impersonating(cluster: &Cluster) -> Result<std::path::PathBuf> {
    let mut config: Value = serde_yaml::from_str(&std::fs::read_to_string(cluster.kubeconfig())?)?;
    for user in config["users"].as_array_mut().context("no users")? {
        user["user"]["as"] = json!(USER);
        user["user"]["as-groups"] = json!(["system:masters"]);
    }
    let path = cluster.state().join("bench.kubeconfig");
    std::fs::write(&path, serde_yaml::to_string(&config)?)?;
    Ok(path)
}

async fn measure(
    cluster: &Cluster,
    client: &Client,
    operator: &Operator,
    objects: usize,
    rest: usize,
) -> Result<Vec<Figure>> {
    let count = u32::try_from(objects).map(f64::from)?;
    until(60, "the operator leads", async || {
        let text = operator.figures().await?;
        ensure!(text.contains("leader_election_master_status{name=\"perennial-operator\"} 1"));
        Ok(())
    })
    .await?;
    let (idle, _) = operator.memory()?;
    let began = Instant::now();
    stream::iter(0..objects)
        .map(|number| {
            let api: Api<LLMDeployment> = Api::namespaced(client.clone(), &namespace(number));
            async move {
                let object = serde_json::from_value(pinned(&format!("model-{number}"), &json!({})))?;
                api.create(&PostParams::default(), &object).await?;
                Ok::<_, anyhow::Error>(())
            }
        })
        .buffer_unordered(8)
        .try_collect::<Vec<()>>()
        .await?;
    let created = began.elapsed();
    all_settled(client, objects).await?;
    let all = began.elapsed();
    // The watch of the last pods' endpoints may still bring something.
    let mut last = requests(cluster)?;
    until(60, "the operator rests", async || {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let now = requests(cluster)?;
        let before = std::mem::replace(&mut last, now);
        ensure!(writes(&before) == writes(&last));
        Ok(())
    })
    .await?;
    let (settled_memory, highest) = operator.memory()?;
    let processor = operator.processor_seconds().await?;
    println!("{objects} objects created in {created:.1?}, settled after {all:.1?}; resting for {rest} s ...");
    tokio::time::sleep(Duration::from_secs(u64::try_from(rest)?)).await;
    let after = requests(cluster)?;
    let resting = f64::from(u32::try_from(writes(&after) - writes(&last))?);
    let processor_at_rest = operator.processor_seconds().await? - processor;
    let mut figures = vec![
        figure(
            "operator.created_seconds",
            "until all objects were created, by 8 clients",
            created.as_secs_f64(),
            "s",
        ),
        figure(
            "operator.settled_seconds",
            "until all objects were Ready and at rest",
            all.as_secs_f64(),
            "s",
        ),
        figure(
            "operator.memory_mib",
            "resident memory of the operator, all settled",
            settled_memory,
            "MiB",
        ),
        figure("operator.memory_highest_mib", "the same at its highest", highest, "MiB"),
        figure(
            "operator.memory_idle_mib",
            "the same before the first object",
            idle,
            "MiB",
        ),
        figure(
            "operator.processor_seconds",
            "processor time of the operator until then",
            processor,
            "s",
        ),
        figure(
            "operator.rest_processor_seconds",
            "processor time at rest",
            processor_at_rest,
            "s",
        ),
        Figure {
            goal: Some(0.0),
            ..figure(
                "operator.rest_writes",
                &format!("writes of the operator in {rest} s at rest"),
                resting,
                "writes",
            )
        },
    ];
    let calls = |chosen: &dyn Fn(&str) -> bool| {
        let all = last.iter().filter(|(name, _)| chosen(name));
        u32::try_from(all.map(|(_, number)| number).sum::<usize>()).map(f64::from)
    };
    figures.push(figure(
        "operator.calls",
        "API calls per object until settled",
        calls(&|_| true)? / count,
        "calls",
    ));
    // Lists and watches are made once, however many objects there are.
    for verb in ["get", "create", "patch", "update", "delete"] {
        let of_verb = calls(&|name| name.split('.').next() == Some(verb))? / count;
        let (id, what) = (format!("operator.calls.{verb}"), format!("of these {verb}"));
        figures.push(figure(&id, &what, of_verb, "calls"));
    }
    for (name, number) in &last {
        println!("{number:>6} {name}");
    }
    Ok(figures)
}

fn figure(id: &str, what: &str, value: f64, unit: &'static str) -> Figure {
    Figure {
        id: id.to_owned(),
        what: what.to_owned(),
        value: (value * 100.0).round() / 100.0,
        unit,
        better: "lower",
        goal: None,
        baseline: None,
        ratio: None,
        machine: machine(),
    }
}

/// By a watch, because listing them all again and again would be a load of its own.
async fn all_settled(client: &Client, objects: usize) -> Result<()> {
    let mut open: BTreeSet<String> = (0..objects).map(|number| format!("model-{number}")).collect();
    let all: Api<LLMDeployment> = Api::all(client.clone());
    let mut changes = std::pin::pin!(
        watcher(all, watcher::Config::default())
            .default_backoff()
            .applied_objects()
    );
    let wait = async {
        while !open.is_empty() {
            let object = changes.try_next().await?.context("the watch ended")?;
            if settled(&object).is_ok() {
                open.remove(&object.name_any());
            } else {
                open.insert(object.name_any());
            }
        }
        Ok::<_, anyhow::Error>(())
    };
    let outcome = tokio::time::timeout(Duration::from_secs(900), wait).await;
    outcome.with_context(|| "not all objects were settled within 900 s")?
}

/// The operator's requests so far, by verb and resource, from the audit log. Its lease is left out.
fn requests(cluster: &Cluster) -> Result<BTreeMap<String, usize>> {
    let file = std::fs::File::open(cluster.state().join("logs/audit.log"))?;
    let mut counts = BTreeMap::new();
    for line in BufReader::new(file).lines() {
        let line = line?;
        if !line.contains(USER) {
            continue;
        }
        // The last line may be half written.
        let Ok(record) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        let text = |pointer: &str| {
            record
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let is_ours = text("/impersonatedUser/username") == USER;
        if !is_ours || text("/stage") != "ResponseComplete" || text("/objectRef/resource") == "leases" {
            continue;
        }
        let (resource, subresource) = (text("/objectRef/resource"), text("/objectRef/subresource"));
        let dot = if subresource.is_empty() { "" } else { "/" };
        *counts
            .entry(format!("{}.{resource}{dot}{subresource}", text("/verb")))
            .or_insert(0) += 1;
    }
    Ok(counts)
}

fn writes(requests: &BTreeMap<String, usize>) -> usize {
    let is_write = |verb: &str| ["create", "update", "patch", "delete"].contains(&verb);
    requests
        .iter()
        .filter(|(name, _)| name.split('.').next().is_some_and(is_write))
        .map(|(_, count)| count)
        .sum()
}
