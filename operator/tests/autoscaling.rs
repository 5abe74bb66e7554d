//! The autoscaler's rounds with real connections to pods that behave well, badly, or not at all. No cluster.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::sync::Arc;

use common::object;
use k8s_openapi::api::core::v1::{Pod, Service};
use parking_lot::Mutex;
use perennial_autoscaler::Sight;
use perennial_crds::LLMDeployment;
use perennial_crds::serving::{LOAD_VERSION, Load};
use perennial_operator::autoscaling::board::{Board, Verdict};
use perennial_operator::autoscaling::scaler::Scaler;
use perennial_operator::deployment::observe::Indexes;
use perennial_operator::index::Owner;
use perennial_operator::metrics::Metrics;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// What a pod says when it is asked.
#[derive(Clone)]
enum Says {
    Load(Load),
    Text(String),
    Nothing,
}

/// A pod with a server of its own on an address of the loopback network.
struct Server(Arc<Mutex<Says>>);

impl Server {
    async fn start(address: &str, port: u16) -> Self {
        let says = Arc::new(Mutex::new(Says::Nothing));
        let listener = TcpListener::bind((address, port)).await.unwrap();
        let shared = Arc::clone(&says);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let mut request = [0; 1024];
                    while let Ok(1..) = stream.read(&mut request).await {
                        let says = shared.lock().clone();
                        let text = match says {
                            Says::Load(load) => {
                                let body = serde_json::to_string(&load).unwrap();
                                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                            }
                            Says::Text(text) => text,
                            Says::Nothing => continue,
                        };
                        let _ = stream.write_all(text.as_bytes()).await;
                    }
                });
            }
        });
        Self(says)
    }

    fn says(&self, says: Says) {
        *self.0.lock() = says;
    }
}

fn load(running: u32, waiting: u32) -> Says {
    Says::Load(Load {
        version: LOAD_VERSION,
        boot_id: 7,
        running,
        waiting,
        max_running: 16,
        cache_total_tokens: 65_536,
        cold_start_seconds: Some(12.0),
        ..Load::default()
    })
}

/// An object with pods on 127.A.B.1, 127.A.B.2 and so on.
struct Bench {
    scaler: Scaler,
    board: Board,
    object: Arc<Mutex<LLMDeployment>>,
    owner: Owner,
    indexes: Indexes,
    port: u16,
}

impl Bench {
    fn new(autoscaling: &str) -> Self {
        let spec = format!("{}\nautoscaling: {autoscaling}", common::PINNED);
        let object = Arc::new(Mutex::new(object(&spec)));
        let indexes = Indexes::default();
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "tiny", "namespace": "models", "labels": {"perennial.dev/name": "tiny"}},
            "spec": {"selector": {"perennial.dev/revision": "r1"}},
        }))
        .unwrap();
        indexes.services.wrote(service);
        let (board, nudges) = Board::new();
        // The receiver lives as long as the test: nobody reads nudges here.
        Box::leak(Box::new(nudges));
        let shared = Arc::clone(&object);
        let objects = Box::new(move || vec![Arc::new(shared.lock().clone())]);
        let metrics = Arc::new(Metrics::new().unwrap());
        // One that nothing on this machine uses; all pods tell their load at the same.
        let port = std::net::TcpListener::bind("127.71.0.1:0").and_then(|free| free.local_addr());
        let port = port.unwrap().port();
        Self {
            port,
            scaler: Scaler::new(objects, indexes.clone(), board.clone(), metrics, port),
            board,
            object,
            owner: Owner {
                namespace: "models".to_owned(),
                name: "tiny".to_owned(),
            },
            indexes,
        }
    }

    async fn server(&self, address: &str) -> Server {
        Server::start(address, self.port).await
    }

    fn pod(&self, name: &str, address: &str) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {
                "name": name, "namespace": "models", "uid": format!("uid-{name}"),
                "labels": {"perennial.dev/name": "tiny", "perennial.dev/revision": "r1"},
            },
            "status": {"podIP": address, "conditions": [{"type": "Ready", "status": "True"}]},
        }))
        .unwrap();
        self.indexes.pods.wrote(pod);
    }

    fn deployment(&self, replicas: i32) {
        let deployment = serde_json::from_value(json!({
            "metadata": {"name": "r1", "namespace": "models", "labels": {"perennial.dev/name": "tiny"}},
            "spec": {"replicas": replicas, "selector": {}, "template": {}},
        }))
        .unwrap();
        self.indexes.deployments.wrote(deployment);
    }

    async fn round(&mut self) -> Arc<Verdict> {
        self.scaler.round().await;
        self.board
            .verdict(&self.owner, "11111111-2222-3333-4444-555555555555")
            .expect("a verdict after each round")
    }
}

