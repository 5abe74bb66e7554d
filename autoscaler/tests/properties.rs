//! What holds for every history, policy and number of replicas.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use perennial_autoscaler::{Decision, History, Missing, Policy, Replicas, Sample, Target, decide};
use proptest::prelude::*;

/// Seconds between two rounds.
const ROUND: f64 = 2.0;

fn targets() -> impl Strategy<Value = Vec<Target>> {
    let target = prop_oneof![
        (1.0..20.0).prop_map(Target::WaitingRequests),
        (1.0..20.0).prop_map(Target::RunningRequests),
        (0.1..1.0).prop_map(Target::KvCacheUtilization),
        (0.05..5.0).prop_map(Target::TimeToFirstToken),
        (10.0..1000.0).prop_map(Target::TokensPerSecond),
    ];
    prop::collection::vec(target, 1..4)
}

fn policies() -> impl Strategy<Value = Policy> {
    let windows = (prop_oneof![Just(0.0), 0.0..120.0], prop_oneof![Just(0.0), 0.0..300.0]);
    (
        1..5_u32,
        0..20_u32,
        targets(),
        windows,
        10.0..300.0,
        1..4_u32,
        any::<bool>(),
    )
        .prop_map(
            |(min, more, targets, (up_window, down_window), percent, down, to_max)| Policy {
                up_window,
                up_percent_per_minute: percent,
                down_window: Some(down_window),
                down_per_minute: down,
                missing: if to_max { Missing::ScaleToMax } else { Missing::Hold },
                ..Policy::new(min, min + more, targets)
            },
        )
}

/// What one pod does in a round.
#[derive(Clone, Copy, Debug)]
struct Deed {
    running: u32,
    waiting: u32,
    arrived: u64,
    answers: bool,
}

fn deeds() -> impl Strategy<Value = Deed> {
    (
        0..17_u32,
        prop_oneof![Just(0_u32), 0..60_u32],
        0..10_u64,
        prop::bool::weighted(0.8),
    )
        .prop_map(|(running, waiting, arrived, answers)| Deed {
            running,
            waiting,
            arrived,
            answers,
        })
}

/// Rounds of up to six pods.
fn stories() -> impl Strategy<Value = Vec<Vec<Deed>>> {
    (1..6_usize).prop_flat_map(|pods| prop::collection::vec(prop::collection::vec(deeds(), pods), 1..60))
}

/// Feeds a history with rounds; counters follow from the deeds.
struct Play {
    history: History,
    samples: Vec<Sample>,
    names: Vec<Arc<str>>,
    now: f64,
}

impl Play {
    fn new(pods: usize) -> Self {
        let sample = |boot| Sample {
            boot,
            slots: 16,
            cache_total: 40_000,
            cold_start: Some(60.0),
            ..Sample::default()
        };
        Self {
            history: History::default(),
            samples: (0..pods as u64).map(sample).collect(),
            names: (0..pods).map(|pod| pod.to_string().into()).collect(),
            now: 0.0,
        }
    }

    fn round(&mut self, deeds: &[Deed]) {
        self.now += ROUND;
        for (index, deed) in deeds.iter().enumerate() {
            let sample = &mut self.samples[index];
            sample.running = deed.running;
            sample.waiting = deed.waiting;
            sample.cache_used = u64::from(deed.running) * 1000;
            sample.arrived += deed.arrived;
            sample.finished += deed.arrived;
            sample.computed_seconds += deed.arrived as f64 * 3.0;
            sample.generated += u64::from(deed.running) * 40;
            sample.first_token[if deed.waiting > 0 { 14 } else { 9 }] += deed.arrived as u32;
            self.history.expect(&self.names[index]);
            if deed.answers {
                self.history.sampled(&self.names[index], self.now, *sample);
            }
        }
        self.history.round(self.now);
    }

    fn decide(&self, policy: &Policy, wanted: u32) -> Decision {
        decide(&self.history, policy, &self.replicas(wanted), self.now)
    }

    fn replicas(&self, wanted: u32) -> Replicas {
        let ready = self.samples.len() as u32;
        Replicas {
            wanted,
            ready,
            without_room: false,
            rollout: false,
        }
    }
}

