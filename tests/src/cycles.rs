//! A policy that has seen a drift, and the Jobs of its cycle as the player plays them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{ListParams, PostParams};
use perennial_crds::DriftPolicy;
use perennial_crds::retraining::FinishedCycle;
use serde_json::{Value, json};

use crate::World;
use crate::drifted::{self, Change};
use crate::player::Play;
use crate::waiting::until;

/// Label of what a pod is for.
pub const COMPONENT: &str = "app.kubernetes.io/component";

/// A digest of one digit.
#[must_use]
pub fn digest(digit: char) -> String {
    format!("sha256:{}", digit.to_string().repeat(64))
}

/// What a prepare Job says that froze data.
#[must_use]
pub fn prepared() -> Value {
    json!({"schema": "prepare/v1", "outcome": "Succeeded", "manifestDigest": digest('d'), "suitesDigest": digest('e'),
        "records": 300, "items": {"recent": 60}})
}

/// What a training Job says that made this candidate.
#[must_use]
pub fn trained(candidate: char) -> Value {
    json!({"schema": "retrain/v1", "outcome": "Succeeded", "data": {"manifestDigest": digest('d')}, "model": {
        "uri": "file:///mnt/model/model.gguf", "digest": digest(candidate), "baseDigest": digest('a'), "kind": "Merged"}})
}

/// What a gate Job says first: the candidate is what was claimed.
#[must_use]
pub fn verified(candidate: char) -> Value {
    json!({"schema": "verify/v1", "outcome": "Succeeded", "digest": digest(candidate), "sizeBytes": 1000})
}

/// What a gate Job says of a candidate that is better by so much.
#[must_use]
pub fn judged(candidate: char, gain: f64) -> Value {
    json!({"schema": "gate/v1", "outcome": "Succeeded", "championDigest": digest('a'), "candidateDigest": digest(candidate),
        "suites": [{"name": "recent", "items": 60, "championMean": 0.5, "candidateMean": 0.5 + gain, "differenceMean": gain,
        "differenceSquaresMean": gain * gain + 0.0001}]})
}

/// What the Jobs of a cycle say.
#[derive(Clone)]
pub struct Script {
    /// The first Job.
    pub prepare: Play,
    /// The second.
    pub retrain: Play,
    /// The third.
    pub gate: Play,
    /// Of other Jobs, by their component.
    pub others: BTreeMap<&'static str, Play>,
}

impl Script {
    /// All goes well.
    #[must_use]
    pub fn good(candidate: char) -> Self {
        Self {
            prepare: Play::Ended(0, prepared().to_string()),
            retrain: Play::Ended(0, trained(candidate).to_string()),
            gate: Play::Checked(verified(candidate).to_string(), judged(candidate, 0.1).to_string()),
            others: BTreeMap::new(),
        }
    }

    /// The training Job says this.
    #[must_use]
    pub fn trains(words: &Value) -> Self {
        Self {
            retrain: Play::Ended(0, words.to_string()),
            ..Self::good('b')
        }
    }

    /// The gate Job says this of the files, and then this of the model.
    #[must_use]
    pub fn judges(verification: &Value, words: &Value) -> Self {
        Self {
            gate: Play::Checked(verification.to_string(), words.to_string()),
            ..Self::good('b')
        }
    }

    /// What this pod plays.
    #[must_use]
    pub fn play(&self, pod: &Pod) -> Play {
        match pod.labels().get(COMPONENT).map(String::as_str) {
            Some("prepare") => self.prepare.clone(),
            Some("retrain") => self.retrain.clone(),
            Some("gate") => self.gate.clone(),
            Some(other) => self.others.get(other).cloned().unwrap_or_else(Play::ready),
            None => Play::ready(),
        }
    }
}

/// All Jobs play this from now on.
pub async fn play(world: &World, script: Script) {
    world.player.script(&world.namespace, move |pod| script.play(pod)).await;
}

/// A policy without rests, with this mode of promotion.
#[must_use]
pub fn policy(mode: &str) -> Value {
    json!({
        "apiVersion": "perennial.dev/v1alpha1", "kind": "DriftPolicy", "metadata": {"name": "watch"},
        "spec": {
            "targetRef": {"name": "tiny"},
            "observation": {"paneSeconds": drifted::PANE_SECONDS, "minSamples": 25, "maxPaneSeconds": 60},
            "baseline": {"learned": {"seconds": 600, "minSamples": 1000, "season": "None"}},
            "confirmSeconds": 30,
            "retraining": {
                "workspace": {"persistentVolumeClaim": {"claimName": "work"}},
                "limits": {"cooldownSeconds": 0, "maxCycles": {"count": 100, "perDays": 1}, "stopAfterUnpromoted": 100,
                    "backoff": {"initialSeconds": 0, "maxSeconds": 0}},
            },
            "gate": {"minItems": 50},
            "promotion": {"mode": mode},
        },
    })
}

