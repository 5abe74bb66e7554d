//! The detector on the streams of `drift/reference/streams.py`: when it alarms, how late, how often falsely.
//!
//! `cargo bench -p perennial-drift --bench detector -- STREAMS... [--null N] [--out FILE]` reads each folder's manifest,
//! and with `--null` plays N million requests with all signals armed and no change. The result is JSON: for each run its
//! alarms and the frozen parameters, so that the reference in numpy can be run with the same ones.
#![expect(clippy::expect_used, reason = "a bench that cannot prepare its input has failed")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::{Path, PathBuf};
use std::time::Instant;

use common::{MONDAY, Random, Traffic, watching};
use perennial_drift::baseline::{Baseline, Model};
use perennial_drift::decision::{Phase, State};
use perennial_drift::explain;
use perennial_drift::features::fourier::Projection;
use perennial_drift::features::{Features, NUMERIC};
use perennial_drift::observe::Interval;
use perennial_drift::pane::Pane;
use perennial_drift::pane::key::RING;
use perennial_drift::pane::layout::Layout;
use perennial_drift::policy::{Policy, Season, Watched};
use perennial_drift::signal::{Kind, Signal};
use serde_json::{Value, json};

const CAPACITY: f64 = 518_400.0;

/// A stream's kind decides what its values are.
struct Stream {
    signal: Signal,
    pane_seconds: u32,
    season: Season,
}

fn kind(name: &str) -> Stream {
    match name {
        "embeddings" => Stream {
            signal: Signal::PromptEmbedding,
            pane_seconds: 300,
            season: Season::None,
        },
        // 144 panes a day.
        "daily" => Stream {
            signal: Signal::PromptTokens,
            pane_seconds: 600,
            season: Season::HourOfDay,
        },
        _ => Stream {
            signal: Signal::PromptTokens,
            pane_seconds: 300,
            season: Season::None,
        },
    }
}

fn policy(kind: &Stream, signals: Vec<Watched>) -> Policy {
    Policy {
        pane_seconds: kind.pane_seconds,
        // The same capacity whatever the length of a pane.
        per_days: 90 * kind.pane_seconds / 300,
        season: kind.season,
        baseline_seconds: 3_600,
        baseline_min_samples: 10_000,
        signals,
        ..Policy::default()
    }
}

fn numbers(path: &Path) -> Vec<f64> {
    let bytes = std::fs::read(path).expect("a stream is read");
    bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|chunk| f64::from_le_bytes(*chunk))
        .collect()
}

fn vectors(path: &Path, dimensions: usize) -> Vec<Vec<f32>> {
    let bytes = std::fs::read(path).expect("a stream is read");
    let values: Vec<f32> = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|chunk| f32::from_le_bytes(*chunk))
        .collect();
    values.chunks_exact(dimensions).map(<[f32]>::to_vec).collect()
}

fn with_tokens(tokens: f64) -> Features {
    let mut features = common::empty();
    let position = NUMERIC.iter().position(|signal| *signal == Signal::PromptTokens);
    features.numbers[position.expect("it is a number")] = Some(tokens);
    features
}

/// Panes of 100 requests each.
fn panes(features: impl Iterator<Item = Features>, from: i64, seconds: u32) -> Vec<Pane> {
    let layout = Layout::default();
    let mut panes: Vec<Pane> = Vec::new();
    for (position, features) in features.enumerate() {
        if position % 100 == 0 {
            panes.push(Pane::new(
                &layout,
                from + i64::from(seconds) * panes.len() as i64,
                seconds,
            ));
        }
        panes.last_mut().expect("there is one").add(&features);
    }
    if panes.last().is_some_and(|pane| pane.requests() < 100) {
        panes.pop();
    }
    panes
}

/// Plays panes; after an alarm the evidence begins anew. Gives the requests at each alarm.
fn play(panes: &[Pane], baseline: &Baseline, policy: &Policy) -> Vec<u64> {
    let mut state = watching(baseline, policy);
    let (mut alarms, mut requests) = (Vec::new(), 0);
    for pane in panes {
        requests += pane.requests();
        let interval = Interval {
            start: pane.start(),
            pane: Some(pane.clone()),
        };
        state.step(&interval, None, baseline, policy).expect("a step is taken");
        if state.phase != Phase::Watching {
            alarms.push(requests);
            let report = explain::report(&state, baseline, policy);
            if policy.signals.len() > 1
                && let Some(top) = report.signals.first()
            {
                eprintln!("alarm after {requests} requests: {:?}, {:?}", top.signal, top.effects);
            }
            state = State::watching(baseline, state.baseline(), policy, pane.end());
        }
    }
    alarms
}

