//! The ledger of a policy as a ConfigMap of its own: it outlives baselines. Pure.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use perennial_crds::DriftPolicy;
use serde::{Deserialize, Serialize};

use super::ledger::Ledger;
use crate::drift::record::{CYCLES, config_map};

const KEY: &str = "ledger.json";
/// Version of this form.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    ledger: Ledger,
}

/// Name of the ConfigMap.
#[must_use]
pub fn name(policy: &str) -> String {
    format!("{policy}-drift-cycles")
}

/// The ConfigMap.
#[must_use]
pub fn map(policy: &DriftPolicy, ledger: &Ledger) -> ConfigMap {
    let record = Record {
        version: VERSION,
        ledger: ledger.clone(),
    };
    let text = serde_json::to_string(&record).unwrap_or_default();
    let mut map = config_map(policy, name(&policy.name_any()), CYCLES);
    map.data = Some([(KEY.to_owned(), text)].into());
    map
}

/// What a ConfigMap says.
///
/// # Errors
/// In words. Limits are counted in it, so nobody may begin anew by guessing.
pub fn read(map: &ConfigMap) -> Result<Ledger, String> {
    let name = map.name_any();
    let text = map.data.as_ref().and_then(|data| data.get(KEY));
    let text = text.ok_or_else(|| format!("the ConfigMap {name} has no {KEY}"))?;
    let record: Record =
        serde_json::from_str(text).map_err(|error| format!("the ConfigMap {name} cannot be read: {error}"))?;
    if record.version == VERSION {
        Ok(record.ledger)
    } else {
        Err(format!("the ConfigMap {name} is of version {}", record.version))
    }
}
