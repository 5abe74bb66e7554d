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
    seen: HashMap<Owner, Seen>,
    listing: HashMap<Owner, Seen>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    uid: Option<String>,
    fingerprint: u64,
}

impl Changes {
    /// Takes the next event.
    pub fn take<K: Resource>(&mut self, event: &Event<K>) -> News {
        match event {
            Event::Apply(object) => {
                let (owner, seen) = (Owner::of(object), seen(object));
                let changed = self.seen.insert(owner.clone(), seen.clone()) != Some(seen);
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
                self.listing.insert(Owner::of(object), seen(object));
                News::default()
            }
            Event::InitDone => self.listed(),
        }
    }

    fn listed(&mut self) -> News {
        let before = std::mem::replace(&mut self.seen, std::mem::take(&mut self.listing));
        let changed = self.seen.iter().filter(|(owner, now)| before.get(*owner) != Some(*now));
        // Also one that was made again under its name meanwhile.
        let gone = before
            .iter()
            .filter(|(owner, then)| self.seen.get(*owner).is_none_or(|now| now.uid != then.uid));
        let sorted = |owners: Vec<&Owner>| {
            let mut owners: Vec<Owner> = owners.into_iter().cloned().collect();
            owners.sort();
            owners
        };
        News {
            changed: sorted(changed.map(|(owner, _)| owner).collect()),
            gone: sorted(gone.map(|(owner, _)| owner).collect()),
        }
    }
}

fn seen<K: Resource>(object: &K) -> Seen {
    let mut hasher = DefaultHasher::new();
    let metadata = object.meta();
    (metadata.generation, object.annotations()).hash(&mut hasher);
    metadata.deletion_timestamp.is_some().hash(&mut hasher);
    Seen {
        uid: object.uid(),
        fingerprint: hasher.finish(),
    }
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
            Event::InitApply(object("replaced", 1)),
            Event::InitDone,
        ];
        let all = owners(&["deleted", "edited", "replaced", "same"]);
        assert_eq!(last(&mut changes, first).changed, all);
        let mut another = object("replaced", 1);
        another.metadata.uid = Some("another".to_owned());
        // Broken off in the middle, begun anew.
        for event in [
            Event::Init,
            Event::InitApply(object("never", 1)),
            Event::Init,
            Event::InitApply(object("same", 1)),
            Event::InitApply(object("edited", 2)),
            Event::InitApply(object("made", 1)),
            Event::InitApply(another),
        ] {
            assert_eq!(changes.take(&event), News::default(), "the store does not show it yet");
        }
        let news = changes.take(&Event::<ConfigMap>::InitDone);
        assert_eq!(
            (news.changed, news.gone),
            (
                owners(&["edited", "made", "replaced"]),
                owners(&["deleted", "replaced"])
            )
        );
    }
}
