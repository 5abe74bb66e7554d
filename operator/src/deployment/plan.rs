//! Which revision serves, which is being introduced, which goes: the whole rollout as one pure function.
//!
//! Nothing is remembered between two calls. What must survive a crash lies in the cluster: the Service's selector names
//! the revision that serves, the age of a Deployment starts the deadline, a mark on a ControllerRevision says that it has
//! served or that it was given up. So an operator that was killed at any moment goes on to the same end.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::revision::Failure;

/// A Deployment of one revision, as far as the plan is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// When it was made.
    pub created: Timestamp,
    /// Pods that answer.
    pub ready: i32,
    /// Pods that exist.
    pub replicas: i32,
}

/// What is known of one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Its Deployment, if there is one.
    pub running: Option<Running>,
    /// Whether it has ever served.
    pub served: bool,
    /// Whether it was given up.
    pub failed: Option<Failure>,
}

/// The cluster as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Revision to which the Service leads.
    pub stable: Option<String>,
    /// Whether every endpoint of the Service belongs to that revision, and at least one is ready.
    pub endpoints_moved: bool,
    /// Ready endpoints of the Service.
    pub ready_endpoints: usize,
    /// Revisions by name: stored ones and those that only have a Deployment.
    pub revisions: BTreeMap<String, Known>,
}

/// What the object asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Revision that the spec asks for; unknown while its source is being resolved.
    pub target: Option<String>,
    /// Replicas; 0 while suspended.
    pub replicas: i32,
    /// New revisions wait.
    pub paused: bool,
    /// Time for a new revision to get ready.
    pub progress_deadline: Duration,
    /// For how long nodes may not have heard of changes, because the API server was away.
    pub nodes_may_lag: Duration,
    /// Value of the retry annotation.
    pub retry: Option<String>,
    /// The time.
    pub now: Timestamp,
}

/// Where a rollout stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The target is not known yet.
    Unresolved,
    /// The target serves and nothing else is left.
    Settled,
    /// The target is being brought up. `late`: longer than the deadline, with nothing to go back to.
    Introducing {
        /// Past the deadline.
        late: bool,
    },
    /// The Service is being moved to the target.
    Switching,
    /// The target serves, the old revision's requests finish.
    Draining,
    /// A new revision waits for `paused` to go.
    Held,
    /// The target was given up; the stable revision serves.
    GivenUp(Failure),
}

/// What to do, and where that leaves us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Revision to which the Service shall lead.
    pub stable: Option<String>,
    /// Deployments that shall exist, with their replicas.
    pub deployments: BTreeMap<String, i32>,
    /// Revisions whose Deployments shall go.
    pub remove: Vec<String>,
    /// Revision to be marked as having served.
    pub mark_served: Option<String>,
    /// Whether the target is to be given up, because its time is over.
    pub give_up: bool,
    /// Revisions whose mark of failure is out of date.
    pub forgive: Vec<String>,
    /// Where the rollout stands.
    pub phase: Phase,
    /// When to look again, if nothing happens.
    pub look_again: Option<Duration>,
}

/// Decides what to do.
#[must_use]
pub fn plan(observed: &Observed, wanted: &Wanted) -> Plan {
    let mut plan = match &wanted.target {
        None => unresolved(observed, wanted),
        Some(target) => toward(observed, wanted, target),
    };
    plan.remove = observed
        .revisions
        .iter()
        .filter(|(name, known)| known.running.is_some() && !plan.deployments.contains_key(*name))
        .map(|(name, _)| name.clone())
        .collect();
    plan.forgive = observed
        .revisions
        .iter()
        .filter(|(name, known)| known.failed.is_some() && forgiven(name, known, wanted))
        .map(|(name, _)| name.clone())
        .collect();
    if let Some(stable) = &observed.stable
        && ready(observed, stable) > 0
        && observed.revisions.get(stable).is_some_and(|known| !known.served)
    {
        plan.mark_served = Some(stable.clone());
    }
    plan
}

