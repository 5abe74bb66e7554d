//! What must hold in every state of the cluster, also in those that no rollout leads to.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::time::Duration;

use common::{ago, failure, wanted};
use perennial_operator::deployment::plan::{Known, Observed, Phase, Plan, Running, Wanted, plan};
use proptest::prelude::*;

fn any_known() -> impl Strategy<Value = Known> {
    let running = proptest::option::of((0_i64..300, 0_i32..4, 0_i32..3));
    let failed = proptest::option::weighted(0.2, proptest::option::of(Just("1")));
    (running, any::<bool>(), failed).prop_map(|(running, served, failed)| Known {
        running: running.map(|(age, ready, more)| Running {
            created: ago(age),
            ready,
            replicas: ready + more,
        }),
        served,
        failed: failed.map(failure),
    })
}

/// Also a Service that leads to something that is not there any more.
fn any_observed() -> impl Strategy<Value = Observed> {
    let name = || prop::sample::select(vec!["a", "b", "c"]);
    let stable = proptest::option::weighted(0.9, prop::sample::select(vec!["a", "b", "c", "gone"]));
    let revisions = proptest::collection::btree_map(name().prop_map(str::to_owned), any_known(), 0..4);
    (stable, revisions, any::<bool>()).prop_map(|(stable, revisions, endpoints_moved)| Observed {
        stable: stable.map(str::to_owned),
        endpoints_moved,
        ready_endpoints: 1,
        revisions,
    })
}

fn any_wanted() -> impl Strategy<Value = Wanted> {
    let target = proptest::option::weighted(0.9, prop::sample::select(vec!["a", "b", "c"]));
    let retry = proptest::option::of(Just("1".to_owned()));
    (target, 0_i32..4, any::<bool>(), retry, 0_u64..3).prop_map(|(target, replicas, paused, retry, lag)| Wanted {
        paused,
        nodes_may_lag: std::time::Duration::from_secs(lag),
        retry,
        ..wanted(target, replicas)
    })
}

fn ready(observed: &Observed, name: &str) -> i32 {
    let running = observed.revisions.get(name).and_then(|known| known.running.as_ref());
    running.map_or(0, |running| running.ready)
}

fn has_served(observed: &Observed, name: &str) -> bool {
    observed.revisions.get(name).is_some_and(|known| known.served)
}

fn check_traffic(observed: &Observed, wanted: &Wanted, plan: &Plan) -> Result<(), TestCaseError> {
    let answers = plan.stable.as_deref().is_some_and(|stable| ready(observed, stable) > 0);
    if wanted.replicas > 0 && !answers {
        for name in observed.revisions.keys() {
            prop_assert!(
                !(has_served(observed, name) && ready(observed, name) > 0),
                "nobody answers where the Service leads, and {name} would"
            );
        }
    }
    Ok(())
}

fn check_protection(observed: &Observed, wanted: &Wanted, plan: &Plan) -> Result<(), TestCaseError> {
    let Some(stable) = observed.stable.as_deref() else {
        return Ok(());
    };
    if wanted.replicas > 0 && ready(observed, stable) > 0 {
        prop_assert_eq!(
            plan.deployments.get(stable),
            Some(&wanted.replicas),
            "what serves goes on"
        );
        prop_assert!(!plan.remove.iter().any(|name| name == stable));
    }
    if plan.give_up {
        prop_assert!(plan.stable.as_deref().is_some_and(|stable| ready(observed, stable) > 0));
        prop_assert!(
            !plan
                .deployments
                .contains_key(wanted.target.as_deref().unwrap_or_default())
        );
    }
    Ok(())
}

fn check_extent(observed: &Observed, wanted: &Wanted, plan: &Plan) -> Result<(), TestCaseError> {
    for (name, replicas) in &plan.deployments {
        prop_assert!((0..=wanted.replicas).contains(replicas));
        let allowed = matches!(plan.phase, Phase::Draining | Phase::Switching)
            || [&observed.stable, &plan.stable, &wanted.target]
                .iter()
                .any(|one| one.as_deref() == Some(name.as_str()));
        prop_assert!(allowed, "{name} is neither serving nor being introduced");
    }
    prop_assert!(plan.phase == Phase::Draining || plan.deployments.len() <= 2);
    for (name, known) in &observed.revisions {
        let kept = plan.deployments.contains_key(name);
        prop_assert_eq!(plan.remove.contains(name), known.running.is_some() && !kept);
    }
    Ok(())
}

fn check_given_up(observed: &Observed, wanted: &Wanted, plan: &Plan) -> Result<(), TestCaseError> {
    let Some(target) = wanted.target.as_deref() else {
        return Ok(());
    };
    let failure = observed.revisions.get(target).and_then(|known| known.failed.as_ref());
    let counts = failure.is_some_and(|failure| failure.retry == wanted.retry);
    let elsewhere = observed
        .stable
        .as_deref()
        .is_some_and(|stable| stable != target && has_served(observed, stable));
    if counts && elsewhere && ready(observed, target) == 0 {
        prop_assert!(!plan.deployments.contains_key(target), "given up and started again");
        prop_assert!(matches!(plan.phase, Phase::GivenUp(_)));
    }
    prop_assert_eq!(
        plan.forgive.iter().any(|name| name == target),
        failure.is_some() && !counts
    );
    Ok(())
}

fn check_deadline(observed: &Observed, wanted: &Wanted, plan: &Plan) -> Result<(), TestCaseError> {
    let target = wanted.target.as_deref().unwrap_or_default();
    let deadline = match plan.phase {
        Phase::Introducing { late: false } if !has_served(observed, target) => true,
        Phase::Draining => plan.remove.is_empty(),
        _ => false,
    };
    if deadline {
        prop_assert!(plan.look_again.is_some(), "{:?} without an end", plan.phase);
    }
    if let Some(again) = plan.look_again {
        prop_assert!(again > Duration::ZERO && again <= wanted.progress_deadline + Duration::from_secs(1));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_plan_keeps_the_invariants(observed in any_observed(), wanted in any_wanted()) {
        let plan = plan(&observed, &wanted);
        check_traffic(&observed, &wanted, &plan)?;
        check_protection(&observed, &wanted, &plan)?;
        check_extent(&observed, &wanted, &plan)?;
        check_given_up(&observed, &wanted, &plan)?;
        check_deadline(&observed, &wanted, &plan)?;
        prop_assert_eq!(plan, perennial_operator::deployment::plan::plan(&observed, &wanted), "same inputs, same plan");
    }
}
