//! What it costs to ask ten thousand pods for their load and to decide, on one core.
//!
//! Pods are connections to one server on the loopback network, a process of its own; counted is the processor time of the
//! thread that asks. Needs `ulimit -n` of at least 11,000.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench fails by panicking")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use perennial_autoscaler::{History, Policy, Replicas, Target, decide};
use perennial_crds::serving::{LOAD_VERSION, Load, METRICS_PORT};
use perennial_operator::autoscaling::load_client::LoadClient;
use perennial_operator::autoscaling::scrape::{Asked, Scraper};
use perennial_operator::autoscaling::terms;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const PODS: u32 = 10_000;
const PODS_PER_OBJECT: usize = 10;
const ROUNDS: u32 = 10;

/// Answers every question with the same load; the counters of a real pod would move.
fn serve() {
    let load = Load {
        version: LOAD_VERSION,
        boot_id: 1 << 52,
        running: 12,
        waiting: 3,
        max_running: 16,
        requests: 123_456,
        finished: 123_000,
        generated_tokens: 12_345_678,
        computed_seconds: 654_321.5,
        cold_start_seconds: Some(42.5),
        cache_total_tokens: 65_536,
        ..Load::default()
    };
    let body = serde_json::to_string(&load).unwrap();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length";
    let answer: Arc<str> = format!(
        "{head}: {}\r\ndate: Tue, 24 Nov 2026 12:00:00 GMT\r\n\r\n{body}",
        body.len()
    )
    .into();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind(("0.0.0.0", METRICS_PORT)).await.unwrap();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let mut request = [0; 512];
                while let Ok(1..) = stream.read(&mut request).await {
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// Nanoseconds that this thread has been on a processor.
fn processor_time() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// The other process; ends with this one, also when that fails.
struct Server(std::process::Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let out = std::env::args().skip_while(|word| word != "--out").nth(1);
    if std::env::args().any(|word| word == "--serve") {
        return serve();
    }
    // In a process of its own: both ends of ten thousand connections are more files than many systems give one process.
    let program = std::env::current_exe().unwrap();
    let _server = Server(std::process::Command::new(program).arg("--serve").spawn().unwrap());
    let address = |pod: u32| IpAddr::V4(Ipv4Addr::from(0x7f40_0001 + pod));
    let mut asked: Vec<Asked> = (0..PODS)
        .map(|pod| Asked {
            pod: pod.to_string().into(),
            client: LoadClient::new((address(pod), METRICS_PORT).into()),
            answer: None,
        })
        .collect();
    let mut histories: Vec<History> = vec![History::default(); PODS as usize / PODS_PER_OBJECT];
    let policy = Policy::new(
        1,
        100,
        vec![Target::RunningRequests(12.0), Target::WaitingRequests(4.0)],
    );
    let mut scraper = Scraper::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    // Until the server listens and all connections are there: so many at once do not find room in the queue of one listener.
    while asked.iter().any(|pod| !matches!(pod.answer, Some(Ok(_)))) {
        runtime.block_on(scraper.round(&mut asked));
    }
    let (mut asking, mut deciding, mut walls) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (began, wall) = (processor_time(), Instant::now());
        runtime.block_on(scraper.round(&mut asked));
        let (between, took) = (processor_time(), wall.elapsed().as_secs_f64());
        let now = f64::from(round) * 2.0;
        let mut changes = 0;
        for (history, pods) in histories.iter_mut().zip(asked.chunks(PODS_PER_OBJECT)) {
            for pod in pods {
                let load = pod.answer.as_ref().unwrap().as_ref().expect("a load");
                history.expect(&pod.pod);
                history.sampled(&pod.pod, now, terms::sample(load, Some(3.0)));
            }
            history.round(now);
            let replicas = Replicas {
                wanted: PODS_PER_OBJECT as u32,
                ready: PODS_PER_OBJECT as u32,
                ..Replicas::default()
            };
            let decision = decide(history, &policy, &replicas, now);
            history.decided(now, &decision);
            changes += u32::from(decision.desired != decision.from);
        }
        std::hint::black_box(changes);
        // The first round fills the caches.
        if round > 0 {
            asking.push(between - began);
            deciding.push(processor_time() - between);
            walls.push(took);
        }
    }
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (asking, deciding, wall) = (median(&mut asking), median(&mut deciding), median(&mut walls));
    println!("{PODS} pods: {asking:.3} s of processor to ask, {deciding:.3} s to decide, {wall:.3} s on the clock");
    if let Some(out) = out {
        let text =
            format!("{{\"pods\": {PODS}, \"ask\": {asking:.4}, \"decide\": {deciding:.4}, \"wall\": {wall:.4}}}\n");
        std::fs::write(out, text).unwrap();
    }
}