#[tokio::test]
async fn a_pod_that_talks_nonsense_harms_nobody_else() {
    let mut bench = Bench::new("{maxReplicas: 9, targets: [{metric: RunningRequests, averageValue: 4}]}");
    bench.deployment(3);
    let good = bench.server("127.71.1.1").await;
    let other = bench.server("127.71.1.2").await;
    let bad = bench.server("127.71.1.3").await;
    for (name, address) in [("a", "127.71.1.1"), ("b", "127.71.1.2"), ("c", "127.71.1.3")] {
        bench.pod(name, address);
    }
    good.says(load(10, 6));
    other.says(load(10, 6));
    for nonsense in [
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_owned(),
        format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{}",
            1 << 20,
            "x".repeat(1 << 20)
        ),
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.71.1.1:9090/load\r\ncontent-length: 0\r\n\r\n"
            .to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_owned(),
        "not http at all\r\n\r\n".to_owned(),
        String::new(),
    ] {
        bad.says(if nonsense.is_empty() {
            Says::Nothing
        } else {
            Says::Text(nonsense)
        });
        let verdict = bench.round().await;
        // 32 requests at 4 a replica, whatever the third one says; the growth of a minute is limited to four more.
        assert_eq!(verdict.desired, 7);
    }
}

#[tokio::test]
async fn without_answers_the_number_is_held_and_another_boot_is_another_process() {
    let mut bench = Bench::new("{maxReplicas: 9, minReplicas: 1}");
    bench.deployment(4);
    let server = bench.server("127.71.2.1").await;
    bench.pod("a", "127.71.2.1");
    for says in [
        Says::Nothing,
        load(0, 0),
        // Counters that begin anew are no negative load.
        Says::Load(Load {
            version: LOAD_VERSION,
            boot_id: 8,
            max_running: 16,
            ..Load::default()
        }),
        Says::Text("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned()),
    ] {
        server.says(says);
        assert_eq!(bench.round().await.desired, 4);
    }
}

#[tokio::test]
async fn limits_that_change_are_kept_at_once_and_told() {
    let mut bench = Bench::new("{maxReplicas: 3}");
    bench.deployment(3);
    let server = bench.server("127.71.3.1").await;
    bench.pod("a", "127.71.3.1");
    server.says(load(1, 0));
    assert_eq!(bench.round().await.desired, 3);
    bench.object.lock().spec.autoscaling.as_mut().unwrap().max_replicas = 2;
    let verdict = bench.round().await;
    assert_eq!(verdict.desired, 2);
    assert_eq!(verdict.decisions[0].reason, "maxReplicas is 2");
    assert_eq!(verdict.sight, Sight::Full);
}

#[tokio::test]
async fn a_new_operator_goes_on_where_the_old_one_stopped() {
    // Five pods were asked for a moment ago, so no sixth may come within the minute.
    let mut bench = Bench::new("{maxReplicas: 20, targets: [{metric: RunningRequests, averageValue: 1}]}");
    bench.deployment(5);
    let status: Value = json!({"observedGeneration": 3, "autoscaling": {
        "desiredReplicas": 5,
        "lastDecisions": [{"time": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(), "from": 1, "to": 5, "reason": "x"}],
    }});
    bench.object.lock().status = serde_json::from_value(status).unwrap();
    let server = bench.server("127.71.4.1").await;
    bench.pod("a", "127.71.4.1");
    server.says(load(16, 100));
    let verdict = bench.round().await;
    assert_eq!((verdict.desired, verdict.decisions.len()), (5, 1));
}
