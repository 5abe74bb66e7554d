//! Which cause is named for which change, as a table: the cure for one is poison for another.
#![expect(clippy::expect_used, reason = "a test that cannot prepare its input has failed")]

mod common;

use std::collections::BTreeMap;

use common::{MONDAY, Random, Traffic, steady, watching};
use perennial_drift::baseline::Baseline;
use perennial_drift::cause::{Cause, Findings, Probes, Response, cause, moved_signals, single_source};
use perennial_drift::decision::Phase;
use perennial_drift::observe::Interval;
use perennial_drift::pane::Pane;
use perennial_drift::pane::layout::Layout;
use perennial_drift::policy::Policy;
use perennial_drift::probe::{Answer, Evidence, Reference, Run};

/// Histories of each kind of change.
const HISTORIES: u64 = 40;
/// Panes of five minutes in a history; the change comes with the first.
const PANES: i64 = 48;
/// Panes from one run of the probes to the next.
const PROBE_EVERY: i64 = 6;
const REQUESTS: u64 = 200;
const PROMPTS: usize = 40;

/// A change of one size: what traffic is like from then on, how many requests a pane has, and how the probes are answered.
struct Change {
    traffic: Traffic,
    requests: u64,
    /// Probes whose tokens are others.
    changed: usize,
    /// By how much log-probabilities of probes are off.
    offset: f64,
}

fn between(random: &mut Random, low: f64, high: f64) -> f64 {
    low + (high - low) * random.uniform()
}

/// The same service and traffic as ever.
fn none() -> Change {
    Change {
        traffic: Traffic::default(),
        requests: REQUESTS,
        changed: 0,
        offset: 0.0,
    }
}

/// Users ask in another language, about something else, or at another length; answers follow.
fn input_drift(random: &mut Random) -> Change {
    let mut change = none();
    match random.below(3) {
        0 => change.traffic.german = between(random, 0.2, 0.6),
        1 => change.traffic.topic = between(random, 0.2, 0.6),
        _ => change.traffic.prompt.0 += between(random, 0.5, 1.0),
    }
    change.traffic.output.0 += between(random, -0.3, 0.3);
    change
}

/// Fewer bits for the weights: less sure of the same answers, and some of them become others.
fn quantization(random: &mut Random) -> Change {
    let mut change = none();
    change.offset = between(random, -0.08, -0.02);
    change.traffic.logprob += 4.0 * change.offset;
    change.changed = random.below(PROMPTS / 4);
    change
}

/// A template that says more before each prompt: prompts are longer in tokens, and everything is answered otherwise.
fn template(random: &mut Random) -> Change {
    let mut change = none();
    change.traffic.prompt.0 += between(random, 0.3, 1.0);
    change.traffic.output.0 += between(random, -0.5, 0.5);
    change.changed = PROMPTS / 2 + random.below(PROMPTS / 2);
    change.offset = between(random, -0.05, 0.05);
    change
}

/// Four times as many requests, or a quarter.
fn load(random: &mut Random) -> Change {
    let factor = between(random, -2.0, 2.0).exp2();
    Change {
        requests: (REQUESTS as f64 * factor) as u64,
        ..none()
    }
}

/// Clients sample otherwise: answers alone become longer or shorter.
fn sampling(random: &mut Random) -> Change {
    let mut change = none();
    let shift = between(random, 0.5, 1.0);
    change.traffic.output.0 += if random.chance(0.5) { shift } else { -shift };
    change
}

/// The same answers please less.
fn quality(random: &mut Random) -> Change {
    let mut change = none();
    change.traffic.bad_ratings = between(random, 0.3, 0.7);
    change
}

/// The probes, once.
fn probe(random: &mut Random, change: &Change) -> Run {
    let answer = |prompt: usize| {
        let mut fixed = Random(prompt as u64);
        let mut answer = Answer::default();
        for _ in 0..20 {
            answer.tokens.push((fixed.bits() % 50_000) as u32);
            answer
                .logprobs
                .push(-fixed.uniform() + change.offset + 0.002 * random.normal());
        }
        if prompt < change.changed {
            answer.tokens[3] += 1;
        }
        answer
    };
    (0..PROMPTS).map(answer).collect()
}

/// The cause that is named: with the first run of the probes behind the confirmation of a drift, or when the probes say so.
fn verdict(baseline: &Baseline, reference: &Reference, policy: &Policy, change: &Change, random: &mut Random) -> Cause {
    let mut state = watching(baseline, policy);
    let (mut evidence, mut probes) = (Evidence::default(), Probes::Unknown);
    for position in 0..PANES {
        let start = baseline.to + 300 * position;
        let mut pane = Pane::new(&Layout::default(), start, 300);
        for _ in 0..change.requests {
            pane.add(&change.traffic.request(random));
        }
        let interval = Interval {
            start,
            pane: Some(pane),
        };
        state.step(&interval, None, baseline, policy).expect("a step is taken");
        if position % PROBE_EVERY != PROBE_EVERY - 1 {
            continue;
        }
        let run = probe(random, change);
        let compared = reference.compare(&mut evidence, &run, start, policy);
        probes = compared.expect("is compared").probes;
        if state.phase == Phase::Drifted || probes == Probes::Changed {
            let moved = moved_signals(&state, policy);
            return cause(&Findings {
                single_source: single_source(&moved, baseline, &state),
                moved: &moved,
                probes,
                mask: None,
            });
        }
    }
    cause(&Findings {
        moved: &[],
        probes,
        mask: None,
        single_source: false,
    })
}

#[test]
fn causes_are_told_apart_and_no_regression_of_the_service_is_answered_by_retraining() {
    type Draw = fn(&mut Random) -> Change;
    let rows: [(&str, Draw, Cause); 7] = [
        ("nothing", |_| none(), Cause::Nothing),
        ("load", load, Cause::Nothing),
        ("input drift", input_drift, Cause::InputDrift),
        ("quantization", quantization, Cause::ServingRegression),
        ("template", template, Cause::ServingRegression),
        ("sampling", sampling, Cause::OutputShift),
        ("quality", quality, Cause::QualityDrop),
    ];
    let mut policy = steady();
    policy.confirm_seconds = 900;
    policy.probe_interval_seconds = Some(1_800);
    let mut random = Random(2_026);
    let panes = Traffic::default().panes(&mut random, MONDAY, 200, 200);
    let baseline = Baseline::learn(&panes, &policy).expect("is learned");
    let runs: Vec<Run> = (0..3).map(|_| probe(&mut random, &none())).collect();
    let reference = Reference::learn(&runs).expect("is learned");
    let (mut right, mut all) = (0, 0);
    for (name, draw, expected) in rows {
        let mut told: BTreeMap<String, u64> = BTreeMap::new();
        for seed in 0..HISTORIES {
            let mut random = Random(seed * 7_919 + 1);
            let change = draw(&mut random);
            let found = verdict(&baseline, &reference, &policy, &change, &mut random);
            *told.entry(format!("{found:?}")).or_default() += 1;
            if expected == Cause::ServingRegression {
                assert_ne!(found.response(), Response::Retrain, "{name}, history {seed}: {found:?}");
            }
        }
        let hits = told.get(&format!("{expected:?}")).copied().unwrap_or(0);
        println!("{name:>14}: {told:?}");
        assert!(hits * 100 >= HISTORIES * 95, "{name} is told as {told:?}");
        (right, all) = (right + hits, all + HISTORIES);
    }
    println!("{right} of {all} on the diagonal");
}
