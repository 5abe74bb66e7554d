//! Watches, caches and the queue of one namespace or of all of them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{Config, WatchStreamExt, applier, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use perennial_crds::conditions::Reason;
use perennial_crds::serving::METRICS_PORT;
use perennial_crds::{DriftPolicy, LLMDeployment};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::autoscaling::board::Board;
use crate::autoscaling::scaler::{Objects, Scaler};
use crate::backoff::Backoff;
use crate::changes::{Changes, News};
use crate::cycle::drive::Places;
use crate::deployment::observe::Indexes;
use crate::deployment::reconcile::{self, Shell, reconcile};
use crate::disposition::Disposition;
use crate::drift::look::Hands;
use crate::drift::wheel::{Targets, Wheel};
use crate::drift::words::Words;
use crate::index::Owner;
use crate::metrics::Metrics;
use crate::tally::Tally;

/// Changes that arrive within this time are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Looks at an object that only a change can cure, in case the change was elsewhere.
const PERMANENT: Duration = Duration::from_secs(300);
/// The same for a name that is taken: what has it is in no cache, so nobody tells when it goes; asking is one read.
const NAME_TAKEN: Duration = Duration::from_secs(20);

type Guarded = DeserializeGuard<LLMDeployment>;

/// Limits of a controller.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Objects at the same time.
    pub concurrency: u16,
    /// Time for one look.
    pub timeout: Duration,
}

struct Context {
    shell: Shell,
    metrics: Arc<Metrics>,
    backoff: Backoff,
    tally: Tally,
    reader: reflector::Store<Guarded>,
    limits: Limits,
}