/// What the reference needs to decide likewise: bin edges before the transform, moments, cumulants, design effects.
fn parameters(baseline: &Baseline, signal: Signal) -> Value {
    let Some(signal) = baseline.signal(signal) else {
        return Value::Null;
    };
    match (&signal.model, signal.signal.kind()) {
        (Model::Numeric(model), Kind::Numeric(scale)) => {
            let edges: Vec<f64> = (1..model.table.groups.len())
                .filter(|bin| model.table.groups[*bin] != model.table.groups[bin - 1])
                .map(|bin| scale.raw(scale.low + (bin as f64 - 1.0) * scale.width()))
                .collect();
            let tail = perennial_drift::tally::Tally {
                count: 1,
                cells: vec![(0, 1)],
                ..Default::default()
            };
            let (_, bounds) = model.tail(&tail, &model.table.reference(&tail));
            json!({
                "edges": edges, "kappa": model.kappa, "mean": model.means[0], "sigma": model.sigma,
                "phi_omnibus": model.table.phi, "phi_directional": model.phi,
                "tails": model.tails, "tail_upper": bounds.upper, "tail_lower": bounds.lower,
                "stable": signal.stable,
            })
        }
        (Model::Embedding(model), _) => {
            json!({"trace": model.trace, "trace_of_square": model.trace_of_square, "stable": signal.stable})
        }
        _ => Value::Null,
    }
}

fn run_streams(folder: &Path, results: &mut Vec<Value>) {
    let manifest = std::fs::read_to_string(folder.join("manifest.json")).expect("a manifest is read");
    let manifest: Value = serde_json::from_str(&manifest).expect("a manifest is JSON");
    let name = manifest["kind"].as_str().expect("a kind");
    let kind = kind(name);
    let projection = Projection::new(64, 1.0, 20_000);
    for run in manifest["runs"].as_array().expect("runs") {
        let file = |part: &str| folder.join(run[part].as_str().expect("a file"));
        let series = |part: &str, from: i64| -> Vec<Pane> {
            if name == "embeddings" {
                let dimensions = run["dimensions"].as_u64().expect("a number") as usize;
                let features = vectors(&file(part), dimensions).into_iter().map(|vector| Features {
                    fourier: projection.features(&vector),
                    ..common::empty()
                });
                panes(features, from, kind.pane_seconds)
            } else {
                panes(
                    numbers(&file(part)).into_iter().map(with_tokens),
                    from,
                    kind.pane_seconds,
                )
            }
        };
        let policy = policy(&kind, vec![Watched::new(kind.signal)]);
        assert!((policy.capacity() - CAPACITY).abs() < 1e-6);
        let baseline = Baseline::learn(&series("ref", MONDAY), &policy).expect("a baseline is learned");
        let stable = baseline.signal(kind.signal).is_some_and(|signal| signal.stable);
        // The day begins anew: a whole number of days may not have been learned.
        let from = baseline.to + (MONDAY - baseline.to).rem_euclid(86_400);
        let alarms = if stable {
            play(&series("x", from), &baseline, &policy)
        } else {
            Vec::new()
        };
        let mut result = run.clone();
        result["kind"] = json!(name);
        result["reference_alarms"] = run["alarms"].clone();
        result["alarms"] = json!(alarms);
        result["frozen"] = parameters(&baseline, kind.signal);
        results.push(result);
    }
    eprintln!(
        "{}: {} runs",
        folder.display(),
        manifest["runs"].as_array().map_or(0, Vec::len)
    );
}

/// All signals, no change, `millions` of requests, against one baseline for each million.
fn null(millions: u64) -> Value {
    let policy = policy(&kind("standard"), Policy::default().signals);
    let traffic = Traffic::default();
    let (mut alarms, mut requests, mut unstable) = (0, 0, 0);
    let began = Instant::now();
    for million in 0..millions {
        let mut random = Random(77_000 + 1_000 * million);
        let baseline = Baseline::learn(&traffic.panes(&mut random, MONDAY, 200, 100), &policy).expect("is learned");
        unstable += baseline.unstable().count();
        let panes = traffic.panes(&mut random, baseline.to, 10_000, 100);
        requests += panes.iter().map(Pane::requests).sum::<u64>();
        alarms += play(&panes, &baseline, &policy).len();
        eprintln!(
            "null: {requests} requests, {alarms} alarms, {:.0} s",
            began.elapsed().as_secs_f64()
        );
    }
    json!({"requests": requests, "alarms": alarms, "signals": policy.signals.len(), "unstable_signals": unstable, "baselines": millions})
}

fn main() {
    let mut folders: Vec<PathBuf> = Vec::new();
    let (mut out, mut result) = (None, json!({"capacity": CAPACITY}));
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" => {}
            "--out" => out = arguments.next(),
            "--null" => {
                let millions = arguments
                    .next()
                    .and_then(|number| number.parse().ok())
                    .expect("--null takes a number");
                result["null"] = null(millions);
            }
            folder => folders.push(PathBuf::from(folder)),
        }
    }
    let busy = Traffic::default().pane(&mut Random(1), &Layout::default(), MONDAY, 100_000);
    let encoded = busy.encode().expect("is encoded").len();
    result["memory"] =
        json!({"pane": busy.memory(), "encoded": encoded, "pane_and_ring": busy.memory() + RING * encoded});
    let mut results = Vec::new();
    for folder in &folders {
        run_streams(folder, &mut results);
    }
    result["runs"] = json!(results);
    let text = serde_json::to_string_pretty(&result).expect("JSON is written");
    match out {
        Some(path) => std::fs::write(path, text + "\n").expect("the result is written"),
        None => println!("{text}"),
    }
}
