//! The decision: from a history, a policy and the replicas that are, to the replicas that shall be.

use crate::history::History;
use crate::need::{Load, Need, need, settled};
use crate::policy::{Missing, Policy, Target};

/// A replica goes only if this part of the room of those that stay would still be free: what is nearly needed will be needed
/// again, and has to start anew then.
pub const SLACK: f64 = 0.2;
/// So many replicas may always be added in a minute: a percentage of one or two is no limit anybody means.
pub const FREE_STEP: u32 = 4;
/// Seconds that a new history must have seen before anything is taken away, whatever the window: rates need two samples.
pub const FIRST_LOOKS: f64 = 10.0;
/// The same where the time to first token is a target: that is measured over half a minute, and before it is known it might
/// be anything.
pub const FIRST_TIMES: f64 = 30.0;
/// Seconds without any answer after which [`Missing::ScaleToMax`] acts.
pub const PATIENCE: f64 = 30.0;

/// The replicas that are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replicas {
    /// As many as were asked for.
    pub wanted: u32,
    /// Those that answer.
    pub ready: u32,
    /// Whether one of them waits for a device, a node or a quota.
    pub without_room: bool,
    /// Whether a new revision is being introduced.
    pub rollout: bool,
}

/// How much of the load is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Every ready replica answers.
    Full,
    /// Some ready replicas do not answer.
    Partial {
        /// Those that do.
        seen: u32,
        /// All of them.
        of: u32,
    },
    /// No ready replica answers.
    Blind {
        /// All of them.
        of: u32,
    },
    /// No replica is ready, so there is nobody to ask.
    NoneReady,
}

/// Why there are not as many replicas as are needed, or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `max`.
    Maximum,
    /// The growth of a minute.
    UpRate,
    /// A replica waits for room already.
    Room,
}

/// The replicas that shall be.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Replicas that were asked for before.
    pub from: u32,
    /// Replicas that are to be asked for.
    pub desired: u32,
    /// Replicas that the load of this moment asks for, before windows and limits.
    pub recommended: u32,
    /// What is known.
    pub sight: Sight,
    /// What holds the number back.
    pub limit: Option<Limit>,
    /// Why it changes, in words; empty if it does not.
    pub reason: String,
}

/// Decides how many replicas there shall be.
///
/// Never fewer on account of a replica that does not answer: such a one counts as fully used when going down and as idle
/// when going up, and while none answers nothing changes ([`Missing::Hold`]).
#[must_use]
pub fn decide(history: &History, policy: &Policy, replicas: &Replicas, now: f64) -> Decision {
    let wanted = replicas.wanted.clamp(policy.min, policy.max);
    let mut decision = Decision {
        from: replicas.wanted,
        desired: wanted,
        recommended: wanted,
        sight: Sight::Full,
        limit: None,
        reason: String::new(),
    };
    if wanted != replicas.wanted {
        let (name, limit) = match wanted > replicas.wanted {
            true => ("minReplicas", policy.min),
            false => ("maxReplicas", policy.max),
        };
        decision.reason = format!("{name} is {limit}");
        return decision;
    }
    let load = Load::of(history, now);
    decision.sight = sight(&load);
    if load.totals.seen == 0 {
        blind(history, policy, now, &mut decision);
        return decision;
    }
    let need = largest(history, policy, replicas, &load, now);
    let raise = whole(need.replicas);
    let lower = whole(need.replicas.max(load.room()) / (1.0 - SLACK)).saturating_add(load.totals.unseen);
    if raise > wanted {
        decision.recommended = raise;
        up(history, policy, replicas, now, &mut decision);
        if decision.desired > wanted {
            decision.reason = words_up(&need, &load, history);
        }
    } else if lower < wanted {
        decision.recommended = lower.max(policy.min);
        down(history, policy, replicas, now, &mut decision);
        if decision.desired < wanted {
            let window = policy.down_window(history.cold_start());
            decision.reason = format!("{} for {window:.0} s", need.words(false));
        }
    }
    decision
}