#[derive(Debug, Error)]
enum Failed {
    #[error(transparent)]
    Reconcile(#[from] reconcile::Error),
    #[error("it took longer than {0:?}")]
    TimedOut(Duration),
    #[error("the stored object cannot be read: {0}")]
    Unreadable(String),
}

/// Runs the controller until cancelled; a look that is under way is finished first.
pub async fn run(
    client: Client,
    namespace: Option<&str>,
    shell: Shell,
    nudges: mpsc::Receiver<Owner>,
    metrics: Arc<Metrics>,
    limits: Limits,
    cancel: CancellationToken,
) {
    let (reader, writer) = reflector::store::<Guarded>();
    let context = Arc::new(Context {
        shell,
        tally: Tally::new(Arc::clone(&metrics)),
        metrics,
        backoff: Backoff::default(),
        reader: reader.clone(),
        limits,
    });
    let objects = watcher(scoped::<Guarded>(&client, namespace), watcher::Config::default()).default_backoff();
    let objects = reflector::reflector(writer, objects.map(|event| event.map(|event| event.modify(slim))));
    // Not the store's own word on that: only one may wait for it, and the controller does.
    let listed = CancellationToken::new();
    let changed = changed_objects(objects, Arc::clone(&context), listed.clone());
    let children = follow(&client, namespace, &context.shell.indexes);
    let nudges = stream::unfold(nudges, async |mut nudges| {
        nudges.recv().await.map(|owner| (owner, nudges))
    });
    let queue = stream::select(stream::select(changed, children), nudges.boxed())
        .map(|owner| Ok::<_, Infallible>(ObjectRef::<Guarded>::new(&owner.name).within(&owner.namespace)))
        .take_until(cancel.cancelled_owned());
    let config = Config::default().debounce(DEBOUNCE).concurrency(limits.concurrency);
    // Ends with this function, also when that is dropped because the lease was lost.
    let scaler = Scaler::new(
        readable(reader.clone()),
        context.shell.indexes.clone(),
        context.shell.board.clone(),
        Arc::clone(&context.metrics),
        METRICS_PORT,
    );
    let _scaler = AbortOnDropHandle::new(tokio::spawn(scaler.run()));
    let hands = Hands::new(
        context.shell.writer.clone(),
        (context.shell.panes.clone(), context.shell.loading.clone()),
        Arc::clone(&context.metrics),
        context.shell.environment.clone(),
        places(reader.clone()),
    );
    let policies = watch_policies(
        scoped(&client, namespace),
        (by_name(reader.clone()), listed),
        context.shell.indexes.clone(),
        (hands, 2 * context.limits.timeout),
        (context.shell.words.clone(), context.shell.board.clone()),
    );
    let _policies = AbortOnDropHandle::new(tokio::spawn(policies));
    applier(
        |object, context| Box::pin(look(object, context)),
        error_policy,
        context,
        reader,
        queue,
        config,
    )
    .for_each(|_| std::future::ready(()))
    .await;
}

/// Keeps a cache of DriftPolicies and looks at them, until dropped.
async fn watch_policies(
    api: Api<DeserializeGuard<DriftPolicy>>,
    (targets, listed): (Targets, CancellationToken),
    indexes: Indexes,
    (hands, patience): (Hands, Duration),
    tell: (Words, Board),
) {
    let (policies, writer) = reflector::store::<DeserializeGuard<DriftPolicy>>();
    let mut told = false;
    let follow = reflector::reflector(writer, watcher(api, watcher::Config::default()).default_backoff()).for_each(
        move |event| {
            if let Err(error) = event
                && !told
            {
                told = true;
                tracing::warn!(%error, "DriftPolicies cannot be watched; is their CRD installed? Trying again.");
            }
            std::future::ready(())
        },
    );
    let metrics = Arc::clone(&hands.metrics);
    let look = async {
        // A target that the cache does not show yet is not missing.
        if policies.wait_until_ready().await.is_err() {
            return;
        }
        listed.cancelled().await;
        let cache = policies.clone();
        let readable = move || {
            let readable = |policy: Arc<DeserializeGuard<DriftPolicy>>| policy.0.as_ref().ok().cloned().map(Arc::new);
            cache.state().into_iter().filter_map(readable).collect()
        };
        Wheel::new(Box::new(readable), targets, indexes, hands, tell, metrics, patience)
            .run()
            .await;
    };
    futures::future::join(follow, look).await;
}

/// Paths on a claim from which LLMDeployments take models.
fn places(reader: reflector::Store<Guarded>) -> Places {
    Box::new(move |namespace, claim| {
        let path = |object: Arc<Guarded>| {
            let readable = object.0.as_ref().ok()?;
            let source = readable.spec.model.source.persistent_volume_claim.as_ref()?;
            let is_there = readable.metadata.namespace.as_deref() == Some(namespace) && source.claim_name == claim;
            is_there.then(|| source.path.clone())
        };
        reader.state().into_iter().filter_map(path).collect()
    })
}

/// LLMDeployments that can be read, by name.
fn by_name(reader: reflector::Store<Guarded>) -> Targets {
    Box::new(move |owner| {
        let object = reader.get(&ObjectRef::new(&owner.name).within(&owner.namespace))?;
        Some(Arc::new(object.0.as_ref().ok()?.clone()))
    })
}

/// The objects that can be read, as they are in the cache.
fn readable(reader: reflector::Store<Guarded>) -> Objects {
    Box::new(move || {
        let scaled = |object: Arc<Guarded>| {
            let readable = object.0.as_ref().ok()?;
            readable.spec.autoscaling.is_some().then(|| Arc::new(readable.clone()))
        };
        reader.state().into_iter().filter_map(scaled).collect()
    })
}

fn scoped<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(
    client: &Client,
    namespace: Option<&str>,
) -> Api<K> {
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Owners of whatever changed among the children.
fn follow(client: &Client, namespace: Option<&str>, indexes: &Indexes) -> BoxStream<'static, Owner> {
    fn bare<K: ResourceExt>(child: &mut K) {
        child.managed_fields_mut().clear();
    }
    let streams: Vec<BoxStream<'static, Owner>> = vec![
        indexes.service_accounts.follow(scoped(client, namespace), bare).boxed(),
        indexes.revisions.follow(scoped(client, namespace), bare).boxed(),
        indexes.services.follow(scoped(client, namespace), bare).boxed(),
        indexes
            .disruption_budgets
            .follow(scoped(client, namespace), bare)
            .boxed(),
        indexes.deployments.follow(scoped(client, namespace), bare).boxed(),
        indexes.jobs.follow(scoped(client, namespace), bare).boxed(),
        indexes
            .pods
            .follow(
                scoped(client, namespace),
                |pod: &mut k8s_openapi::api::core::v1::Pod| {
                    bare(pod);
                    pod.spec = None;
                },
            )
            .boxed(),
        indexes.slices.follow(scoped(client, namespace), bare).boxed(),
    ];
    stream::select_all(streams).boxed()
}

fn slim(object: &mut Guarded) {
    object.managed_fields_mut().clear();
}

