//! Fixed prompts: alike enough is the same, and any systematic change is not.
#![expect(clippy::expect_used, reason = "a test that cannot prepare its input has failed")]

mod common;

use common::Random;
use perennial_drift::cause::Probes;
use perennial_drift::policy::Policy;
use perennial_drift::probe::{Answer, Evidence, ProbeError, Reference, Run, Verdict};

const PROMPTS: usize = 40;

/// Answers of an engine whose log-probabilities wobble by `noise`, and are off by `offset`.
fn run(random: &mut Random, noise: f64, offset: f64, changed: usize) -> Run {
    (0..PROMPTS)
        .map(|prompt| {
            let mut fixed = Random(prompt as u64);
            let mut answer = Answer::default();
            for _ in 0..20 {
                answer.tokens.push((fixed.bits() % 50_000) as u32);
                answer
                    .logprobs
                    .push(-fixed.uniform() + offset + noise * random.normal());
            }
            if prompt < changed {
                answer.tokens[7] += 1;
            }
            answer
        })
        .collect()
}

fn policy() -> Policy {
    Policy {
        probe_interval_seconds: Some(21_600),
        ..Policy::default()
    }
}

/// Verdicts of so many runs.
fn play(runs: usize, noise: f64, offset: f64, changed: usize) -> Vec<Verdict> {
    let mut random = Random(99);
    let reference: Vec<Run> = (0..3).map(|_| run(&mut random, noise, 0.0, 0)).collect();
    let reference = Reference::learn(&reference).expect("is learned");
    let mut evidence = Evidence::default();
    (0..runs)
        .map(|position| {
            let run = run(&mut random, noise, offset, changed);
            reference
                .compare(&mut evidence, &run, 21_600 * position as i64, &policy())
                .expect("is compared")
        })
        .collect()
}

#[test]
fn the_same_engine_stays_the_same_for_ninety_days() {
    for noise in [0.0, 0.001, 0.05] {
        assert!(
            play(360, noise, 0.0, 0)
                .iter()
                .all(|verdict| verdict.probes == Probes::Same),
            "{noise}"
        );
    }
}

#[test]
fn an_engine_that_answers_half_of_the_prompts_otherwise_is_found_at_once() {
    let verdict = play(1, 0.001, 0.0, 20)[0];
    assert_eq!(verdict.probes, Probes::Changed);
    assert!((verdict.agreement - 0.5).abs() < 1e-9, "{verdict:?}");
}

#[test]
fn few_prompts_take_longer_and_are_found_too() {
    for (changed, runs) in [(8, 3), (3, 40)] {
        let verdicts = play(runs, 0.001, 0.0, changed);
        assert!(
            verdicts.iter().any(|verdict| verdict.probes == Probes::Changed),
            "{changed}: {:?}",
            verdicts.last()
        );
    }
}

#[test]
fn a_quantization_that_keeps_every_token_is_found_by_its_log_probabilities() {
    let verdicts = play(4, 0.001, -0.02, 0);
    assert!(
        verdicts.iter().any(|verdict| verdict.probes == Probes::Changed),
        "{verdicts:?}"
    );
    assert!(verdicts.iter().all(|verdict| verdict.agreement == 1.0));
    assert!((verdicts[0].difference + 0.02).abs() < 0.002);
}

#[test]
fn runs_of_other_prompts_are_refused_and_change_nothing() {
    let mut random = Random(1);
    let good = run(&mut random, 0.0, 0.0, 0);
    let reference = Reference::learn(&[good.clone(), good.clone(), good.clone()]).expect("is learned");
    let mut evidence = Evidence::default();
    let before = evidence.clone();
    let error = reference
        .compare(&mut evidence, &good[..10].to_vec(), 0, &policy())
        .expect_err("is refused");
    assert_eq!(error, ProbeError::Prompts { got: 10, expected: 40 });
    assert_eq!(evidence, before);
    assert_eq!(Reference::learn(std::slice::from_ref(&good)), Err(ProbeError::Few(1)));
    assert_eq!(Reference::learn(&[vec![], vec![], vec![]]), Err(ProbeError::Empty));
}
