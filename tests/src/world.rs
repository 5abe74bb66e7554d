//! What one test has: a namespace, a client, the player, and short ways to its objects.

use std::fmt::Write as _;
use std::panic::AssertUnwindSafe;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use futures::FutureExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::core::v1::{Namespace, Pod, ResourceQuota, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use perennial_crds::{LLMDeployment, REVISION_LABEL};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use crate::cluster::Cluster;
use crate::faults::Wire;
use crate::ledger::Ledger;
use crate::operator::{Operator, Settings};
use crate::player::{Play, Player};
use crate::{log, normal, seed, waiting};

pub use crate::objects::{condition, model, pinned, reference, settled};

/// Seconds that a step of the operator and the controllers may take on a busy machine.
pub const PATIENCE: u64 = 120;

static RUNTIME: LazyLock<std::io::Result<Runtime>> = LazyLock::new(Runtime::new);
static SHARED: OnceCell<(Cluster, Client, Player)> = OnceCell::const_new();

/// One test's part of the cluster.
pub struct World {
    /// The cluster of this test program.
    pub cluster: &'static Cluster,
    /// A client as administrator.
    pub client: Client,
    /// This test's own namespace.
    pub namespace: String,
    /// Plays the pods.
    pub player: Player,
}

/// Runs a test in a namespace of its own. On failure prints what a person would look at.
///
/// # Errors
/// If the test fails.
pub fn run(name: &str, test: impl AsyncFnOnce(&World) -> Result<()>) -> Result<()> {
    log::keep();
    let runtime = RUNTIME.as_ref().map_err(|error| anyhow!("no runtime: {error}"))?;
    runtime.block_on(async {
        let world = World::new(name).await?;
        let outcome = AssertUnwindSafe(test(&world)).catch_unwind().await;
        if !matches!(outcome, Ok(Ok(()))) {
            println!("{}", world.describe().await);
        }
        world.leave().await;
        match outcome {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

impl World {
    /// A new namespace on the shared cluster, which is started by the first test.
    ///
    /// # Errors
    /// If the cluster does not start.
    pub async fn new(name: &str) -> Result<Self> {
        let (cluster, client, player) = SHARED
            .get_or_try_init(|| async {
                let cluster = Cluster::start().await?;
                let client = cluster.client().await?;
                let player = Player::start(client.clone()).await?;
                Ok::<_, anyhow::Error>((cluster, client, player))
            })
            .await?;
        Self::on(cluster, client.clone(), player.clone(), name).await
    }

    /// A new namespace on this cluster.
    ///
    /// # Errors
    /// If it cannot be made.
    pub async fn on(cluster: &'static Cluster, client: Client, player: Player, name: &str) -> Result<Self> {
        let namespace = format!("{name}-{}", seed::suffix());
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        let api: Api<Namespace> = Api::all(client.clone());
        api.create(&PostParams::default(), &serde_json::from_value(object)?)
            .await?;
        Ok(Self {
            cluster,
            client,
            namespace,
            player,
        })
    }

    /// Removes the namespace, without waiting until it is gone.
    pub async fn leave(&self) {
        let api: Api<Namespace> = Api::all(self.client.clone());
        // The whole cluster goes soon.
        let _ = api.delete(&self.namespace, &DeleteParams::background()).await;
    }

    /// An operator for this namespace alone, without lease and without faults.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn operator(&self) -> Result<Operator> {
        self.operator_with(&Settings::of(&self.namespace), Wire::new(Ledger::default()))
            .await
    }

    /// An operator with these settings on this wire.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn operator_with(&self, settings: &Settings, wire: Wire) -> Result<Operator> {
        Operator::start(self.cluster.config().await?, settings, wire)
    }

    /// Objects of a kind in this namespace.
    #[must_use]
    pub fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Makes an object from JSON.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub async fn create<K>(&self, object: &Value) -> kube::Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Serialize,
    {
        let object = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
        self.api::<K>().create(&PostParams::default(), &object).await
    }

    /// Merges a patch into an object.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub async fn merge<K>(&self, name: &str, patch: &Value) -> kube::Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        self.api::<K>()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
    }

    /// Deletes an object; its children go in the background.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn delete<K>(&self, name: &str) -> kube::Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        self.api::<K>()
            .delete(name, &DeleteParams::background())
            .await
            .map(|_| ())
    }

    /// The LLMDeployment of this name.
    ///
    /// # Errors
    /// If it is not there.
    pub async fn llm(&self, name: &str) -> Result<LLMDeployment> {
        Ok(self.api::<LLMDeployment>().get(name).await?)
    }

    /// Makes a pinned LLMDeployment; `spec` is merged over the smallest one.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub async fn serve(&self, name: &str, spec: &Value) -> Result<LLMDeployment> {
        Ok(self.create(&pinned(name, spec)).await?)
    }

    /// Waits until the look succeeds.
    ///
    /// # Errors
    /// If it does not within two minutes.
    pub async fn until<T>(&self, what: &str, look: impl AsyncFnMut() -> Result<T>) -> Result<T> {
        waiting::until(PATIENCE, what, look).await
    }

    /// Waits until the object is settled: `Ready`, no work under way, nothing stalled, all of it for this spec.
    ///
    /// # Errors
    /// If it is not within two minutes.
    pub async fn settled(&self, name: &str) -> Result<LLMDeployment> {
        self.until(&format!("{name} is settled"), async || {
            let object = self.llm(name).await?;
            settled(&object)?;
            Ok(object)
        })
        .await
    }

    /// Waits until the object is settled and its pods are the only ones in the namespace, as many as are wanted.
    ///
    /// # Errors
    /// If it is not within two minutes.
    pub async fn alone(&self, name: &str) -> Result<LLMDeployment> {
        self.until(&format!("{name} is settled, alone"), async || self.is_alone(name).await)
            .await
    }

    /// Whether the object is settled and its pods are the only ones in the namespace, or why not.
    ///
    /// # Errors
    /// If it is not.
    pub async fn is_alone(&self, name: &str) -> Result<LLMDeployment> {
        let object = self.llm(name).await?;
        settled(&object)?;
        let serving = self.serving(name).await?;
        let pods = self.api::<Pod>().list(&ListParams::default()).await?.items;
        let of_it = pods
            .iter()
            .filter(|pod| pod.labels().get(REVISION_LABEL) == Some(&serving));
        let (count, wanted) = (of_it.count(), usize::try_from(object.spec.replicas).unwrap_or(0));
        ensure!(
            count == wanted && pods.len() == wanted,
            "{count} of {} pods are of {serving}",
            pods.len()
        );
        let status = object
            .status
            .as_ref()
            .map(|status| (status.replicas, status.ready_replicas));
        ensure!(
            status == Some((object.spec.replicas, object.spec.replicas)),
            "the status counts {status:?}"
        );
        Ok(object)
    }

    /// Waits for a condition of an object with this status and reason, of its current generation.
    ///
    /// # Errors
    /// If it does not come within two minutes.
    pub async fn condition(&self, name: &str, kind: &str, status: &str, reason: &str) -> Result<Condition> {
        self.until(&format!("{name}: {kind}={status}, {reason}"), async || {
            let object = self.llm(name).await?;
            let found = condition(&object, kind).context("there is no such condition")?;
            ensure!(
                found.status == status
                    && found.reason == reason
                    && found.observed_generation == object.metadata.generation,
                "it is {}, {}: {} (generation {:?})",
                found.status,
                found.reason,
                found.message,
                found.observed_generation
            );
            Ok(found)
        })
        .await
    }

    /// Revision to which the Service leads.
    ///
    /// # Errors
    /// If there is no Service.
    pub async fn serving(&self, name: &str) -> Result<String> {
        let service = self.api::<Service>().get(name).await?;
        let selector = service.spec.and_then(|spec| spec.selector).unwrap_or_default();
        selector.get(REVISION_LABEL).cloned().context("it selects no revision")
    }

    /// Names of the Deployments, in order.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn deployments(&self) -> Result<Vec<String>> {
        self.names::<Deployment>().await
    }

    /// Names of all objects of a kind, in order.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn names<K>(&self) -> Result<Vec<String>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let found = self.api::<K>().list_metadata(&ListParams::default()).await?;
        Ok(found.items.iter().map(ResourceExt::name_any).collect())
    }

    /// Scripts pods by their revision: those of `revision` play this, all others are ready at once.
    pub async fn script_revision(&self, revision: &str, play: Play) {
        let revision = revision.to_owned();
        self.player
            .script(&self.namespace, move |pod| {
                if pod.labels().get(REVISION_LABEL) == Some(&revision) {
                    play.clone()
                } else {
                    Play::ready()
                }
            })
            .await;
    }

    /// All pods play the same.
    pub async fn script_all(&self, play: Play) {
        self.player.script(&self.namespace, move |_| play.clone()).await;
    }

    /// Makes a quota that allows none of a resource, and waits until it is enforced.
    ///
    /// # Errors
    /// If it is not within two minutes.
    pub async fn allow_no(&self, resource: &str, name: &str) -> Result<()> {
        self.create::<ResourceQuota>(
            &json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name},
            "spec": {"hard": {resource: "0"}}}),
        )
        .await?;
        self.until("the quota is in force", async || {
            let quota = self.api::<ResourceQuota>().get(name).await?;
            let counted = quota.status.and_then(|status| status.used).unwrap_or_default();
            ensure!(counted.contains_key(resource), "{counted:?}");
            Ok(())
        })
        .await
    }

    /// Waits until nothing in the namespace was written for three seconds: the cluster's own controllers are done, too.
    ///
    /// # Errors
    /// If it is not within two minutes.
    pub async fn at_rest(&self) -> Result<()> {
        self.until("nothing was written for three seconds", async || {
            let versions = async || normal::versions(&self.client, &self.namespace).await;
            let one = versions().await?;
            tokio::time::sleep(Duration::from_secs(3)).await;
            ensure!(one == versions().await?, "something is still being written");
            Ok(())
        })
        .await
    }

    /// Sees that nothing in the namespace is written for a time, once the controllers have come to rest.
    ///
    /// # Errors
    /// If something is.
    pub async fn stays_untouched(&self, time: Duration) -> Result<()> {
        let versions = async || normal::versions(&self.client, &self.namespace).await;
        self.at_rest().await?;
        let before = versions().await?;
        tokio::time::sleep(time).await;
        let after = versions().await?;
        ensure!(
            before == after,
            "something was written: before {before:#?}, after {after:#?}"
        );
        Ok(())
    }

    /// What a person would look at.
    pub async fn describe(&self) -> String {
        let mut text = format!("--- the namespace {}\n", self.namespace);
        match normal::state(&self.client, &self.namespace).await {
            Ok(state) => {
                for (name, value) in state {
                    let shown = if name.starts_with("LLMDeployment") {
                        serde_json::to_string_pretty(&value).unwrap_or_default()
                    } else {
                        value
                            .get("spec")
                            .map(|spec| short(&spec.to_string()))
                            .unwrap_or_default()
                    };
                    let _ = writeln!(text, "{name}: {shown}");
                }
            }
            Err(error) => text.push_str(&format!("cannot be read: {error}\n")),
        }
        let events = self
            .cluster
            .kubectl(&["--namespace", &self.namespace, "get", "pods,endpointslices,events"]);
        text.push_str(&events.unwrap_or_else(|error| error.to_string()));
        text.push_str("--- the operator's log\n");
        for line in log::of(&self.namespace, 60) {
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

fn short(text: &str) -> String {
    text.chars().take(300).collect()
}

/// The stored revisions of a namespace, oldest first.
///
/// # Errors
/// If they cannot be listed.
pub async fn revisions(world: &World) -> Result<Vec<ControllerRevision>> {
    let mut found = world
        .api::<ControllerRevision>()
        .list(&ListParams::default())
        .await?
        .items;
    found.sort_by_key(|revision| revision.revision);
    Ok(found)
}

/// UIDs of the pods of a namespace, in order: what runs was not restarted if they stay.
///
/// # Errors
/// If they cannot be listed.
pub async fn pod_uids(world: &World) -> Result<Vec<String>> {
    let pods = world.api::<Pod>().list(&ListParams::default()).await?.items;
    let mut uids: Vec<String> = pods.iter().filter_map(ResourceExt::uid).collect();
    uids.sort();
    Ok(uids)
}
