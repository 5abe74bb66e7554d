//! How long to wait before an object is tried again: per object, doubling, reset by a success.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::index::Owner;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// Failures in a row, per object.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: Mutex<HashMap<Owner, u32>>,
}

impl Backoff {
    /// Counts one more failure and says how long to wait.
    pub fn failed(&self, owner: &Owner) -> Duration {
        let mut failures = self.failures.lock();
        let count = failures.entry(owner.clone()).or_insert(0);
        *count = count.saturating_add(1);
        jittered(delay(*count), owner, *count)
    }

    /// Forgets the failures of an object that went well or is gone.
    pub fn succeeded(&self, owner: &Owner) {
        self.failures.lock().remove(owner);
    }
}

/// 1 s, 2 s, 4 s, ... 5 min.
fn delay(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    FIRST.saturating_mul(1 << doublings).min(LONGEST)
}

/// Spreads objects that failed together by up to a tenth, the same way each time.
#[must_use]
pub fn jittered(delay: Duration, owner: &Owner, salt: u32) -> Duration {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (owner, salt).hash(&mut hasher);
    let per_mille = u32::try_from(hasher.finish() % 100).unwrap_or(0);
    delay + delay * per_mille / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Owner {
        Owner {
            namespace: "ns".to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn delays_double_to_five_minutes() {
        let seconds: Vec<u64> = (1..=11).map(|failures| delay(failures).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    }

    #[test]
    fn one_object_does_not_slow_another_and_success_resets() {
        let backoff = Backoff::default();
        for _ in 0..5 {
            backoff.failed(&owner("a"));
        }
        assert!(backoff.failed(&owner("b")) < Duration::from_secs(2));
        backoff.succeeded(&owner("a"));
        assert!(backoff.failed(&owner("a")) < Duration::from_secs(2));
    }
}
