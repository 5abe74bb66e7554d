//! What a policy remembers, brought into the cluster and back.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Resource, ResourceExt};
use perennial_crds::DriftPolicy;
use perennial_drift::envelope::EnvelopeError;

use super::look::Hands;
use super::memory::{Changes, Memory, Stage};
use super::record;
use super::status::Trouble;
use crate::apply;
use crate::index::Owner;

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn trouble(error: apply::Error) -> Trouble {
    Trouble::Store(error.to_string())
}

/// What is stored of a policy; nothing if there is nothing, or nothing that can be used.
pub(super) async fn load(owner: &Owner, policy: &DriftPolicy, hands: &Hands) -> Result<Option<Memory>, Trouble> {
    let mut like = ConfigMap::default();
    like.metadata.name = Some(record::evidence_name(&owner.name));
    like.metadata.owner_references = policy.controller_owner_ref(&()).map(|owner| vec![owner]);
    let Some(evidence) = hands.writer.config_map(owner, &like).await.map_err(trouble)? else {
        // What an operator left that ended in the middle of forgetting.
        drop_all_but(owner, policy, &[], hands).await?;
        return Ok(None);
    };
    let read = async {
        let names = match record::baseline_names(&owner.name, &evidence) {
            Ok(names) => names,
            Err(error) => return Ok(Err(error)),
        };
        let (mut panes, mut baseline) = (Vec::new(), Vec::new());
        if names.is_empty() {
            let labels = record::panes_selector(&owner.name);
            panes = hands.writer.config_maps(owner, &like, &labels).await?;
        }
        for name in names {
            like.metadata.name = Some(name);
            baseline.extend(hands.writer.config_map(owner, &like).await?);
        }
        Ok(record::read(&owner.name, &evidence, &panes, &baseline))
    };
    match read.await.map_err(trouble)? {
        Ok(memory) => Ok(Some(memory)),
        Err(error) => {
            tracing::warn!(namespace = owner.namespace, name = owner.name, %error, "A new baseline is learned.");
            forget(owner, policy, hands).await?;
            Ok(None)
        }
    }
}

/// Stores what has changed, the evidence last: what it names is there by then.
pub(super) async fn store(
    owner: &Owner,
    policy: &DriftPolicy,
    memory: &Memory,
    changes: &Changes,
    hands: &Hands,
) -> Result<(), Trouble> {
    let unwritable = |error: EnvelopeError| Trouble::Store(error.to_string());
    let mut kept = vec![record::evidence_name(&owner.name)];
    match &memory.stage {
        Stage::Learning(panes) => {
            for map in record::panes(policy, &memory.about, panes, &changes.collected) {
                hands.writer.keep(owner, &map).await.map_err(trouble)?;
            }
        }
        Stage::Watching(watching) if changes.frozen => {
            for map in record::baseline(policy, watching).map_err(unwritable)? {
                kept.push(map.name_any());
                hands.writer.keep(owner, &map).await.map_err(trouble)?;
            }
        }
        Stage::Watching(_) => {}
    }
    let evidence = record::evidence(policy, memory).map_err(unwritable)?;
    hands.writer.keep(owner, &evidence).await.map_err(trouble)?;
    if changes.frozen {
        drop_all_but(owner, policy, &kept, hands).await?;
    } else if let Stage::Learning(panes) = &memory.stage {
        for name in record::emptied(&owner.name, &memory.about, panes, &changes.dropped) {
            hands.writer.drop_map(owner, &name).await.map_err(trouble)?;
        }
    }
    Ok(())
}

/// Removes everything that is stored of a policy.
pub(super) async fn forget(owner: &Owner, policy: &DriftPolicy, hands: &Hands) -> Result<(), Trouble> {
    // The evidence first: the rest means nothing without it.
    let evidence = record::evidence_name(&owner.name);
    hands.writer.drop_map(owner, &evidence).await.map_err(trouble)?;
    drop_all_but(owner, policy, &[], hands).await
}

async fn drop_all_but(owner: &Owner, policy: &DriftPolicy, kept: &[String], hands: &Hands) -> Result<(), Trouble> {
    let mut like = ConfigMap::default();
    like.metadata.owner_references = policy.controller_owner_ref(&()).map(|owner| vec![owner]);
    let labels = record::selector(&owner.name);
    let found = hands.writer.config_maps(owner, &like, &labels).await.map_err(trouble)?;
    for map in found.iter().filter(|map| !kept.contains(&map.name_any())) {
        hands.writer.drop_map(owner, &map.name_any()).await.map_err(trouble)?;
    }
    Ok(())
}