/// A failure counts only while the spec asks for that very revision and nobody has asked to try again.
fn forgiven(name: &str, known: &Known, wanted: &Wanted) -> bool {
    let Some(target) = &wanted.target else { return false };
    target != name
        || known
            .failed
            .as_ref()
            .is_some_and(|failure| failure.retry != wanted.retry)
}

fn ready(observed: &Observed, name: &str) -> i32 {
    observed
        .revisions
        .get(name)
        .and_then(|known| known.running.as_ref())
        .map_or(0, |running| running.ready)
}

fn base(stable: Option<String>, phase: Phase) -> Plan {
    Plan {
        stable,
        deployments: BTreeMap::new(),
        remove: Vec::new(),
        mark_served: None,
        give_up: false,
        forgive: Vec::new(),
        phase,
        look_again: None,
    }
}

/// What serves goes on; a half-introduced revision that the spec no longer asks for goes, unless it is all there is.
fn unresolved(observed: &Observed, wanted: &Wanted) -> Plan {
    let stable = serving(observed, wanted);
    let mut plan = base(stable.map(str::to_owned), Phase::Unresolved);
    if let Some(stable) = stable {
        plan.deployments.insert(stable.to_owned(), wanted.replicas);
    }
    plan
}

/// The revision that serves: the one to which the Service leads, or, while nobody answers there, one that has served
/// before and still answers.
fn serving<'a>(observed: &'a Observed, wanted: &Wanted) -> Option<&'a str> {
    let led_to = observed.stable.as_deref();
    if wanted.replicas == 0 || led_to.is_some_and(|stable| ready(observed, stable) > 0) {
        return led_to;
    }
    let answering = observed
        .revisions
        .iter()
        .filter(|(name, known)| known.served && ready(observed, name) > 0);
    answering
        .max_by_key(|(name, _)| ready(observed, name))
        .map(|(name, _)| name.as_str())
        .or(led_to)
}

fn toward(observed: &Observed, wanted: &Wanted, target: &str) -> Plan {
    let known = |name: &str| observed.revisions.get(name);
    // What answers but was not marked yet counts, too: the operator may have been away meanwhile.
    let has_served = |name: &str| known(name).is_some_and(|known| known.served) || ready(observed, name) > 0;
    let given_up = known(target).is_some_and(|known| known.failed.is_some() && !forgiven(target, known, wanted));
    match serving(observed, wanted) {
        Some(stable) if stable == target => settle(observed, wanted, target),
        // Something that has served is protected, as long as anything is meant to serve; and a pause in serving is no
        // way back for what was given up.
        Some(stable) if (wanted.replicas > 0 || given_up) && has_served(stable) => {
            introduce(observed, wanted, stable, target)
        }
        Some(stable) if wanted.paused && known(stable).is_some() => hold(stable, wanted),
        _ => {
            let mut plan = base(Some(target.to_owned()), introducing(observed, wanted, target));
            plan.deployments.insert(target.to_owned(), wanted.replicas);
            plan.look_again = until_deadline(observed, wanted, target);
            plan
        }
    }
}

fn hold(stable: &str, wanted: &Wanted) -> Plan {
    let mut plan = base(Some(stable.to_owned()), Phase::Held);
    plan.deployments.insert(stable.to_owned(), wanted.replicas);
    plan
}