/// Plays a story as a shell would and gives all decisions.
fn tell(story: &[Vec<Deed>], policy: &Policy, mut wanted: u32) -> Vec<Decision> {
    let mut play = Play::new(story[0].len());
    let mut decisions = Vec::new();
    for deeds in story {
        play.round(deeds);
        let decision = play.decide(policy, wanted);
        play.history.decided(play.now, &decision);
        wanted = decision.desired;
        decisions.push(decision);
    }
    decisions
}

#[test]
fn nothing_is_taken_away_before_the_time_to_first_token_can_be_known() {
    // A request of each pod in a round: twenty, which it takes to tell a percentile, have come after twenty seconds.
    let policy = Policy {
        up_window: 0.0,
        down_window: Some(0.0),
        ..Policy::new(1, 3, vec![Target::TimeToFirstToken(0.05)])
    };
    let deed = Deed {
        running: 1,
        waiting: 0,
        arrived: 1,
        answers: true,
    };
    let decisions = tell(&vec![vec![deed; 2]; 60], &policy, 2);
    assert!(decisions.iter().all(|decision| decision.desired >= decision.from));
    assert_eq!(decisions.last().map(|decision| decision.desired), Some(3));
    // With hardly any requests it is never known, and after half a minute that is known.
    let hardly = Deed { arrived: 0, ..deed };
    let idle = tell(&vec![vec![hardly; 2]; 60], &policy, 2);
    assert!(idle.iter().take(15).all(|decision| decision.desired == 2));
    assert_eq!(idle.last().map(|decision| decision.desired), Some(1));
}

proptest! {
    #[test]
    fn the_number_lies_within_the_limits(story in stories(), policy in policies(), wanted in 0..40_u32) {
        for decision in tell(&story, &policy, wanted) {
            prop_assert!((policy.min..=policy.max).contains(&decision.desired), "{decision:?}");
            prop_assert_eq!(decision.reason.is_empty(), decision.desired == decision.from, "{:?}", decision);
        }
    }

    #[test]
    fn replicas_go_one_by_one_and_no_more_in_a_minute_than_allowed(story in stories(), policy in policies()) {
        let wanted = policy.max;
        let decisions = tell(&story, &policy, wanted);
        let minute = (60.0 / ROUND) as usize;
        for window in decisions.windows(minute.min(decisions.len())) {
            let removed: u32 = window.iter().map(|one| one.from.saturating_sub(one.desired)).sum();
            prop_assert!(removed <= policy.down_per_minute, "{removed} in a minute");
        }
    }

    #[test]
    fn who_does_not_answer_is_never_taken_for_idle(story in stories(), policy in policies(), wanted in 1..20_u32) {
        // The same story with every pod silent from the middle on: the number does not fall after the silence is noticed.
        let mut silent = story.clone();
        let middle = silent.len() / 2;
        for deeds in &mut silent[middle..] {
            deeds.iter_mut().for_each(|deed| deed.answers = false);
        }
        let wanted = wanted.clamp(policy.min, policy.max);
        for decision in tell(&silent, &policy, wanted).iter().skip(middle + 4) {
            prop_assert!(decision.desired >= decision.from, "{decision:?}");
        }
    }

    #[test]
    fn unseen_pods_count_as_full_when_going_down(story in stories(), policy in policies(), wanted in 1..20_u32) {
        let mut play = Play::new(story[0].len());
        for deeds in &story {
            play.round(deeds);
        }
        let totals = play.history.totals(play.now);
        let wanted = wanted.clamp(policy.min, policy.max);
        let decision = play.decide(&policy, wanted);
        prop_assert!(decision.recommended >= totals.unseen.min(wanted), "{decision:?} {totals:?}");
    }

    #[test]
    fn more_load_never_asks_for_fewer(story in stories(), policy in policies(), wanted in 1..20_u32, more in 1..50_u32) {
        let wanted = wanted.clamp(policy.min, policy.max);
        let (mut one, mut other) = (Play::new(story[0].len()), Play::new(story[0].len()));
        let (last, before) = story.split_last().unwrap();
        for deeds in before {
            one.round(deeds);
            other.round(deeds);
        }
        let mut heavier = last.clone();
        for deed in &mut heavier {
            deed.waiting += more;
        }
        one.round(last);
        other.round(&heavier);
        let (less, more) = (one.decide(&policy, wanted), other.decide(&policy, wanted));
        prop_assert!(more.recommended >= less.recommended, "{less:?} {more:?}");
    }

    #[test]
    fn a_constant_load_comes_to_rest(deed in deeds(), pods in 1..6_usize, policy in policies(), wanted in 1..20_u32) {
        // The same number of requests whatever the number of replicas, as many rounds as windows and rates can take.
        // As many are computed as Little's law says: each takes 3 s.
        let running = (deed.arrived as f64 * 3.0 / ROUND) as u32;
        let deed = Deed { answers: true, waiting: 0, running, ..deed };
        let rounds = ((policy.down_window(None) + policy.up_window + 60.0 * 20.0) / ROUND) as usize;
        let story = vec![vec![deed; pods]; rounds + 100];
        let decisions = tell(&story, &policy, wanted.clamp(policy.min, policy.max));
        // The reserve for surprises fades without end, so the need may come upon the edge of a number as late as it likes, once.
        let late = decisions[rounds..].iter().filter(|decision| decision.desired != decision.from);
        prop_assert!(late.count() <= 1);
        // And on the way it never turns back.
        let ups = decisions.iter().any(|decision| decision.desired > decision.from);
        let downs = decisions.iter().any(|decision| decision.desired < decision.from);
        prop_assert!(!(ups && downs) || wanted != wanted.clamp(policy.min, policy.max));
    }

    #[test]
    fn a_restart_changes_nothing_by_itself(deed in deeds(), pods in 1..6_usize, policy in policies(), wanted in 1..20_u32) {
        // A new shell sees the same pods: within its first rounds it takes nothing away.
        let wanted = wanted.clamp(policy.min, policy.max);
        let story = vec![vec![Deed { answers: true, ..deed }; pods]; 5];
        for decision in tell(&story, &policy, wanted) {
            prop_assert!(decision.desired >= decision.from);
        }
    }

    #[test]
    fn a_pod_without_room_ends_all_growth(story in stories(), policy in policies(), wanted in 1..20_u32) {
        let mut play = Play::new(story[0].len());
        for deeds in &story {
            play.round(deeds);
        }
        let wanted = wanted.clamp(policy.min, policy.max);
        for (without_room, rollout) in [(true, false), (false, true)] {
            let replicas = Replicas { without_room, rollout, ..play.replicas(wanted) };
            let decision = decide(&play.history, &policy, &replicas, play.now);
            if without_room && decision.reason.is_empty() {
                prop_assert!(decision.desired <= wanted || policy.missing == Missing::ScaleToMax);
            }
            if rollout {
                prop_assert!(decision.desired >= wanted);
            }
        }
    }
}

