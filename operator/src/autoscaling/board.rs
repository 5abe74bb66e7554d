//! Where the autoscaler's last word on each object lies.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use perennial_autoscaler::{Limit, Sight};
use perennial_crds::status::ScalingDecision;
use tokio::sync::mpsc;

use crate::index::Owner;

/// Nudges that may wait; one that finds no room is tried again with the next round.
const NUDGES: usize = 1024;

/// The autoscaler's last word on one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// UID of the object that it is about.
    pub uid: String,
    /// Replicas that shall be.
    pub desired: i32,
    /// How much of the load is known.
    pub sight: Sight,
    /// What holds the number back.
    pub limit: Option<Limit>,
    /// The last changes, newest first.
    pub decisions: Vec<ScalingDecision>,
    /// Median of the last cold starts in seconds.
    pub cold_start: Option<i64>,
    /// Requests of each pod by its name, as of the last change; pods that did not answer are absent.
    pub work: HashMap<String, u64>,
}

#[derive(Default)]
struct Shared {
    verdicts: Mutex<HashMap<Owner, Arc<Verdict>>>,
    untold: Mutex<HashSet<Owner>>,
}

/// The last word on every object. Cheap to clone.
#[derive(Clone)]
pub struct Board {
    shared: Arc<Shared>,
    nudge: mpsc::Sender<Owner>,
}

impl Board {
    /// An empty board, and the owners whose verdict changed.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Owner>) {
        let (nudge, nudges) = mpsc::channel(NUDGES);
        let shared = Arc::default();
        (Self { shared, nudge }, nudges)
    }

    /// The last word on an object, if it is about this very one.
    #[must_use]
    pub fn verdict(&self, owner: &Owner, uid: &str) -> Option<Arc<Verdict>> {
        let verdicts = self.shared.verdicts.lock();
        verdicts.get(owner).filter(|verdict| verdict.uid == uid).cloned()
    }

    /// Takes a new word, and has the object looked at.
    pub fn say(&self, owner: &Owner, verdict: Verdict) {
        self.shared.verdicts.lock().insert(owner.clone(), Arc::new(verdict));
        self.shared.untold.lock().insert(owner.clone());
    }

    /// Forgets whoever is not in the list.
    pub fn keep(&self, is_scaled: impl Fn(&Owner) -> bool) {
        self.shared.verdicts.lock().retain(|owner, _| is_scaled(owner));
        self.shared.untold.lock().retain(|owner| is_scaled(owner));
    }

    /// Has an object looked at that has no new word of the autoscaler; one that finds no room is looked at later anyhow.
    pub fn nudge(&self, owner: &Owner) {
        let _ = self.nudge.try_send(owner.clone());
    }

    /// Tells the queue of all objects with a new word.
    pub fn tell(&self) {
        self.shared
            .untold
            .lock()
            .retain(|owner| self.nudge.try_send(owner.clone()).is_err());
    }
}
