//! Which LLMDeployments are to be looked at and which are gone, by what a watch says. Pure.
//!
//! A watch that has lost its place lists anew. The store shows nothing of that before the listing is complete, so what it
//! found is told at its end: a look before would see old objects, or none, and nobody would look again.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};

use crate::index::Owner;

/// What one event tells.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// To be looked at: their spec or their annotations changed. A change of the status alone is our own.
    pub changed: Vec<Owner>,
    /// Deleted.
    pub gone: Vec<Owner>,
}

/// What was seen of each object.
#[derive(Debug, Default)]
pub struct Changes {
    seen: HashMap<Owner, u64>,
    listing: HashMap<Owner, u64>,
}

impl Changes {
    /// Takes the next event.
    pub fn take<K: Resource>(&mut self, event: &Event<K>) -> News {
        match event {
            Event::Apply(object) => {
                let (owner, fingerprint) = (Owner::of(object), fingerprint(object));
                let changed = self.seen.insert(owner.clone(), fingerprint) != Some(fingerprint);
                News {
                    changed: changed.then_some(owner).into_iter().collect(),
                    gone: Vec::new(),
                }
            }
            Event::Delete(object) => {
                let owner = Owner::of(object);
                self.seen.remove(&owner);
                News {
                    changed: Vec::new(),
                    gone: vec![owner],
                }
            }
            Event::Init => {
                self.listing.clear();
                News::default()
            }
            Event::InitApply(object) => {
                self.listing.insert(Owner::of(object), fingerprint(object));
                News::default()
            }
            Event::InitDone => self.listed(),
        }
    }

    fn listed(&mut self) -> News {
        let before = std::mem::replace(&mut self.seen, std::mem::take(&mut self.listing));
        let changed = self.seen.iter().filter(|(owner, now)| before.get(*owner) != Some(*now));
        let mut news = News {
            changed: changed.map(|(owner, _)| owner.clone()).collect(),
            gone: before
                .into_keys()
                .filter(|owner| !self.seen.contains_key(owner))
                .collect(),
        };
        news.changed.sort();
        news.gone.sort();
        news
    }
}

fn fingerprint<K: Resource>(object: &K) -> u64 {
    let mut hasher = DefaultHasher::new();
    let metadata = object.meta();
    (&metadata.uid, metadata.generation, object.annotations()).hash(&mut hasher);
    metadata.deletion_timestamp.is_some().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn object(name: &str, generation: i64) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.namespace = Some("ns".to_owned());
        object.metadata.name = Some(name.to_owned());
        object.metadata.uid = Some(format!("uid of {name}"));
        object.metadata.generation = Some(generation);
        object
    }

    fn owners(names: &[&str]) -> Vec<Owner> {
        names.iter().map(|name| Owner::of(&object(name, 1))).collect()
    }

    /// What the last of these events tells.
    fn last(changes: &mut Changes, events: Vec<Event<ConfigMap>>) -> News {
        events
            .iter()
            .map(|event| changes.take(event))
            .last()
            .unwrap_or_default()
    }

    #[test]
    fn a_change_of_the_spec_is_told_and_one_of_the_status_is_not() {
        let mut changes = Changes::default();
        let changed = |changes: &mut Changes, generation| changes.take(&Event::Apply(object("a", generation))).changed;
        assert_eq!(changed(&mut changes, 1), owners(&["a"]));
        assert_eq!(changed(&mut changes, 1), []);
        assert_eq!(changed(&mut changes, 2), owners(&["a"]));
        let gone = changes.take(&Event::Delete(object("a", 2)));
        assert_eq!((gone.changed, gone.gone), (vec![], owners(&["a"])));
        assert_eq!(changed(&mut changes, 2), owners(&["a"]), "it is another one");
    }

    #[test]
    fn a_listing_tells_at_its_end_what_was_missed() {
        let mut changes = Changes::default();
        let first = vec![
            Event::Init,
            Event::InitApply(object("same", 1)),
            Event::InitApply(object("deleted", 1)),
            Event::InitApply(object("edited", 1)),
            Event::InitDone,
        ];
        assert_eq!(
            last(&mut changes, first).changed,
            owners(&["deleted", "edited", "same"])
        );
        // Broken off in the middle, begun anew.
        for event in [
            Event::Init,
            Event::InitApply(object("never", 1)),
            Event::Init,
            Event::InitApply(object("same", 1)),
            Event::InitApply(object("edited", 2)),
            Event::InitApply(object("made", 1)),
        ] {
            assert_eq!(changes.take(&event), News::default(), "the store does not show it yet");
        }
        let news = changes.take(&Event::<ConfigMap>::InitDone);
        assert_eq!(
            (news.changed, news.gone),
            (owners(&["edited", "made"]), owners(&["deleted"]))
        );
    }
}
