//! Plays the kubelet: one node that is only an object, and the life of its pods as each test has scripted it.
//!
//! The scheduler, the controllers and the garbage collector are real; only containers are not.

mod node;
mod status;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use perennial_crds::serving::{FailureReason, ResolvedModel, Termination};
use tokio::sync::mpsc;

pub use node::NODE;

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Play {
    /// Its containers start, and it is ready after this time.
    Ready(Duration),
    /// Its containers run; it is never ready. With this address, if one is given.
    Running(Option<String>),
    /// The node does nothing about it.
    Nothing,
    /// Its image cannot be pulled.
    ImagePullBackOff,
    /// Its container cannot be set up, for this reason.
    ConfigError(String),
    /// Its container keeps ending with this exit code, having written these last words.
    CrashLoop(i32, String),
    /// Its container was killed for its memory.
    OomKilled,
    /// The node evicted it, saying this.
    Evicted(String),
    /// It ended with this exit code, having written these last words.
    Ended(i32, String),
    /// Its first container wrote these last words and ended well; then it ended as well, having written the second.
    Checked(String, String),
}

impl Play {
    /// Ready at once.
    #[must_use]
    pub fn ready() -> Self {
        Self::Ready(Duration::ZERO)
    }

    /// A server that keeps ending for this reason.
    #[must_use]
    pub fn gives_up(reason: FailureReason, message: &str) -> Self {
        Self::CrashLoop(1, last_words(reason, message))
    }

    /// A resolving pod that answers.
    #[must_use]
    pub fn resolved(model: &ResolvedModel) -> Self {
        Self::Ended(0, serde_json::to_string(model).unwrap_or_default())
    }

    /// A resolving pod that fails.
    #[must_use]
    pub fn unresolved(reason: FailureReason, message: &str) -> Self {
        Self::Ended(1, last_words(reason, message))
    }
}

fn last_words(reason: FailureReason, message: &str) -> String {
    let termination = Termination {
        reason,
        message: message.to_owned(),
    };
    serde_json::to_string(&termination).unwrap_or_default()
}

type Script = Arc<dyn Fn(&Pod) -> Play + Send + Sync>;

enum Note {
    /// The script of a namespace changed.
    Again(String),
    /// A pod's time has come.
    Due(String),
    /// A deleted pod has had its time.
    Gone(Box<Pod>),
}

struct Shared {
    scripts: Mutex<HashMap<String, Script>>,
    linger: Mutex<HashMap<String, Duration>>,
    notes: mpsc::Sender<Note>,
}

/// Handle of the player. Cheap to clone.
#[derive(Clone)]
pub struct Player(Arc<Shared>);

impl Player {
    /// Puts the node there and begins to play.
    ///
    /// # Errors
    /// If the node cannot be made.
    pub async fn start(client: Client) -> Result<Self> {
        node::create(&client).await?;
        let (notes, received) = mpsc::channel(4096);
        let player = Self(Arc::new(Shared {
            scripts: Mutex::default(),
            linger: Mutex::default(),
            notes,
        }));
        tokio::spawn(node::keep_alive(client.clone()));
        tokio::spawn(play(client, player.clone(), received));
        Ok(player)
    }

    /// Sets the script of a namespace; pods that are there play it from now on.
    pub async fn script(&self, namespace: &str, script: impl Fn(&Pod) -> Play + Send + Sync + 'static) {
        self.0
            .scripts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(namespace.to_owned(), Arc::new(script));
        // The player ends with the process only.
        let _ = self.0.notes.send(Note::Again(namespace.to_owned())).await;
    }

    /// How long the pods of a namespace take to end when they are deleted.
    pub fn linger(&self, namespace: &str, time: Duration) {
        self.0
            .linger
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(namespace.to_owned(), time);
    }

