//! What is remembered of probes as a ConfigMap of its own: it outlives baselines. Pure.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use perennial_crds::DriftPolicy;
use perennial_drift::envelope::EnvelopeError;
use perennial_drift::probe::Watch;
use serde::{Deserialize, Serialize};

use super::memory::{Known, Memory};
use crate::drift::record::{PROBES, config_map};

const KEY: &str = "probes.json";
const WATCH: &str = "watch";
/// Version of this form.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    memory: Memory,
}

/// Name of the ConfigMap.
#[must_use]
pub fn name(policy: &str) -> String {
    format!("{policy}-drift-probes")
}

/// The ConfigMap.
///
/// # Errors
/// If the evidence cannot be written as bytes.
pub fn map(policy: &DriftPolicy, memory: &Memory) -> Result<ConfigMap, EnvelopeError> {
    let record = Record {
        version: VERSION,
        memory: memory.clone(),
    };
    let text = serde_json::to_string(&record).unwrap_or_default();
    let mut map = config_map(policy, name(&policy.name_any()), PROBES);
    map.data = Some([(KEY.to_owned(), text)].into());
    if let Some(watch) = &memory.known.watch {
        map.binary_data = Some([(WATCH.to_owned(), ByteString(watch.encode()?))].into());
    }
    Ok(map)
}

/// What a ConfigMap says. One that cannot be read is as none: the answers are learned again.
#[must_use]
pub fn read(map: &ConfigMap) -> Option<Memory> {
    let text = map.data.as_ref()?.get(KEY)?;
    let record: Record = serde_json::from_str(text)
        .ok()
        .filter(|record: &Record| record.version == VERSION)?;
    let mut memory = record.memory;
    let bytes = map.binary_data.as_ref().and_then(|data| data.get(WATCH));
    if let Some(ByteString(bytes)) = bytes {
        match Watch::decode(bytes) {
            Ok(watch) => memory.known.watch = Some(watch),
            Err(_) => memory.known = Known::default(),
        }
    }
    Some(memory)
}
