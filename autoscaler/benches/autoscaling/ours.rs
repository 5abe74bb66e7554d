//! Perennial's autoscaler in the simulated world.

use std::sync::Arc;

use perennial_autoscaler::{History, Policy, Replicas, decide};

use crate::scaler::{Scaler, View};

/// Perennial's autoscaler, asked every two seconds.
pub struct Ours {
    policy: Policy,
    history: History,
    names: Vec<Arc<str>>,
}

impl Ours {
    /// With a policy.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            history: History::default(),
            names: Vec::new(),
        }
    }

    fn name(&mut self, id: u32) -> Arc<str> {
        while self.names.len() <= id as usize {
            self.names.push(self.names.len().to_string().into());
        }
        Arc::clone(&self.names[id as usize])
    }
}

impl Scaler for Ours {
    fn tick(&mut self, now: f64, view: &View<'_>) -> u32 {
        if now % 2.0 != 0.0 {
            return view.wanted;
        }
        let mut ready = Vec::new();
        for pod in view.pods.iter().filter(|pod| pod.ready) {
            ready.push((self.name(pod.id), pod.sample));
        }
        self.history.keep(|pod| ready.iter().any(|(name, _)| **name == *pod));
        for (name, sample) in &ready {
            self.history.expect(name);
            if let Some(sample) = sample {
                self.history.sampled(name, now, *sample);
            }
        }
        self.history.round(now);
        let replicas = Replicas {
            wanted: view.wanted,
            ready: ready.len() as u32,
            without_room: false,
            rollout: false,
        };
        let decision = decide(&self.history, &self.policy, &replicas, now);
        self.history.decided(now, &decision);
        decision.desired
    }
}
