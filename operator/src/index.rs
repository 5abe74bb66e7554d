//! Children in memory, by the LLMDeployment they belong to.
//!
//! One watch per kind keeps an [`Index`] up to date and says which LLMDeployment has to be looked at again, on deletions
//! and after a broken watch too. Looking up one object's children costs the same with ten objects as with ten thousand.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use parking_lot::RwLock;
use perennial_crds::NAME_LABEL;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// Namespace and name of an LLMDeployment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

type Children<K> = HashMap<Owner, BTreeMap<String, Arc<K>>>;

struct Shared<K> {
    children: RwLock<Children<K>>,
    ready: watch::Sender<bool>,
}

/// Children of one kind by owner. Cheap to clone.
pub struct Index<K> {
    shared: Arc<Shared<K>>,
    owner_label: &'static str,
}

impl<K> Clone for Index<K> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            owner_label: self.owner_label,
        }
    }
}

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self::by_label(NAME_LABEL)
    }
}

impl<K> Index<K> {
    /// An empty index of children that name their owner in this label.
    #[must_use]
    pub fn by_label(owner_label: &'static str) -> Self {
        let shared = Shared {
            children: RwLock::new(HashMap::new()),
            ready: watch::channel(false).0,
        };
        Self {
            shared: Arc::new(shared),
            owner_label,
        }
    }

    /// The children of one owner, by name.
    #[must_use]
    pub fn of(&self, owner: &Owner) -> Vec<Arc<K>> {
        self.shared
            .children
            .read()
            .get(owner)
            .map(|children| children.values().cloned().collect())
            .unwrap_or_default()
    }

    /// Waits until the first listing is complete.
    pub async fn wait_until_ready(&self) {
        // The sender lives as long as the index, so waiting cannot fail.
        let _ = self.shared.ready.subscribe().wait_for(|ready| *ready).await;
    }
}

impl<K> Index<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// Watches the kind and keeps the index. Yields the owner of whatever changed.
    ///
    /// `slim` drops what nobody reads before an object is kept.
    pub fn follow<F>(&self, api: Api<K>, slim: F) -> impl Stream<Item = Owner> + Send + use<K, F>
    where
        F: Fn(&mut K) + Send + Sync + 'static,
    {
        let index = self.clone();
        let config = watcher::Config::default().labels(self.owner_label);
        let mut listing: Children<K> = HashMap::new();
        watcher(api, config).default_backoff().flat_map(move |event| {
            let owners = match event {
                Ok(event) => index.take(event, &mut listing, &slim),
                Err(error) => {
                    tracing::warn!(kind = %K::kind(&()), %error, "A watch broke off; it is taken up again.");
                    Vec::new()
                }
            };
            futures::stream::iter(owners)
        })
    }

    fn take(&self, event: watcher::Event<K>, listing: &mut Children<K>, slim: &impl Fn(&mut K)) -> Vec<Owner> {
        match event {
            watcher::Event::Apply(child) => self.put(child, slim),
            watcher::Event::Delete(child) => self.remove(&child),
            watcher::Event::Init => {
                listing.clear();
                Vec::new()
            }
            watcher::Event::InitApply(mut child) => {
                slim(&mut child);
                if let Some(owner) = self.owner(&child) {
                    listing
                        .entry(owner)
                        .or_default()
                        .insert(child.name_any(), Arc::new(child));
                }
                Vec::new()
            }
            watcher::Event::InitDone => self.replace(std::mem::take(listing)),
        }
    }

    fn put(&self, mut child: K, slim: &impl Fn(&mut K)) -> Vec<Owner> {
        slim(&mut child);
        let Some(owner) = self.owner(&child) else {
            return Vec::new();
        };
        self.shared
            .children
            .write()
            .entry(owner.clone())
            .or_default()
            .insert(child.name_any(), Arc::new(child));
        vec![owner]
    }

    fn remove(&self, child: &K) -> Vec<Owner> {
        let Some(owner) = self.owner(child) else {
            return Vec::new();
        };
        let mut children = self.shared.children.write();
        if let Some(siblings) = children.get_mut(&owner) {
            siblings.remove(&child.name_any());
            if siblings.is_empty() {
                children.remove(&owner);
            }
        }
        vec![owner]
    }

    /// After a new listing: whoever has a child now, or had one before, may have missed a change.
    fn replace(&self, listing: Children<K>) -> Vec<Owner> {
        let mut children = self.shared.children.write();
        let mut owners: Vec<Owner> = children.keys().chain(listing.keys()).cloned().collect();
        *children = listing;
        drop(children);
        self.shared.ready.send_replace(true);
        owners.sort();
        owners.dedup();
        owners
    }

    fn owner(&self, child: &K) -> Option<Owner> {
        let name = child.labels().get(self.owner_label)?.clone();
        Some(Owner {
            namespace: child.namespace()?,
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn child(name: &str, owner: &str) -> ConfigMap {
        let mut child = ConfigMap::default();
        child.metadata.name = Some(name.to_owned());
        child.metadata.namespace = Some("ns".to_owned());
        child.metadata.labels = Some([(NAME_LABEL.to_owned(), owner.to_owned())].into());
        child
    }

    fn owner(name: &str) -> Owner {
        Owner {
            namespace: "ns".to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn a_new_listing_names_the_owners_of_what_vanished_while_the_watch_was_broken() {
        let index = Index::<ConfigMap>::default();
        let mut listing = HashMap::new();
        let slim = |_: &mut ConfigMap| {};
        index.take(watcher::Event::Apply(child("one", "a")), &mut listing, &slim);
        index.take(watcher::Event::Init, &mut listing, &slim);
        index.take(watcher::Event::InitApply(child("two", "b")), &mut listing, &slim);
        let owners = index.take(watcher::Event::InitDone, &mut listing, &slim);
        assert_eq!(owners, vec![owner("a"), owner("b")]);
        assert!(index.of(&owner("a")).is_empty());
        assert_eq!(index.of(&owner("b")).len(), 1);
    }

    #[test]
    fn a_deletion_names_its_owner_and_is_forgotten() {
        let index = Index::<ConfigMap>::default();
        let mut listing = HashMap::new();
        let slim = |_: &mut ConfigMap| {};
        index.take(watcher::Event::Apply(child("one", "a")), &mut listing, &slim);
        assert_eq!(
            index.take(watcher::Event::Delete(child("one", "a")), &mut listing, &slim),
            vec![owner("a")]
        );
        assert!(index.of(&owner("a")).is_empty());
    }
}
