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

impl Owner {
    /// That of an object which is one.
    pub fn of<K: kube::Resource>(object: &K) -> Self {
        Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        }
    }
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

    /// Keeps what a write of our own came back with, so that the next look does not write again what the watch has not
    /// told yet.
    pub fn wrote(&self, mut child: K) {
        child.managed_fields_mut().clear();
        self.keep(child);
    }

    fn put(&self, mut child: K, slim: &impl Fn(&mut K)) -> Vec<Owner> {
        slim(&mut child);
        self.keep(child).into_iter().collect()
    }

    /// Keeps a child unless a newer state of it is known already.
    fn keep(&self, child: K) -> Option<Owner> {
        let owner = self.owner(&child)?;
        let mut children = self.shared.children.write();
        let siblings = children.entry(owner.clone()).or_default();
        if !siblings
            .get(&child.name_any())
            .is_some_and(|known| is_newer(known.as_ref(), &child))
        {
            siblings.insert(child.name_any(), Arc::new(child));
        }
        Some(owner)
    }

    fn remove(&self, child: &K) -> Vec<Owner> {
        let Some(owner) = self.owner(child) else {
            return Vec::new();
        };
        let mut children = self.shared.children.write();
        if let Some(siblings) = children.get_mut(&owner) {
            // What was made again after this deletion stays.
            if !siblings
                .get(&child.name_any())
                .is_some_and(|known| is_newer(known.as_ref(), child))
            {
                siblings.remove(&child.name_any());
            }
            if siblings.is_empty() {
                children.remove(&owner);
            }
        }
        vec![owner]
    }

    /// After a new listing: whoever has a child now, or had one before, may have missed a change.
    fn replace(&self, mut listing: Children<K>) -> Vec<Owner> {
        let mut children = self.shared.children.write();
        // A listing may be older than a write of our own.
        for (owner, siblings) in &mut listing {
            for (name, child) in siblings.iter_mut() {
                let known = children.get(owner).and_then(|known| known.get(name));
                if let Some(known) = known.filter(|known| is_newer(known.as_ref(), child.as_ref())) {
                    *child = Arc::clone(known);
                }
            }
        }
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

/// Whether one state of an object is newer than another. Resource versions are numbers that grow (Kubernetes 1.35 says so,
/// etcd always did); where they are not, the watch's word is taken.
fn is_newer<K: kube::Resource>(known: &K, than: &K) -> bool {
    let version = |child: &K| child.meta().resource_version.as_deref()?.parse::<u64>().ok();
    matches!((version(known), version(than)), (Some(known), Some(than)) if known > than)
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

    fn at(version: &str) -> ConfigMap {
        let mut child = child("one", "a");
        child.metadata.resource_version = Some(version.to_owned());
        child
    }

    #[test]
    fn an_older_word_of_the_watch_does_not_undo_what_was_written() {
        let index = Index::<ConfigMap>::default();
        let version = || index.of(&owner("a"))[0].metadata.resource_version.clone();
        let slim = |_: &mut ConfigMap| {};
        let mut listing = HashMap::new();
        index.wrote(at("100"));
        // Also across a change of the number of digits.
        for event in [watcher::Event::Apply(at("99")), watcher::Event::Delete(at("98"))] {
            assert_eq!(index.take(event, &mut listing, &slim), vec![owner("a")]);
            assert_eq!(version().as_deref(), Some("100"));
        }
        index.take(watcher::Event::Init, &mut listing, &slim);
        index.take(watcher::Event::InitApply(at("97")), &mut listing, &slim);
        index.take(watcher::Event::InitDone, &mut listing, &slim);
        assert_eq!(version().as_deref(), Some("100"));
        index.take(watcher::Event::Apply(at("101")), &mut listing, &slim);
        assert_eq!(version().as_deref(), Some("101"));
        index.take(watcher::Event::Delete(at("102")), &mut listing, &slim);
        assert!(index.of(&owner("a")).is_empty());
    }
}
