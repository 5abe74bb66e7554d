//! Statuses that were written but that the watch may not have brought back yet.
//!
//! Without this a quick second look would compare with an old status, write the same again and tell an event twice.

use std::collections::HashMap;

use kube::ResourceExt;
use parking_lot::Mutex;
use perennial_crds::{LLMDeployment, LLMDeploymentStatus};

use crate::index::Owner;

struct Written {
    uid: Option<String>,
    version: Option<u64>,
    status: LLMDeploymentStatus,
}

/// The last status written for each object.
#[derive(Default)]
pub struct Remembered {
    written: Mutex<HashMap<Owner, Written>>,
}

impl Remembered {
    /// The newest known status of an object: the watched one, or the written one if that is newer.
    #[must_use]
    pub fn status(&self, object: &LLMDeployment) -> LLMDeploymentStatus {
        let seen = number(object.metadata.resource_version.as_deref());
        let written = self.written.lock();
        match written.get(&Owner::of(object)) {
            Some(last) if last.uid == object.uid() && last.version > seen => last.status.clone(),
            _ => object.status.clone().unwrap_or_default(),
        }
    }

    /// Keeps what was written.
    pub fn wrote(&self, object: &LLMDeployment, version: Option<String>, status: LLMDeploymentStatus) {
        let written = Written {
            uid: object.uid(),
            version: number(version.as_deref()),
            status,
        };
        self.written.lock().insert(Owner::of(object), written);
    }

    /// Forgets a deleted object.
    pub fn forget(&self, owner: &Owner) {
        self.written.lock().remove(owner);
    }
}

fn number(version: Option<&str>) -> Option<u64> {
    version.and_then(|version| version.parse().ok())
}
