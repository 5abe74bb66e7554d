//! Rollouts played through in a small cluster of values, with an operator that ends between any two writes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;
mod simulator;

use common::wanted;
use perennial_operator::deployment::plan::{Phase, Wanted};
use proptest::prelude::*;
use simulator::Cluster;

/// What happens from outside.
#[derive(Clone, Debug)]
enum Event {
    /// The spec asks for another revision, or its source is being resolved.
    Target(Option<&'static str>),
    Scale(i32),
    Pause(bool),
    Retry(u8),
    /// A pod of this revision breaks down and is made anew.
    LosePod(&'static str),
    LoseService,
    /// Nobody looks for so many ticks.
    Wait(u8),
    /// The operator ends after so many writes of its next look.
    Crash(u8),
}

fn revision() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c"])
}

fn spec_change() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => proptest::option::weighted(0.9, revision()).prop_map(Event::Target),
        3 => (0_u8..6).prop_map(Event::Crash),
        3 => (1_u8..40).prop_map(Event::Wait),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => spec_change(),
        1 => (0_i32..4).prop_map(Event::Scale),
        1 => any::<bool>().prop_map(Event::Pause),
        1 => (0_u8..3).prop_map(Event::Retry),
        2 => revision().prop_map(Event::LosePod),
        1 => Just(Event::LoseService),
    ]
}

/// Looks and ticks once, with an event before.
fn play(cluster: &mut Cluster, wanted: &mut Wanted, event: &Event) -> Result<(), TestCaseError> {
    let mut writes = usize::MAX;
    match event {
        Event::Target(target) => wanted.target = target.map(str::to_owned),
        Event::Scale(replicas) => wanted.replicas = *replicas,
        Event::Pause(paused) => wanted.paused = *paused,
        Event::Retry(value) => wanted.retry = Some(value.to_string()),
        Event::LosePod(revision) => cluster.lose_pod(revision),
        Event::LoseService => cluster.lose_service(),
        Event::Wait(ticks) => (0..*ticks).for_each(|_| cluster.tick()),
        Event::Crash(after) => writes = usize::from(*after),
    }
    cluster.look(wanted, writes).map_err(TestCaseError::fail)?;
    cluster.tick();
    Ok(())
}

/// Looks until nothing is written any more, for longer than any deadline.
fn rest(cluster: &mut Cluster, wanted: &Wanted) -> Result<Phase, TestCaseError> {
    let mut quiet = 0;
    for _ in 0..200 {
        let (phase, writes) = cluster.look(wanted, usize::MAX).map_err(TestCaseError::fail)?;
        quiet = if writes == 0 { quiet + 1 } else { 0 };
        if quiet > 30 {
            return Ok(phase);
        }
        cluster.tick();
    }
    Err(TestCaseError::fail(format!("never quiet: {cluster:?}")))
}

fn check_end(cluster: &Cluster, wanted: &Wanted, phase: &Phase) -> Result<(), TestCaseError> {
    let target = wanted.target.as_deref().unwrap_or_default();
    let service = cluster.service().unwrap_or_default();
    match phase {
        Phase::Settled => {
            prop_assert_eq!(service, target);
            prop_assert_eq!(cluster.deployments(), vec![(target, wanted.replicas)]);
            prop_assert_eq!(cluster.ready(target), wanted.replicas);
        }
        Phase::GivenUp(_) | Phase::Held => {
            prop_assert_ne!(service, target);
            prop_assert_eq!(cluster.deployments(), vec![(service, wanted.replicas)]);
            prop_assert!(!cluster.is_sound(service) || cluster.ready(service) == wanted.replicas);
        }
        // Nothing answers that could be gone back to; the end is told in the status, the pods go on trying.
        Phase::Introducing { .. } => {
            prop_assert!(!cluster.is_sound(target));
            prop_assert_eq!(cluster.ready(service), 0);
        }
        other => return Err(TestCaseError::fail(format!("came to rest in {other:?}"))),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_story_ends_with_the_target_or_with_what_served_before(
        sound in proptest::collection::btree_set(revision(), 0..4),
        events in proptest::collection::vec(any_event(), 1..25),
    ) {
        let mut cluster = Cluster::new(&sound);
        let mut wanted = wanted(Some("a"), 2);
        for event in &events {
            play(&mut cluster, &mut wanted, event)?;
        }
        wanted.target.get_or_insert_with(|| "a".to_owned());
        let phase = rest(&mut cluster, &wanted)?;
        check_end(&cluster, &wanted, &phase)?;
    }

    #[test]
    fn a_sound_revision_always_comes_to_serve_wherever_the_operator_ends(
        events in proptest::collection::vec(spec_change(), 1..25),
        last in revision(),
    ) {
        let mut cluster = Cluster::new(&["a", "b", "c"].into());
        let mut wanted = wanted(Some("a"), 2);
        for event in &events {
            play(&mut cluster, &mut wanted, event)?;
        }
        wanted.target = Some(last.to_owned());
        prop_assert_eq!(rest(&mut cluster, &wanted)?, Phase::Settled);
        check_end(&cluster, &wanted, &Phase::Settled)?;
    }
}

#[test]
fn a_broken_revision_is_given_up_and_tried_again_only_when_asked() {
    let mut cluster = Cluster::new(&["a"].into());
    let mut wanted = wanted(Some("a"), 2);
    assert_eq!(rest(&mut cluster, &wanted).unwrap(), Phase::Settled);
    wanted.target = Some("b".to_owned());
    assert!(matches!(rest(&mut cluster, &wanted).unwrap(), Phase::GivenUp(_)));
    assert_eq!(cluster.started("b"), 1);
    assert_eq!(cluster.ready("a"), 2);
    wanted.retry = Some("1".to_owned());
    assert!(matches!(rest(&mut cluster, &wanted).unwrap(), Phase::GivenUp(_)));
    assert_eq!(cluster.started("b"), 2);
    wanted.target = Some("a".to_owned());
    assert_eq!(rest(&mut cluster, &wanted).unwrap(), Phase::Settled);
    assert_eq!(cluster.started("a"), 1, "what served was never touched");
}