    fn next(&self, pod: &Pod) -> Play {
        let namespace = pod.namespace().unwrap_or_default();
        let script = self
            .0
            .scripts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&namespace)
            .cloned();
        script.map_or_else(Play::ready, |script| script(pod))
    }

    fn lingering(&self, pod: &Pod) -> Duration {
        let namespace = pod.namespace().unwrap_or_default();
        let linger = self.0.linger.lock().unwrap_or_else(PoisonError::into_inner);
        linger.get(&namespace).copied().unwrap_or(Duration::from_millis(200))
    }

    fn later(&self, time: Duration, note: Note) {
        let notes = self.0.notes.clone();
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            let _ = notes.send(note).await;
        });
    }
}

/// A pod on the node.
struct Played {
    pod: Pod,
    address: String,
    /// What its status says.
    shown: Option<Play>,
    /// Whether the time before it gets ready has begun, and whether it is over.
    ripening: bool,
    ripe: bool,
    leaving: bool,
}

async fn play(client: Client, player: Player, mut notes: mpsc::Receiver<Note>) {
    let everywhere: Api<Pod> = Api::all(client.clone());
    let config = watcher::Config::default().fields(&format!("spec.nodeName={NODE}"));
    let mut events = std::pin::pin!(watcher(everywhere, config).default_backoff());
    let mut pods: HashMap<String, Played> = HashMap::new();
    let mut count = 0_u32;
    loop {
        let touched: Vec<String> = tokio::select! {
            event = events.try_next() => match event {
                Ok(Some(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod))) => {
                    let uid = pod.uid().unwrap_or_default();
                    let played = pods.entry(uid.clone()).or_insert_with(|| {
                        count += 1;
                        Played::new(pod.clone(), count)
                    });
                    played.pod = pod;
                    vec![uid]
                }
                Ok(Some(watcher::Event::Delete(pod))) => {
                    pods.remove(&pod.uid().unwrap_or_default());
                    Vec::new()
                }
                Ok(Some(_)) => Vec::new(),
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "The player's watch broke off.");
                    Vec::new()
                }
            },
            note = notes.recv() => match note {
                Some(Note::Again(namespace)) => pods
                    .iter()
                    .filter(|(_, played)| played.pod.namespace().as_ref() == Some(&namespace))
                    .map(|(uid, _)| uid.clone())
                    .collect(),
                Some(Note::Due(uid)) => {
                    if let Some(played) = pods.get_mut(&uid) {
                        played.ripe = true;
                    }
                    vec![uid]
                }
                Some(Note::Gone(pod)) => {
                    remove(&client, &pod).await;
                    Vec::new()
                }
                None => return,
            },
        };
        for uid in touched {
            if let Some(played) = pods.get_mut(&uid) {
                played.act(&client, &player, &uid).await;
            }
        }
    }
}

impl Played {
    fn new(pod: Pod, count: u32) -> Self {
        Self {
            pod,
            address: status::address(count),
            shown: None,
            ripening: false,
            ripe: false,
            leaving: false,
        }
    }

    async fn act(&mut self, client: &Client, player: &Player, uid: &str) {
        if self.pod.metadata.deletion_timestamp.is_some() {
            if !self.leaving {
                self.leaving = true;
                player.later(player.lingering(&self.pod), Note::Gone(Box::new(self.pod.clone())));
            }
            return;
        }
        let next = match player.next(&self.pod) {
            Play::Ready(time) if !self.ripe && !time.is_zero() => {
                if !self.ripening {
                    self.ripening = true;
                    player.later(time, Note::Due(uid.to_owned()));
                }
                Play::Running(None)
            }
            Play::Ready(_) => Play::ready(),
            other => other,
        };
        if self.shown.as_ref() == Some(&next) || next == Play::Nothing {
            return;
        }
        let status = status::of(&self.pod, &next, &self.address);
        let api: Api<Pod> = Api::namespaced(client.clone(), &self.pod.namespace().unwrap_or_default());
        let name = self.pod.name_any();
        match api
            .patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
            .await
        {
            Ok(_) => self.shown = Some(next),
            Err(kube::Error::Api(answer)) if answer.code == 404 => {}
            Err(error) => tracing::warn!(%error, name, "The player could not write a pod's status."),
        }
    }
}

async fn remove(client: &Client, pod: &Pod) {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let parameters = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: pod.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    // A pod that is gone already is as good.
    let _ = api.delete(&pod.name_any(), &parameters).await;
}
