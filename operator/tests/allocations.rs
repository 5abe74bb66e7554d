//! Asking for a load and remembering it allocates nothing per pod.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use perennial_autoscaler::History;
use perennial_crds::serving::{LOAD_VERSION, Load};
use perennial_operator::autoscaling::load_client::LoadClient;
use perennial_operator::autoscaling::scrape::{Asked, Scraper};
use perennial_operator::autoscaling::terms;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// A server in a process thread of its own that allocates nothing for an answer either.
fn serve() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let load = Load {
        version: LOAD_VERSION,
        max_running: 16,
        ..Load::default()
    };
    let body = serde_json::to_string(&load).unwrap();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let answer: &'static str = Box::leak(answer.into_boxed_str());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
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
    });
    address
}

/// Blocks that one round over so many pods allocates, once the connections are there.
fn blocks(pods: usize, address: SocketAddr) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let asked = |pod: usize| Asked {
        pod: pod.to_string().into(),
        client: LoadClient::new(address),
        answer: None,
    };
    let mut all: Vec<Asked> = (0..pods).map(asked).collect();
    let (mut scraper, mut history) = (Scraper::default(), History::default());
    // How many answered: a connection that finds no place in the listener's queue is made in a later round.
    let mut round = |now: f64| {
        runtime.block_on(scraper.round(&mut all));
        let mut answered = 0;
        for pod in &all {
            history.expect(&pod.pod);
            if let Some(Ok(load)) = &pod.answer {
                history.sampled(&pod.pod, now, terms::sample(load, None));
                answered += 1;
            }
        }
        answered
    };
    for warm_up in 0..20 {
        round(f64::from(warm_up) * 2.0);
    }
    let before = dhat::HeapStats::get().total_blocks;
    assert_eq!(round(40.0), pods, "not all answered");
    dhat::HeapStats::get().total_blocks - before
}

#[test]
fn a_round_allocates_for_its_places_and_not_for_its_pods() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let address = serve();
    // From 256 pods on there are as many places as there will be.
    let (few, many) = (blocks(256, address), blocks(768, address));
    println!("{few} blocks for 256 pods, {many} for 768");
    assert!(many <= few + 8, "{few} blocks for 256 pods, {many} for 768");
}
