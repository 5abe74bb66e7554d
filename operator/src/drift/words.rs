//! What the policies' last word on each target is, for the status of the target.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use perennial_crds::status::DriftStatus;

use crate::index::Owner;

/// What is known of one LLMDeployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Word {
    /// No policy was looked at since this operator leads; what was said before stands.
    #[default]
    NotYet,
    /// No policy watches it.
    Unwatched,
    /// The policy that watches it says this.
    Said(Said),
}

/// What a policy says of its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// For the status of the target.
    pub status: DriftStatus,
    /// What it has rolled out.
    pub introduces: Introduces,
}

/// The learned model that a policy is rolling out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Introduces {
    /// Its memory was not read yet.
    #[default]
    Unknown,
    /// None.
    Nothing,
    /// That of this digest.
    Model(String),
}

/// The last words. Cheap to clone.
#[derive(Clone, Default)]
pub struct Words {
    said: Arc<Mutex<Option<HashMap<Owner, Said>>>>,
}

impl Words {
    /// The last word on an LLMDeployment.
    #[must_use]
    pub fn on(&self, target: &Owner) -> Word {
        match &*self.said.lock() {
            None => Word::NotYet,
            Some(said) => said.get(target).cloned().map_or(Word::Unwatched, Word::Said),
        }
    }

    /// Takes the words on all targets, and gives the targets of which something else is said than before.
    #[must_use]
    pub fn say(&self, now: HashMap<Owner, Said>) -> Vec<Owner> {
        let mut said = self.said.lock();
        let before = said.take().unwrap_or_default();
        let mut changed: Vec<Owner> = before
            .keys()
            .chain(now.keys())
            .filter(|target| before.get(*target) != now.get(*target))
            .cloned()
            .collect();
        changed.sort();
        changed.dedup();
        *said = Some(now);
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_told() {
        let target = |name: &str| Owner {
            namespace: "ns".to_owned(),
            name: name.to_owned(),
        };
        let said = |phase: &str| Said {
            status: DriftStatus {
                policy: "watch".to_owned(),
                phase: phase.to_owned(),
            },
            introduces: Introduces::Nothing,
        };
        let words = Words::default();
        assert_eq!(words.on(&target("a")), Word::NotYet);
        let both = [(target("a"), said("Learning")), (target("b"), said("Watching"))];
        assert_eq!(words.say(both.clone().into()), [target("a"), target("b")]);
        assert!(words.say(both.into()).is_empty());
        assert_eq!(
            words.say([(target("a"), said("Watching"))].into()),
            [target("a"), target("b")]
        );
        assert_eq!(words.on(&target("a")), Word::Said(said("Watching")));
        assert_eq!(words.on(&target("b")), Word::Unwatched);
    }
}
