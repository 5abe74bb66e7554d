//! What watching costs: a request in a pane, and a pane of 64 replicas merged and decided on.
#![expect(clippy::expect_used, reason = "a bench that cannot prepare its input has failed")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;

use common::{MONDAY, Random, Traffic, steady, watching};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use perennial_drift::baseline::Baseline;
use perennial_drift::observe::Interval;
use perennial_drift::pane::Pane;
use perennial_drift::pane::layout::Layout;

const REPLICAS: usize = 64;

fn request(criterion: &mut Criterion) {
    let layout = Layout::default();
    let mut random = Random(1);
    let requests: Vec<_> = (0..1_024).map(|_| Traffic::default().request(&mut random)).collect();
    let mut pane = Pane::new(&layout, MONDAY, 300);
    let mut next = requests.iter().cycle();
    criterion.bench_function("pane/add", |bencher| {
        bencher.iter(|| pane.add(black_box(next.next().expect("a cycle has no end"))));
    });
    let bytes = pane.encode().expect("is encoded");
    criterion.bench_function("pane/encode", |bencher| bencher.iter(|| black_box(&pane).encode()));
    criterion.bench_function("pane/decode", |bencher| {
        bencher.iter(|| Pane::decode(&layout, black_box(&bytes)))
    });
}

fn decision(criterion: &mut Criterion) {
    let layout = Layout::default();
    let mut random = Random(2);
    let mut policy = steady();
    // Of each kind some, twelve in all.
    policy.signals.truncate(12);
    let traffic = Traffic::default();
    let baseline = Baseline::learn(&traffic.panes(&mut random, MONDAY, 200, 100), &policy).expect("is learned");
    let mut state = watching(&baseline, &policy);
    for pane in traffic.panes(&mut random, baseline.to, 63, 100) {
        let interval = Interval {
            start: pane.start(),
            pane: Some(pane),
        };
        state
            .step(&interval, None, &baseline, &policy)
            .expect("a step is taken");
    }
    let replicas: Vec<Pane> = (0..REPLICAS)
        .map(|_| traffic.pane(&mut random, &layout, state.until, 100))
        .collect();
    criterion.bench_function("decision/64 replicas, 12 signals", |bencher| {
        bencher.iter_batched(
            || state.clone(),
            |mut state| {
                // The 64th pane: blocks of all lengths end with it.
                let mut merged = Pane::new(&layout, state.until, 300);
                for pane in &replicas {
                    merged.merge(pane).expect("they add");
                }
                let interval = Interval {
                    start: merged.start(),
                    pane: Some(merged),
                };
                state
                    .step(&interval, None, &baseline, &policy)
                    .expect("a step is taken");
                state
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(cost, request, decision);
criterion_main!(cost);