/// A volume and its claim.
async fn claim(world: &World, name: &str) -> Result<()> {
    let volume = format!("{}-{name}", world.namespace);
    let object = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "storageClassName": "",
        "claimRef": {"namespace": world.namespace, "name": name}, "hostPath": {"path": "/nowhere"}}});
    let volumes: kube::Api<PersistentVolume> = kube::Api::all(world.client.clone());
    volumes
        .create(&PostParams::default(), &serde_json::from_value(object)?)
        .await?;
    let object = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": {
        "accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": volume,
        "resources": {"requests": {"storage": "1Gi"}}}});
    world.create::<PersistentVolumeClaim>(&object).await?;
    Ok(())
}

/// A target that keeps records, and a policy whose memory says that what users ask has changed.
///
/// # Errors
/// If the cluster does not do its part in time.
pub async fn prepare(world: &World, policy: &Value) -> Result<DriftPolicy> {
    prepare_after(world, policy, Change::LongerPrompts).await
}

/// The same after another change.
///
/// # Errors
/// If the cluster does not do its part in time.
pub async fn prepare_after(world: &World, policy: &Value, change: Change) -> Result<DriftPolicy> {
    claim(world, "work").await?;
    claim(world, "records").await?;
    // A young cluster's volume controller looks for claims every 15 s, and nothing is scheduled before.
    until(60, "the claims are bound", async || {
        let claims = world
            .api::<PersistentVolumeClaim>()
            .list(&ListParams::default())
            .await?;
        let bound = |claim: &PersistentVolumeClaim| {
            claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
        };
        ensure!(claims.iter().all(bound), "a claim is not bound");
        Ok(())
    })
    .await?;
    world
        .serve(
            "tiny",
            &json!({"capture": {"level": "Payload", "storage": {"persistentVolumeClaim": {"claimName": "records"}}}}),
        )
        .await?;
    let operator = world.operator().await?;
    let target = world.settled("tiny").await?;
    drop(operator);
    let policy: DriftPolicy = world.create(policy).await?;
    for map in drifted::remembered(&policy, &target.uid().unwrap_or_default(), &digest('a'), change)? {
        world.api::<ConfigMap>().create(&PostParams::default(), &map).await?;
    }
    Ok(policy)
}

/// Status of the policy.
///
/// # Errors
/// If it has none.
pub async fn status(world: &World) -> Result<perennial_crds::DriftPolicyStatus> {
    world
        .api::<DriftPolicy>()
        .get("watch")
        .await?
        .status
        .context("it has no status")
}

/// Waits until so many cycles have ended, and gives them, newest first.
///
/// # Errors
/// If they have not within two minutes.
pub async fn ended(world: &World, count: usize) -> Result<Vec<FinishedCycle>> {
    until(120, &format!("{count} cycles have ended"), async || {
        let status = status(world).await?;
        ensure!(
            status.cycles.len() >= count,
            "{:?} {:?}",
            status.cycle,
            status
                .conditions
                .iter()
                .map(|one| (&one.type_, &one.reason, &one.message))
                .collect::<Vec<_>>()
        );
        Ok(status.cycles)
    })
    .await
}

/// Waits until a condition of the policy has this status and reason, and gives its message.
///
/// # Errors
/// If it has not within two minutes.
pub async fn says(world: &World, kind: &str, status_of: &str, reason: &str) -> Result<String> {
    world
        .until(&format!("{kind}={status_of}, {reason}"), async || {
            let conditions = status(world).await?.conditions;
            let found = conditions.into_iter().find(|condition| condition.type_ == kind);
            let found = found.context("there is no such condition")?;
            ensure!(
                found.status == status_of && found.reason == reason,
                "it is {}, {}: {}",
                found.status,
                found.reason,
                found.message
            );
            Ok(found.message)
        })
        .await
}

/// Names of the learned revisions.
///
/// # Errors
/// If they cannot be listed.
pub async fn learned(world: &World) -> Result<Vec<String>> {
    let parameters = ListParams::default().labels("perennial.dev/learned");
    let found = world.api::<ControllerRevision>().list(&parameters).await?;
    Ok(found.items.iter().map(ResourceExt::name_any).collect())
}

async fn origin(world: &World) -> Result<(Option<String>, Option<String>)> {
    let model = world.llm("tiny").await?.status.and_then(|status| status.model);
    Ok(model.map_or((None, None), |model| (model.origin, model.digest)))
}

/// Waits until the model of this origin and digest serves, and all is settled.
///
/// # Errors
/// If it does not within two minutes each.
pub async fn serves(world: &World, expected: &str, digit: char) -> Result<()> {
    world
        .until(&format!("{expected} serves"), async || {
            let (origin, digest_of) = origin(world).await?;
            ensure!(
                origin.as_deref() == Some(expected) && digest_of == Some(digest(digit)),
                "{origin:?} {digest_of:?}"
            );
            Ok(())
        })
        .await?;
    world.settled("tiny").await.map(|_| ())
}
