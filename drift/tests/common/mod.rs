//! Traffic for tests: seeded, so that a failure can be played again.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::expect_used, reason = "a test that cannot prepare its traffic has failed")]

use std::sync::LazyLock;

use perennial_drift::baseline::Baseline;
use perennial_drift::decision::{Phase, State};
use perennial_drift::features::{FOURIER, Features};
use perennial_drift::observe::Interval;
use perennial_drift::pane::Pane;
use perennial_drift::pane::layout::Layout;
use perennial_drift::policy::{Policy, Season, Watched};
use perennial_drift::signal::Signal;

/// Monday, 2026-11-02T00:00:00Z.
pub const MONDAY: i64 = 1_793_577_600;

/// SplitMix64, and what is drawn with it.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    pub fn uniform(&mut self) -> f64 {
        ((self.bits() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.uniform() * bound as f64) as usize
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// Box and Muller.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// What traffic is like. The default is the standard stream with all signals.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Mean and standard deviation of ln(prompt tokens).
    pub prompt: (f64, f64),
    /// Part of the prompts that is long.
    pub long: f64,
    pub output: (f64, f64),
    pub logprob: f64,
    /// Part of the prompts in another language.
    pub german: f64,
    /// Part of the prompts on another subject.
    pub topic: f64,
    pub refusals: f64,
    pub bad_ratings: f64,
    /// Number of requesters.
    pub requesters: usize,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            prompt: (5.0, 0.8),
            long: 0.0,
            output: (4.5, 0.9),
            logprob: -0.6,
            german: 0.03,
            topic: 0.0,
            refusals: 0.02,
            bad_ratings: 0.1,
            requesters: 200,
        }
    }
}

/// A request of which nothing is known.
pub fn empty() -> Features {
    Features {
        numbers: [None; 8],
        events: [None; 8],
        language: None,
        token_bucket: None,
        fourier: None,
        requester: None,
        prompt_hash: None,
    }
}

/// Prompts of each topic: a fixed direction, with noise. The ninth topic is one that baselines do not know.
static PROMPTS: LazyLock<Vec<Vec<[i32; FOURIER]>>> = LazyLock::new(|| {
    let mut random = Random(4_242);
    let scale = 16_777_216.0 / ((FOURIER / 2) as f64).sqrt();
    let mut prompt = |topic: u64| {
        let mut fixed = Random(1 + topic);
        let mut values = [0; FOURIER];
        for pair in 0..FOURIER / 2 {
            let angle = fixed.normal() * 1.5 + random.normal() * 0.7;
            values[pair] = (angle.cos() * scale).round() as i32;
            values[pair + FOURIER / 2] = (angle.sin() * scale).round() as i32;
        }
        values
    };
    (0..9)
        .map(|topic| (0..1_024).map(|_| prompt(topic)).collect())
        .collect()
});

fn fourier(random: &mut Random, topic: usize) -> Box<[i32; FOURIER]> {
    Box::new(PROMPTS[topic][random.below(1_024)])
}

impl Traffic {
    /// One request, with every signal.
    pub fn request(&self, random: &mut Random) -> Features {
        let requester = random.below(self.requesters) as u64;
        self.request_of(random, requester)
    }

    pub fn request_of(&self, random: &mut Random, requester: u64) -> Features {
        let log = if random.chance(self.long) {
            7.5 + 0.4 * random.normal()
        } else {
            self.prompt.0 + self.prompt.1 * random.normal()
        };
        let tokens = log.exp().round().max(1.0);
        let german = random.chance(self.german);
        let output = (self.output.0 + self.output.1 * random.normal()).exp().round().max(1.0);
        let topic = if random.chance(self.topic) { 8 } else { random.below(8) };
        let fertility = (if german { -1.1 } else { -1.4 } + 0.15 * random.normal()).exp();
        // Skewed on purpose: exponential, as surprise is.
        let exponential = |random: &mut Random| -random.uniform().ln();
        Features {
            numbers: [
                Some(tokens),
                Some(fertility),
                random.chance(0.1).then(|| 2.0 + exponential(random)),
                Some(output),
                Some(self.logprob * exponential(random)),
                Some(0.8 * exponential(random)),
                Some(0.2 * (0.5 * random.normal()).exp()),
                Some(0.02 * (0.3 * random.normal()).exp()),
            ],
            events: [
                Some(random.chance(0.05)),
                Some(random.chance(self.refusals)),
                Some(random.chance(0.004)),
                Some(random.chance(0.001)),
                random.chance(0.2).then(|| random.chance(0.03)),
                random.chance(0.1).then(|| random.chance(0.02)),
                random.chance(0.05).then(|| random.chance(self.bad_ratings)),
                Some(random.chance(0.002)),
            ],
            language: Some(if german { 2 } else { 1 }),
            token_bucket: Some((1_024.0 * random.uniform().powi(3)) as u16),
            fourier: Some(fourier(random, topic)),
            requester: Some(requester.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7),
            prompt_hash: Some(random.bits()),
        }
    }

    /// The pane of so many requests at a time.
    pub fn pane(&self, random: &mut Random, layout: &Layout, time: i64, requests: usize) -> Pane {
        let mut pane = Pane::new(layout, time, 300);
        for _ in 0..requests {
            pane.add(&self.request(random));
        }
        pane
    }

    /// Panes one after the other.
    pub fn panes(&self, random: &mut Random, from: i64, count: usize, requests: usize) -> Vec<Pane> {
        let layout = Layout::default();
        (0..count)
            .map(|position| self.pane(random, &layout, from + 300 * position as i64, requests))
            .collect()
    }
}

/// A policy for a steady stream, with a baseline of 20,000 requests.
pub fn steady() -> Policy {
    Policy {
        season: Season::None,
        baseline_seconds: 3_600,
        ..Policy::default()
    }
}

/// The same for one signal.
pub fn only(signal: Signal) -> Policy {
    Policy {
        signals: vec![Watched::new(signal)],
        ..steady()
    }
}

/// A state that watches against this baseline.
pub fn watching(baseline: &Baseline, policy: &Policy) -> State {
    let bytes = baseline.encode().expect("a baseline is encoded");
    State::watching(
        baseline,
        &perennial_drift::envelope::digest(&bytes),
        policy,
        baseline.to,
    )
}

/// Plays panes until the state suspects something; gives how many that took.
pub fn suspected_after(state: &mut State, panes: &[Pane], baseline: &Baseline, policy: &Policy) -> Option<usize> {
    for (position, pane) in panes.iter().enumerate() {
        let interval = Interval {
            start: pane.start(),
            pane: Some(pane.clone()),
        };
        state.step(&interval, None, baseline, policy).expect("a step is taken");
        if state.phase != Phase::Watching {
            return Some(position + 1);
        }
    }
    None
}