#[test]
fn a_queue_that_grows_while_replicas_start_is_not_counted_again_and_again() {
    // Twice what one replica can do arrives: 16 requests at a time, each computed for 4 s, 8 a second.
    let policy = Policy::new(1, 50, vec![Target::RunningRequests(16.0)]);
    let mut play = Play::new(1);
    let mut wanted = 1;
    for round in 0..90_u32 {
        play.now += ROUND;
        let sample = &mut play.samples[0];
        sample.running = 16;
        sample.waiting = round * 8;
        sample.arrived += 16;
        sample.finished += 8;
        sample.computed_seconds += 8.0 * 4.0;
        play.history.expect(&play.names[0]);
        play.history.sampled(&play.names[0], play.now, *sample);
        play.history.round(play.now);
        let decision = play.decide(&policy, wanted);
        play.history.decided(play.now, &decision);
        wanted = decision.desired;
    }
    // After three minutes of a queue of 720 requests: two for the load, and what the queue is worth over a minute.
    assert!((2..=6).contains(&wanted), "{wanted}");
}

#[test]
fn silence_ends_at_the_maximum_if_that_is_asked_for() {
    let policy = Policy {
        missing: Missing::ScaleToMax,
        ..Policy::new(1, 7, vec![Target::RunningRequests(4.0)])
    };
    let mut play = Play::new(2);
    let deed = Deed {
        running: 1,
        waiting: 0,
        arrived: 1,
        answers: true,
    };
    play.round(&[deed; 2]);
    let silent = Deed { answers: false, ..deed };
    let mut decision = play.decide(&policy, 2);
    for _ in 0..20 {
        play.round(&[silent; 2]);
        decision = play.decide(&policy, 2);
    }
    assert_eq!(decision.desired, 7, "{decision:?}");
    assert!(decision.reason.contains("none of 2"), "{}", decision.reason);
}
