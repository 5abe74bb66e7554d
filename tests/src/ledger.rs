//! Every write that operators sent, with what came of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::Method;

/// One write.
#[derive(Clone, Debug)]
pub struct Write {
    /// Its number, from 0, within one client.
    pub index: usize,
    /// POST, PUT, PATCH or DELETE.
    pub method: Method,
    /// Plural of the kind, with the subresource: `deployments`, `llmdeployments/status`.
    pub resource: String,
    /// Name of the object; empty when the server makes it up.
    pub name: String,
    /// Answer of the API server; absent if the write never reached it.
    pub code: Option<u16>,
    /// When it was sent.
    pub at: Instant,
}

impl Write {
    /// Whether it made an object.
    #[must_use]
    pub fn created(&self) -> bool {
        self.code == Some(201)
    }

    /// Whether it removed an object.
    #[must_use]
    pub fn deleted(&self) -> bool {
        self.method == Method::DELETE && self.code.is_some_and(|code| code < 300)
    }
}

/// The writes of one or several operators, in order. Leases are not in it: they are renewed for ever.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Vec<Write>>>);

impl Ledger {
    /// Adds a write.
    pub fn add(&self, write: Write) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(write);
    }

    /// All writes so far.
    #[must_use]
    pub fn writes(&self) -> Vec<Write> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many objects of each kind were made and removed: `deployments +2 -1`. Events are news, not state, and are
    /// left out.
    #[must_use]
    pub fn effects(&self) -> BTreeMap<String, (usize, usize)> {
        let mut effects: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for write in self.writes().iter().filter(|write| write.resource != "events") {
            if write.created() {
                effects.entry(write.resource.clone()).or_default().0 += 1;
            }
            if write.deleted() {
                effects.entry(write.resource.clone()).or_default().1 += 1;
            }
        }
        effects
    }

    /// How long no write was sent.
    #[must_use]
    pub fn quiet_for(&self) -> Duration {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .last()
            .map_or(Duration::MAX, |last| last.at.elapsed())
    }
}

/// Resource (with subresource) and name in the path of a request.
#[must_use]
pub fn target(path: &str) -> (String, String) {
    let mut parts = path
        .trim_matches('/')
        .split('/')
        .skip_while(|part| *part != "namespaces")
        .skip(2);
    let resource = parts.next().unwrap_or_default().to_owned();
    let name = parts.next().unwrap_or_default().to_owned();
    match parts.next() {
        Some(subresource) => (format!("{resource}/{subresource}"), name),
        None => (resource, name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_resource_subresource_and_object() {
        let path = "/apis/perennial.dev/v1alpha1/namespaces/ns/llmdeployments/a/status";
        assert_eq!(target(path), ("llmdeployments/status".to_owned(), "a".to_owned()));
        assert_eq!(
            target("/api/v1/namespaces/ns/services/b"),
            ("services".to_owned(), "b".to_owned())
        );
        assert_eq!(
            target("/apis/events.k8s.io/v1/namespaces/ns/events"),
            ("events".to_owned(), String::new())
        );
    }
}
