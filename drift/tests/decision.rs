//! The way from traffic to a decision.

mod common;

use common::{MONDAY, Random, Traffic, only, steady, suspected_after, watching};
use perennial_drift::baseline::Baseline;
use perennial_drift::signal::Signal;

#[test]
fn probe_delays() {
    for (name, traffic) in [
        ("none", Traffic::default()),
        (
            "+0.1",
            Traffic {
                prompt: (5.08, 0.8),
                ..Traffic::default()
            },
        ),
        (
            "+0.25",
            Traffic {
                prompt: (5.2, 0.8),
                ..Traffic::default()
            },
        ),
        (
            "+0.5",
            Traffic {
                prompt: (5.4, 0.8),
                ..Traffic::default()
            },
        ),
        (
            "mixture",
            Traffic {
                long: 0.05,
                ..Traffic::default()
            },
        ),
        (
            "spread",
            Traffic {
                prompt: (5.0, 1.0),
                ..Traffic::default()
            },
        ),
        (
            "topic",
            Traffic {
                topic: 0.1,
                ..Traffic::default()
            },
        ),
    ] {
        for policy in [
            steady(),
            only(if name == "topic" {
                Signal::PromptEmbedding
            } else {
                Signal::PromptTokens
            }),
        ] {
            let mut delays = Vec::new();
            for seed in 0..5 {
                let mut random = Random(seed * 1000);
                let baseline =
                    Baseline::learn(&Traffic::default().panes(&mut random, MONDAY, 200, 100), &policy).unwrap();
                if seed == 0 && policy.signals.len() > 1 {
                    println!("unstable {:?}", baseline.unstable().collect::<Vec<_>>());
                }
                let mut state = watching(&baseline, &policy);
                let panes = traffic.panes(&mut random, baseline.to, 60, 100);
                delays.push(suspected_after(&mut state, &panes, &baseline, &policy));
            }
            println!("{name} {} signals: {delays:?}", policy.signals.len());
        }
    }
}