/// The objects to look at, by what their watch says; what is gone is forgotten.
fn changed_objects(
    objects: impl Stream<Item = watcher::Result<watcher::Event<Guarded>>> + Send + 'static,
    context: Arc<Context>,
    listed: CancellationToken,
) -> BoxStream<'static, Owner> {
    let mut changes = Changes::default();
    objects
        .flat_map(move |event| {
            let news = match event {
                Ok(event) => {
                    if matches!(event, watcher::Event::InitDone) {
                        listed.cancel();
                    }
                    changes.take(&event)
                }
                Err(error) => {
                    tracing::warn!(kind = "LLMDeployment", %error, "A watch broke off; it is taken up again.");
                    News::default()
                }
            };
            for owner in &news.gone {
                context.forget(owner);
            }
            stream::iter(news.changed)
        })
        .boxed()
}

async fn look(object: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Failed> {
    context.shell.indexes.wait_until_ready().await;
    let _active = context.metrics.begin();
    let started = Instant::now();
    let outcome = timed(&object, &context).await;
    let result = match &outcome {
        Ok(_) => {
            context.backoff.succeeded(&Owner::of(&*object));
            "success"
        }
        Err(Failed::Reconcile(error)) if error.disposition() == Disposition::Silent => "requeue_after",
        Err(error) => {
            if let Failed::Reconcile(error) = error
                && error.disposition() == Disposition::Permanent
            {
                context.metrics.terminal(error.reason().as_str());
            }
            "error"
        }
    };
    context.metrics.finished(result, started.elapsed());
    if context.is_gone(&object) {
        // It was deleted meanwhile, and forgotten before this look was over.
        context.forget(&Owner::of(&*object));
    }
    outcome
}

async fn timed(object: &Guarded, context: &Context) -> Result<Action, Failed> {
    let readable = match &object.0 {
        Ok(readable) => readable,
        Err(error) => {
            // What its status says is not known.
            context.tally.forget(&Owner::of(object));
            return Err(Failed::Unreadable(error.to_string()));
        }
    };
    if readable.metadata.deletion_timestamp.is_some() {
        // Its children go by their owner references.
        return Ok(Action::await_change());
    }
    let outcome = tokio::time::timeout(context.limits.timeout, reconcile(readable, &context.shell)).await;
    context.count(readable);
    match outcome {
        Ok(outcome) => Ok(outcome?),
        Err(_) => {
            context.metrics.timed_out();
            Err(Failed::TimedOut(context.limits.timeout))
        }
    }
}

impl Context {
    /// Whether the cache does not show the object any more, or another of its name.
    fn is_gone(&self, object: &Guarded) -> bool {
        let shown = self.reader.get(&ObjectRef::from_obj(object));
        shown.is_none_or(|shown| shown.uid() != object.uid())
    }

    /// Keeps the count of objects by the reason of their `Ready` condition.
    fn count(&self, object: &LLMDeployment) {
        let status = self.shell.remembered.status(object);
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
        if let Some(ready) = ready {
            self.tally.count(Owner::of(object), &ready.reason);
        }
    }

    fn forget(&self, owner: &Owner) {
        self.backoff.succeeded(owner);
        self.shell.remembered.forget(owner);
        self.tally.forget(owner);
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is kube's")]
fn error_policy(object: Arc<Guarded>, error: &Failed, context: Arc<Context>) -> Action {
    let owner = Owner::of(&*object);
    if context.is_gone(&object) {
        return Action::await_change();
    }
    let disposition = match error {
        Failed::Reconcile(error) => error.disposition(),
        Failed::TimedOut(_) => Disposition::Retry,
        Failed::Unreadable(_) => Disposition::Permanent,
    };
    match disposition {
        Disposition::Silent => {
            tracing::debug!(namespace = owner.namespace, name = owner.name, %error, "A race; looking again.");
            Action::requeue(Duration::from_secs(1))
        }
        Disposition::Permanent => {
            tracing::warn!(namespace = owner.namespace, name = owner.name, %error, "Cannot be done as it stands.");
            let taken = matches!(error, Failed::Reconcile(error) if error.reason() == Reason::NameConflict);
            Action::requeue(if taken { NAME_TAKEN } else { PERMANENT })
        }
        Disposition::Retry => {
            let wait = context.backoff.failed(&owner);
            tracing::warn!(namespace = owner.namespace, name = owner.name, %error, ?wait, "Failed; trying again.");
            Action::requeue(wait)
        }
    }
}
