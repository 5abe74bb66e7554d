//! Many runs, and what they give at equal cost.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use perennial_autoscaler::{Policy, Target};

use crate::ours::Ours;
use crate::peers::{Hpa, Keda, Kpa, KubeAi};
use crate::scaler::Scaler;
use crate::trace::{Family, Request, blackouts, synthetic};
use crate::world::{Machine, Outcome, World};

/// Seconds to the first token that a request may take.
pub const OBJECTIVE: f64 = 2.0;
/// Limits of replicas for all autoscalers.
pub const LIMITS: (u32, u32) = (1, 30);
/// Cold starts in seconds.
pub const COLD_STARTS: [f64; 3] = [30.0, 120.0, 300.0];
/// Budgets, as multiples of the hours of full replicas that start at once.
pub const BUDGETS: [f64; 4] = [1.5, 2.0, 3.0, 4.0];

/// Autoscalers that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// This one.
    Perennial,
    /// HorizontalPodAutoscaler.
    Hpa,
    /// Knative.
    Kpa,
    /// KEDA.
    Keda,
    /// KubeAI.
    KubeAi,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Perennial, Self::Hpa, Self::Kpa, Self::Keda, Self::KubeAi];

    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Perennial => "Perennial",
            Self::Hpa => "HPA",
            Self::Kpa => "Knative KPA",
            Self::Keda => "KEDA",
            Self::KubeAi => "KubeAI",
        }
    }

    /// Values of its knob that are tried: requests per replica, or waiting requests for KEDA.
    pub fn targets(self) -> &'static [f64] {
        match self {
            Self::Keda => &[0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0],
            Self::Kpa => &[2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 17.0, 20.0, 23.0, 27.0],
            _ => &[
                1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 18.0, 20.0,
            ],
        }
    }

    /// A fresh one.
    pub fn make(self, target: f64) -> Box<dyn Scaler> {
        let (min, max) = LIMITS;
        match self {
            Self::Perennial => Box::new(Ours::new(Policy::new(min, max, vec![Target::RunningRequests(target)]))),
            Self::Hpa => Box::new(Hpa::new(min, max, target)),
            Self::Kpa => Box::new(Kpa::new(min, max, target)),
            Self::Keda => Box::new(Keda::new(min, max, target)),
            Self::KubeAi => Box::new(KubeAi::new(min, max, target)),
        }
    }
}

/// One load with its times of blindness.
pub struct Scenario {
    /// Its family, or the name of a file.
    pub name: String,
    /// Requests.
    pub trace: Vec<Request>,
    /// When replicas cannot be asked.
    pub blackouts: Vec<(f64, f64, bool)>,
}

impl Scenario {
    /// A synthetic one.
    pub fn synthetic(family: Family, seed: u64) -> Self {
        Self {
            name: family.name().to_owned(),
            trace: synthetic(family, seed),
            blackouts: blackouts(family, seed),
        }
    }

    /// Hours of full replicas that would do if they started at once.
    pub fn ideal(&self) -> f64 {
        let machine = Machine::new(0.0);
        self.trace.iter().map(|request| machine.cost(request)).sum::<f64>() / 3600.0
    }

    /// Replicas for the first minute, so that no autoscaler pays for the beginning.
    fn first(&self) -> u32 {
        let machine = Machine::new(0.0);
        let minute = self.trace.iter().take_while(|request| request.at < 60.0);
        let load = minute.map(|request| machine.cost(request)).sum::<f64>() / 60.0;
        ((load * 1.5).ceil() as u32).clamp(LIMITS.0, LIMITS.1)
    }
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Index of the scenario.
    pub scenario: usize,
    /// Cold start in seconds.
    pub cold_start: f64,
    /// Autoscaler.
    pub kind: Kind,
    /// Value of its knob.
    pub target: f64,
    /// What came of it.
    pub outcome: Outcome,
}

/// Plays everything, on all cores.
pub fn play(scenarios: &[Scenario], kinds: &[Kind], cold_starts: &[f64]) -> Vec<Run> {
    let mut jobs = Vec::new();
    for scenario in 0..scenarios.len() {
        for &cold_start in cold_starts {
            for &kind in kinds {
                jobs.extend(
                    kind.targets()
                        .iter()
                        .map(|&target| (scenario, cold_start, kind, target)),
                );
            }
        }
    }
    let (next, runs) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(jobs.len())));
    let work = || {
        while let Some(&(scenario, cold_start, kind, target)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let played = &scenarios[scenario];
            let machine = Machine::new(cold_start);
            let world = World::new(machine, &played.trace, &played.blackouts, OBJECTIVE, played.first());
            let outcome = world.play(kind.make(target).as_mut(), |_, _, _, _| {});
            if let Ok(mut runs) = runs.lock() {
                runs.push(Run {
                    scenario,
                    cold_start,
                    kind,
                    target,
                    outcome,
                });
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut runs = runs.into_inner().unwrap_or_default();
    runs.sort_by(|one, other| {
        let key = |run: &Run| (run.scenario, run.cold_start as u64, run.kind, (run.target * 1e3) as u64);
        key(one).cmp(&key(other))
    });
    runs
}

/// What an autoscaler makes of its knob: cost and seconds over the objective, over several scenarios together.
pub fn curve(runs: &[Run], kind: Kind, cold_start: f64, scenarios: &[usize]) -> Vec<(f64, f64, f64)> {
    let mut points: Vec<(f64, f64, f64)> = Vec::new();
    for &target in kind.targets() {
        let same = runs.iter().filter(|run| {
            run.kind == kind
                && run.cold_start == cold_start
                && run.target == target
                && scenarios.contains(&run.scenario)
        });
        let (mut cost, mut over) = (0.0, 0.0);
        for run in same {
            cost += run.outcome.gpu_hours;
            over += run.outcome.seconds_over;
        }
        points.push((cost, over, target));
    }
    points.sort_by(|one, other| one.0.total_cmp(&other.0));
    points
}

/// The fewest seconds over the objective for at most a cost, between two settings in proportion. `None` if the autoscaler
/// cannot be made as cheap.
pub fn at_cost(curve: &[(f64, f64, f64)], cost: f64) -> Option<f64> {
    let cheaper = curve
        .iter()
        .filter(|point| point.0 <= cost)
        .min_by(|one, other| one.1.total_cmp(&other.1))?;
    let dearer = curve.iter().filter(|point| point.0 > cost && point.1 < cheaper.1);
    let between = dearer.map(|point| cheaper.1 + (point.1 - cheaper.1) * (cost - cheaper.0) / (point.0 - cheaper.0));
    Some(between.fold(cheaper.1, f64::min))
}
