//! Four peers, written anew from their public formulas and defaults.
//!
//! Where a peer's input is not part of the simulation, it gets the better of two readings; each module says so. What a
//! peer does with a number is as its own code does it, and [`check`] holds each against its own project's examples.

pub mod hpa;
pub mod keda;
pub mod kpa;
pub mod kubeai;

pub use hpa::Hpa;
pub use keda::Keda;
pub use kpa::Kpa;
pub use kubeai::KubeAi;

use perennial_autoscaler::Sample;

/// Asserts the examples of the peers' own tests; returns how many held.
pub fn check() -> usize {
    let mut checks = Checks::default();
    hpa::check(&mut checks);
    keda::check(&mut checks);
    kpa::check(&mut checks);
    kubeai::check(&mut checks);
    checks.held
}

/// Examples that held.
#[derive(Default)]
pub struct Checks {
    held: usize,
}

impl Checks {
    /// Asserts one example of the test with this name.
    pub fn same<T: PartialEq + std::fmt::Debug>(&mut self, test: &str, got: T, expected: T) {
        assert_eq!(got, expected, "{test}");
        self.held += 1;
    }
}

/// A ticker: the first time is one interval after the start, as with Go's tickers and the queue of the HPA.
#[derive(Debug)]
struct Rhythm {
    every: f64,
    next: Option<f64>,
}

impl Rhythm {
    fn new(every: f64) -> Self {
        Self { every, next: None }
    }

    fn due(&mut self, now: f64) -> bool {
        let next = *self.next.get_or_insert(now + self.every);
        let due = now >= next;
        if due {
            self.next = Some((next + self.every).max(now));
        }
        due
    }
}

/// Requests that a pod holds, computed and waiting.
fn held(sample: &Sample) -> u32 {
    sample.running + sample.waiting
}
