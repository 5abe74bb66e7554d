//! How many LLMDeployments there are by the reason of their `Ready` condition.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::index::Owner;
use crate::metrics::Metrics;

/// The count of one controller. Dropped, it counts none: whoever leads next counts its own.
pub struct Tally {
    metrics: Arc<Metrics>,
    reasons: Mutex<HashMap<Owner, String>>,
}

impl Tally {
    /// An empty count, kept in these metrics.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            reasons: Mutex::default(),
        }
    }

    /// Counts an object, once, by its reason now.
    pub fn count(&self, owner: Owner, reason: &str) {
        let before = self.reasons.lock().insert(owner, reason.to_owned());
        self.metrics.moved(before.as_deref(), Some(reason));
    }

    /// Counts an object no more.
    pub fn forget(&self, owner: &Owner) {
        let before = self.reasons.lock().remove(owner);
        self.metrics.moved(before.as_deref(), None);
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        for reason in self.reasons.lock().values() {
            self.metrics.moved(Some(reason), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_counts_once_while_somebody_counts() -> anyhow::Result<()> {
        let metrics = Arc::new(Metrics::new()?);
        let owner = |name: &str| Owner {
            namespace: "ns".to_owned(),
            name: name.to_owned(),
        };
        let counted = |reason: &str, count: i64| {
            let line = format!("perennial_llmdeployments{{reason=\"{reason}\"}} {count}\n");
            assert!(metrics.render().contains(&line), "not {line}in {}", metrics.render());
        };
        let tally = Tally::new(Arc::clone(&metrics));
        tally.count(owner("a"), "StartingPods");
        tally.count(owner("b"), "Routable");
        tally.count(owner("a"), "Routable");
        tally.count(owner("a"), "Routable");
        counted("Routable", 2);
        counted("StartingPods", 0);
        tally.forget(&owner("a"));
        tally.forget(&owner("a"));
        counted("Routable", 1);
        drop(tally);
        counted("Routable", 0);
        Ok(())
    }
}