fn sight(load: &Load) -> Sight {
    let (seen, of) = (load.totals.seen, load.totals.seen + load.totals.unseen);
    match (seen, of) {
        (_, 0) => Sight::NoneReady,
        (0, _) => Sight::Blind { of },
        _ if seen == of => Sight::Full,
        _ => Sight::Partial { seen, of },
    }
}

fn blind(history: &History, policy: &Policy, now: f64, decision: &mut Decision) {
    let long_enough = history.blind_since().is_some_and(|since| now - since > PATIENCE);
    let Sight::Blind { of } = decision.sight else { return };
    if policy.missing == Missing::ScaleToMax && long_enough && decision.desired < policy.max {
        decision.desired = policy.max;
        decision.recommended = policy.max;
        decision.reason = format!("none of {of} ready replicas has told its load for {PATIENCE:.0} s (ScaleToMax)");
    }
}

fn largest(history: &History, policy: &Policy, replicas: &Replicas, load: &Load, now: f64) -> Need {
    let settled = settled(history, replicas, now);
    policy
        .targets
        .iter()
        .map(|target| need(*target, load, replicas.wanted, settled))
        .max_by(|one, other| one.replicas.total_cmp(&other.replicas))
        .unwrap_or(Need {
            replicas: load.room(),
            target: Target::RunningRequests(load.totals.slots),
            value: 0.0,
        })
}

/// Replicas that suffice; a hair above a whole number is that number.
fn whole(replicas: f64) -> u32 {
    (replicas - 1e-9).ceil().clamp(0.0, f64::from(u32::MAX)) as u32
}

fn up(history: &History, policy: &Policy, replicas: &Replicas, now: f64, decision: &mut Decision) {
    let wanted = decision.desired;
    let mut desired = decision.recommended;
    if policy.up_window > 0.0 {
        let lasting = history.least_needed(now, policy.up_window).unwrap_or(wanted);
        desired = desired.min(lasting.max(wanted));
    }
    let base = history.minute_ago(now, wanted);
    let by_percent = whole(f64::from(base) * (1.0 + policy.up_percent_per_minute / 100.0));
    let allowed = by_percent.max(base.saturating_add(FREE_STEP)).max(wanted);
    for (most, limit) in [
        (policy.max, Limit::Maximum),
        (allowed, Limit::UpRate),
        (if replicas.without_room { wanted } else { u32::MAX }, Limit::Room),
    ] {
        if desired > most {
            desired = most;
            decision.limit = Some(limit);
        }
    }
    decision.desired = desired;
}

fn down(history: &History, policy: &Policy, replicas: &Replicas, now: f64, decision: &mut Decision) {
    let wanted = decision.desired;
    // What is being introduced has to carry the load of what serves.
    if replicas.rollout {
        return;
    }
    let by_time = policy
        .targets
        .iter()
        .any(|target| matches!(target, Target::TimeToFirstToken(_)));
    if by_time && history.most_needed(now, FIRST_TIMES).is_none() {
        return;
    }
    let window = policy.down_window(history.cold_start()).max(FIRST_LOOKS);
    let lasting = history.most_needed(now, window).unwrap_or(wanted);
    let desired = decision.recommended.max(lasting);
    let steps = policy.down_per_minute.saturating_sub(history.removed(now));
    if desired < wanted {
        // One at a time: what the next one costs the others shows before it goes.
        decision.desired = desired.max(wanted.saturating_sub(steps.min(1)));
    }
}

fn words_up(need: &Need, load: &Load, history: &History) -> String {
    let words = need.words(true);
    match history.cold_start() {
        Some(lead) if load.growth > 1.05 => {
            format!(
                "{words}; the load grows {:.1}-fold in the {lead:.0} s of a cold start",
                load.growth
            )
        }
        _ => words,
    }
}