/// The Service leads to the target already.
fn settle(observed: &Observed, wanted: &Wanted, target: &str) -> Plan {
    let others: Vec<&String> = observed
        .revisions
        .iter()
        .filter(|(name, known)| name.as_str() != target && known.running.is_some())
        .map(|(name, _)| name)
        .collect();
    // Requests may still arrive at the old pods until every endpoint is the target's, and every node has heard of it.
    let moved = observed.endpoints_moved && wanted.nodes_may_lag.is_zero();
    let drained = moved || wanted.replicas == 0 || ready(observed, target) == 0;
    let phase = match (others.is_empty(), drained) {
        (true, _) | (_, true) if ready(observed, target) < wanted.replicas => introducing(observed, wanted, target),
        (true, _) => Phase::Settled,
        (false, _) => Phase::Draining,
    };
    let mut plan = base(Some(target.to_owned()), phase);
    plan.deployments.insert(target.to_owned(), wanted.replicas);
    if !others.is_empty() && !drained {
        for other in others {
            let replicas = observed.revisions[other]
                .running
                .as_ref()
                .map_or(0, |running| running.replicas);
            plan.deployments.insert(other.clone(), replicas.min(wanted.replicas));
        }
        plan.look_again = Some(Duration::from_secs(1));
    } else {
        plan.look_again = until_deadline(observed, wanted, target);
    }
    plan
}

/// The target comes up beside what serves.
fn introduce(observed: &Observed, wanted: &Wanted, stable: &str, target: &str) -> Plan {
    let target_known = observed.revisions.get(target).cloned().unwrap_or_default();
    if let Some(failure) = &target_known.failed
        && !forgiven(target, &target_known, wanted)
    {
        let mut plan = base(Some(stable.to_owned()), Phase::GivenUp(failure.clone()));
        plan.deployments.insert(stable.to_owned(), wanted.replicas);
        return plan;
    }
    if wanted.paused && target_known.running.is_none() {
        return hold(stable, wanted);
    }
    // All replicas, so that a new revision need not carry the load of many with one; fewer are better than none.
    let relieves = ready(observed, stable) == 0 && ready(observed, target) > 0;
    // Never fewer than serve now; those that an autoscaler asks for meanwhile need not be waited for.
    let enough = wanted.replicas.min(ready(observed, stable).max(1));
    if relieves || ready(observed, target) >= enough {
        let mut plan = base(Some(target.to_owned()), Phase::Switching);
        plan.deployments.insert(stable.to_owned(), wanted.replicas);
        plan.deployments.insert(target.to_owned(), wanted.replicas);
        return plan;
    }
    let late = is_late(observed, wanted, target);
    let mut plan = base(Some(stable.to_owned()), Phase::Introducing { late });
    plan.deployments.insert(stable.to_owned(), wanted.replicas);
    // A rollout is given up only in favour of something that serves.
    if late && ready(observed, stable) > 0 {
        plan.give_up = true;
        return plan;
    }
    plan.deployments.insert(target.to_owned(), wanted.replicas);
    plan.look_again = until_deadline(observed, wanted, target);
    plan
}

fn introducing(observed: &Observed, wanted: &Wanted, target: &str) -> Phase {
    if wanted.replicas == 0 || (wanted.replicas > 0 && ready(observed, target) >= wanted.replicas) {
        return Phase::Settled;
    }
    let served = observed.revisions.get(target).is_some_and(|known| known.served);
    Phase::Introducing {
        late: !served && is_late(observed, wanted, target),
    }
}

fn age(observed: &Observed, wanted: &Wanted, target: &str) -> Option<Duration> {
    let running = observed.revisions.get(target)?.running.as_ref()?;
    Some(Duration::try_from(wanted.now.duration_since(running.created)).unwrap_or_default())
}

fn is_late(observed: &Observed, wanted: &Wanted, target: &str) -> bool {
    age(observed, wanted, target).is_some_and(|age| age > wanted.progress_deadline)
}

fn until_deadline(observed: &Observed, wanted: &Wanted, target: &str) -> Option<Duration> {
    if ready(observed, target) >= wanted.replicas {
        return None;
    }
    let age = age(observed, wanted, target).unwrap_or_default();
    // One second more than the rest, because creation times have whole seconds.
    (age <= wanted.progress_deadline).then(|| wanted.progress_deadline - age + Duration::from_secs(1))
}
